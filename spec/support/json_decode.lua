--- Reads one JSON value (RFC 8259), strictly: a log line that it refuses is a broken log line.
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local LITERALS = { { "true", true }, { "false", false }, { "null", nil } }

local function fail(text, at, what)
  error(("JSON: %s expected at byte %d of %q"):format(what, at, text), 0)
end

local function skip(text, at) return text:find("[^ \t\r\n]", at) or #text + 1 end

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  local tail = string.char(0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  if code < 0x10000 then return string.char(0xE0 + math.floor(code / 4096)) .. tail end
  return string.char(0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 4096) % 64) .. tail
end

-- One of these two alone is no character.
local function pair_at(text, at)
  local high, low = text:match("^u([dD][89abAB]%x%x)\\u([dD][c-fC-F]%x%x)", at)
  if not high then fail(text, at, "a pair of surrogates") end
  return utf8(0x10000 + (tonumber(high, 16) - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00), at + 11
end

local function escape_at(text, at)
  local hex = text:match("^u(%x%x%x%x)", at)
  if hex and hex:find "^[dD][89a-fA-F]" then return pair_at(text, at) end
  if hex then return utf8(tonumber(hex, 16)), at + 5 end
  local char = ESCAPES[text:sub(at, at)]
  if not char then fail(text, at, "an escape") end
  return char, at + 1
end

local function string_at(text, at)
  local parts = {}
  while true do
    local stop = text:find('["\\%c]', at)
    if not stop then fail(text, #text + 1, "the end of a string") end
    parts[#parts + 1] = text:sub(at, stop - 1)
    local char = text:sub(stop, stop)
    if char == '"' then return table.concat(parts), stop + 1 end
    if char ~= "\\" then fail(text, stop, "an escaped control character") end
    parts[#parts + 1], at = escape_at(text, stop + 1)
  end
end

local value_at

local function key_at(text, at)
  if text:sub(at, at) ~= '"' then fail(text, at, "a key") end
  local key
  key, at = string_at(text, at + 1)
  at = skip(text, at)
  if text:sub(at, at) ~= ":" then fail(text, at, "a colon") end
  return key, skip(text, at + 1)
end

-- The items of an array or an object, which differ in their keys and in how they end.
local function items_at(text, at, close)
  local out, n = {}, 0
  at = skip(text, at)
  if text:sub(at, at) == close then return out, at + 1 end
  while true do
    n = n + 1
    local key = n
    if close == "}" then key, at = key_at(text, at) end
    if out[key] ~= nil then fail(text, at, "another key") end
    out[key], at = value_at(text, at)
    at = skip(text, at)
    local char = text:sub(at, at)
    if char == close then return out, at + 1 end
    if char ~= "," then fail(text, at, "a comma") end
    at = skip(text, at + 1)
  end
end

function value_at(text, at)
  local char = text:sub(at, at)
  if char == '"' then return string_at(text, at + 1) end
  if char == "{" then return items_at(text, at + 1, "}") end
  if char == "[" then return items_at(text, at + 1, "]") end
  for _, literal in ipairs(LITERALS) do
    if text:sub(at, at + #literal[1] - 1) == literal[1] then return literal[2], at + #literal[1] end
  end
  local number = text:match("^-?%d+%.?%d*[eE]?[-+]?%d*", at)
  if not number or not tonumber(number) then fail(text, at, "a value") end
  return tonumber(number), at + #number
end

--- Raises what is wrong. `null` is nil.
---@param text string
---@return any
return function(text)
  local value, at = value_at(text, skip(text, 1))
  if skip(text, at) <= #text then fail(text, at, "the end") end
  return value
end
