-- A small JSON: objects and lists as tables, null as json.null. decode() gives nil and what is wrong with the text;
-- encode() raises for what JSON cannot say.
local M = {}

--- Stands for null, which a table could not hold.
M.null = setmetatable({}, { __tostring = function() return "null" end })

local DEPTH_MAX = 64
local LITERALS = { ["true"] = true, ["false"] = false, null = M.null }
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function fail(at, what) error({ text = ("%s at byte %d"):format(what, at) }, 0) end

local function skip(text, at) return text:match("^[ \t\r\n]*()", at) end

-- A code point as UTF-8.
local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  local tail = string.char(0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  if code < 0x10000 then return string.char(0xE0 + math.floor(code / 4096)) .. tail end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64) .. tail
end

-- \uXXXX at `at`, after the backslash; two of them where the first is half of a pair.
local function read_unicode(text, at)
  local high = text:match("^u(%x%x%x%x)", at)
  local code = tonumber(high or fail(at, "bad escape"), 16)
  if code < 0xD800 or code > 0xDFFF then return utf8(code), at + 5 end
  local low = tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at + 5) or fail(at, "half of a pair"), 16)
  return utf8(0x10000 + (code - 0xD800) * 1024 + low - 0xDC00), at + 11
end

local function read_string(text, at)
  local parts = {}
  while true do
    local plain, stop = text:match('^([^"\\%c]*)()', at)
    parts[#parts + 1] = plain
    local byte = text:sub(stop, stop)
    if byte == '"' then return table.concat(parts), stop + 1 end
    if byte ~= "\\" then fail(stop, "a string without an end") end
    local escape = ESCAPES[text:sub(stop + 1, stop + 1)]
    at = stop + 2
    if not escape then escape, at = read_unicode(text, stop + 1) end
    parts[#parts + 1] = escape
  end
end

local read_value

local function read_list(text, at, depth)
  local list = {}
  at = skip(text, at)
  if text:sub(at, at) == "]" then return list, at + 1 end
  while true do
    list[#list + 1], at = read_value(text, at, depth)
    at = skip(text, at)
    local byte = text:sub(at, at)
    if byte == "]" then return list, at + 1 end
    if byte ~= "," then fail(at, "expected , or ]") end
    at = at + 1
  end
end

local function read_pair(text, at, object, depth)
  at = skip(text, at)
  if text:sub(at, at) ~= '"' then fail(at, "expected a key") end
  local key
  key, at = read_string(text, at + 1)
  at = skip(text, at)
  if text:sub(at, at) ~= ":" then fail(at, "expected :") end
  object[key], at = read_value(text, at + 1, depth)
  return skip(text, at)
end

local function read_object(text, at, depth)
  local object = {}
  at = skip(text, at)
  if text:sub(at, at) == "}" then return object, at + 1 end
  while true do
    at = read_pair(text, at, object, depth)
    local byte = text:sub(at, at)
    if byte == "}" then return object, at + 1 end
    if byte ~= "," then fail(at, "expected , or }") end
    at = at + 1
  end
end

local function read_number(text, at)
  local digits, stop = text:match("^(%-?%d+%.?%d*[eE]?[+-]?%d*)()", at)
  local number = tonumber(digits)
  if not number or digits:find("^%-?0%d") or digits:find("%.$") then fail(at, "expected a value") end
  return number, stop
end

function read_value(text, at, depth)
  if depth > DEPTH_MAX then fail(at, "nested too deep") end
  at = skip(text, at)
  local byte = text:sub(at, at)
  if byte == '"' then return read_string(text, at + 1) end
  if byte == "{" then return read_object(text, at + 1, depth + 1) end
  if byte == "[" then return read_list(text, at + 1, depth + 1) end
  local word, stop = text:match("^(%l+)()", at)
  if word and LITERALS[word] ~= nil then return LITERALS[word], stop end
  return read_number(text, at)
end

---@param text string
---@return any value nil: it is no JSON
---@return string? message
function M.decode(text)
  local ok, value, stop = pcall(read_value, text, 1, 0)
  if not ok then
    if type(value) == "table" then return nil, value.text end
    error(value, 0)
  end
  local at = skip(text, stop)
  if at <= #text then return nil, ("something follows at byte %d"):format(at) end
  return value
end

local encode

local function quote(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c)
    return ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function encode_table(value, depth)
  if depth > DEPTH_MAX then error("json: nested too deep", 0) end
  if value == M.null then return "null" end
  local parts = {}
  if #value > 0 or next(value) == nil then
    for i, item in ipairs(value) do parts[i] = encode(item, depth + 1) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = quote(key) .. ":" .. encode(value[key], depth + 1) end
  return "{" .. table.concat(parts, ",") .. "}"
end

function encode(value, depth)
  if type(value) == "string" then return quote(value) end
  if type(value) == "table" then return encode_table(value, depth) end
  if type(value) == "number" and value == value and math.abs(value) ~= math.huge then return ("%.14g"):format(value) end
  if type(value) == "boolean" or value == nil then return value == nil and "null" or tostring(value) end
  error("json: cannot say a " .. type(value), 0)
end

---@param value any an empty table is a list
---@return string
function M.encode(value) return encode(value, 0) end

return M
