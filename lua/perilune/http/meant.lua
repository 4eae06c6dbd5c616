--- What somebody has probably meant who has given a router something else: the ends of its messages. Internal.
local http = require "perilune.http"

local M = {}

-- Functions of perilune.http that make middleware, and are given in place of what they make.
local MAKERS = { "after", "around", "basic_auth", "bearer", "before", "cache_control", "compress", "cors", "counted",
  "logged", "rate_limit", "request_id", "timed", "when" }

local function maker_of(fn)
  for _, name in ipairs(MAKERS) do
    if rawequal(http[name], fn) then return name end
  end
end

local AROUND = "write http.before(fn), http.after(fn) or http.around(fn)"

-- What http.json(schema) is for, and what was given without it.
local SCHEMA = ": http.json(http.schema { … }) checks the body of requests"

local function is_json(response)
  local kind = response.headers["content-type"]
  return kind ~= nil and kind:find "^application/json" ~= nil
end

--- In place of middleware.
---@param value any
---@param in_route boolean? in front of a route's handler
---@return string hint "": none is known
function M.middleware(value, in_route)
  local meta = getmetatable(value)
  if meta == "http.schema" or meta == "http.response" and is_json(value) then return SCHEMA end
  if type(value) ~= "function" then return "" end
  local maker = maker_of(value)
  if maker then return (": http.%s is called, as in http.%s(…)"):format(maker, maker) end
  return ": " .. (in_route and "a route has one handler, which comes last; for what goes before it " or "") .. AROUND
end

--- In place of a handler, as the last of what a route is given.
---@param value any
---@param name string of the router's method
---@param is_behind_one boolean does it stand behind a function?
---@return string hint "": none is known
function M.handler(value, name, is_behind_one)
  local meta = getmetatable(value)
  if meta == "http.middleware" or meta == "http.schema" then
    if not is_behind_one then return ": middleware stands in front of a handler, which is missing" end
    return (": middleware comes first, as in router:%s(path, http.cors { … }, handler)"):format(name)
  end
  if is_behind_one and meta == "http.response" and is_json(value) then return SCHEMA .. ", in front of the handler" end
  local is_response = meta == "http.response" or type(value) == "string" or type(value) == "table" and meta == nil
  return is_response and ": write function(request) return … end" or ""
end

return M
