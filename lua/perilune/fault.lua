--- Shows an error of a script: where it happened, the source line, the culprit underlined.
--- Everything that comes from the script or the network is escaped and bounded.
local culprit = require "perilune.culprit"
local hints = require "perilune.hints"
local printable = require "perilune.printable"

-- The file that an error's text names may be anything: a FIFO would be waited for. There is no C in a plain LuaJIT, as
-- in unit specs.
local has_core, core = pcall(require, "perilune.files_core")
local open = has_core and core.opener(io.open, function() return false end) or io.open

local M = {}

M.RENDER_MAX = 4096     -- bytes of a whole report
M.TEXT_MAX = 1024       -- bytes of a message
M.SOURCE_MAX = 1024 * 1024 -- bytes of a file that are looked at
local FIELD_MAX = 200   -- bytes of a file name, a function, a peer, a line of a traceback
local WIDTH_MAX = 96    -- columns of a source line
local TAB = 4
local TRACEBACK_MAX = 16

---@class perilune.fault
---@field message any what was raised, with or without "file:line:" in front
---@field file string? chunk name; taken from the message when absent
---@field line integer?
---@field func string? "Chat:proceed"
---@field is_definition boolean? the place is where `func` begins: where it happened is not known
---@field returns integer[]? ... but is in one of these lines
---@field conn integer|string|nil id of the connection
---@field peer string?
---@field listener string?
---@field agent_name string? of one without a socket
---@field generation integer?
---@field traceback string[]?
---@field source string? text of the file; else it is read
---@field methods string[]? of the agent, for "did you mean"
---@field is_factory boolean? the agent was made by a factory
---@field self_type string? of `self` where it happened
---@field self_is_agent boolean? is that the connection's agent?
---@field method string? what was called, where it was written without self; way_out, param: see hint_context
---@field way_out string?
---@field param string?

local escape = printable.escape

local function cut(text, max)
  if #text <= max then return text end
  return text:sub(1, max - #"…") .. "…"
end

local FIELDS_MAX, FIELDS_SEEN, VALUE_MAX = 8, 64, 40

local function value_text(value)
  if type(value) == "string" then return '"' .. cut(value, VALUE_MAX) .. '"' end
  if type(value) == "table" then return next(value) == nil and "{}" or "{…}" end
  return (type(value) == "number" or type(value) == "boolean") and tostring(value) or type(value)
end

local function key_text(key)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" then return cut(key, VALUE_MAX) end
  return "[" .. value_text(key) .. "]"
end

-- { code = 5, reason = "busy" }: some of the fields, without running code of the user's; nil: there are none.
local function fields_text(value)
  local fields, seen = {}, 0
  for key, field in next, value do
    seen = seen + 1
    if seen > FIELDS_SEEN then break end
    if key ~= "message" or type(field) ~= "string" then
      fields[#fields + 1] = key_text(key) .. " = " .. value_text(field)
    end
  end
  if #fields == 0 then return nil end
  table.sort(fields)
  if #fields > FIELDS_MAX then
    for i = #fields, FIELDS_MAX + 2, -1 do fields[i] = nil end
    fields[FIELDS_MAX + 1] = "…"
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

-- What a table says about itself. Its __tostring is the script's code: it may raise or return anything.
local function table_text(value)
  local message = type(value) == "table" and rawget(value, "message")
  local meta = debug.getmetatable(value)
  if meta and rawget(meta, "__tostring") ~= nil then
    local ok, text = pcall(tostring, value)
    if ok and type(text) == "string" then return text end
    return "(a " .. type(value) .. " whose __tostring failed)"
  end
  local fields = type(value) == "table" and fields_text(value)
  if type(message) == "string" then return fields and message .. " " .. fields or message end
  return fields or "(error object is a " .. type(value) .. ")"
end

local PLAIN = { ["nil"] = true, boolean = true, number = true }

local function text_of(value)
  if type(value) == "string" then return value end
  if PLAIN[type(value)] then return tostring(value) end
  return table_text(value)
end

--- Any raised value as one printable line of at most 1 KiB. Never raises.
---@param value any
---@return string
function M.describe(value)
  return escape(text_of(value), M.TEXT_MAX)
end

-- "127.0.0.1", of 127.0.0.1:80, is no file, and its port no line; nor are those behind other words.
local function is_address(file)
  local last = file:match "([^%s]+)$" or file
  return last:find "^%d+%.%d+%.%d+%.%d+$" or last:find "^%[[%x:.]+%]$"
end

--- Splits "chat.lua:14: text". Text that has no such prefix comes back whole, without file and line.
---@param message any strings and error objects of any type
---@return string? file
---@return integer? line
---@return string text as it was raised, at most 1 KiB; not escaped
function M.parse(message)
  local whole = text_of(message)
  if type(message) == "string" then
    local file, line, rest = whole:sub(1, 2 * M.TEXT_MAX):match("^([^\n]-[^\n]):(%d+): ?(.*)$")
    if file and #line < 10 and not is_address(file) then return file, tonumber(line), cut(rest, M.TEXT_MAX) end
  end
  return nil, nil, cut(whole, M.TEXT_MAX)
end

local function read_source(f)
  if f.source then return f.source end
  local name = f.file and f.file:gsub("^@", ""):gsub("#g%d+$", "")
  if not name or name:find("^%[string") or name:find("^=") then return nil end
  local file = open(name, "rb")
  if not file then return nil end
  local source = file:read(M.SOURCE_MAX)
  file:close()
  return source
end

-- Lines `n` - 1 and `n`, without their ends; nil for one that does not exist.
local function lines_at(source, n)
  if #source > M.SOURCE_MAX then source = source:sub(1, M.SOURCE_MAX) end
  local at, previous = 1, nil
  for number = 1, n do
    if at > #source then return nil end
    local stop = source:find("\n", at, true) or #source + 1
    if number == n - 1 then previous = source:sub(at, stop - 1):gsub("\r$", "") end
    if number == n then return (source:sub(at, stop - 1):gsub("\r$", "")), previous end
    at = stop + 1
  end
end

-- Columns a text takes: continuation bytes of UTF-8 take none.
local function width(text)
  return #text - select(2, text:gsub("[\128-\191]", ""))
end

-- What to print for the character at byte i, in which columns: tabs become spaces.
local function cell_at(line, i, column)
  if line:byte(i) == 9 then return (" "):rep(TAB - column % TAB), 1 end
  return printable.char_at(line, i)
end

-- Renders bytes first..last. Returns the text, and the columns (from 0) where the bytes from..to begin and end.
local function layout(line, first, last, from, to)
  local out, column, begins, ends, i = {}, 0, nil, nil, first
  while i <= last do
    if i == from then begins = column end
    local text, n = cell_at(line, i, column)
    out[#out + 1] = text
    column = column + width(text)
    i = i + n
    if i == (to or 0) + 1 then ends = column end
  end
  return table.concat(out), begins, ends
end

-- Moves i back to where a UTF-8 sequence starts.
local function char_start(line, i)
  for _ = 1, 3 do
    local b = line:byte(i)
    if not b or b < 128 or b > 191 then return i end
    i = i - 1
  end
  return i
end

-- The part of a long line to show: all around byte `at`.
local function window(line, at)
  if #line <= WIDTH_MAX then return 1, #line end
  local first = math.max(1, (at or 1) - math.floor(WIDTH_MAX / 2))
  local last = math.min(#line, first + WIDTH_MAX - 1)
  if first > 1 then first = char_start(line, first) end
  if last < #line then last = char_start(line, last + 1) - 1 end
  return first, last
end

-- A source line as printed, and the columns of bytes from..to in it.
local function show_line(line, from, to)
  local first, last = window(line, from)
  local stop = to and math.min(to, last)
  local text, begins, ends = layout(line, first, last, from, stop)
  if last < #line then text = text .. "…" end
  if first == 1 then return text, begins, ends end
  return "…" .. text, begins and begins + 1, ends and ends + 1
end

-- The last line that has something in it.
local function last_line(source)
  local text = source:sub(1, M.SOURCE_MAX):gsub("%s+$", "")
  return text:match("[^\n]*$"):gsub("\r$", ""), select(2, text:gsub("\n", "")) + 1
end

local RETURNS_MAX = 4

---@class perilune.shown_line
---@field number integer
---@field text string
---@field spans { [1]: integer, [2]: integer }[]? bytes that are underlined
---@field note string? what is said of them

-- Columns of the spans, with carets below. In a line that is shown in part there is only one.
local function add_marks(add, line, shown)
  local marks, columns = "", 0
  for _, span in ipairs(line.spans) do
    local _, begins, ends = show_line(line.text, span[1], span[2])
    if begins and ends and ends > begins and begins >= columns then
      marks, columns = marks .. (" "):rep(begins - columns) .. ("^"):rep(ends - begins), ends
    end
  end
  if marks ~= "" and shown then add("", (marks .. " " .. (line.note or "")):gsub("%s+$", "")) end
end

local function draw(lines, drawn)
  local gutter = #tostring(drawn[#drawn].number)
  local function add(number, shown) lines[#lines + 1] = ("%" .. gutter .. "s | %s"):format(number, shown) end
  for _, line in ipairs(drawn) do
    local first = line.spans and line.spans[1]
    add(line.number, (show_line(line.text, first and first[1], first and first[2]):gsub("%s+$", "")))
    if first then add_marks(add, line, true) end
  end
end

-- The line of the fault with its culprit underlined, after the one before it, or that where what is not closed begins.
local function lines_of_place(f, text, source)
  local number, line, previous = f.line, lines_at(source, f.line)
  local opened = tonumber(text:match " at line (%d+)%)")
  local is_at_end = text:find("near '<eof>'", 1, true)
  if is_at_end then line, number = last_line(source) end
  if not line or line == "" and is_at_end then return nil end
  local shown = { number = number, text = line }
  if is_at_end then
    shown.text, shown.spans, shown.note = line .. " ", { { #line + 1, #line + 1 } }, "the file ends here"
    previous = lines_at(source, number - 1)
  elseif not f.is_definition then
    shown.spans, shown.note = culprit.spans(line, text)
  end
  local before = number - 1
  if opened and opened < number then before, previous = opened, (lines_at(source, opened)) end
  if previous and previous:find "%S" then return { { number = before, text = previous }, shown }, line end
  return { shown }, line
end

-- At a definition it is one of its returns: these, where they are few.
local function add_returns(drawn, f, source)
  if not f.returns or #f.returns > RETURNS_MAX then return end
  for _, number in ipairs(f.returns) do
    local text = number > f.line and lines_at(source, number)
    if text then drawn[#drawn + 1] = { number = number, text = text } end
  end
end

local function excerpt(lines, f, text)
  local source = f.line and f.line > 0 and f.line < 1e8 and read_source(f)
  if not source then return end
  local drawn, line = lines_of_place(f, text, source)
  if not drawn then return end
  if f.is_definition then add_returns(drawn, f, source) end
  draw(lines, drawn)
  return line, source
end

local function field(value) return escape(tostring(value), FIELD_MAX) end

-- "chat.lua:14 in Chat:proceed    conn 42  10.0.0.7:5060 → :7000  generation 3", as far as it is known.
local function place_line(f)
  local where = {}
  local at = f.file and field(f.file) .. (f.line and ":" .. f.line or "")
  if f.is_definition then
    where[1] = ("in %s, defined at %s"):format(field(f.func or "?"), at or "?")
  else
    where[1] = at
    if f.func then where[#where + 1] = "in " .. field(f.func) end
  end
  local who = {}
  if f.conn then who[1] = "conn " .. field(f.conn) end
  if f.agent_name then who[1] = "agent " .. field(f.agent_name) end
  local ends = {}
  if f.peer then ends[1] = field(f.peer) end
  if f.listener then ends[#ends + 1] = "→ " .. field(f.listener) end
  if #ends > 0 then who[#who + 1] = table.concat(ends, " ") end
  if f.generation then who[#who + 1] = "generation " .. field(f.generation) end
  local parts = {}
  if #where > 0 then parts[1] = table.concat(where, " ") end
  if #who > 0 then parts[#parts + 1] = table.concat(who, "  ") end
  return #parts > 0 and "  --> " .. table.concat(parts, "    ") or nil
end

-- A traceback has the names of files as they are in the app's folder.
local function is_place(entry, place)
  local file, line = tostring(entry):match "^(.-):(%d+):"
  if not file or not place.file or tonumber(line) ~= place.line then return false end
  return place.file == file or place.file:sub(-#file - 1) == "/" .. file
end

-- The place of the fault is told already: its callers are what is left to say.
local function without_place(traceback, place)
  if not traceback or not is_place(traceback[1], place) then return traceback or {} end
  local rest = {}
  for i = 2, #traceback do rest[i - 1] = traceback[i] end
  return rest
end

local function add_traceback(lines, traceback)
  for i, entry in ipairs(traceback) do
    if i > TRACEBACK_MAX then
      lines[#lines + 1] = ("    … %d more"):format(#traceback - TRACEBACK_MAX)
      return
    end
    lines[#lines + 1] = "    " .. field(entry)
  end
end

-- Whole lines only, so that no escape or character is torn.
local function bounded(lines)
  local size = 0
  for i, line in ipairs(lines) do
    size = size + #line + 1
    if size > M.RENDER_MAX - #"…\n" then
      for k = #lines, i + 1, -1 do lines[k] = nil end
      lines[i] = "…"
      break
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

-- The fault with its place split off the message when that says nothing new.
local function located(f)
  local file, line, text = M.parse(f.message)
  if not file then return f, text end
  if f.file == nil then
    return setmetatable({ file = file, line = line }, { __index = f }), text
  end
  if f.file == file and (f.line == nil or f.line == line) then
    return setmetatable({ line = line }, { __index = f }), text
  end
  return f, cut(text_of(f.message), M.TEXT_MAX)
end

-- It is not the new script's, so mending that does not help.
local KEEPS_NOTHING = "this is the snapshot of the script that serves: a new one whose setup takes no data begins "
  .. "anew, without it"

-- The way out of a script's own snapshot(app); those of agents have a connection, or a name.
local function of_kept(f)
  local is_of_script = f.method == "snapshot" and not f.conn and not f.agent_name
  return is_of_script and KEEPS_NOTHING or nil
end

--- The report of a fault: several lines, at most 4 KiB, ends in a newline. Without the source, or when
--- the message names no culprit, there is no excerpt or no underline. A mistake that is known has a hint.
---@param f perilune.fault
---@return string
function M.render(f)
  local place, text = located(f)
  local lines = { "error: " .. escape(text, M.TEXT_MAX) }
  lines[2] = place_line(place)
  local line, source = excerpt(lines, place, text)
  local hint = hints.find(text, {
    line = line, number = place.line, source = source, methods = f.methods, is_factory = f.is_factory,
    self_type = f.self_type, self_is_agent = f.self_is_agent, has_no_conn = f.agent_name ~= nil,
    method = f.method, way_out = f.way_out, param = f.param,
  }) or of_kept(f)
  if hint then lines[#lines + 1] = "hint: " .. escape(hint, M.TEXT_MAX) end
  add_traceback(lines, without_place(place.traceback, place))
  return bounded(lines)
end

return M
