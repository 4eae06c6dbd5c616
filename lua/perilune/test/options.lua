--- The command line of `perilune test`: what is ours is taken out, the rest is for busted. Internal.
local coverage = require "perilune.test.coverage"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

M.HELP = [[
usage: perilune test [FILE | FOLDER …] [options]

Runs specifications written for busted, in Perilune's own Lua: of apps in memory with a clock of their own, or of real
servers (require "perilune.test"). Specifications may call what waits. Without a file: those in the folder spec whose
names have _spec in them, or those in the current folder if there is no such folder.

A test that does not end in time, that waits for what never comes, or that leaves connections, timers or coroutines
behind is a failure, and the others go on.

Options:
  --timeout TIME       how long each test may take, and each setup: 10 (seconds, the default), 500ms, 2m; 0: any time
  --coverage[=FILE]    which lines of the apps' files were run: a table, and line by line in FILE (lcov.info)
  --watch              run again whenever a Lua file of the current folder, or below, changes
  --help               this text

Of busted's own options these are the most useful:
  -o, --output NAME    how results are shown: utfTerminal, plainTerminal, gtest, TAP, json, junit, or a module
  -p, --pattern TEXT   files with this Lua pattern in their names (default _spec)
  --filter TEXT        only tests with this Lua pattern in their names; --filter-out: only those without
  -t, --tags TAGS      only tests with these #tags; --exclude-tags: only those without
  -l, --list           list the tests instead of running them
  --shuffle, --seed N  in random order
  --repeat N           so many times
  --no-keep-going      stop at the first failure
  -v, --verbose        say more of errors
  -Xoutput OPTION      an option for the output
  -m, --lpath PATH     before the path of Lua modules; the current folder is in it
Settings may be in a file .busted, as for busted itself.

Exit codes:
  0   all tests have passed
  1   a test has failed or could not be run, or there was none
  2   wrong usage

Example:
  perilune test spec/chat_spec.lua --filter idle
]]

local DEFAULT_TIMEOUT = "10s"

local function take_timeout(options, value)
  local ms, message = units.duration(tonumber(value) or value)
  if not ms then return nil, "--timeout " .. message end
  if ms > 3600e3 then return nil, "--timeout: an hour is the most; 0 is without end" end
  options.timeout_ms = ms
  return true
end

-- Those that take a value.
local VALUED = { timeout = take_timeout }
local FLAGS = {
  help = function(options) options.help = true end,
  watch = function(options) options.watch = true end,
}

local function take_coverage(options, file)
  if file == "" then return nil, "--coverage=FILE needs a name" end
  options.coverage = file or coverage.DEFAULT_FILE
  return true
end

local function take_valued(options, args, i, name, value)
  if not value then
    value, i = args[i + 1], i + 1
    if not value then return nil, "--" .. name .. " needs a value" end
  end
  local ok, message = VALUED[name](options, value)
  if not ok then return nil, message end
  return i
end

local function take(options, args, i)
  local name, value = args[i]:match("^%-%-([%w-]+)=?(.*)$")
  local has_value = args[i]:find("=", 1, true) ~= nil
  if args[i] == "-h" then name = "help" end
  if name == "coverage" then
    local ok, message = take_coverage(options, has_value and value or nil)
    if not ok then return nil, message end
    return i
  end
  if VALUED[name] then return take_valued(options, args, i, name, has_value and value or nil) end
  if FLAGS[name] and not has_value then
    FLAGS[name](options)
    return i
  end
  table.insert(options.rest, args[i])
  return i
end

---@class perilune.test.options
---@field timeout_ms integer 0: none
---@field help boolean?
---@field watch boolean?
---@field coverage string? the file that it goes to
---@field rest string[] busted's
---@field all string[] all but --watch

---@param args string[]
---@return perilune.test.options?
---@return string? message
function M.parse(args)
  local options = { timeout_ms = units.duration(DEFAULT_TIMEOUT), rest = {}, all = {} }
  local i = 1
  for _, arg in ipairs(args) do
    if arg ~= "--watch" then table.insert(options.all, arg) end
  end
  while i <= #args do
    local last, message = take(options, args, i)
    if not last then return nil, message end
    i = last + 1
  end
  return options
end

-- Ours, and busted's; NEGATABLE ones may have "no-" before them.
local NAMES = {
  "timeout", "help", "coverage", "watch", "version", "pattern", "exclude-pattern", "output", "directory", "config-file",
  "tags", "exclude-tags", "filter", "filter-out", "lpath", "cpath", "run", "repeat", "seed", "lang", "loaders",
  "helper", "list",
}
local NEGATABLE = {
  "verbose", "enable-sound", "lazy", "auto-insulate", "keep-going", "recursive", "shuffle", "shuffle-files",
  "shuffle-tests", "sort", "sort-files", "sort-tests", "suppress-pending", "defer-print",
}
for _, name in ipairs(NEGATABLE) do
  table.insert(NAMES, name)
  table.insert(NAMES, "no-" .. name)
end

--- What may have been meant by an option that nobody knows.
---@param message string busted's, about it
---@return string hint "" or " (did you mean --timeout?)"
function M.hint(message)
  local given = message:match "%-%-([%w-]+)"
  local near = given and suggest.suggest(given, NAMES)
  return near and (" (did you mean --%s?)"):format(near) or ""
end

return M
