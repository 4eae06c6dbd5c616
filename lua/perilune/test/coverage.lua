--- Which lines of the apps' files were run. Internal.
---
--- Each app counts in its own VM (perilune.test.covered), and its counts come here when it ends.
local named = require "perilune.named"
local printable = require "perilune.printable"
local protos = require "perilune.protos"

local M = {}

M.DEFAULT_FILE = "lcov.info"

M.is_on = false

local counts = {} -- path → line → times

--- What an app has counted.
---@param folder string of its script
---@param hits table<string, table<integer, integer>> chunk name → line → times
function M.add(folder, hits)
  for source, lines in pairs(hits) do
    local path = source:sub(2)
    if folder ~= "." and path:sub(1, 1) ~= "/" then path = folder .. "/" .. path end
    local sums = counts[path] or {}
    counts[path] = sums
    for line, n in pairs(lines) do sums[line] = (sums[line] or 0) + n end
  end
end

-- The lines that have code, of a function and all within it.
local function add_lines(chunk, lines)
  local util = require "jit.util"
  protos.each(chunk, function(fn)
    for pc = 1, util.funcinfo(fn).bytecodes - 1 do
      local line = util.funcinfo(fn, pc).currentline
      if line then lines[line] = true end
    end
  end)
end

local function lines_with_code(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a"):gsub("^#[^\n]*", "", 1)
  file:close()
  local chunk = loadstring(text, "@" .. path)
  if not chunk then return nil end
  local lines = {}
  add_lines(chunk, lines)
  return lines
end

---@class perilune.test.covered_file
---@field path string
---@field lines { line: integer, times: integer }[] those with code, in order
---@field run integer how many of them were run

local function summarise(path)
  local with_code, lines, run = lines_with_code(path), {}, 0
  if not with_code then return nil end
  for line in pairs(with_code) do
    local times = counts[path][line] or 0
    if times > 0 then run = run + 1 end
    lines[#lines + 1] = { line = line, times = times }
  end
  table.sort(lines, function(a, b) return a.line < b.line end)
  return { path = path, lines = lines, run = run }
end

-- "3, 7-9": lines that were not run; blanks and comments between them do not part them.
local function missing(file)
  local ranges, from, to = {}, nil, nil
  local function close()
    if from then ranges[#ranges + 1] = from == to and tostring(from) or from .. "-" .. to end
    from = nil
  end
  for _, line in ipairs(file.lines) do
    if line.times > 0 then
      close()
    else
      from, to = from or line.line, line.line
    end
  end
  close()
  return table.concat(ranges, ", ")
end

local function summaries()
  local files = {}
  for path in pairs(counts) do files[#files + 1] = summarise(path) end
  table.sort(files, function(a, b) return a.path < b.path end)
  return files
end

local function percent(run, all) return all == 0 and 100 or math.floor(1000 * run / all) / 10 end

--- The table for people.
---@return string
function M.text(files)
  local width, run, all = 5, 0, 0
  for _, file in ipairs(files) do width = math.max(width, #file.path) end
  local row = "%-" .. width .. "s  %6s  %6s  %5s%%  %s"
  local out = { (("%-" .. width .. "s  %6s  %6s  %6s  %s"):format("file", "lines", "run", "", "not run")) }
  for _, file in ipairs(files) do
    out[#out + 1] = row:format(file.path, #file.lines, file.run, percent(file.run, #file.lines), missing(file))
    run, all = run + file.run, all + #file.lines
  end
  out[#out + 1] = row:format("all", all, run, percent(run, all), "")
  return (table.concat(out, "\n"):gsub(" +%f[\n%z]", "")) .. "\n"
end

--- The same for programs: LCOV's format.
---@return string
function M.lcov(files)
  local out = {}
  for _, file in ipairs(files) do
    out[#out + 1] = "SF:" .. file.path
    for _, line in ipairs(file.lines) do out[#out + 1] = ("DA:%d,%d"):format(line.line, line.times) end
    out[#out + 1] = ("LF:%d\nLH:%d\nend_of_record"):format(#file.lines, file.run)
  end
  return table.concat(out, "\n") .. "\n"
end

--- Writes both. False: the file cannot be written, and it was said why.
---@param path string
---@return boolean
function M.report(path)
  local files = summaries()
  io.stdout:write("\n", M.text(files))
  io.stdout:flush()
  local file, message = named.open(path, "w")
  if not file then
    io.stderr:write(printable.lines("perilune test: --coverage: " .. message .. "\n"))
    return false
  end
  file:write(M.lcov(files))
  file:close()
  return true
end

return M
