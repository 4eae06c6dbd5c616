--- Loads a user's script: reads it, runs its top level in fresh globals, and
--- turns what it returns into a configuration. Binds nothing, starts nothing.
local config = require "perilune.config"
local fault = require "perilune.fault"
local json = require "perilune.json"
local paths = require "perilune.paths" -- in C: src/bind/paths.c
local sandbox = require "perilune.sandbox"

local M = {}

local SOURCE_MAX = 16 * 1024 * 1024
local READ_BYTES = 16 * 1024

---@class perilune.app
---@field conf perilune.conf
---@field file string as given
---@field env table the script's globals

-- `name` stands for it in messages.
local function read_file(path, name)
  local file, err = io.open(path, "rb")
  if not file then return nil, name .. err:sub(#path + 1) end
  -- In pieces: file:read(n) reserves n bytes at once, and a VM keeps such a buffer for long.
  local pieces, size = {}, 0
  repeat
    local piece
    piece, err = file:read(READ_BYTES)
    size = size + #(piece or "")
    pieces[#pieces + 1] = piece
  until not piece or size > SOURCE_MAX
  file:close()
  if err then return nil, name .. ": " .. err end
  if size > SOURCE_MAX then return nil, name .. ": is larger than 16 MiB" end
  return table.concat(pieces)
end

local function directory_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

---@class perilune.folder where an app's files are
---@field name string as the user names it
---@field root string the same without links: resolved once, so that a link turned to another release under a
---  running server does not mix the two

--- The folder of a script. The script itself may be a link; what belongs to it is beside that link.
local function folder_of(path)
  local name = directory_of(path)
  return { name = name, root = paths.real(name == "" and "/" or name) or name }
end

local function is_in(root, path)
  return path == root or path:sub(1, #root + 1) == root .. "/" or root == "/"
end

--- The first part of a path below the folder that leads out of it, as the user names it, and where to.
local function find_way_out(folder, inside)
  for at in (inside .. "/"):gmatch("()/") do
    local part = inside:sub(1, at - 1)
    local real = paths.real(folder.root .. "/" .. part)
    if real and not is_in(folder.root, real) then return folder.name .. "/" .. part, real end
  end
  return folder.name .. "/" .. inside, "another place" -- it was turned just now
end

--- The file of an app's module: `a.b` is a/b.lua or a/b/init.lua beside the script. What was looked at is what is
--- read: a path without links, unless one is put there in between.
---@return string|nil path
---@return string|string[] inside the same below the folder; or what was tried
local function find_module(folder, name)
  local relative = name:gsub("%.", "/")
  local tried = {}
  for _, form in ipairs { "%s.lua", "%s/init.lua" } do
    local inside = form:format(relative)
    local path = paths.real(folder.root .. "/" .. inside)
    if path and not is_in(folder.root, path) then
      local link, target = find_way_out(folder, inside)
      error(("require: '%s' is not in the app's folder: %s is a symbolic link to %s. Links may lead anywhere in the "
        .. "folder and nowhere else: copy it into %s"):format(name, link, target, folder.root), 3)
    end
    local file = path and io.open(path, "rb")
    if file then
      file:close()
      return path, inside
    end
    tried[#tried + 1] = folder.name .. "/" .. inside
  end
  return nil, tried
end

--- `inside` is the path below the app's folder, which errors and tracebacks have; `name` the user's.
local function compile(path, inside, name, env)
  local source, err = read_file(path, name)
  if not source then return nil, err end
  if source:byte(1) == 27 then return nil, name .. ": is bytecode; only text is loaded" end
  return load(source:gsub("^#[^\n]*", "", 1), "@" .. inside, "t", env)
end

local function check_name(name)
  if type(name) ~= "string" or name == "" or name:find("[^%w_%.%-]") or name:find("..", 1, true)
    or name:sub(1, 1) == "." then
    error("require: '" .. tostring(name) .. "' is not a module name (letters, digits, _ - and single dots)", 3)
  end
end

-- Perilune's modules that are for users. All others are not for scripts, whatever `modules` says.
local PUBLIC = { perilune = true }

--- A module of the system. While the script loads, those it takes are noted, for check_modules();
--- afterwards they must be named in `modules`.
local function require_system(name, tried, state)
  if name:find("^perilune%.") then error("require: '" .. name .. "' is internal to Perilune", 3) end
  local door = sandbox.door_of(name)
  if door then
    if state.may_open(door) then return require(name) end
    error(("require: '%s' leads out of the VM: to open it, add unsafe = { %q }"):format(name, door), 3)
  end
  if state.allowed and not state.allowed[name] then
    error(("require: '%s' is no file of the app: if the system's is meant, add modules = { %q }"):format(name, name), 3)
  end
  local ok, value = pcall(require, name)
  if not ok then
    error("require: no module '" .. name .. "' beside the script (" .. table.concat(tried, ", ")
      .. ") nor on the system", 3)
  end
  state.system[name] = true
  return value
end

-- What was loading it has failed, or was ended.
local function is_stale(entry)
  return type(entry.loading) == "thread" and coroutine.status(entry.loading) == "dead"
end

--- `require` for one app: its own folder, Perilune's modules, and the system's by permission.
local function new_require(folder, env, state)
  local loaded = {}
  return function(name)
    check_name(name)
    if PUBLIC[name] then
      loaded[name] = loaded[name] or { value = sandbox.read_only(name, require(name)) }
      return loaded[name].value
    end
    if sandbox.is_library(name) then return rawget(env, name) end
    local entry = loaded[name]
    if entry and not is_stale(entry) then
      if entry.loading then error("require: '" .. name .. "' requires itself, by way of others", 2) end
      return entry.value
    end
    local path, inside = find_module(folder, name)
    if not path then
      local value = require_system(name, inside, state)
      loaded[name] = { value = value }
      return value
    end
    local chunk, err = compile(path, inside, folder.name .. "/" .. inside, env)
    if not chunk then error(err, 0) end
    loaded[name] = { loading = coroutine.running() or true }
    local ok, value = pcall(chunk, name)
    if not ok then
      loaded[name] = nil
      error(value, 0)
    end
    if value == nil then value = true end
    loaded[name] = { value = value }
    return value
  end
end

--- System modules must be named in `modules`, so that a typing error in a require never
--- finds something else, and a reader sees what the app rests on.
local function check_modules(conf, state)
  local allowed = {}
  for _, name in ipairs(conf.modules or {}) do allowed[name] = true end
  state.allowed = allowed
  local open, errors = {}, {}
  for _, name in ipairs(conf.unsafe or {}) do open[name] = true end
  state.open = open
  for name in pairs(state.doors) do
    if not open[name] then
      errors[#errors + 1] = {
        path = "unsafe",
        message = ("the script uses %s, which leads out of the VM: to open it, add unsafe = { %q }"):format(name, name),
      }
    end
  end
  for name in pairs(state.system) do
    if not allowed[name] then
      errors[#errors + 1] = {
        path = "modules",
        message = ("the script requires '%s', which is no file of the app: if the system's is meant, "
          .. "add modules = { %q }"):format(name, name),
      }
    end
  end
  table.sort(errors, function(a, b) return a.message < b.message end)
  return errors
end

--- A failed load as printable text, with the place and an excerpt of the source.
local function failure_text(path, value)
  local file, line, text = fault.parse(value)
  local directory = directory_of(path)
  return fault.render {
    message = text or fault.describe(value),
    file = file and (directory == "." and file or file:sub(1, 1) == "/" and file or directory .. "/" .. file) or path,
    line = line,
  }
end

--- Loads and validates.
---@param path string the script's file
---@param options { overrides: perilune.override[]?, cpus: integer? }
---@return perilune.app|nil
---@return string|nil message for people, possibly of several lines
---@return table[]|nil errors the configuration's errors, one by one
function M.load(path, options)
  options = options or {}
  local folder, file = folder_of(path), path:match("[^/]*$")
  local state = { system = {}, doors = {} }
  function state.may_open(name)
    if state.open then return state.open[name] == true end
    state.doors[name] = true -- check_modules() has the last word
    return true
  end
  local env = sandbox.new(state.may_open)
  rawset(env, "require", new_require(folder, env, state))
  local chunk, err = compile(folder.root .. "/" .. file, file, path, env)
  if not chunk then
    return nil, fault.parse(err) and failure_text(path, err) or "error: " .. tostring(err)
  end
  local ok, script = pcall(chunk, path)
  if not ok then return nil, failure_text(path, script) end
  local conf, errors = config.normalise(script, { overrides = options.overrides, cpus = options.cpus, file = path })
  if conf then
    errors = check_modules(conf, state)
    if #errors > 0 then conf = nil end
  end
  if not conf then return nil, config.format_errors(errors, path), errors end
  return { conf = conf, file = path, env = env }
end

--- What a load has to tell, given what load() returned: on failure always, on success when asked for.
---@param form "print"|"json"|nil
---@return string?
function M.report(form, app, message, errors)
  if form == "json" then
    if app then return (config.to_json(app.conf):gsub("^{", '{"ok":true,', 1)) end
    if errors then return assert(json.encode { ok = false, errors = json.array(errors) }) end
    return assert(json.encode { ok = false, message = message })
  end
  if not app then return message end
  return form == "print" and config.print(app.conf) or nil
end

return M
