--- What is around handlers: http.before, http.after, http.around, http.when.
---
--- Middleware makes a handler of a handler, once, when a route is made or a router is whole. It runs in the call of
--- `proceed`: it may wait, and its errors are the handler's.
local require = require -- while handlers run, the global one is the script's
local http = require "perilune.http"
local printable = require "perilune.printable"

local inner = getmetatable(http)

local M = {}

-- wrap: what makes a handler, function(request, value), of the next one. `value` is what http.json(schema) passes on.
local metatable = { __metatable = "http.middleware" }

function metatable.__tostring(self) return ("HTTP middleware %s"):format(rawget(self, "name")) end
function metatable.__newindex() error("middleware is made whole, and not changed", 2) end

--- Middleware of a function that makes a handler of a handler.
---@param name string for messages
---@param wrap fun(next: function): function
---@return perilune.http.middleware
function M.new(name, wrap) return setmetatable({ name = name, wrap = wrap }, metatable) end

--- Raises for what is no middleware.
---@param what string for messages
---@param in_route boolean? it is for a route, in front of its handler
function M.check(what, value, level, in_route)
  if getmetatable(value) == "http.middleware" then return end
  local hint = require("perilune.http.meant").middleware(value, in_route)
  error(("%s: expects middleware, such as http.before(fn), got %s%s"):format(what, printable.value(value), hint),
    level + 1)
end

--- The handler with these around it, the first one outermost.
---@param list perilune.http.middleware[]
---@param handler function
---@return function
function M.wrap(list, handler)
  for i = #list, 1, -1 do handler = list[i].wrap(handler) end
  return handler
end

local function check_function(name, fn, what)
  if type(fn) == "function" then return end
  error(("http.%s: expects %s, got %s"):format(name, what, printable.value(fn)), 3)
end

--- Runs before the handler. What it returns, unless nil, is the response, and nothing behind it runs.
---@param fn fun(request: perilune.http.request): any
---@return perilune.http.middleware
function M.before(fn)
  check_function("before", fn, "function(request)")
  return M.new("before", function(next_handler)
    return function(request, value)
      local reply, action, more = fn(request)
      if reply ~= nil or more ~= nil then return reply, action, more end
      return next_handler(request, value)
    end
  end)
end

-- A response of http.files has its file open, which nobody closes once another one is sent in its place.
local function close_file(response, other)
  local file = rawget(response, 6)
  if type(file) ~= "userdata" then return end
  local is_kept = getmetatable(other) == "http.response" and rawget(other, 6) == file
  if not is_kept then require("perilune.http_core").close(file) end
end

--- Runs after the handler, with its response. What it returns, unless nil, takes that one's place.
---@param fn fun(request: perilune.http.request, response: perilune.http.response): any
---@return perilune.http.middleware
function M.after(fn)
  check_function("after", fn, "function(request, response)")
  return M.new("after", function(next_handler)
    return function(request, value)
      local reply, action, more = next_handler(request, value)
      if more ~= nil or M.is_upgrade(reply) then return reply, action, more end
      local response = inner.made(reply)
      local other = fn(request, response)
      if other ~= nil then
        close_file(response, other)
        return other, action
      end
      if reply == nil then return nil, action end -- the handler may have answered already
      return response, action
    end
  end)
end

--- Runs in the handler's place, and calls it: `next()`, or `next(value)` with another second argument for it.
---@param fn fun(request: perilune.http.request, next: fun(value: any?): any): any
---@return perilune.http.middleware
function M.around(fn)
  check_function("around", fn, "function(request, next)")
  return M.new("around", function(next_handler)
    return function(request, value)
      local path, base = request.path, request[6]
      return fn(request, function(other)
        -- A call that failed in a namespace has not put them back.
        request.path, request[6], request[7] = path, base, nil
        if other == nil then other = value end
        return next_handler(request, other)
      end)
    end
  end)
end

--- One middleware or the other, by what a function says of the request.
---@param condition fun(request: perilune.http.request): boolean
---@param one perilune.http.middleware
---@param other perilune.http.middleware? default: none
---@return perilune.http.middleware
function M.when(condition, one, other)
  check_function("when", condition, "function(request)")
  M.check("http.when", one, 2)
  if other ~= nil then M.check("http.when", other, 2) end
  return M.new("when", function(next_handler)
    local yes, no = one.wrap(next_handler), other and other.wrap(next_handler) or next_handler
    return function(request, value)
      if condition(request) then return yes(request, value) end
      return no(request, value)
    end
  end)
end

--- Is it what accepts a WebSocket? Its response is made when nothing of ours is around it any more.
---@param reply any
---@return boolean
function M.is_upgrade(reply) return getmetatable(reply) == "http.websocket" end

-- ---- what each response passes, that of a handler which has failed included ----

local LAYERS = {} -- the key of the innermost one in an agent, for failed()

-- What is around a handler and wants all responses: it tells of them, or gives them fields. It is over once it has.
local function begin_layer(request, layer)
  local agent = request.agent
  layer.request, layer.outer = request, agent and rawget(agent, LAYERS)
  if agent then rawset(agent, LAYERS, layer) end
  return layer
end

local function end_layer(layer)
  local agent = layer.request.agent
  if agent then rawset(agent, LAYERS, layer.outer) end
end

-- What the core refuses is a fault.
local function is_odd(action, more) return more ~= nil or (action ~= nil and action ~= "close") end

--- Gives responses header fields.
---@param name string for messages
---@param give fun(request: perilune.http.request, response: perilune.http.response): table<string, any>?
---@return perilune.http.middleware
function M.with_fields(name, give)
  return M.new(name, function(next_handler)
    return function(request, value)
      local layer = begin_layer(request, { give = give })
      local reply, action, more = next_handler(request, value)
      if is_odd(action, more) then return reply, action, more end
      if M.is_upgrade(reply) then
        end_layer(layer)
        return reply, action
      end
      local response = inner.made(reply)
      local fields = give(request, response)
      if not rawget(response, 5) then end_layer(layer) end -- else it may fail while it is sent
      if fields then return inner.with(response, nil, fields, 1), action end
      if reply == nil then return nil, action end
      return response, action
    end
  end)
end

-- Tells now, and those outside of it observe alone from then on.
local function tell_of(layer, response)
  end_layer(layer)
  layer.tell(layer.request, response, layer.start)
end

-- One that answers by itself is told of when it has, as it was sent; if that fails, its layer is still there.
local function told_when_sent(response, layer)
  local copy, answers = {}, rawget(response, 5)
  for position, value in next, response do copy[position] = value end
  copy[5] = function(made, request, closes)
    local reply, sent = answers(made, request, closes)
    tell_of(layer, reply or sent or made)
    return reply, reply or sent or made
  end
  return setmetatable(copy, inner.response)
end

--- Calls a function with each response and what began() gave, that of a handler which has failed included.
---@param name string for messages
---@param began fun(request: perilune.http.request): any
---@param tell fun(request: perilune.http.request, response: perilune.http.response, start: any)
---@return perilune.http.middleware
function M.observer(name, began, tell)
  return M.new(name, function(next_handler)
    return function(request, value)
      local layer = begin_layer(request, { tell = tell, start = began(request) })
      local reply, action, more = next_handler(request, value)
      if is_odd(action, more) then return reply, action, more end
      if M.is_upgrade(reply) then
        tell_of(layer, require("perilune.http.websocket").refusal(reply, request) or inner.switching)
        return reply, action
      end
      local response = inner.made(reply)
      if rawget(response, 5) then return told_when_sent(response, layer), action end
      tell_of(layer, response)
      if reply == nil then return nil, action end
      return response, action
    end
  end)
end

--- A request begins: the layers of an earlier one, whose error the script has caught, are over.
function M.begin(agent)
  if agent and rawget(agent, LAYERS) then rawset(agent, LAYERS, nil) end
end

-- A function of the script's may be asked for the fields, and be what has failed.
local function with_given(layer, response)
  local ok, fields = pcall(layer.give, layer.request, response)
  return ok and fields and inner.with(response, nil, fields, 1) or response
end

--- The response of a handler that has failed, once it has passed the layers around that.
---@param agent table
---@param response perilune.http.response
---@return perilune.http.response
function M.failed(agent, response)
  local layer = rawget(agent, LAYERS)
  rawset(agent, LAYERS, nil)
  while layer do
    if layer.give then response = with_given(layer, response) else layer.tell(layer.request, response, layer.start) end
    layer = layer.outer
  end
  return response
end

return M
