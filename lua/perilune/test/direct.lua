--- Handlers that are called directly, without an app: a request that nobody has sent, and what would be answered.
local failing = require "perilune.test.fail"
local web = require "perilune.test.web"

local M = {}

local OWN = { peer = true, agent = true }

-- What is the bytes' business, and what is only in the value.
local function split(options)
  local sent, own = {}, {}
  for key, value in pairs(options) do (OWN[key] and own or sent)[key] = value end
  return sent, own
end

--- A request as handlers get it.
---@param options perilune.test.request also: peer, agent
---@return perilune.http.request
function M.request(options)
  if type(options) ~= "table" then failing.misuse "request: expects a table such as { path = \"/users/7\" }" end
  local sent, own = split(options)
  local bytes = web.request(sent)
  local head, body = bytes:match "^(.-\r\n\r\n)(.*)$"
  local method, target = head:match "^(%S+) (%S+) "
  if not method then failing.misuse "request: the method and the path have no blanks" end
  local path, query = target:match "^([^?]*)%??(.*)$"
  return require("perilune.requests").made(head, {
    method = method, path = path, query = target:find("?", 1, true) and query or nil, body = body,
    peer = own.peer or "127.0.0.1:40000",
  }, own.agent or {})
end

local function is_request(value) return getmetatable(value) == "http.request" end

-- An agent's proceed is called with an agent of the same prototype, as a connection has one.
local function call(handler, request)
  if type(handler) == "function" then return handler(request) end
  if type(handler) ~= "table" or type(handler.proceed) ~= "function" then
    failing.misuse "respond: expects a handler, or an agent with a function proceed"
  end
  local agent = setmetatable({ conn = (request.agent or {}).conn }, { __index = handler })
  request[3] = agent
  return agent:proceed(request)
end

--- What a client would get.
---@param handler function|table
---@param request table
---@return perilune.test.response
function M.respond(handler, request)
  if not is_request(request) then request = M.request(request) end
  local reply, _, more = call(handler, request)
  if more ~= nil then error("respond: the handler returned an error as its reply: " .. tostring((_)), 0) end
  local response = getmetatable(require "perilune.http").made(reply)
  if type(response.body) ~= "string" or rawget(response, 5) then -- it would answer by itself
    failing.misuse "respond: a response in pieces needs a connection: app:connect():get(path)"
  end
  local body = request.method == "HEAD" and "" or response.body
  return web.made(response.status, "\r\n" .. rawget(response, 2), body)
end

return M
