--- `ngx.re`: Perl's regular expressions.
local drivers = require "perilune.drivers_core" -- in C: src/bind/regex.c

local M = {}

local COMPILED_MAX = 500

local compile, names_of, free, match_at = drivers.open_regex()

---@class perilune.compat.regex
---@field code userdata
---@field groups integer the whole match among them
---@field names (string|integer)[] name, number …
---@field is_utf boolean

local compiled, count = {}, 0

local function forget_all()
  local old = compiled
  compiled, count = {}, 0
  for _, regex in pairs(old) do free(regex.code) end
end

-- nil, message: it is none. What it returns is good until it is called again.
local function regex_of(pattern, options, name)
  if type(pattern) ~= "string" then error(("ngx.re.%s expects a regex, got a %s"):format(name, type(pattern)), 3) end
  options = options or ""
  local key = options .. "/" .. pattern
  local regex = compiled[key]
  if regex then return regex end
  local ok, code, groups, at = pcall(compile, pattern, options)
  if not ok then error(("ngx.re.%s: %s"):format(name, tostring(code):gsub("^.-:%d+: ", "")), 3) end
  if not code then return nil, ("pcre2_compile() failed: %s in %q at %d"):format(groups, pattern, at) end
  regex = { code = code, groups = groups, names = names_of(code), is_utf = options:find "[uU]" ~= nil }
  if count >= COMPILED_MAX then forget_all() end
  compiled[key], count = regex, count + 1
  return regex
end

local function text_of(value) return type(value) == "string" and value or tostring(value) end

-- Numbers and names: the text of each group, or false.
local function captures(regex, subject, places, into)
  local found = into or {}
  for i = 0, regex.groups - 1 do
    local first = places[2 * i + 1]
    found[i] = first and subject:sub(first, places[2 * i + 2])
  end
  for i = 1, #regex.names, 2 do found[regex.names[i]] = false end
  for i = 1, #regex.names, 2 do -- several groups may have one name
    local text = found[regex.names[i + 1]]
    if text then found[regex.names[i]] = text end
  end
  return found
end

local function failed(message) return nil, "pcre2_match() failed: " .. message end

-- Where to go on behind a match; one of nothing is passed by a character.
local function after(regex, subject, places)
  local first, last = places[1], places[2]
  if last >= first then return last + 1 end
  local at = first + 1
  while regex.is_utf and (subject:byte(at) or 0) >= 0x80 and subject:byte(at) < 0xc0 do at = at + 1 end
  return at
end

local function search(name, subject, pattern, options, context)
  local regex, message = regex_of(pattern, options, name)
  if not regex then return nil, message end
  subject = text_of(subject)
  local places = {}
  local position = context and context.pos or 1
  local found, why = match_at(regex.code, subject, math.max(1, position), places)
  if found == nil then return failed(why) end
  if not found then return nil end
  if context then context.pos = places[2] + 1 end
  return regex, subject, places
end

function M.match(subject, pattern, options, context, into)
  local regex, text, places = search("match", subject, pattern, options, context)
  if not regex then return nil, text end
  return captures(regex, text, places, into)
end

function M.find(subject, pattern, options, context, nth)
  local regex, message, places = search("find", subject, pattern, options, context)
  if not regex then return nil, message end
  nth = nth or 0
  if nth < 0 or nth >= regex.groups then return nil, nil, "nth out of bound" end
  local first = places[2 * nth + 1]
  if not first then return nil end
  return first, places[2 * nth + 2]
end

function M.gmatch(subject, pattern, options)
  local regex, message = regex_of(pattern, options, "gmatch")
  if not regex then return nil, message end
  subject = text_of(subject)
  local position = 1
  return function()
    local places = {}
    regex = regex_of(pattern, options, "gmatch")
    local found, why = match_at(regex.code, subject, position, places)
    if found == nil then
      position = #subject + 2
      return failed(why)
    end
    if not found then
      position = #subject + 2
      return nil
    end
    position = after(regex, subject, places)
    return captures(regex, subject, places)
  end
end

-- "$1 ${2} $$" as a list of texts and numbers; nil, message.
local function template_of(text)
  local parts, at = {}, 1
  while true do
    local dollar = text:find("$", at, true)
    parts[#parts + 1] = text:sub(at, (dollar or 0) - 1)
    if not dollar then return parts end
    local number, next_at = text:match("^(%d+)()", dollar + 1)
    if not number then number, next_at = text:match("^{(%d+)}()", dollar + 1) end
    if number then
      parts[#parts + 1] = tonumber(number)
    elseif text:sub(dollar + 1, dollar + 1) == "$" then
      parts[#parts + 1], next_at = "$", dollar + 2
    else
      return nil, ("attempt to use a variable that is no number in the replacement %q"):format(text)
    end
    at = next_at
  end
end

local function fill(template, found)
  local out = {}
  for i, part in ipairs(template) do
    out[i] = type(part) == "number" and (found[part] or "") or part
  end
  return table.concat(out)
end

-- What makes a replacement of a match; nil, message.
local function replacer_of(replacement, name)
  if type(replacement) == "function" then
    return function(found)
      local text = replacement(found)
      if type(text) ~= "string" and type(text) ~= "number" then
        error(("ngx.re.%s: the function must return a text, it returned a %s"):format(name, type(text)), 0)
      end
      return text
    end
  end
  local template, message = template_of(text_of(replacement))
  if not template then return nil, message end
  return function(found) return fill(template, found) end
end

local function substitute(name, subject, pattern, replacement, options, most)
  local regex, message = regex_of(pattern, options, name)
  if not regex then return nil, nil, message end
  local replace, why = replacer_of(replacement, name)
  if not replace then return nil, nil, why end
  subject = text_of(subject)
  local out, position, copied, n = {}, 1, 1, 0
  while n < most do
    local places = {}
    regex = regex_of(pattern, options, name) -- `replacement` may have asked for others
    local found, failure = match_at(regex.code, subject, position, places)
    if found == nil then return nil, nil, select(2, failed(failure)) end
    if not found then break end
    n = n + 1
    out[#out + 1] = subject:sub(copied, places[1] - 1)
    out[#out + 1] = replace(captures(regex, subject, places))
    copied = places[2] + 1
    position = after(regex, subject, places)
  end
  out[#out + 1] = subject:sub(copied)
  return table.concat(out), n
end

function M.sub(subject, pattern, replacement, options)
  return substitute("sub", subject, pattern, replacement, options, 1)
end

function M.gsub(subject, pattern, replacement, options)
  return substitute("gsub", subject, pattern, replacement, options, math.huge)
end

return M
