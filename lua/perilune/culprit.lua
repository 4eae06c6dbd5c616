--- Where in a source line the culprit of an error is: from what the message says, and how the line is written.
local M = {}

-- LuaJIT's "attempt to index local 'user' (a nil value)": what was done, the kind of name, the name, the type.
local function named(text)
  local action, kind, name, value = text:match("attempt to ([%a ]-) ?(%a+) '([%a_][%w_]*)' %(an? ([%w ]-) value%)")
  if name then return { action = action, kind = kind, name = name, value = value, note = value .. " here" } end
  name = text:match("global ['\"]([%a_][%w_]*)['\"]")
  if name then return { action = "", kind = "global", name = name, note = "" } end
  name = text:match("^conn has no field or method '([%a_][%w_]*)'")
  if name then return { action = "", kind = "member", name = name, note = "" } end
  name = text:match("^bad argument #%d+ to '([%a_][%w_]*)'")
  return name and { action = "call", kind = "function", name = name, note = "" }
end

--- The action ("index", "call", "concatenate" …), the kind ("local", "field" …), the name and its value's type; nil
--- where the message does not tell.
---@param text string
---@return { action: string, kind: string, name: string, value: string?, note: string }?
function M.named(text) return named(text) end

-- Blanks out what ends a token at `from`: a string or a comment, of which at least one byte.
local function skip_literal(line, from)
  local quote = line:sub(from, from)
  if line:find("^%-%-", from) then return #line end
  if line:find("^%[=*%[", from) then
    local equals = line:match("^%[(=*)%[", from)
    local _, stop = line:find("]" .. equals .. "]", from, true)
    return stop or #line
  end
  local at = from + 1
  while at <= #line and line:sub(at, at) ~= quote do
    at = at + (line:sub(at, at) == "\\" and 2 or 1)
  end
  return math.min(at, #line)
end

--- The line with the insides of strings and comments blanked out, byte for byte.
---@param line string
---@return string
function M.mask(line)
  local out, at = {}, 1
  while at <= #line do
    local start = line:find("[\"'%[%-]", at)
    if not start then break end
    local is_literal = line:find("^[\"']", start) or line:find("^%[=*%[", start) or line:find("^%-%-", start)
    local stop = is_literal and skip_literal(line, start) or start
    out[#out + 1] = line:sub(at, start)
    out[#out + 1] = ("\0"):rep(stop - start)
    at = stop + 1
  end
  return table.concat(out) .. line:sub(at)
end

-- What stands right after the culprit of each action, and right before each kind of name.
local AFTER = {
  index = "^%s*[.:%[]", call = "^%s*[({\"'%[]", concatenate = "^%s*%.%.",
  ["perform arithmetic on"] = "^%s*[-+*/%%^]",
}
local BEFORE = { concatenate = "%.%.%s*$", ["perform arithmetic on"] = "[-+*/%%^]%s*$", ["get length of"] = "#%s*$" }
local NEAR = 16
local IS_MEMBER = { field = ".", method = ":" }

-- What the name is looked up in: "self.conn.", "t[1].". Two places of one name with the same before it are one value.
local function receiver(line, from)
  return line:sub(1, from - 1):match("[%w_.:%[%]\"']*$")
end

local function score(line, from, to, culprit)
  local before, after = line:sub(math.max(1, from - NEAR), from - 1), line:sub(to + 1, to + NEAR)
  local dot = before:match("([.:])%s*$")
  if dot == "." and before:find("%.%.%s*$") then dot = nil end
  local points = 0
  local wanted = IS_MEMBER[culprit.kind]
  if culprit.kind == "member" and dot or wanted and dot == wanted then points = 2 end
  if not wanted and culprit.kind ~= "member" and not dot then points = 2 end
  local fits_after, fits_before = AFTER[culprit.action], BEFORE[culprit.action]
  local ahead = line:sub(1, from - 1 - #receiver(line, from))
  if fits_after and after:find(fits_after) or fits_before and ahead:find(fits_before) then points = points + 1 end
  return points
end

-- The best whole-word occurrences of the name, each in its own receiver.
local function find_words(line, culprit)
  local pattern = "%f[%w_]" .. culprit.name .. "%f[^%w_]"
  local best, found, seen = -1, {}, {}
  local from, to = line:find(pattern)
  while from do
    local points, of = score(line, from, to, culprit), receiver(line, from)
    if points > best then best, found, seen = points, {}, {} end
    if points == best and not seen[of] then
      seen[of] = true
      found[#found + 1] = { from, to }
    end
    from, to = line:find(pattern, to + 1)
  end
  return found
end

-- A field may be written t["name"], so strings are searched as well.
local function find_named(line, masked, culprit)
  local found = find_words(masked, culprit)
  if #found == 0 and culprit.kind == "field" then found = find_words(line, culprit) end
  return found, culprit.note
end

-- The only occurrence of a pattern whose ends are captured as positions; nil where there are several.
local function find_only(masked, pattern)
  local from, to = masked:match(pattern)
  if not from or masked:find(pattern, to) then return nil end
  return from, to - 1
end

-- What has no name in its message, but may be the only one of its kind in the line: a pattern of the message, and one
-- of the line.
local UNNAMED = {
  { "^attempt to compare (.+)$", "()[<>]=?()", function(what) return what end },
  { "^attempt to index field '%?' %(an? ([%w ]-) value%)", "()%b[]()%s*[.:%[]", function(value)
    return value .. " here"
  end },
  { "^a conn is expected before ':'", "conn()%.()%a+%s*%(", function() return "write ':'" end },
  { "^attempt to yield across C%-call boundary", "()perilune%.sleep()%f[^%w_]", function() return "" end },
  { "^attempt to yield across C%-call boundary", "()conn:%a+()", function() return "" end },
}

local function find_unnamed(masked, text)
  for _, known in ipairs(UNNAMED) do
    local capture = text:match(known[1])
    if capture then
      local from, to = find_only(masked, known[2])
      if from then return from, to, known[3](capture) end
    end
  end
end

-- The compiler's "'=' expected near 'x'": a token, where the line has it once.
local function find_token(line, text)
  local token = text:match(" near '(.+)'$")
  if not token then return nil end
  local from, to = line:find(token, 1, true)
  if from and not line:find(token, to + 1, true) then return from, to, "" end
end

local IN_ONE = "in one of these"

--- The first and last bytes of the culprit, and what to say of it. There are several where nothing tells them apart,
--- and none where it is not to be found, or may be another.
---@param line string
---@param text string the message
---@return { [1]: integer, [2]: integer }[]? spans
---@return string? note
function M.spans(line, text)
  local masked, culprit = M.mask(line), named(text)
  if culprit then
    local found, note = find_named(line, masked, culprit)
    if #found < 2 then return found[1] and found, note end
    return found, (note == "" and "it is " or note .. ", ") .. IN_ONE
  end
  local from, to, note = find_unnamed(masked, text)
  if not from then from, to, note = find_token(line, text) end
  if from then return { { from, to } }, note end
end

--- The first and last byte of the culprit; nil where that is not to be found, or may be another.
---@param line string
---@param text string the message
---@return integer? from
---@return integer? to
function M.locate(line, text)
  local spans = M.spans(line, text)
  if spans and #spans == 1 then return spans[1][1], spans[1][2] end
end

return M
