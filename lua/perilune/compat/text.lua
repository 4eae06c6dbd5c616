--- What `ngx` has for text and times: pure functions.
local crc = require "perilune.crc_core" -- in C: src/bind/crc.c
local crypto = require "perilune.crypto_core" -- in C: src/bind/crypto.c
local drivers = require "perilune.drivers_core" -- in C: src/bind/regex.c
local encoding = require "perilune.encoding_core" -- in C: src/bind/encoding.c
local percent = require "perilune.percent"
local perilune = require "perilune"

local M = {}

-- OpenResty takes numbers, booleans and nil for text as well.
local function text_of(value) return type(value) == "string" and value or tostring(value) end

function M.md5(text) return encoding.encode_hex(crypto.digest("md5", text_of(text))) end
function M.md5_bin(text) return crypto.digest("md5", text_of(text)) end
function M.sha1_bin(text) return crypto.digest("sha1", text_of(text)) end
function M.hmac_sha1(key, text) return crypto.hmac("sha1", text_of(key), text_of(text)) end
function M.crc32_short(text) return crc.crc32(text_of(text)) end
M.crc32_long = M.crc32_short

function M.encode_base64(text, no_padding)
  return encoding.encode_base64(text == nil and "" or text_of(text), not no_padding)
end

function M.decode_base64(text)
  if type(text) ~= "string" then error("ngx.decode_base64: string argument only", 2) end
  return (drivers.decode_base64(text))
end

-- Of a part of a URI (2, the default), or of all of one (0).
function M.escape_uri(text, kind)
  if kind ~= 0 then return encoding.encode_url(text_of(text)) end
  return (text_of(text):gsub("[^%w%-%._~!#$&'()*+,/:;=?@%[%]]", encoding.encode_url))
end

function M.unescape_uri(text)
  return percent.decode_form(text_of(text))
end

local function add_argument(out, key, value)
  if value == true then
    out[#out + 1] = M.escape_uri(key)
  elseif value ~= false then
    out[#out + 1] = M.escape_uri(key) .. "=" .. M.escape_uri(value)
  end
end

function M.encode_args(args)
  local out = {}
  for key, value in pairs(args) do
    if type(value) == "table" then
      for _, one in ipairs(value) do add_argument(out, key, one) end
    else
      add_argument(out, key, value)
    end
  end
  return table.concat(out, "&")
end

local ARGUMENTS_MAX = 100

function M.decode_args(text, max)
  local args, n = {}, 0
  max = max or ARGUMENTS_MAX
  for part in text:gmatch "[^&]+" do
    if max > 0 and n == max then return args, "truncated" end
    n = n + 1
    local key, value = part:match "^([^=]*)=(.*)$"
    key, value = M.unescape_uri(key or part), value and M.unescape_uri(value) or true
    local before = args[key]
    if before == nil then
      args[key] = value
    elseif type(before) == "table" then
      before[#before + 1] = value
    else
      args[key] = { before, value }
    end
  end
  return args
end

local QUOTED = {
  ["\0"] = "\\0", ["\b"] = "\\b", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\26"] = "\\Z",
  ["\\"] = "\\\\", ["'"] = "\\'", ['"'] = '\\"',
}

function M.quote_sql_str(text) return "'" .. text_of(text):gsub(".", QUOTED) .. "'" end

-- ---- times ---------------------------------------------------------------------

-- As OpenResty tells it, to the millisecond.
function M.now() return math.floor(perilune.time() * 1000) / 1000 end

function M.time() return math.floor(perilune.time()) end

function M.today() return os.date("%Y-%m-%d", M.time()) end
function M.localtime() return os.date("%Y-%m-%d %H:%M:%S", M.time()) end
function M.utctime() return os.date("!%Y-%m-%d %H:%M:%S", M.time()) end

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

-- With these names whatever the locale, and `separator` in the date.
local function date_of(seconds, separator)
  local at = os.date("!*t", seconds)
  return ("%s, %02d%s%s%s%04d %02d:%02d:%02d GMT"):format(DAYS[at.wday], at.day, separator, MONTHS[at.month], separator,
    at.year, at.hour, at.min, at.sec)
end

function M.http_time(seconds) return date_of(seconds, " ") end

function M.cookie_time(seconds)
  return (date_of(seconds, "-"):gsub("%-%d%d(%d%d) ", "-%1 ", 1))
end

-- Days since 1970 of a date of the Gregorian calendar.
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month - 457) / 5) + day - 719469
end

function M.parse_http_time(text)
  local day, name, year, hour, min, sec = text:match "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
  for month, one in ipairs(MONTHS) do
    if one == name then
      return days_of(tonumber(year), month, tonumber(day)) * 86400 + hour * 3600 + min * 60 + sec
    end
  end
end

M.null = drivers.null

return M
