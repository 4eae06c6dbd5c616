--- Header fields of a message as a table by name, in any case. Internal: of the requests that handlers get, and of the
--- responses that clients and specifications get.
local require = require -- while handlers run, the global one is the script's

local M = {}

local core -- in C: src/bind/http_fields.c; loaded late, since not all who need tokens have it

--- A Lua pattern: what names of fields, methods and parameters are made of (RFC 9110, 5.6.2).
M.TOKEN = "[%w!#$%%&'*+.^_`|~-]+"

local WHOLE_TOKEN = "^" .. M.TOKEN .. "$"

--- Is it a text that is a token?
---@param value any
---@return boolean
function M.is_token(value) return type(value) == "string" and value:find(WHOLE_TOKEN) ~= nil end

--- A text without the blanks behind it. A pattern would look at each of them again and again.
---@param text string
---@return string
function M.trim_end(text)
  local n = #text
  while n > 0 do
    local byte = text:byte(n)
    if byte ~= 32 and byte ~= 9 then break end
    n = n - 1
  end
  return n < #text and text:sub(1, n) or text
end

--- Each field of a head, in order.
---@param head string with the line before the first field; each line ends in "\r\n"
---@return fun(): string?, string? name as it came, value without the blanks around it
function M.each(head)
  local next_field = head:gmatch "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)"
  return function()
    local name, value = next_field()
    if name then return name, M.trim_end(value) end
  end
end

local metatable = { __metatable = "http.headers" }

-- Names in any case → in lower case. A script asks for few, unless a client says which.
local LOWERED_MAX, LOWERED_BYTES = 1000, 64
local lowered, lowered_count = {}, 0

local function lower_of(name)
  if type(name) ~= "string" then return nil end
  local lower = name:lower()
  if #name > LOWERED_BYTES then return lower end
  if lowered_count == LOWERED_MAX then lowered, lowered_count = {}, 0 end
  lowered[name], lowered_count = lower, lowered_count + 1
  return lower
end

-- Names are lower-case in the table, and in any case when they are asked for.
function metatable.__index(headers, name)
  local lower = lowered[name] or lower_of(name)
  return lower and lower ~= name and rawget(headers, lower) or nil
end

--- All of them, those that are there several times joined: with `", "`, and `Cookie` with `"; "`.
---@param head string as each() takes it
---@return table<string, string>
function M.read(head)
  core = core or require "perilune.http_core"
  return setmetatable(core.read_fields(head), metatable)
end

return M
