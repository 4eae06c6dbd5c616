--- `perilune test`: busted in a coroutine on a live loop, each piece of the user's code as a task of its own, so that
--- one that never ends is a failure and no more. Internal.
local task = require "perilune.workbench.task" -- in C: src/workbench/task.c

local beside = require "perilune.test.beside"
local coverage = require "perilune.test.coverage"
local host = require "perilune.test.host"
local json_output = require "perilune.test.json_output"
local leftovers = require "perilune.test.leftovers"
local named = require "perilune.named"
local options = require "perilune.test.options"
local printable = require "perilune.printable"
local strings = require "perilune.strings"
local units = require "perilune.units"

local M = {}

local OK, FAILED, USAGE = 0, 1, 2
local EXIT = setmetatable({}, { __tostring = function() return "os.exit() was called" end })

local function pack(...) return { n = select("#", ...), ... } end

-- ---- the end of the program ------------------------------------------------

local exit_code

-- It would close the VM from within.
local function leave(code)
  exit_code = code == true and OK or code == false and FAILED or tonumber(code) or OK
  error(EXIT, 0)
end

local function complain(message)
  io.stderr:write(printable.lines("perilune test: " .. message .. "\n"))
end

-- ---- tasks ------------------------------------------------------------------

local WHAT = { it = "the test", file = "the file", finally = "finally" }

local function describe_end(descriptor, kind, place, limit_ms, waits_at)
  local what = WHAT[descriptor] or descriptor
  if kind == "deadlock" then
    return ("deadlock: %s yields, and nothing will ever resume it: it is at %s"):format(what, waits_at)
  end
  if kind ~= "timeout" then return place end
  local text = ("%s did not end within %s (--timeout)"):format(what, units.format_duration(limit_ms))
  return ("%s: it %s at %s"):format(text, place == "" and "waits" or "was", place == "" and waits_at or place)
end

-- The innermost line that is not ours, nor busted's.
local function user_line(traceback)
  for line in traceback:gmatch("[^\n]+") do
    local at = line:match("^%s*(.-:%d+): ")
    if at and not at:find("/perilune/") and not at:find("/busted/") and not at:find("/luassert/") then return at end
  end
  return "a place that is not known"
end

-- As busted has them of errors.
local function trace_of(element, message, traceback)
  local defined = element.trace or {}
  return {
    short_src = defined.short_src or "?", source = defined.source, currentline = defined.currentline or 0,
    what = "Lua", traceback = traceback or "", message = message,
  }
end

-- busted.safe() as a task. A task that is ended has left busted's contexts as they were.
local function run_task(busted, safe, limit_ms, descriptor, run, element)
  local context = busted.context.get()
  local results = pack(task.results(task.call(limit_ms, safe, descriptor, run, element)))
  if results[1] then return unpack(results, 2, results.n) end
  while busted.context.get() ~= context do busted.context.pop() end
  local _, kind, place, traceback = unpack(results, 1, 4)
  local text = describe_end(descriptor, kind, tostring(place), limit_ms, user_line(traceback or ""))
  local status = descriptor == "it" and "failure" or "error"
  busted.publish({ status, element.descriptor }, element, busted.context.parent(element), text,
    trace_of(element, text, traceback))
  return busted.status(status)
end

-- ---- what is left behind ----------------------------------------------------

-- A test's end is told once it is known what it has left.
local held

local function close_test(busted, publish)
  local element, ended = held.element, held.ended
  held = nil
  local left = leftovers.close_scope()
  if not ended then return end
  local status = ended.status
  if left and (status == "success" or status == "pending") then
    status = "failure"
    busted.publish({ "failure", "it" }, element, ended.parent, left, trace_of(element, left))
  end
  publish(ended.descriptor, { "test", "end" }, element, ended.parent, status)
end

local function run_test(busted, safe, publish, descriptor, run, element)
  leftovers.open_scope()
  held = { element = element }
  local results = pack(safe(descriptor, run, element))
  close_test(busted, publish)
  return unpack(results, 1, results.n)
end

local function run_file(busted, safe, descriptor, run, element)
  leftovers.open_scope()
  local results = pack(safe(descriptor, run, element))
  local left = leftovers.close_scope()
  if left then
    busted.publish({ "error", "file" }, element, busted.context.parent(element), left, trace_of(element, left))
  end
  return unpack(results, 1, results.n)
end

local function exists(path)
  local file = named.open(path)
  if file then file:close() end
  return file ~= nil
end

-- ---- nothing to run ---------------------------------------------------------

local tests_begun, wanted, no_files

local NO_FILES = "^No test files found matching Lua pattern: (.*)$"

-- Busted tells of a folder without specifications, but not of which. It is told as an error of no test, which some
-- outputs of busted's cannot show.
local function explain_no_files(message)
  local pattern = type(message) == "string" and message:match(NO_FILES)
  if not pattern then return false end
  no_files = ("no specifications in %s: no file there has %s in its name (--pattern)"):format(
    table.concat(wanted.ROOT, ", "), pattern)
  return true
end

-- Why not a single test was begun.
local function explain_none()
  if no_files then return no_files end
  local asked = {}
  for _, name in ipairs { "filter", "filter-out", "tags", "exclude-tags" } do
    local values = wanted and wanted[name]
    if type(values) == "table" and #values > 0 then
      asked[#asked + 1] = ("--%s %s"):format(name, table.concat(values, " "))
    end
  end
  if #asked == 0 then return "the specifications have no tests" end
  return "none is left by " .. table.concat(asked, ", ")
end

-- ---- what could not be prepared ----------------------------------------------

-- Where a before_each or a setup has failed, what cleans up finds nothing: that it fails as well is no news.
local CLEANS_UP = { after_each = "before_each", strict_teardown = "strict_setup", lazy_teardown = "lazy_setup" }
local PREPARES = { before_each = true, strict_setup = true, lazy_setup = true }

local unprepared = {} -- what has failed → where
local is_muted = false

local function run_prepared(busted, safe, limit_ms, descriptor, run, element)
  local where = busted.context.parent(element)
  beside.enter(element.trace and element.trace.source)
  local cleans = CLEANS_UP[descriptor]
  -- Of each test there is one, and the next has its own.
  if descriptor == "it" then unprepared.before_each = nil end
  is_muted = cleans == "before_each" and unprepared.before_each ~= nil or cleans ~= nil and unprepared[cleans] == where
  local results = pack(run_task(busted, safe, limit_ms, descriptor, run, element))
  is_muted = false
  if PREPARES[descriptor] and not results[1]:success() then unprepared[descriptor] = where end
  return unpack(results, 1, results.n)
end

local told = {}   -- what it failed with → how many tests were not run for that since it was told
local in_order = {}

-- What fails in front of each test fails mostly in the same words: that is one failure, and tests that are not run.
local function is_repeated(channel, message)
  if channel[1] ~= "error" or not PREPARES[channel[2]] or type(message) ~= "string" then return false end
  if told[message] then
    told[message] = told[message] + 1
    return true
  end
  told[message] = 0
  in_order[#in_order + 1] = message
  return false
end

-- In a line each.
local function tell_repeated()
  for _, message in ipairs(in_order) do
    local n, first = told[message], message:match("^[^\n]*"):gsub(":$", "")
    if n > 0 then complain(("%d more test%s not run: %s"):format(n, n == 1 and " was" or "s were", first)) end
  end
end

-- ---- hooks into busted ---------------------------------------------------------

-- A handler's fault mostly explains what a test has found: a status of 500 does not. What failed by itself shows it.
local function with_faults(message)
  local about = not message:find("the app's log\n", 1, true) and leftovers.about_faults()
  return about and message .. "\n\n" .. about or message
end

-- A test that has failed with a net open shows how to have the same again, whatever has failed.
local function with_nets(message)
  local net = package.loaded["perilune.test.net"]
  local about = net and net.about_open()
  if not about or message:find(about, 1, true) then return message end
  return message .. "\n\n" .. about
end

--- Busted calls all of the user's code, and all that is around it, by way of busted.safe().
local function hook(busted, limit_ms)
  local safe, publish, tell = busted.safe, busted.safe_publish, busted.publish
  function busted.publish(channel, element, parent, message, ...)
    if channel[1] == "error" and explain_no_files(message) then return end
    if is_muted and (channel[1] == "error" or channel[1] == "failure") then return end
    if is_repeated(channel, message) then return end
    -- What was compared may be a peer's: no byte of it moves a terminal's cursor.
    if type(message) == "string" then
      if channel[2] == "it" and (channel[1] == "failure" or channel[1] == "error") then
        message = with_nets(with_faults(message))
      end
      message = printable.lines(message)
    end
    return tell(channel, element, parent, message, ...)
  end
  function busted.safe(descriptor, run, element)
    local is_users = rawequal(run, element.run) or descriptor == "finally"
    if is_users then return run_prepared(busted, safe, limit_ms, descriptor, run, element) end
    if descriptor == "it" then return run_test(busted, safe, publish, descriptor, run, element) end
    if descriptor == "file" and not element.is_running then
      element.is_running = true
      return run_file(busted, safe, descriptor, run, element)
    end
    return safe(descriptor, run, element)
  end
  function busted.safe_publish(descriptor, channel, element, parent, status, ...)
    if channel[1] == "test" and channel[2] == "start" then tests_begun = tests_begun + 1 end
    local is_end = held and held.element == element and channel[1] == "test" and channel[2] == "end"
    if not is_end then return publish(descriptor, channel, element, parent, status, ...) end
    held.ended = { descriptor = descriptor, parent = parent, status = status }
    return true
  end
end

-- ---- busted -----------------------------------------------------------------

local MISSING = [[
perilune test: busted was not found%s.
On Debian: apt-get install lua-busted
]]

local function has_busted()
  local ok, message = pcall(require, "busted.runner")
  if ok then return true end
  message = tostring(message)
  local what = message:match("module '([^']+)' not found")
  local more = what and what ~= "busted.runner" and (": it needs the module %s, which is not there"):format(what) or ""
  io.stderr:write(MISSING:format(more))
  return false
end

-- A specification of that name elsewhere, as where they mostly are.
local function find_near(root)
  local name = root:match "[^/]*$"
  for _, folder in ipairs { "spec/", "examples/" } do
    if exists(folder .. name) then return folder .. name end
  end
  local with_ending = root:find "%.lua$" and root:gsub("%.lua$", "_spec.lua") or root .. ".lua"
  return exists(with_ending) and with_ending or nil
end

-- What is wrong with where the specifications are to be; nil: nothing.
local function find_missing(parsed)
  for _, root in ipairs(parsed.ROOT or {}) do
    local path = root:sub(1, 1) == "/" and root or parsed.directory .. "/" .. root
    local refusal = named.refusal(path)
    if refusal then return ("%s: %s"):format(root, refusal) end
    if not exists(path) then
      local near = find_near(root)
      return ("there is no %s%s"):format(root, near and (" (did you mean %s?)"):format(near) or
        ": name a specification, or a folder of some")
    end
  end
end

local function refuse(message)
  complain(message .. "\nsee 'perilune test --help'")
  leave(USAGE)
end

-- Busted says "error" of a wrong option, and takes that for a failure.
local function adjust_cli()
  local make = require "busted.modules.cli"
  package.loaded["busted.modules.cli"] = function(...)
    local cli = make(...)
    local parse = cli.parse
    function cli.parse(self, args)
      local parsed, message = parse(self, args)
      if not parsed then
        message = tostring(message):gsub("^.-: error: ", ""):gsub("; re%-run with.*", "")
        refuse(message .. options.hint(message))
      end
      wanted = parsed
      local roots = parsed.ROOT
      local is_default = roots and #roots == 1 and roots[1] == "spec"
      if is_default and not exists(parsed.directory .. "/spec") then roots[1] = "." end
      local missing = find_missing(parsed)
      if missing then
        complain(missing)
        leave(FAILED)
      end
      return parsed
    end
    return cli
  end
end

local function adjust_core(limit_ms)
  local make = require "busted.core"
  package.loaded["busted.core"] = function()
    local busted = make()
    hook(busted, limit_ms)
    return busted
  end
end

-- What busted finds, or is told to load.
local function adjust_loading()
  loadfile = named.loadfile -- luacheck: ignore 121
  function dofile(path) -- luacheck: ignore 121
    return assert(named.loadfile(path))()
  end
end

-- LuaJIT's patterns backtrack in C, where nothing ends them: a test whose pattern is without end would be one. And what
-- handlers pack, their specifications unpack.
local function adjust_strings()
  local library = strings.new()
  for _, name in ipairs { "find", "match", "gmatch", "gsub", "pack", "unpack", "packsize" } do
    string[name] = library[name] -- luacheck: ignore 122
  end
end

-- Busted looks at the level of the stack that calls it: it must be a chunk that is no file, and no tail call.
local CHUNK = [[
require("busted.runner")({ standalone = false })
]]

local function run_busted(opts)
  local args = { [0] = "perilune test", "--ignore-lua", unpack(opts.rest) }
  _G.arg = args
  os.exit = leave -- luacheck: ignore 122
  package.path = "./?.lua;./?/init.lua;" .. package.path
  package.loaded["perilune.core"] = host
  package.loaded["busted.outputHandlers.json"] = json_output.new
  require "perilune"
  adjust_cli()
  adjust_core(opts.timeout_ms)
  adjust_strings()
  adjust_loading()
  tests_begun = 0
  local chunk = assert(loadstring(CHUNK, "=perilune test"))
  local ok, err = xpcall(chunk, function(err)
    return rawequal(err, EXIT) and err or debug.traceback(tostring(err), 2)
  end)
  io.stdout:flush()
  tell_repeated()
  if not ok and not rawequal(err, EXIT) then
    complain(err)
    return FAILED
  end
  local code = ok and OK or exit_code
  if code ~= OK or tests_begun > 0 or wanted and wanted.version then return code end
  complain("no test was run: " .. explain_none())
  return FAILED
end

local function watch(opts)
  require("perilune.test.watch").run(opts.all)
end

--- What C calls, as the first task.
---@param ... string the arguments after `test`
---@return integer exit_code
function M.run(...)
  local opts, message = options.parse { ... }
  if not opts then
    complain(message .. "\nsee 'perilune test --help'")
    return USAGE
  end
  if opts.help then
    io.stdout:write(options.HELP)
    io.stdout:flush()
    return OK
  end
  if not has_busted() then return FAILED end
  if opts.watch then return watch(opts) end
  coverage.is_on = opts.coverage ~= nil
  local code = run_busted(opts)
  if opts.coverage and code ~= USAGE and not coverage.report(opts.coverage) then return FAILED end
  return code
end

return M
