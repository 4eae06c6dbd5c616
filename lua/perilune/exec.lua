--- The Lua half of `perilune exec`: prepares the globals, compiles, and explains what went wrong.
local blame = require "perilune.blame"
local compile_text = require "perilune.compile"
local core = require "perilune.core" -- in C: src/exec/exec.c
local fault = require "perilune.fault"
local named = require "perilune.named"
local packing = require "perilune.packing" -- in C: src/bind/pack.c

local M = {}

local CODE_NAME = "-e"

local function read(file)
  if file == "-" then return io.read "*a" end
  local handle, message = named.open(file, "rb")
  local text, why
  if handle then
    text, why = handle:read "*a"
    handle:close()
  end
  if text then return text end
  local reason = (message or why or "cannot be read"):gsub("^.-: ", "")
  error(("perilune exec: cannot read %s: %s"):format(file, reason), 0)
end

-- For folders whose names package.path would take to pieces.
local function add_searcher(folder)
  table.insert(package.loaders, 2, function(name)
    for _, form in ipairs { "%s/%s.lua", "%s/%s/init.lua" } do
      local path = form:format(folder, (name:gsub("%.", "/")))
      local file = io.open(path)
      if file then
        file:close()
        return assert(loadfile(path))
      end
    end
  end)
end

--- What belongs to a tool lies beside it.
local function add_path(file)
  local folder = file:match "^(.*)/[^/]*$" or "."
  if folder:find "[;?]" then return add_searcher(folder) end
  package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(folder, folder, package.path)
end

local function set_arguments(name, arguments)
  _G.arg = { [0] = name }
  for i, argument in ipairs(arguments) do _G.arg[i] = argument end
end

local function describer(name, text)
  local options = { source_of = function(file) return file == name and text or nil end }
  ---@param err any
  ---@param co thread?
  ---@return string for people
  return function(err, co)
    local _, rendered = blame.describe(err, co, options, { callback = "main chunk", directory = "." })
    return rendered
  end
end

local function compile(name, text)
  if text:byte(1) == 27 then error(("perilune exec: %s is bytecode; only text is run"):format(name), 0) end
  local chunk, message = compile_text(text:gsub("^#[^\n]*", "", 1), "@" .. name, _G)
  if chunk then return chunk end
  local file, line, what = fault.parse(message)
  error(fault.render { message = file and what or message, file = file, line = line, source = text }, 0)
end

-- What a script loads is made as it is itself.
local function despecialize_loads()
  local despecialize = require("perilune.compile_core").despecialize
  for _, name in ipairs { "load", "loadstring", "loadfile" } do
    local load = _G[name]
    _G[name] = function(...)
      local chunk, message = load(...)
      if chunk then return despecialize(chunk) end
      return nil, message
    end
  end
  function dofile(path) -- luacheck: ignore 121
    return assert(loadfile(path))()
  end
end

--- Raises a text when it cannot be run.
---@param options { file: string?, code: string?, arguments: string[] }
---@return fun(err: any, co: thread?): string describe
---@return function main
---@return string ... its arguments
function M.prepare(options)
  local text = options.code or read(options.file)
  local name = options.code and CODE_NAME or options.file == "-" and "stdin" or options.file
  local main = compile(name, text)
  add_path(options.file or name)
  set_arguments(options.code and CODE_NAME or options.file, options.arguments)
  os.exit = core.exit -- luacheck: ignore 122
  despecialize_loads()
  for _, key in ipairs { "pack", "unpack", "packsize" } do
    string[key] = packing[key] -- luacheck: ignore 122
  end
  return describer(name, text), main, unpack(options.arguments)
end

return M
