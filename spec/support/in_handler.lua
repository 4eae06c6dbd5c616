--- Evaluates expressions in a handler of an app in memory.
---
---     local in_handler = require "spec.support.in_handler"
---     after_each(memory.finish)
---     local evaluate = in_handler.open()
---     assert.equal("3", evaluate "1 + 2")
local memory = require "spec.support.memory"

local M = {}

local SCRIPT = [[
local perilune = require "perilune"
local crc, crypto, encoding, json = perilune.crc, perilune.crypto, perilune.encoding, perilune.json
local given = { perilune = perilune, crc = crc, crypto = crypto, encoding = encoding, json = json }
local Agent = {}
local function show(ok, ...)
  local parts = { ... }
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
  local text = table.concat(parts, "|")
  return ok and (text == "" and "(empty)" or text) or "raises: " .. text
end
function Agent:proceed(text)
  local names, values = {}, {}
  for name, value in pairs(given) do names[#names + 1], values[#values + 1] = name, value end
  local chunk = assert(load("local " .. table.concat(names, ", ") .. " = ... return " .. text, "=it"))
  return show(pcall(chunk, unpack(values)))
end
return { listen = "tcp://127.0.0.1:0", frame = { "u32be", max = "8m" }, agent = Agent, %s
  limits = { send_buffer = "64m", frame = "8m", %s } }
]]

--- A function that tells what an expression is, or raises: its values as text, with | between. memory.finish() closes
--- the app.
---@param settings string? more of what the script returns
---@param limits string? more of its limits
---@return fun(expression: string): string evaluate
---@return perilune.test.app app
function M.open(settings, limits)
  local app = assert(memory.script(SCRIPT:format(settings or "", limits or "")))
  local client = app:connect()
  return function(expression) return client:send(expression):receive() end, app
end

return M
