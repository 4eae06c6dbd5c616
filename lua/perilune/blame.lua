--- Whose fault: where in the user's files an error came from, as a log entry needs it.
local fault = require "perilune.fault"
local printable = require "perilune.printable"
local selfless = require "perilune.selfless"

local M = {}

local TRACE_LINES, LEVELS_MAX = 12, 60

-- A file of Perilune's own, also where these are read from a folder that is named relative to another.
local function is_ours(name)
  return name:find "%f[^/%z@]lua/perilune/" ~= nil or name:find "/lua/perilune%.lua" ~= nil
end

local function is_users(info)
  return info.what ~= "C" and info.source:sub(1, 1) == "@" and not is_ours(info.source)
end

local function name_of(info)
  if info.name then return info.name end
  if info.what == "main" then return "main chunk" end
  return "function at line " .. info.linedefined
end

--- The function that raised has no line of its own any more: its coroutine is dead. The message
--- mostly has it.
local function line_of(info, file, line)
  if info.currentline > 0 then return info.currentline end
  return info.source:sub(2) == file and line or nil
end

local function trace_line(info, name, line)
  return ("%s%s: in %s"):format(info.source:sub(2), line and ":" .. line or "", name)
end

--- The frames of the user's files on a dead coroutine's stack, innermost first.
local function user_frames(co)
  local frames = {}
  for level = 0, LEVELS_MAX do
    local info = co and debug.getinfo(co, level, "Snl")
    if not info or #frames == TRACE_LINES then break end
    if is_users(info) then
      info.level = level
      frames[#frames + 1] = info
    end
  end
  return frames
end

--- The runtime's own chunks and modules: errors that are raised at level 2, or after a tail call, name those.
local function is_internal(file)
  return file == "(batch)" or file == "(frame)" or is_ours(file)
end

M.is_internal = is_internal

--- Where the user's code is: the innermost line of the user's files. For what runs before the stack is unwound.
---@return string? file
---@return integer? line
function M.user_line()
  for level = 2, LEVELS_MAX do
    local info = debug.getinfo(level, "Sl")
    if not info then return nil end
    if is_users(info) and info.currentline > 0 then return info.source:sub(2), info.currentline end
  end
end

---@class perilune.fault_place
---@field file string?
---@field line integer?
---@field func string
---@field is_definition boolean? the line is not where it happened, but where `func` begins
---@field returns integer[]? and these are the lines where it may have been

--- Where the function begins that was called: all there is to show when the stack has no line of it.
local function definition(options)
  if type(options.called) ~= "function" then return nil end
  local info = debug.getinfo(options.called, "S")
  return is_users(info) and info or nil
end

-- Where it was made that this was to be called, when it is none of the user's functions.
local function made_place(options)
  local file, line = (options.made_at or ""):match "^(.*):(%d+)$"
  return { file = file, line = tonumber(line), func = options.called_name, is_definition = file ~= nil }
end

local function line_at(source, number)
  local at = 1
  for _ = 2, number do
    at = (source:find("\n", at, true) or #source) + 1
  end
  return source:match("^[^\n]*", at)
end

-- What the core says of a value that was returned to it, or while it takes that: any return may be meant.
local OF_RETURNED = {
  "^a reply", "^a list of replies", "^unknown action", "^the action after", "^the codec's ", "^snapshot%(%)",
  "^cannot serialize", "^too deep to serialize", "^it ran for over", "^it allocated", "^the worker's memory",
  "^http: .* has no JSON form$", "^http: a body is ",
}

local function is_of_returned(text)
  for _, pattern in ipairs(OF_RETURNED) do
    if text:find(pattern) then return true end
  end
  return false
end

-- Those of the lines whose text a pattern, or a part of it, is in; all of them, where it is in none.
local function narrow(lines, source, is_meant)
  local found = {}
  for _, line in ipairs(lines) do
    if is_meant(line_at(source, line)) then found[#found + 1] = line end
  end
  return #found > 0 and found or lines
end

local RAISERS = { "error", "assert" }
local LITERAL_MIN = 3 -- bytes of a text that is looked for: shorter ones are everywhere

--- The lines of a function where it may have been: a tail call takes it off the stack, as its end does. What the
--- message says leaves few.
local function return_lines(fn, text, source)
  local returns = require("perilune.returns").of(fn)
  local of_returned = is_of_returned(text)
  local lines = of_returned and returns.values or returns.tail
  if not source then return lines end
  local literal = of_returned and text:match "'(.*)'" or text
  if #literal >= LITERAL_MIN then
    lines = narrow(lines, source, function(line) return line:find(literal, 1, true) end)
  end
  local named = text:match "^bad argument #%d+ to '([%w_]+)'" or text:match "^http%.([%w_]+): "
  return narrow(lines, source, function(line)
    for _, name in ipairs(of_returned and {} or named and { named } or RAISERS) do
      if line:find("%f[%w_]" .. name .. "%s*[({\"'%[]") then return true end
    end
  end)
end

--- To LuaJIT a function that is called as the last thing has the name of its caller, and as a method an argument less:
--- `return string.pack("i1", 200)` in proceed() is "bad argument #1 to 'proceed'".
local function without_callers_name(text, options)
  local name, why = text:match "^bad argument #%d+ to '([^']*)' (%(.*%))$"
  local is_callers = name == options.called_name or name == "?" or (options.called_as and options.called_as[name])
  if not name or not is_callers then return text end
  return "bad argument to what is called at a return " .. why
end

--- Where it happened: what the message says, else the innermost frame, else the function that was called.
---@return perilune.fault_place
local function place_of(frames, options, callback, file, line, text)
  local first = frames[1]
  local func = first and name_of(first) or callback
  if #frames == 1 then func = callback end
  if file then return { file = file, line = line, func = func } end
  if first then
    local at = line_of(first)
    return { file = first.source:sub(2), line = at or first.linedefined, func = func, is_definition = not at }
  end
  local info = definition(options)
  if not info then return options.made_at and made_place(options) or { func = func } end
  local path = info.source:sub(2)
  local lines = return_lines(options.called, text, options.source_of(path, fault.SOURCE_MAX))
  if #lines == 1 then return { file = path, line = lines[1], func = options.called_name } end
  return { file = path, line = info.linedefined, func = options.called_name, is_definition = true, returns = lines }
end

--- The user's frames, a line each.
local function trace(frames, callback, file, line)
  local lines = {}
  for i, info in ipairs(frames) do
    local is_outermost = i == #frames and i < TRACE_LINES
    lines[i] = trace_line(info, is_outermost and callback or name_of(info), line_of(info, file, line))
  end
  return lines
end

--- As the log shows a place.
local function place_text(place)
  if not place.file then return "" end
  local at = place.line and place.file .. ":" .. place.line or place.file
  return place.is_definition and place.func .. ", defined at " .. at or at
end

--- What faults of one cause have in common, for the log to fold them. At a definition there may be all sorts: there
--- it takes the words, without what a peer might choose.
local function kind_of(place, message)
  local text = place_text(place)
  if place.file and not place.is_definition then return text end
  local words = message:gsub("'.*'", "'…'"):gsub('".*"', '"…"'):gsub("%d+", "…"):sub(1, 80)
  return text == "" and "" or text .. ": " .. words
end

--- What `self` is in the innermost function, if that is a method: a value, and whether it is known. In a dead coroutine
--- locals have no names, but the first one is the first argument, which the line of the definition names.
local function self_of(co, frame, source)
  if not (frame and source and frame.level == 0) then return nil, false end
  local line = line_at(source, frame.linedefined)
  if not (line:find "function%s+[%w_.]+:[%w_]+%s*%(" or line:find "function[%s%w_.]*%(%s*self%f[^%w_]") then
    return nil, false
  end
  local name, value = debug.getlocal(co, 0, 1)
  return value, name ~= nil
end

---@class perilune.blame_options
---@field called function? what was called, where the stack may have no line of it
---@field called_name string? what that is called
---@field called_as table<string, true>? the names under which it was called, where these are others
---@field made_at string? "app.lua:12", where it was made that this is called
---@field source_of fun(file: string?, max: integer): string? the text of a file as it was compiled; nil: is read

--- Any error, with its place.
---@param err any the error value
---@param co thread|nil where it was raised
---@param options perilune.blame_options
---@param about table callback, directory (of the script; files are shown below it), is_loading (places are without
---  the generation), origin (where a task was begun, and below that its task), and what fault.render() takes
---@return string message one line
---@return string rendered the excerpt for people
---@return string trace lines of the user's files, separated by "\n"
---@return string place "chat.lua:14", "proceed, defined at chat.lua:9", or ""
---@return string kind what the log folds it by
function M.describe(err, co, options, about)
  local file, line, text = fault.parse(err)
  if file and is_internal(file) then file, line = nil, nil end
  local frames = user_frames(co)
  local message = text or fault.describe(err)
  if not file and not frames[1] and definition(options) then message = without_callers_name(message, options) end
  local place = place_of(frames, options, about.callback, file, line, message)
  -- What fails to load never becomes a generation.
  if about.is_loading and place.file then place.file = place.file:gsub("#g%d+$", "") end
  file = place.file
  local lines = trace(frames, about.callback, file, place.line)
  for origin in (about.origin or ""):gmatch "[^\n]+" do lines[#lines + 1] = origin .. ": begins the task" end
  local is_relative = file and file:sub(1, 1) ~= "/" and about.directory ~= "."
  local source = options.source_of(file, fault.SOURCE_MAX)
  local self, is_known = self_of(co, frames[1], source)
  local info = definition(options)
  local way_out, param
  if info and not options.made_at then
    local text_of_it = options.source_of(info.source:sub(2), fault.SOURCE_MAX)
    way_out, param = selfless.find(about.callback, options.called, text_of_it)
  end
  local rendered = fault.render {
    method = about.callback,
    way_out = way_out,
    param = param,
    message = message,
    file = is_relative and about.directory .. "/" .. file or file,
    line = place.line,
    func = place.func,
    is_definition = place.is_definition,
    returns = place.returns,
    conn = about.conn,
    peer = about.peer,
    listener = about.listener,
    agent_name = about.agent_name,
    generation = about.generation,
    traceback = lines,
    source = source,
    methods = about.methods,
    is_factory = about.is_factory,
    self_type = is_known and type(self) or nil,
    self_is_agent = is_known and about.agent ~= nil and rawequal(self, about.agent),
  }
  local shown = printable.escape(message)
  return shown, rendered, table.concat(lines, "\n"), place_text(place), kind_of(place, shown)
end

return M
