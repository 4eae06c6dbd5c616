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

--- Writes a file of the app: `name`, or the script.
function M.rewrite(app, text, name) command.write(app.folder .. "/" .. (name or "app.lua"), text) end

--- Asks for a reload and waits for its outcome: "reloaded", "reload failed…" or "reload refused…".
---@return table entry of the log
function M.reload(app, seconds)
  local function outcomes()
    return app:find_log(function(entry) return entry.message:find "^reload" end)
  end
  local n = #outcomes() + 1
  app:signal "HUP"
  return wait.until_true(function() return "the outcome of a reload; it said:\n" .. app:text() end, function()
    return outcomes()[n]
  end, seconds or 10)
end

--- The same with another script, which must succeed.
function M.reload_to(app, text)
  M.rewrite(app, text)
  local entry = M.reload(app)
  if entry.message ~= "reloaded" then error(entry.message .. ": " .. tostring(entry.excerpt), 2) end
  return entry
end

return M
