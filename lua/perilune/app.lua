--- Loads a user's script: takes it from the script set, runs its top level in fresh globals, and
--- turns what it returns into a configuration. Binds nothing, starts nothing.
local agent = require "perilune.config.agent"
local compile_text = require "perilune.compile"
local config = require "perilune.config"
local ended = require "perilune.ended"
local fault = require "perilune.fault"
local guard = require "perilune.guard"
local json = require "perilune.json"
local paths = require "perilune.paths" -- in C: src/bind/paths.c
local sandbox = require "perilune.sandbox"

local sources = require "perilune.sources" -- in C: src/config/library.c

local M = {}

-- The system's modules are those that are installed. LuaJIT would also take what lies where the server was started,
-- C among it, which could do as it likes before `modules` is known. Perilune's own are found without this.
for _, kind in ipairs { "path", "cpath" } do
  package[kind] = (";" .. package[kind]):gsub(";%./%?[^;]*", ""):gsub("^;+", "")
end

---@class perilune.loaded_app
---@field conf perilune.conf
---@field file string as given
---@field env table the script's globals

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

--- The file of an app's module: `a.b` is a/b.lua or a/b/init.lua beside the script. The script set leaves out what lies
--- behind a link that leads away; here it is told why.
---@return string|nil file as in the script set
---@return string[]|nil tried
local function find_module(folder, name)
  local relative = name:gsub("%.", "/")
  local tried = {}
  for _, form in ipairs { "%s.lua", "%s/init.lua" } do
    local inside = form:format(relative)
    if sources.has(inside) then return inside end
    local path = paths.real(folder.root .. "/" .. inside)
    if path and not is_in(folder.root, path) then
      local link, target = find_way_out(folder, inside)
      error(("require: '%s' is not in the app's folder: %s is a symbolic link to %s. Links may lead anywhere in the "
        .. "folder and nowhere else: copy it into %s"):format(name, link, target, folder.root), 3)
    end
    local kind = path and paths.kind(path)
    if kind and kind ~= "a folder" then
      error(("require: %s/%s is %s, not a file"):format(folder.name, inside, kind), 3)
    end
    tried[#tried + 1] = folder.name .. "/" .. inside
  end
  return nil, tried
end

--- The name that errors and tracebacks have of a file. The first generation's is plain.
local function chunk_name(file, generation)
  return "@" .. file .. (generation and generation > 1 and "#g" .. generation or "")
end

--- `file` is as in the script set, `path` as the user knows it.
local function compile(file, path, env, generation)
  local source, err = sources.text(file)
  if not source then return nil, path .. ": " .. err end
  if sources.is_image then return require("perilune.test.image").thaw(source, env) end
  if source:byte(1) == 27 then return nil, path .. ": is bytecode; only text is loaded" end
  local chunk, wrong = compile_text(source:gsub("^#[^\n]*", "", 1), chunk_name(file, generation), env)
  if not chunk then return nil, wrong end
  return setfenv(chunk, sandbox.env_for(env, chunk))
end

-- What an app is compiled from is kept while it is loaded, where it is to be looked through for globals.
local function keep_chunk(state, file, path, chunk)
  local is_text = not sources.is_image
  if state.chunks and is_text then table.insert(state.chunks, { file = file, path = path, chunk = chunk }) end
end

local function check_name(name)
  if type(name) ~= "string" or name == "" or name:find("[^%w_%.%-]") or name:find("..", 1, true)
    or name:sub(1, 1) == "." then
    error("require: '" .. tostring(name) .. "' is not a module name (letters, digits, _ - and single dots)", 3)
  end
end

local UNSAFE = "%s leads out of the VM: to open it, add unsafe = { %q }"

-- Perilune's modules that are for users. All others are not for scripts, whatever `modules` says.
local PUBLIC = { perilune = true, ["perilune.http"] = true }

-- What LuaJIT opens to look whether it is there. A FIFO would be waited for.
local function check_kind(name)
  local file = name:gsub("%.", "/")
  for template in (package.path .. ";" .. package.cpath):gmatch "[^;]+" do
    local path = template:gsub("?", (file:gsub("%%", "%%%%")))
    local kind = paths.kind(path)
    if kind and kind ~= "a folder" then error(("require: %s is %s, not a file"):format(path, kind), 4) end
  end
end

--- What a script opens is only known once it has run, and what a door leads to may end the process. So as long as it
--- runs, a door opens only if a file has `unsafe`, and one has the name in quotes; or a setting has both. So it is with
--- `compat`.
local function is_named(setting, name, overrides)
  for _, override in ipairs(overrides or {}) do
    if override.path == setting and override.value:find(name, 1, true) then return true end
  end
  if not sources.mention(setting) then return false end
  return sources.mention(('"%s"'):format(name)) or sources.mention(("'%s'"):format(name))
end

-- Who has none of it shall not have a function for it either.
local function may_have_compat(overrides)
  for _, override in ipairs(overrides or {}) do
    if override.path == "compat" then return true end
  end
  return sources.mention "compat"
end

--- What drivers of others are written for (`compat`); false: nothing. Who has none of it does not load it.
local function compat_of(state)
  if state.compat == nil and (is_named("compat", "ngx", state.overrides)
    or is_named("compat", "socket", state.overrides)) then
    state.compat = require("perilune.compat").new(state.env, function(feature)
      return is_named("compat", feature, state.overrides)
    end)
  end
  return state.compat
end

-- Drivers of others see what `compat` gives, and no globals but their own.
local function load_system(name, state)
  local compat = compat_of(state)
  if compat and compat.finds(name) then return true, compat.require(name) end
  return pcall(require, name)
end

--- A module of the system. While the script loads, those it takes are noted, for check_modules();
--- afterwards they must be named in `modules`.
local function require_system(name, tried, state)
  if name:find("^perilune%.") then error("require: '" .. name .. "' is internal to Perilune", 3) end
  local door = sandbox.door_of(name)
  if door then
    if state.may_open(door) then return require(name) end
    error("require: " .. UNSAFE:format(name, door), 3)
  end
  if state.allowed and not state.allowed[name] then
    error(("require: '%s' is no file of the app: if the system's is meant, add modules = { %q }"):format(name, name), 3)
  end
  check_kind(name)
  local ok, value = load_system(name, state)
  if not ok and sources.cut then error("require: '" .. name .. "' was not found: " .. sources.cut, 3) end
  if not ok then
    error("require: no module '" .. name .. "' beside the script (" .. table.concat(tried, ", ")
      .. ") nor on the system", 3)
  end
  state.system[name] = true
  return sandbox.guard_module(name, value)
end

--- pcall() that notes where an error was raised, while the stack still tells: many errors do not say it, or name a
--- line of ours. What one that requires another passes on is noted where it was raised first.
local function call_noting(state, chunk, name)
  return xpcall(chunk, function(err)
    if guard.interrupted() then return err end -- this runs where nothing ends it
    if not state.raised or not rawequal(state.raised.value, err) then
      local file, line = require("perilune.blame").user_line()
      state.raised = { value = err, file = file, line = line }
    end
    return err
  end, name)
end

-- What was loading it has failed, or was ended.
local function is_stale(entry)
  local loading = entry.loading
  return type(loading) == "thread" and (ended[loading] or coroutine.status(loading) == "dead")
end

--- A module for users as scripts have it, and so what it makes later; its relative paths lead from the app's folder.
local function read_only(name, folder)
  local module = require(name)
  getmetatable(module).protect, getmetatable(module).folder = sandbox.read_only, folder.root
  return sandbox.read_only(name, module)
end

--- `require` for one app: its own folder, Perilune's modules, and the system's by permission.
local function new_require(folder, env, state)
  local loaded = {}
  return function(name)
    check_name(name)
    if PUBLIC[name] then
      loaded[name] = loaded[name] or { value = read_only(name, folder) }
      return loaded[name].value
    end
    if sandbox.is_library(name) then return rawget(env, name) end
    local entry = loaded[name]
    if entry and not is_stale(entry) then
      if entry.loading then error("require: '" .. name .. "' requires itself, by way of others", 2) end
      return entry.value
    end
    local file, tried = find_module(folder, name)
    if not file then
      local compat = compat_of(state)
      local value = compat and compat.module(name)
      if not value then value = require_system(name, tried, state) end
      loaded[name] = { value = value }
      return value
    end
    local chunk, err = compile(file, folder.name .. "/" .. file, env, state.generation)
    if not chunk then error(err, 0) end
    keep_chunk(state, file, folder.name .. "/" .. file, chunk)
    loaded[name] = { loading = coroutine.running() or true }
    local ok, value = call_noting(state, chunk, name)
    if not ok then
      loaded[name] = nil
      error(value, 0)
    end
    if value == nil then value = true end
    loaded[name] = { value = value }
    return value
  end
end

local function check_compat(conf, state, errors)
  local given = {}
  for _, name in ipairs(conf.compat or {}) do given[name] = true end
  for name in pairs(state.compat and state.compat.used or {}) do
    if not given[name] then
      errors[#errors + 1] = {
        path = "compat", message = ("the script uses %s: to have it, add compat = { %q }"):format(name, name),
      }
    end
  end
  if not next(given) then
    state.compat = false
  else
    local compat = compat_of(state)
    if not compat then
      compat = require("perilune.compat").new(state.env)
      state.compat = compat
    end
    compat.has = function(name) return given[name] end
    compat.global "ngx" -- now, while all of C's libraries can be had
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
        message = "the script uses " .. UNSAFE:format(name, name),
      }
    end
  end
  check_compat(conf, state, errors)
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

-- The only line where a key is set, as in `limits = { conections = 5 }`; nil: there are several, or none.
local function line_of_key(source, path)
  local name = path:match "([%a_][%w_]*)$"
  if not name then return nil end
  local pattern, found = "%f[%w_]" .. name .. "%s*=[^=]", nil
  local number = 0
  for line in (source .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local _, stop = (line .. "\n"):find(pattern)
    local is_comment = line:find "^%s*%-%-"
    if stop and not is_comment then
      if line:find("local%s+" .. name .. "%s*=") then return nil end -- it may go anywhere
      if found or (line .. "\n"):find(pattern, stop) then return nil end
      found = number
    end
  end
  return found
end

-- Where an error is in the script, for those that the script itself has made.
local function add_lines(errors, file)
  local source = sources.text(file, fault.SOURCE_MAX)
  for _, err in ipairs(source and errors or {}) do
    if not err.origin then err.line = line_of_key(source, err.path) end
  end
end

--- A failed load as printable text, with the place and an excerpt of the source. What fails to load never becomes
--- a generation, so that its number would only be in the way of an editor that opens the place.
---@param path string the script's file
---@param value any what was raised
---@param raised { value: any, file: string?, line: integer? }? where, if that is known
---@return string
function M.failure_text(path, value, raised)
  local file, line, text = fault.parse(value)
  local is_known = raised and raised.file and rawequal(raised.value, value)
  local is_vague = not file or require("perilune.blame").is_internal(file) or file:find("^%.%.%.")
  if is_known and is_vague then file, line = raised.file, raised.line end
  local directory = directory_of(path)
  file = file and file:gsub("#g%d+$", "")
  return fault.render {
    message = text or fault.describe(value),
    file = file and (directory == "." and file or file:sub(1, 1) == "/" and file or directory .. "/" .. file) or path,
    line = line,
    source = file and sources.text(file, fault.SOURCE_MAX) or nil,
  }
end

-- The file of the script set that a function is compiled from.
local function file_of(fn, folder)
  local name = debug.getinfo(fn, "S").source:gsub("^@", ""):gsub("#g%d+$", "")
  local prefix = folder.name .. "/"
  return name:sub(1, #prefix) == prefix and name:sub(#prefix + 1) or name:match "[^/]*$"
end

-- Does the text use such a name with a dot or a colon, other than to define it, and other than conn's?
local function uses(text, name)
  for before, at in text:gmatch("([%w_]*)()[.:]" .. name .. "%f[^%w_]") do
    local start = text:sub(math.max(1, at - 80), at - 1):match "[^\n]*$"
    if before ~= "conn" and not start:find "function%s+[%w_.]+$" then return true end
  end
  return false
end

local function index(t, key) return t[key] end

--- The methods of agents that are nearly the core's and that nobody calls, in one text; nil: there are none.
local function strays_of(conf, script_file, folder)
  local found, seen = {}, {}
  local function is_called(name, fn)
    if type(name) ~= "string" or name:find "[^%w_]" then return true end
    for _, file in ipairs { script_file, file_of(fn, folder) } do
      local text = sources.text(file)
      if text and uses(text, name) then return true end
      if text and name == "deliver" and text:find "deliver%s*=%s*[\"']agent" then return true end -- of conn:join
    end
    return false
  end
  for _, list in ipairs { conf.listeners, conf.agents } do
    for _, one in ipairs(list) do
      for _, text in ipairs(agent.strays(one.agent, is_called, list == conf.agents)) do
        if not seen[text] then found[#found + 1] = text end
        seen[text] = true
      end
    end
  end
  return found[1] and table.concat(found, ", ") or nil
end

local NO_WAY_OVER = 'reload = "migrate", but the agent has no method %s: at a reload '
  .. "its connections stay with the old code"
local NO_WAY_OVER_ALONE = 'agents.%s: reload = "migrate", of its own or of the top level, but the agent has no method '
  .. "%s: at a reload those that there are stay with the old code"

local NOT_TAKEN = "snapshot(app) keeps what the next generation's setup(app, data) is given, but setup %s"

-- What snapshot() keeps is taken by the same script most of the time.
local function untaken(conf)
  if not conf.snapshot then return nil end
  if not conf.setup then return NOT_TAKEN:format "is missing" end
  if not conf.takes_snapshot then return NOT_TAKEN:format "takes no data" end
end

--- What is allowed and hardly meant, in one text, a line each; nil: nothing is.
local function warnings_of(conf, folder)
  local selfless = require "perilune.selfless" -- workers do without
  local found, seen = {}, {}
  local function add(text)
    if not seen[text] then found[#found + 1] = text end
    seen[text] = true
  end
  local untaken_text = untaken(conf)
  if untaken_text then add(untaken_text) end
  local function warn_of(listener, kind)
    local migrates = type(listener.agent) == "table" and listener.reload.policy == "migrate"
      and listener.protocol ~= "http"
    for _, name in ipairs(migrates and { "snapshot", "upgrade" } or {}) do
      local ok, fn = pcall(index, listener.agent, name)
      if ok and fn == nil then
        add(kind and NO_WAY_OVER_ALONE:format(kind, name) or NO_WAY_OVER:format(name))
      end
    end
    for _, name in ipairs(type(listener.agent) == "table" and selfless.GIVEN or {}) do
      local _, fn = pcall(index, listener.agent, name)
      local file = type(fn) == "function" and file_of(fn, folder)
      local way = file and selfless.find(name, fn, sources.text(file, fault.SOURCE_MAX))
      local line = way and debug.getinfo(fn, "S").linedefined
      if way then add(("%s:%d: %s has no self: write %s"):format(file, line, name, way)) end
    end
  end
  for _, one in ipairs(conf.listeners) do warn_of(one) end
  for _, one in ipairs(conf.agents) do warn_of(one, one.name) end
  return found[1] and table.concat(found, "\n") or nil
end

--- The globals that the app's functions read, and that there are not, or write, in one text, a line each; nil: none.
local function misspelt_globals(state, env)
  local globals = require "perilune.globals" -- workers do without
  local function is_defined(name)
    local ok, value = pcall(index, env, name)
    return ok and value ~= nil
  end
  local found = {}
  for _, one in ipairs(state.chunks) do
    local path = one.path:gsub("^%./", "")
    for _, text in ipairs(globals.faults(path, one.chunk, sources.text(one.file, fault.SOURCE_MAX), is_defined)) do
      found[#found + 1] = text
    end
  end
  return globals.summary(found)
end

--- What the app's functions take from libraries of a newer Lua, and from ours though it is not there, after what there
--- is to warn of already.
local function with_absent(warnings, state, env)
  local found = { warnings }
  local function is_there(library, field)
    local ok, value = pcall(index, env[library], field)
    return ok and value ~= nil
  end
  local dialect, absent = require "perilune.dialect", require "perilune.absent" -- workers do without
  for _, one in ipairs(state.chunks) do
    local path = one.path:gsub("^%./", "")
    for _, text in ipairs(dialect.faults(path, one.chunk, is_there)) do found[#found + 1] = text end
    for _, text in ipairs(absent.faults(path, one.chunk, sources.text(one.file, fault.SOURCE_MAX))) do
      found[#found + 1] = text
    end
  end
  return found[1] and table.concat(found, "\n") or nil
end

--- Tables by which connections see each other, where that ends somewhere, in one text, a line each; nil: none.
local function shared_tables(conf, state)
  local paths_of = {}
  for _, one in ipairs(state.chunks) do paths_of[chunk_name(one.file, state.generation)] = one.path:gsub("^%./", "") end
  return require("perilune.shared").warnings(conf, function(one) -- workers do without
    local path = paths_of[one.source]
    return path and ("%s:%d"):format(path, one.line)
  end)
end

-- What files have asked for at their top level, and nobody declares.
local function check_shared(conf, errors)
  local dictionary = package.loaded["perilune.dictionary"]
  local declared, names = {}, {}
  for i, one in ipairs(conf.shared) do names[i], declared[one.name] = one.name, true end
  for name in pairs(dictionary and dictionary.asked or {}) do
    if not declared[name] then
      errors[#errors + 1] = { path = "shared", message = dictionary.undeclared(name, names) }
    end
  end
end

--- Loads and validates.
---@param path string the script's file
---@param options { overrides: perilune.override[]?, cpus: integer?, generation: integer?, finds_globals: boolean? }
---  `finds_globals`: what is said of misspelt ones is in conf.globals
---@return perilune.loaded_app|nil
---@return string|nil message for people, possibly of several lines
---@return table[]|nil errors the configuration's errors, one by one
function M.load(path, options)
  options = options or {}
  local folder = folder_of(path)
  local state = { system = {}, doors = {}, generation = options.generation }
  state.chunks = options.finds_globals and {} or nil
  function state.may_open(name)
    if state.open then return state.open[name] == true end
    if not is_named("unsafe", name, options.overrides) then error(UNSAFE:format(name, name), 3) end
    state.doors[name] = true -- check_modules() has the last word
    return true
  end
  state.overrides = options.overrides
  local env = sandbox.new(state.may_open, may_have_compat(options.overrides) and function(name)
    local compat = compat_of(state)
    return compat and compat.global(name) or nil
  end)
  state.env = env
  rawset(env, "require", new_require(folder, env, state))
  local chunk, err = compile(path:match("[^/]*$"), path, env, state.generation)
  if not chunk then
    return nil, fault.parse(err) and M.failure_text(path, err) or "error: " .. tostring(err)
  end
  keep_chunk(state, path:match("[^/]*$"), path, chunk)
  local ok, script = call_noting(state, chunk, path)
  if not ok then return nil, M.failure_text(path, script, state.raised) end
  local conf, errors = config.normalise(script, { overrides = options.overrides, cpus = options.cpus, file = path })
  if conf then
    errors = check_modules(conf, state)
    check_shared(conf, errors)
    if #errors > 0 then conf = nil end
  end
  if not conf then
    add_lines(errors, path:match("[^/]*$"))
    return nil, config.format_errors(errors, path), errors
  end
  conf.shared_tables = state.chunks and shared_tables(conf, state)
  conf.strays = strays_of(conf, path:match("[^/]*$"), folder)
  conf.globals = state.chunks and misspelt_globals(state, env)
  conf.warnings = state.chunks and with_absent(warnings_of(conf, folder), state, env)
  state.chunks = nil
  if next(conf.unsafe or {}) or next(conf.modules or {}) then guard.watch_calls() end
  return { conf = conf, file = path, env = env }
end

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

--- For a VM that runs jobs: the app's modules, without its script. What they may require and open is known.
---@param path string the script's file
---@param options { modules: string[], unsafe: string[], compat: string[], generation: integer }
---@return { require: (fun(name: string): any), why_not: fun(name: string): string? } why there is no such module
function M.bare(path, options)
  local folder = folder_of(path)
  local state = { system = {}, doors = {}, generation = options.generation }
  state.open, state.allowed = set_of(options.unsafe), set_of(options.modules)
  function state.may_open(name) return state.open[name] == true end
  local env = sandbox.new(state.may_open, #options.compat > 0 and function(name)
    return state.compat and state.compat.global(name) or nil
  end)
  state.env = env
  local required = new_require(folder, env, state)
  rawset(env, "require", required)
  check_compat(options, state, {})
  local function why_not(name)
    local is_name, wrong = pcall(check_name, name)
    if not is_name then return tostring(wrong) end
    local ok, file, tried = pcall(find_module, folder, name)
    if not ok then return tostring(file) end
    if file or state.allowed[name] then return nil end
    return "it is no file of the app (" .. table.concat(tried, ", ") .. ")"
  end
  return { require = required, why_not = why_not }
end

--- What load() returns of an app whose files for tls:// are not right.
---@param path string the script's file
---@param conf perilune.conf
---@param nth integer of the listener
---@param why string
---@return nil
---@return string message
---@return table[] errors
function M.refuse_tls(path, conf, nth, why)
  local key = #conf.listeners > 1 and ("listen[%d].tls"):format(nth) or "tls"
  local errors = { { path = key, message = why } }
  add_lines(errors, path:match("[^/]*$"))
  return nil, config.format_errors(errors, path), errors
end

--- Is it the command line that is at fault, given the errors that load() returned?
M.is_usage = config.is_usage

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
