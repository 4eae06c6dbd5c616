--- `perilune replay`. Internal.
local json = require "perilune.json"
local memory = require "perilune.test.memory"
local printable = require "perilune.printable"
local replay = require "perilune.test.replay"
local suggest = require "perilune.suggest"
local traces = require "perilune.test.trace"

local M = {}

local OK, FAILED, USAGE, BAD_SCRIPT = 0, 1, 2, 78

M.HELP = [[
usage: perilune replay TRACE [app.lua] [options]

Runs what 'perilune record' has recorded against a script, in memory and in the trace's own time: the connections
begin, send and end as they did. What the script replies now is compared with what was recorded, connection by
connection. Without a script: app.lua in the current folder.

Options:
  --timing TIMING      virtual (the default): time goes on as it was recorded; none: it does not, no timer fires
  --ignore PATTERN     leave out replies that have this Lua pattern, on both sides; repeatable
  --json               print the outcome as one JSON object
  --help               this text

Exit codes:
  0   the same
  1   something differs
  2   wrong usage, or no trace that can be read
  78  bad script or configuration

Example:
  perilune replay trace.jsonl app.lua --ignore '^time '
]]

local VALUED = {
  timing = function(options, value)
    if value ~= "virtual" and value ~= "none" then
      return ("--timing expects virtual or none, got '%s'"):format(value)
    end
    options.timing = value
  end,
  ignore = function(options, value)
    local ok, message = pcall(string.find, "", value)
    if not ok then return ("--ignore: '%s': %s"):format(value, message) end
    table.insert(options.ignore, value)
  end,
}

local NAMES = { "timing", "ignore", "json", "help" }

local function refuse_unknown(arg)
  local near = suggest.suggest(arg:match "^%-*([%w-]*)", NAMES)
  return ("unknown option %s%s"):format(arg, near and (" (did you mean --%s?)"):format(near) or "")
end

local function take_operand(options, arg)
  if not options.trace then
    options.trace = arg
  elseif not options.script then
    options.script = arg
  else
    return ("takes a trace and a script, got '%s' as well"):format(arg)
  end
end

-- Reads args[i]; returns what is wrong, and the last index that belongs to it.
local function take(options, args, i)
  local arg = args[i]
  local name, equals, value = arg:match "^%-%-([%w-]+)(=?)(.*)$"
  if arg == "-h" then name = "help" end
  if name == "help" or name == "json" then
    options[name] = true
    return nil, i
  end
  if VALUED[name] then
    if equals == "" then value, i = args[i + 1], i + 1 end
    if not value then return ("--%s needs a value"):format(name) end
    return VALUED[name](options, value), i
  end
  if arg:sub(1, 1) == "-" and arg ~= "-" then return refuse_unknown(arg) end
  return take_operand(options, arg), i
end

local function parse(args)
  local options, i = { ignore = {} }, 1
  while i <= #args do
    local message, last = take(options, args, i)
    if message then return nil, message end
    i = last + 1
  end
  if not options.trace and not options.help then return nil, "expects a trace, as in 'perilune replay trace.jsonl'" end
  options.script = options.script or "app.lua"
  return options
end

local function complain(code, message)
  io.stderr:write(printable.lines("perilune replay: " .. message .. "\n"))
  return code
end

local function print_json(result)
  local list = json.array {}
  for i, difference in ipairs(result.differences) do
    list[i] = { conn = difference.conn, listener = difference.listener, peer = difference.peer,
      count = difference.count, problems = json.array(difference.problems), frames = json.array(difference.frames) }
  end
  io.stdout:write(assert(json.encode { same = result.same, connections = result.connections, frames = result.frames,
    differences = list, notes = json.array(result.notes) }), "\n")
end

local function run(options)
  local trace, message = traces.read(options.trace)
  if not trace then return complain(USAGE, message) end
  local ok, opened = pcall(memory.open, options.script)
  if not ok then return complain(BAD_SCRIPT, tostring(opened)) end
  opened:dispose()
  local settings = { timing = options.timing, ignore = options.ignore }
  local played, result = pcall(replay.run, trace, options.script, settings)
  if not played then
    return complain(USAGE, ("%s: it cannot be replayed: %s"):format(options.trace, tostring(result)))
  end
  local empty = replay.empty(result, options.trace)
  if empty then return complain(USAGE, empty) end
  if options.json then
    print_json(result)
  else
    io.stdout:write(printable.lines(replay.text(result) .. "\n"))
  end
  io.stdout:flush()
  return result.same and OK or FAILED
end

--- What C calls.
---@param ... string the arguments after `replay`
---@return integer exit_code
function M.run(...)
  local options, message = parse { ... }
  if not options then
    io.stderr:write(printable.lines("perilune replay: " .. message .. "\nsee 'perilune replay --help'\n"))
    return USAGE
  end
  if options.help then
    io.stdout:write(M.HELP)
    io.stdout:flush()
    return OK
  end
  return run(options)
end

return M
