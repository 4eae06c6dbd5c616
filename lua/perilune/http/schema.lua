--- http.schema: what a body is to look like, and what is wrong with one that does not: "address.street: a string is
--- expected, got 5". Mistakes in a schema raise where it is made.
local require = require -- while handlers run, the global one is the script's
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"

local M = {}

local DEEPEST = 32
local TYPES = { "any", "boolean", "enum", "integer", "number", "object", "string" }

local null -- perilune.json.null; nil: JSON has not been loaded, and nobody can have it

local function is_absent(value) return value == nil or value == null end

-- A checker takes a value and returns nothing where it is right; else what is wrong, and where in the value.
local function got(value)
  if value == null and null ~= nil then return "got null" end
  if type(value) == "table" then return "got " .. (M.is_list(value) and "a list" or "an object") end
  return "got " .. printable.value(value)
end

local function expected(what) return function(value) return ("%s is expected, %s"):format(what, got(value)) end end

local ARRAY

--- Is it a list, as JSON has it?
function M.is_list(value)
  ARRAY = ARRAY or getmetatable(require("perilune").json.array {})
  return ARRAY ~= nil and getmetatable(value) == ARRAY or rawget(value, 1) ~= nil
end

local function is_object(value) return type(value) == "table" and value ~= null and not M.is_list(value) end

-- ---- a type with what stands in its brackets ----

-- "1..64" → 1, 64; "1.." → 1; "..64" → nil, 64
local function bounds_of(text)
  local low, high = text:match "^%s*(%-?[%d.]-)%s*%.%.%s*(%-?[%d.]-)%s*$"
  if not low then return nil end
  local least, most = tonumber(low), tonumber(high)
  if low ~= "" and not least or high ~= "" and not most or not (least or most) then return nil end
  if least and most and least > most then return nil end
  return { least = least, most = most }
end

local function text_of(bounds, unit)
  local least, most = bounds.least, bounds.most
  if least and most then return (" from %.14g to %.14g%s"):format(least, most, unit) end
  if least then return (" of %.14g%s or more"):format(least, unit) end
  return (" of %.14g%s at most"):format(most, unit)
end

local function is_within(n, bounds)
  return not bounds or (not bounds.least or n >= bounds.least) and (not bounds.most or n <= bounds.most)
end

local makers = {}

local function need_bounds(argument)
  if argument == nil then return nil end
  local bounds = bounds_of(argument)
  if not bounds then return nil, ("(%s) is no range, such as (1..64), (0..) or (..9)"):format(argument) end
  return bounds
end

function makers.string(argument)
  local bounds, message = need_bounds(argument)
  if message then return nil, message end
  local what = "a string" .. (bounds and text_of(bounds, " bytes") or "")
  local say = expected(what)
  return function(value)
    if type(value) ~= "string" or not is_within(#value, bounds) then return say(value) end
  end
end

-- 64-bit numbers come as boxed ones.
local function is_boxed(value) return type(value) == "cdata" and value ~= null end

local function number_maker(what, is_right)
  return function(argument)
    local bounds, message = need_bounds(argument)
    if message then return nil, message end
    local say = expected(what .. (bounds and text_of(bounds, "") or ""))
    return function(value)
      if not is_right(value) or not is_within(value, bounds) then return say(value) end
    end
  end
end

makers.integer = number_maker("a whole number", function(value)
  return type(value) == "number" and value % 1 == 0 and value >= -2 ^ 63 and value < 2 ^ 64 or is_boxed(value)
end)
makers.number = number_maker("a number", function(value) return type(value) == "number" or is_boxed(value) end)

function makers.boolean(argument)
  if argument then return nil, "has no bounds" end
  local say = expected "true or false"
  return function(value)
    if type(value) ~= "boolean" then return say(value) end
  end
end

function makers.any(argument)
  if argument then return nil, "has no bounds" end
  return function() end
end

function makers.object(argument)
  if argument then return nil, "has no bounds" end
  local say = expected "an object"
  return function(value)
    if not is_object(value) then return say(value) end
  end
end

function makers.enum(argument)
  local set, list = {}, {}
  for item in (argument or ""):gmatch "[^,]+" do
    item = item:match "^%s*(.-)%s*$"
    if item == "" or set[item] then return nil, "has an empty or a repeated item" end
    set[item], list[#list + 1] = true, printable.quote(item)
  end
  if not list[1] then return nil, "lists its texts, as in enum(red, green)" end
  local say = expected("one of " .. table.concat(list, ", "))
  return function(value)
    if type(value) ~= "string" or not set[value] then return say(value) end
  end
end

-- ---- making checkers ----

local make

local function wrong(place, text, level)
  error(("http.schema: %s%s"):format(place ~= "" and place .. ": " or "", text), level + 1)
end

local function make_typed(text, place, level)
  local name, brackets, mark = text:match "^(%l+)(%b())(%??)$"
  if not name then name, mark = text:match "^(%l+)(%??)$" end
  if not name or not makers[name] then
    wrong(place, ("expects a type such as \"string\", \"integer(0..)?\" or \"enum(red, green)\", got %s%s"):format(
      printable.quote(text), suggest.hint(name or text:match "^%a*", TYPES)), level + 1)
  end
  local checker, message = makers[name](brackets and brackets:sub(2, -2))
  if not checker then wrong(place, ("%s %s"):format(name, message), level + 1) end
  return checker, mark == "?"
end

local LIST_KEYS = { [1] = true, min = true, max = true }

local function list_bounds(spec, place, level)
  for key, value in next, spec do
    if not LIST_KEYS[key] then
      wrong(place, ("a list has one schema, and min, max: unknown key %s"):format(printable.key(key)), level + 1)
    end
    if key ~= 1 and not (type(value) == "number" and value >= 0 and value % 1 == 0) then
      wrong(place, ("%s: expects a whole number, got %s"):format(key, printable.value(value)), level + 1)
    end
  end
  local bounds = { least = rawget(spec, "min"), most = rawget(spec, "max") }
  if bounds.least and bounds.most and bounds.least > bounds.most then wrong(place, "min is above max", level + 1) end
  return (bounds.least or bounds.most) and bounds
end

local function make_list(spec, place, level, depth, unknown)
  local bounds = list_bounds(spec, place, level + 1)
  local item, is_optional = make(spec[1], place .. "[]", level + 1, depth + 1, unknown)
  local say = expected("a list" .. (bounds and text_of(bounds, " items") or ""))
  return function(value)
    if type(value) ~= "table" or value == null or not M.is_list(value) and next(value) ~= nil then return say(value) end
    if not is_within(#value, bounds) then
      return ("a list%s is expected, got %d items"):format(text_of(bounds, " items"), #value)
    end
    for i = 1, #value do
      if not (is_optional and is_absent(value[i])) then
        local message, where = item(value[i])
        if message then return message, ("[%d]%s"):format(i, where or "") end
      end
    end
  end
end

local UNKNOWN = { refuse = true, drop = true, keep = true }

-- Fields in the order of their names, so that the first mistake is the same each time.
local function read_fields(spec, place, level, depth, unknown)
  local fields, list = {}, {}
  for key, one in next, spec do
    if type(key) ~= "string" then
      wrong(place, ("a field's name is a text, got %s"):format(printable.key(key)), level + 1)
    end
    local name, mark = key:match "^(.-)(%??)$"
    if fields[name] then wrong(place, ("has %s twice"):format(printable.quote(name)), level + 1) end
    local checker, is_optional = make(one, (place ~= "" and place .. "." or "") .. name, level + 1, depth + 1,
      unknown)
    fields[name] = { name = name, check = checker, is_optional = is_optional or mark == "?" }
    list[#list + 1] = fields[name]
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return fields, list
end

local function names_of(list)
  local names = {}
  for i, field in ipairs(list) do names[i] = field.name end
  return names
end

local function unknown_field(value, fields, list, unknown)
  for key in next, value do
    if not fields[key] then
      if unknown == "refuse" then
        local name = tostring(key)
        return "unknown field" .. suggest.hint(name, names_of(list)), "." .. printable.escape(name, 64)
      end
      if unknown == "drop" then value[key] = nil end
    end
  end
end

-- It may be there under a name that is nearly right.
local function missing_field(value, fields, list, unknown, name)
  local message, where
  if unknown == "refuse" then message, where = unknown_field(value, fields, list, unknown) end
  if message and message:find("did you mean", 1, true) then return message, where end
  return "is missing", "." .. name
end

local function make_object(spec, place, level, depth, unknown)
  local fields, list = read_fields(spec, place, level + 1, depth, unknown)
  local say = expected "an object"
  return function(value)
    if not is_object(value) then return say(value) end
    for i = 1, #list do
      local field = list[i]
      local item = value[field.name]
      if is_absent(item) then
        if not field.is_optional then return missing_field(value, fields, list, unknown, field.name) end
      else
        local message, where = field.check(item)
        if message then return message, "." .. field.name .. (where or "") end
      end
    end
    if unknown ~= "keep" then return unknown_field(value, fields, list, unknown) end
  end
end

-- A function says what is right itself: true, or false and why not.
local function make_own(fn)
  return function(value)
    local ok, message = fn(value)
    if not ok then return type(message) == "string" and message or "is not right" end
  end
end

function make(spec, place, level, depth, unknown)
  -- Those called last leave no frame of this one: the level is theirs as it is.
  if depth > DEEPEST then wrong("", "is nested too deep, or within itself", level + 1) end
  local kind = type(spec)
  if kind == "string" then return make_typed(spec, place, level) end
  if kind == "function" then return make_own(spec) end
  if kind ~= "table" then
    wrong(place, ("expects a type, a table of fields, { item } for a list, or a function, got %s"):format(
      printable.value(spec)), level + 1)
  end
  if getmetatable(spec) == "http.schema" then return rawget(spec, "checker") end
  if rawget(spec, 1) ~= nil then return make_list(spec, place, level, depth, unknown) end
  return make_object(spec, place, level, depth, unknown)
end

-- ---- schemas ----

local methods = {}
local metatable = { __index = methods, __metatable = "http.schema" }

function metatable.__newindex() error("a schema is made whole, by http.schema{ … }, and not changed", 2) end

--- Is the value as it should be? It is returned, or nil and what is wrong.
---@param value any
---@return any
---@return string?
function methods.check(schema, value)
  if getmetatable(schema) ~= "http.schema" then error("schema.check(…) must be schema:check(…)", 2) end
  null = null or require("perilune").json.null
  local message, where = rawget(schema, "checker")(value)
  if not message then return value end
  where = where and where:gsub("^%.", "") or ""
  return nil, where ~= "" and ("%s: %s"):format(where, message) or message
end

--- What values are to look like.
---@param spec table|string
---@param options { unknown: "refuse"|"drop"|"keep" }?
---@return perilune.http.schema
function M.schema(spec, options)
  local unknown = option_checks.check("http.schema", options, { unknown = true }, 2).unknown
  if unknown == nil then unknown = "refuse" end
  if not UNKNOWN[unknown] then
    option_checks.wrong("http.schema", "unknown", 'expects "refuse", "drop" or "keep"', unknown, 2)
  end
  local checker = make(spec, "", 2, 1, unknown)
  return setmetatable({ checker = checker }, metatable)
end

return M
