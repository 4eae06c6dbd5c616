--- Files that a specification names, wherever `perilune test` was started. Internal.
local paths = require "perilune.paths" -- in C: src/bind/paths.c

local M = {}

local LEVELS_MAX = 50

local running -- the source of the specification whose code runs

--- Before code of a specification's is called.
---@param source string? as debug.getinfo() has it
function M.enter(source) running = source end

-- Of ours, or of what calls specifications.
local function is_foreign(file) return file:find("/lua/perilune/", 1, true) or file:find "/busted/[^/]*$" end

local function folder_of(source)
  local file = source and source:match "^@(.*)$"
  return file and not is_foreign(file) and paths.real(file:match "^(.*)/" or ".") or nil
end

-- The folder of the code that called, by its whole path; nil: it is in no file. A tail call has left no trace of it.
local function callers_folder()
  for level = 3, LEVELS_MAX do
    local info = debug.getinfo(level, "S")
    if not info then break end
    local folder = folder_of(info.source)
    if folder then return folder end
  end
  return folder_of(running)
end

local function is_there(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

--- A relative path leads from the folder of the specification, or of what it calls this through, or from the nearest
--- one above it; from the current folder where there is no such file. A file that this finds in the current folder too
--- keeps the name that it was given.
---@param file any what is no text stays as it is
---@return any
function M.find(file)
  if type(file) ~= "string" or file:sub(1, 1) == "/" then return file end
  local folder = callers_folder()
  while folder do
    local path = folder .. "/" .. file
    if is_there(path) then return paths.real(path) == paths.real(file) and file or path end
    folder = folder:match "^(.*)/[^/]*$"
  end
  return file
end

return M
