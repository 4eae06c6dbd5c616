--- Scripts that are rewritten while they are served.
local command = require "spec.support.command"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local M = {}

--- In front of a script: note(), and an Agent whose closed() notes the reason.
M.HEAD = server.NOTE .. [[local Agent = {}
  function Agent:closed(reason) note("closed " .. reason) end
]]

--- A script whose agents answer with `version` and the line.
function M.script(version, settings)
  return M.HEAD .. ([[
    function Agent:proceed(line) return %q .. " " .. line end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(version, settings or "")
end

--- Writes a file of the app, in place.
---@param name string? "app.lua" unless it says otherwise
function M.rewrite(app, text, name) command.write(app.folder .. "/" .. (name or "app.lua"), text) end

--- The outcomes so far: "reloaded", "reload failed…", "reload refused…", "reload: nothing has changed".
---@return table[]
function M.outcomes(app)
  return app:find_log(function(entry) return entry.message:find "^reload" end)
end

--- Waits until there are n of them.
---@return table entry the n-th
function M.outcome(app, n, seconds)
  return wait.until_true(function() return "the outcome of a reload; it said:\n" .. app:text() end, function()
    return M.outcomes(app)[n]
  end, seconds)
end

--- Asks for a reload and waits for its outcome.
---@return table entry
function M.reload(app, seconds)
  local n = #M.outcomes(app) + 1
  app:signal "HUP"
  return M.outcome(app, n, seconds)
end

--- The same with another script, which must be taken.
---@return table entry
function M.reload_to(app, text)
  M.rewrite(app, text)
  local entry = M.reload(app)
  if entry.message ~= "reloaded" then error(entry.message .. ": " .. tostring(entry.excerpt), 2) end
  return entry
end

--- Starts a copy of an example, which its specification may change.
---@param name string "reload_pin"
---@return perilune.server
---@return fun(from: string, to: string) edit replaces a text of it and reloads
function M.start_example(name, args)
  local file = assert(io.open("examples/" .. name .. ".lua"))
  local text = file:read "*a"
  file:close()
  args = args or {}
  args[#args + 1] = "--listen=tcp://127.0.0.1:0"
  local app = server.start { script = text, args = args }
  return app, function(from, to)
    local start, stop = text:find(from, 1, true)
    text = text:sub(1, assert(start, "the example has no such text") - 1) .. to .. text:sub(stop + 1)
    M.reload_to(app, text)
  end
end

return M
