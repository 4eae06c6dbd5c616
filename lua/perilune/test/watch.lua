--- `perilune test --watch`: runs the tests again when files change, each time in a process of its own. Internal.
local net = require "perilune.workbench.net" -- in C: src/workbench/net.c

local host = require "perilune.test.host"
local printable = require "perilune.printable"

local M = {}

local LOOK_EVERY_MS, FILES_MAX = 200, 5000

local function add_files(lfs, folder, files, state)
  for name in lfs.dir(folder) do
    local path = folder == "." and name or folder .. "/" .. name
    local is_hidden = name:sub(1, 1) == "."
    local info = not is_hidden and state.count < FILES_MAX and lfs.symlinkattributes(path)
    if info and info.mode == "directory" then
      add_files(lfs, path, files, state)
    elseif info and name:find("%.lua$") then
      files[path] = info.modification .. " " .. info.size .. " " .. info.change
      state.count = state.count + 1
    end
  end
end

-- Path → what is another once the file has changed.
local function snapshot()
  local files = {}
  pcall(add_files, require "lfs", ".", files, { count = 0 })
  return files
end

local function changed(before, now)
  local paths = {}
  for path, stamp in pairs(now) do
    if before[path] ~= stamp then paths[#paths + 1] = path end
  end
  for path in pairs(before) do
    if not now[path] then paths[#paths + 1] = path end
  end
  table.sort(paths)
  return paths
end

local function is_specification(path) return path:find("_spec%.lua$") or path:find("_test%.lua$") end

-- A specification that changed is run alone; what else changed may concern all of them.
local function words_for(paths, args, now)
  local words, roots = { "perilune", "test" }, {}
  for _, path in ipairs(paths) do
    if not is_specification(path) or not now[path] then return { "perilune", "test", unpack(args) } end
    roots[#roots + 1] = path
  end
  for _, path in ipairs(roots) do words[#words + 1] = path end
  for i, word in ipairs(args) do
    local is_value = i > 1 and args[i - 1]:find("^%-%-?[%w-]+$")
    if word:sub(1, 1) == "-" or is_value then words[#words + 1] = word end
  end
  return words
end

local function run(words)
  local process, problem = net.spawn(words, true)
  if not process then
    io.stderr:write(printable.lines("perilune test: cannot be run: " .. problem .. "\n"))
    return
  end
  host.wait_until(nil, function() return net.ended(process) end)
  net.forget(process)
end

local function await_change(before)
  while true do
    host.wait_until(LOOK_EVERY_MS, function() end)
    local now = snapshot()
    local paths = changed(before, now)
    if #paths > 0 then return paths, now end
  end
end

--- Does not return.
---@param args string[] without --watch
function M.run(args)
  local words = { "perilune", "test", unpack(args) }
  while true do
    local before = snapshot()
    run(words)
    local paths, now = await_change(before)
    io.stdout:write(printable.lines("\n" .. table.concat(paths, ", ") .. " changed\n"))
    io.stdout:flush()
    words = words_for(paths, args, now)
  end
end

return M
