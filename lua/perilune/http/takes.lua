--- http.json(schema): what stands before a handler that takes JSON, and hands it the value that has been checked.
local require = require -- while handlers run, the global one is the script's
local http = require "perilune.http"
local middleware = require "perilune.http.middleware"

local inner = getmetatable(http)

local M = {}

local decode

-- Is it "application/json", or such as "application/problem+json"?
local function is_json(kind)
  local name = kind:lower():match "^%s*([^;%s]*)"
  return name == "application/json" or name:find "^application/[%w.!#$&^_-]+%+json$" ~= nil
end

local WANTED = { ["application/json"] = 3, ["application/*"] = 2, ["*/*"] = 1 }

--- Does who sends this Accept take JSON? What is said of it most exactly counts.
---@param accept string?
---@return boolean
function M.accepts_json(accept)
  if not accept or accept:find "^%s*$" then return true end
  local best, is_wanted = 0, false
  for item in accept:gmatch "[^,]+" do
    local rank = WANTED[item:lower():match "^%s*([^;%s]*)"]
    if rank and rank > best then
      local q = tonumber(item:lower():match ";%s*q%s*=%s*([%d.]+)" or 1)
      best, is_wanted = rank, q ~= nil and q > 0
    end
  end
  return is_wanted
end

local function refuse(request, schema)
  if not M.accepts_json(request.headers.accept) then
    return inner.problem(406, "application/json is what can be sent")
  end
  local kind = request.headers["content-type"]
  if not kind or not is_json(kind) then
    return inner.problem(415, "the body is to be application/json", { Accept = "application/json" })
  end
  local value, message = decode(request.body)
  if message then return inner.problem(400, "the body is no JSON: " .. message) end
  local checked, wrong = schema:check(value)
  if wrong then return inner.problem(422, wrong) end
  return nil, checked
end

--- Before a handler: it is called with the request and the value. 406, 415, 400 and 422 are answered for it.
---@param schema perilune.http.schema
---@return perilune.http.middleware
function M.json(schema, options)
  if options ~= nil then error("http.json: with a schema it takes nothing else", 3) end
  decode = decode or require("perilune.json_core").decode
  return middleware.new("json", function(next_handler)
    return function(request)
      local response, value = refuse(request, schema)
      if response then return response end
      return next_handler(request, value)
    end
  end)
end

return M
