--- Reading lines and whole files with readers that can be ended (src/bind/files.c): io.read, io.lines and the methods
--- of files. Numbers, and so many bytes, stay LuaJIT's.
local core = require "perilune.files_core"

local M = {}

-- LuaJIT's own, before they are replaced.
local close, input, open = io.close, io.input, io.open

local READERS = {
  l = function(file) return core.line(file, false) end,
  L = function(file) return core.line(file, true) end,
  a = core.all,
}

--- What reads such a format; nil: LuaJIT does.
local function reader_of(format)
  local letter = type(format) == "string" and format:match "^%*?([lLa])"
  return letter and READERS[letter]
end

local function has_own(n, ...)
  for i = 1, n do
    if reader_of((select(i, ...))) then return true end
  end
  return n == 0
end

local function check_formats(formats, n)
  for i = 1, n do
    local format = formats[i]
    local known = type(format) == "number" or type(format) == "string" and format:find "^%*?[lLna]"
    if not known then error(("bad argument #%d to 'read' (invalid format)"):format(i), 4) end
  end
end

-- Several formats, some of them ours.
local function read_each(original, file, n, ...)
  local formats, results = { ... }, {}
  check_formats(formats, n)
  for i = 1, n do
    local value, message, code
    local own = reader_of(formats[i])
    if own then
      value, message, code = own(file)
    else
      value, message, code = original(file, formats[i])
    end
    if message then return nil, message, code end
    results[i] = value
    if value == nil then return unpack(results, 1, i) end
  end
  return unpack(results, 1, n)
end

local function reader(original)
  return function(file, ...)
    local n = select("#", ...)
    if n == 0 then return READERS.l(file) end
    if not has_own(n, ...) then return original(file, ...) end
    if n == 1 then return reader_of((...))(file) end
    return read_each(original, file, n, ...)
  end
end

local function checked(file, closes, ...)
  local value, message = ...
  if value ~= nil then return ... end
  if closes then close(file) end
  if message then error(message, 2) end
  return ...
end

local function iterator(read, file, closes, ...)
  local n, formats = select("#", ...), { ... }
  return function() return checked(file, closes, read(file, unpack(formats, 1, n))) end
end

--- Replaces read and lines in the methods of files. Returns the same for `io`.
---@param methods table
---@return { read: function, lines: function }
function M.install(methods)
  local lines, lines_of = methods.lines, io.lines
  local read = reader(methods.read)
  methods.read = read
  function methods.lines(file, ...)
    if io.type(file) ~= "file" or not has_own(select("#", ...), ...) then return lines(file, ...) end
    return iterator(read, file, false, ...)
  end
  return {
    read = function(...) return read(input(), ...) end,
    lines = function(name, ...)
      if not has_own(select("#", ...), ...) then return lines_of(name, ...) end
      if name == nil then return iterator(read, input(), false, ...) end
      local file = (type(name) == "string" or type(name) == "number") and open(name)
      if not file then return lines_of(name, ...) end -- which says why
      return iterator(read, file, true, ...)
    end,
  }
end

return M
