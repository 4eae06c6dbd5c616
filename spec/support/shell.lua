--- An agent that does what a line of its client says, for specifications in memory: an expression, in which `core` is
--- require "perilune", and `self` and `conn` are the agent's.
local core = require "perilune"

local M = {}

--- Values as text, with a blank between any two.
---@return string
function M.show(...)
  local texts = {}
  for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
  return table.concat(texts, " ")
end

local show = M.show

--- What a pcall has come to: the values, or "raised …".
---@return string
function M.outcome(ok, ...) return ok and show(...) or "raised " .. tostring((...)) end

local outcome = M.outcome

--- A prototype. Its client is answered with what the line comes to, behind `before`; `close` ends the connection.
---@param methods table<string, function|false>? of its own; false: none of that name
---@param before string? default: ""
---@return table
function M.agent(methods, before)
  local Shell = {}
  function Shell:proceed(line)
    if line == "close" then return nil, "close" end
    local code = assert(loadstring("local core, self, conn = ... return " .. line, "=line"))
    return (before or "") .. outcome(pcall(code, core, self, self.conn))
  end
  for name, method in pairs(methods or {}) do Shell[name] = method or nil end
  return Shell
end

--- The answer to a line, where nothing else comes before it.
---@param client perilune.test.client
---@param line string
---@return string
function M.ask(client, line)
  client:send(line)
  return client:receive()
end

return M
