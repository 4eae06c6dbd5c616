--- `perilune test -o json`: busted's output of that name, which says nothing at all where a test is pending, or where a
--- failure has a value that JSON does not know. The same fields here; what cannot be written is left out. Internal.
local json = require "perilune.json"

local M = {}

local DEPTH_MAX = 16

local plain

local function is_list(t)
  local n = 0
  for key in next, t do
    if type(key) ~= "number" then return false end
    n = n + 1
  end
  return n == #t
end

local function plain_table(t, depth, within)
  if within[t] or depth > DEPTH_MAX then return "…" end
  within[t] = true
  local out = is_list(t) and json.array {} or {}
  for key, value in next, t do
    local name = getmetatable(out) and key or tostring(key)
    out[name] = plain(value, depth + 1, within)
  end
  within[t] = nil
  return out
end

-- A list keeps its places: what cannot be written is its name there.
function plain(value, depth, within)
  local kind = type(value)
  if kind == "table" then return plain_table(value, depth, within) end
  if kind == "number" and (value ~= value or math.abs(value) == math.huge) then return tostring(value) end
  if kind == "string" or kind == "number" or kind == "boolean" then return value end
  return "a " .. kind
end

local KEPT = { name = true, descriptor = true, attributes = true, trace = true, duration = true, starttime = true }

-- Of a test busted keeps all that runs it.
local function plain_result(result)
  local out, element = {}, {}
  for key, value in pairs(result) do out[key] = key ~= "element" and plain(value, 0, {}) or nil end
  for key, value in pairs(result.element or {}) do
    if KEPT[key] then element[key] = plain(value, 0, {}) end
  end
  out.element = element
  return out
end

local function plain_results(results)
  local out = {}
  for i, result in ipairs(results) do out[i] = plain_result(result) end
  return json.array(out)
end

--- What `busted.outputHandlers.json` is: makes a handler.
---@return table
function M.new()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  function handler.suiteEnd()
    io.stdout:write(assert(json.encode {
      successes = plain_results(handler.successes), pendings = plain_results(handler.pendings),
      failures = plain_results(handler.failures), errors = plain_results(handler.errors),
      duration = handler.getDuration(),
    }), "\n")
    io.stdout:flush()
    return nil, true
  end

  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end

return M
