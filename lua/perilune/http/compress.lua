--- Compressed responses: http.compress, and `compress = true` of a listener. gzip, which all clients know.
---
--- A body that is there whole is compressed in one go, and so has a length. That of http.stream is compressed piece by
--- piece, each of which the client can read when it has come.
local coding = require "perilune.http.coding"
local deflate_core = require "perilune.deflate_core"
local http = require "perilune.http"
local middleware = require "perilune.http.middleware"
local option_checks = require "perilune.http.option_checks"
local units = require "perilune.units"

local inner = getmetatable(http)

local M = {}

local MIN, LEVEL = 1024, 5
local MAX = 4 * 1024 * 1024 -- of a body that is whole: others wait for as long as it takes, some 15 ms for each MiB
local BODILESS = { [204] = true, [206] = true, [304] = true }

-- ---- streams ----

local CODERS_MAX = 256 -- at once, of 96 KiB each: those of other streams are sent as they are

local coder = {}
coder.__index = coder

local coders, coder_count = setmetatable({}, { __mode = "k" }), 0

-- Calls that were ended in their midst have left theirs to the collector.
local function count_coders()
  coder_count = 0
  for _ in pairs(coders) do coder_count = coder_count + 1 end
end

--- What compresses a stream; nil: there are as many as there may be.
---@param level integer
---@return table?
function M.take_coder(level)
  if coder_count >= CODERS_MAX then count_coders() end
  if coder_count >= CODERS_MAX then return nil end
  local new = setmetatable({ deflater = deflate_core.deflater(level) }, coder)
  coders[new], coder_count = true, coder_count + 1
  return new
end

--- What is to be sent for these data.
function coder:add(data)
  local last = self.has_left
  if data == "" and not last then return "" end
  return deflate_core.deflater_add(self.deflater, data, last)
end

--- The next data, which may be none, are the last.
function coder:leave()
  self.has_left = true
  coders[self], coder_count = nil, coder_count - 1
end

-- ---- which ----

-- Each coding has a tag of its own, and weak ones are as much as is known of two that mean the same.
local function weakened(tag) return tag and not tag:find "^W/" and "W/" .. tag or nil end

local function is_worth_it(settings, kind)
  local name = kind:lower():match "^[^;%s]*"
  if name == "text/event-stream" then return false end
  return settings.types[name] or coding.is_worth_it(kind)
end

-- May it be compressed at all, for whoever takes that?
local function may_be(response, headers)
  local cache = headers["cache-control"]
  return not (BODILESS[response[1]] or headers["content-encoding"] or headers["content-range"]
    or cache and cache:lower():find("no-transform", 1, true))
end

--- The head of a response whose body is compressed.
function M.coded_head(response)
  return (inner.with(response, nil, { ["Content-Encoding"] = "gzip", ETag = weakened(response.headers.etag) }, 1))
end

local function with_level(response, level)
  local new = inner.with(response, nil, nil, 1)
  rawset(new, 9, level)
  return new
end

local function with_body(response, body)
  local new = M.coded_head(response)
  rawset(new, 3, body)
  return new
end

-- A response that can be had in both ways says so.
local function varying(response, headers)
  local value = coding.vary(headers.vary, "Accept-Encoding")
  return value ~= headers.vary and inner.with(response, nil, { Vary = value }, 1) or response
end

--- The response as it is sent to who has asked so.
---@param request perilune.http.request
---@param response perilune.http.response
---@param settings table
---@return perilune.http.response
local function compressed(request, response, settings)
  local is_stream = rawget(response, 10)
  if rawget(response, 5) and not is_stream or rawget(response, 9) then return response end
  local is_wanted, is_needed = coding.wants_gzip(request.headers["accept-encoding"])
  local size = is_stream and math.max(settings.min, 1) or #response[3]
  if size == 0 or size > MAX or size < settings.min and not is_needed then return response end
  local headers = response.headers
  local is_worth = is_worth_it(settings, headers["content-type"] or "")
  if not may_be(response, headers) or not (is_worth or is_needed) then return response end
  response = varying(response, headers)
  if not is_wanted then return response end
  if is_stream then return with_level(response, settings.level) end
  local body = deflate_core.deflate(response[3], settings.whole)
  if #body >= #response[3] and not is_needed then return response end
  return with_body(response, body)
end

-- ---- the listener's ----

local function settings_of(min, level, types)
  level = level or LEVEL
  return { min = min or MIN, level = level, types = types, whole = { format = "gzip", level = level } }
end

local DEFAULTS = settings_of(nil, nil, {})

--- What proceed of such a listener's agent has returned, with its body compressed where that may be.
---@param reply any not nil
---@param request perilune.http.request
---@return any
function M.reply(reply, request)
  if middleware.is_upgrade(reply) then return reply end
  return compressed(request, inner.made(reply), DEFAULTS)
end

-- ---- middleware ----

local function min_of(value)
  if value == nil then return nil end
  local bytes = units.size(value)
  if not bytes then option_checks.wrong("http.compress", "min", 'expects a size such as "1k"', value, 3) end
  return bytes
end

local function level_of(value)
  if value == nil or (type(value) == "number" and value >= 1 and value <= 9 and value % 1 == 0) then return value end
  option_checks.wrong("http.compress", "level", "expects 1 (fast) to 9 (small)", value, 3)
end

local function types_of(value)
  local types = {}
  if value ~= nil and type(value) ~= "table" then
    option_checks.wrong("http.compress", "types", 'expects a list such as { "model/obj" }', value, 3)
  end
  for _, kind in ipairs(value or {}) do
    if type(kind) ~= "string" or not kind:find "^[%w!#$&^_.+-]+/[%w!#$&^_.+-]+$" then
      option_checks.wrong("http.compress", "types", 'expects types such as "model/obj"', kind, 3)
    end
    types[kind:lower()] = true
  end
  return types
end

local OPTIONS = { min = true, level = true, types = true }

--- Compresses the bodies of responses for clients that take gzip: those of types that are worth it, and of `min` bytes.
---@param options { min: integer|string|nil, level: integer?, types: string[]? }?
---@return perilune.http.middleware
function M.compress(options)
  options = option_checks.check("http.compress", options, OPTIONS, 2)
  local settings = settings_of(min_of(options.min), level_of(options.level), types_of(options.types))
  return middleware.new("compress", function(next_handler)
    return function(request, value)
      local reply, action, more = next_handler(request, value)
      if more ~= nil or reply == nil or middleware.is_upgrade(reply) then return reply, action, more end
      return compressed(request, inner.made(reply), settings), action
    end
  end)
end

return M
