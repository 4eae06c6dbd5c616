--- Apps in memory for the specifications of behaviour, which `perilune test` runs.
---
---     after_each(memory.finish)
---     local app = memory.lines(Agent, { limits = { inbox = 4 } })
---     app:connect():send("hello"):expect("hello")
local core = require "perilune"
local perilune = require "perilune.test"

local M = {}

local open = {}

local is_sanitized = (os.getenv "SANITIZE" or "") ~= ""

--- `full` of a quantity, or `reduced` where everything is several times slower.
function M.scaled(full, reduced) return is_sanitized and reduced or full end

--- An app that finish() closes.
---@param what string|table
---@param overrides table?
---@param options table? of perilune.app
---@return perilune.test.app
function M.open(what, overrides, options)
  local app = perilune.app(what, overrides, options)
  open[#open + 1] = app
  return app
end

-- Whoever is to run out of time says so. The second that handlers have else is little where a machine that is busy with
-- other things runs what is several times slower.
local function with_time(limits)
  local all = { proceed = is_sanitized and "10s" or nil }
  for key, value in pairs(limits or {}) do all[key] = value end
  return all
end

--- The same of what a script returns, with what all of them have in common.
---@param agent table|function
---@param settings table? more of what the script returns
---@return perilune.test.app
function M.start(agent, settings)
  local script = { listen = "tcp://127.0.0.1:0", agent = agent }
  for key, value in pairs(settings or {}) do script[key] = value end
  script.limits = with_time(script.limits)
  return M.open(script)
end

--- The same in lines.
---@param agent table|function
---@param settings table?
---@return perilune.test.app
function M.lines(agent, settings)
  local all = { frame = "line" }
  for key, value in pairs(settings or {}) do all[key] = value end
  return M.start(agent, all)
end

--- An app of a file of its own, app.lua, which is read once: for what depends on lines, or on the top level.
---@param text string
---@param modules table<string, string>? what lies beside it, by the module's name
---@param options table? of perilune.app
---@return perilune.test.app? app
---@return string? message why it cannot be loaded
function M.script(text, modules, options)
  local folder = os.tmpname()
  os.remove(folder)
  assert(require("lfs").mkdir(folder))
  local paths = {}
  local function write(name, content)
    paths[#paths + 1] = folder .. "/" .. name .. ".lua"
    local file = assert(io.open(paths[#paths], "w"))
    assert(file:write(content) and file:close())
  end
  for name, content in pairs(modules or {}) do write(name, content) end
  write("app", text)
  local ok, app = pcall(M.open, folder .. "/app.lua", nil, options)
  for _, path in ipairs(paths) do os.remove(path) end
  os.remove(folder)
  if ok then return app end
  return nil, tostring(app)
end

--- The same of a script of lines: `body` defines the methods of Agent, and may call note().
---@param body string
---@param settings string? more of what the script returns, such as `limits = { inbox = 4 }`
---@return perilune.test.app
function M.script_lines(body, settings)
  return assert(M.script(([[
    local perilune = require "perilune"; local function note(text) perilune.log("info", text) end; local Agent = {}; %s
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(body, settings or "")))
end

--- Sends back each frame.
---@return table
function M.echo() return { proceed = function(_, frame) return frame end } end

--- Closes all that are open: in good order, or the test fails.
function M.finish()
  local apps = open
  open = {}
  for _, app in ipairs(apps) do app:close() end
end

--- For agents: writes a log entry, which notes() finds.
---@param text string
function M.note(text) core.log("info", text) end

--- What a connection's agent has noted so far.
---@param app perilune.test.app
---@param conn integer
---@return string[]
function M.notes(app, conn)
  local texts = {}
  for _, entry in ipairs(app:log()) do
    if entry.conn == conn and entry.level == "info" then texts[#texts + 1] = entry.message end
  end
  return texts
end

--- What anybody has noted so far, the app included.
---@param app perilune.test.app
---@return string[]
function M.noted(app)
  local texts = {}
  for _, entry in ipairs(app:log()) do
    if entry.level == "info" then texts[#texts + 1] = entry.message end
  end
  return texts
end

--- How often an entry says this.
---@return integer
function M.count(app, message) return #app:log(message) end

--- The n-th error of a handler.
---@param n integer?
---@return string
function M.error_of(app, n)
  local fault = app:faults()[n or 1]
  if not fault then error("no handler has failed", 2) end
  return fault.error
end

--- A client that sends and gets bytes as they are, whatever the app's framing.
---@return perilune.test.client
function M.raw(app) return app:connect { frame = "raw" } end

--- All that such a client has got.
---@param client perilune.test.client
---@return string
function M.bytes(client) return table.concat(client:frames()) end

--- Many clients at once.
---@return perilune.test.client[]
function M.connect_many(app, n)
  local all = {}
  for i = 1, n do all[i] = app:connect() end
  return all
end

return M
