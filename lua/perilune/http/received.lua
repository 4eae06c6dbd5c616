--- Responses as the client has them. Internal.
---
--- A response is a table. Its status, body and url are there; all else is made of its head when it is looked at: [1] is
--- the head as it came, [2] the trailers, [3] where the rest of a body is read (exchange.lua), or nil.
local field_table = require "perilune.headers"

local M = {}

local require = require -- while handlers run, the global one is the script's
local units -- perilune.units

local MAKERS = {
  headers = function(response) return field_table.read(response[1]) end,
  trailers = function(response) return field_table.read(response[2] or "") end,
  version = function(response) return (response[1]:match "^HTTP/(%d%.%d)") end,
  ok = function(response) return response.status >= 200 and response.status <= 299 end,
}

local methods = {}

local function check(response, name)
  if getmetatable(response) ~= "http.received" then
    error(("response.%s(…) must be response:%s(…)"):format(name, name), 3)
  end
end

--- The body as JSON: its value, or nil and what is wrong with it.
function methods.json(response, options)
  check(response, "json")
  if response[3] then error("response:json: the body is read in pieces here (stream = true)", 2) end
  return require("perilune.json_core").decode(response.body, options)
end

--- The header fields as they came, in order: { { "Set-Cookie", "a=b" }, … }.
function methods.fields(response)
  check(response, "fields")
  local fields = {}
  for name, value in field_table.each(response[1]) do fields[#fields + 1] = { name, value } end
  return fields
end

--- The values of all fields of that name, in order.
function methods.list(response, name)
  check(response, "list")
  local lower, values = tostring(name):lower(), {}
  for field, value in field_table.each(response[1]) do
    if field:lower() == lower then values[#values + 1] = value end
  end
  return values
end

--- The next piece of the body; "" is never one. nil: that was all of it, or with a message and a code: it was cut
--- short.
function methods.read(response, timeout)
  check(response, "read")
  if not response[3] then
    error("response:read: the body is whole, in response.body (stream = true reads it in pieces)", 2)
  end
  if timeout == nil then return response[3]:read() end
  units = units or require "perilune.units"
  local ms, message = units.duration(timeout)
  if not ms then error("response:read: " .. message, 2) end
  return response[3]:read(ms / 1000)
end

--- Nobody wants the rest of the body.
function methods.close(response)
  check(response, "close")
  if response[3] then response[3]:close() end
end

local response_meta = { __metatable = "http.received" }

function response_meta.__index(response, key)
  local maker = MAKERS[key]
  if not maker then return methods[key] end
  local value = maker(response)
  rawset(response, key, value)
  return value
end

function response_meta.__tostring(response) return ("HTTP response %d of %s"):format(response.status, response.url) end

--- A response.
---@param head string
---@param status integer
---@param url string where it came from
---@param body string? nil: it is read in pieces
---@param trailers string?
---@param rest table? where they are
function M.new(head, status, url, body, trailers, rest)
  local response = { head, trailers or false, rest or false, status = status, url = url, body = body }
  return setmetatable(response, response_meta)
end

--- The value of a field of a head, or nil; of one that is there several times, the first.
function M.field(head, wanted)
  for name, value in field_table.each(head) do
    if name:lower() == wanted then return value end
  end
end

return M
