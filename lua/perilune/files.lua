--- Files for scripts (src/bind/files.c). io.open and io.lines open nothing but files: a FIFO would be waited for by the
--- whole worker. Lines, numbers and whole files are read by readers that can be ended, for io.read, io.lines and the
--- methods of files; so many bytes stay LuaJIT's.
local core = require "perilune.files_core"

local M = {}

-- LuaJIT's own, before they are replaced.
local close, input, open = io.close, io.input, io.open

local READERS = {
  l = function(file) return core.line(file, false) end,
  L = function(file) return core.line(file, true) end,
  a = core.all,
  n = core.number,
}

--- What reads such a format; nil: LuaJIT does.
local function reader_of(format)
  local letter = type(format) == "string" and format:match "^%*?([lLan])"
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
    local known = type(formats[i]) == "number" or reader_of(formats[i])
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

local function results(file, ok, value, ...)
  if not ok then error(value, 2) end
  if value == nil then close(file) end
  return value, ...
end

--- LuaJIT's own, which does not close the file at its end.
local function closing(file, each)
  return function() return results(file, pcall(each)) end
end

--- Replaces read and lines in the methods of files.
---@param methods table
---@return { read: function, library: fun(may_open: fun(name: string): boolean): table } those for `io`: the one `read`,
---  and by `library` what opens files, for each load of a script
function M.install(methods)
  local lines = methods.lines
  local read = reader(methods.read)
  methods.read = read
  function methods.lines(file, ...)
    if io.type(file) ~= "file" or not has_own(select("#", ...), ...) then return lines(file, ...) end
    return iterator(read, file, false, ...)
  end
  local function library(may_open)
    local open_file = core.opener(open, may_open)
    local function lines_of(name, ...)
      if name == nil then return iterator(read, input(), false, ...) end
      if type(name) ~= "string" and type(name) ~= "number" then
        error("bad argument #1 to 'lines' (string expected, got " .. type(name) .. ")", 2)
      end
      local file, message = open_file(name)
      if not file then error(("bad argument #1 to 'lines' (%s)"):format(message), 2) end
      if has_own(select("#", ...), ...) then return iterator(read, file, true, ...) end
      return closing(file, lines(file, ...))
    end
    return { open = open_file, lines = lines_of }
  end
  return { read = function(...) return read(input(), ...) end, library = library }
end

return M
