--- The corpus of broken handlers, spec/corpus/: each file is an app of its own, whose first lines say
--- what becomes of it:
---
---     -- expect: memory          the reason of the end; or several, "drain|proceed_timeout"
---     -- send: go\nmore\n        what the client sends; else "go\n"
---     -- drive: leave            what the client does beside that, see M.DRIVES
---     -- closed: 0               how often closed() is called, when not once
---
--- M.app() makes one server of them all: a listener each, and "canary", an echo that no one may disturb.
local command = require "spec.support.command"
local dirent = require "posix.dirent"

local M = {}

M.FOLDER = "spec/corpus"
--- What limits.memory is for the server of M.app().
M.MEMORY = "48m"

--- none: nothing is sent. send: only that. leave: closes after sending. finish: half-closes. receive: takes what
--- comes, from a small buffer. drain: asks the server to stop.
M.DRIVES = { none = true, send = true, leave = true, finish = true, receive = true, drain = true }

local read = command.read

-- What ends for another reason has time for it, in builds that are several times slower, too.
local TIME_FOR_OTHERS = (os.getenv "SANITIZE" or "") ~= "" and "200ms" or "20ms"

---@class perilune.corpus_case
---@field name string
---@field source string
---@field expect table<string, boolean> reasons
---@field send string
---@field drive string
---@field closed integer

local function parse(name, source)
  local head = {}
  for key, value in source:gmatch("%-%- (%l+): ([^\n]*)\n") do head[key] = head[key] or value end
  local case = {
    name = name, source = source, expect = {}, drive = head.drive or "send",
    send = (head.send or "go\\n"):gsub("\\n", "\n"), closed = tonumber(head.closed or 1),
  }
  for reason in assert(head.expect, name .. ": no '-- expect:'"):gmatch("[%w_]+") do case.expect[reason] = true end
  assert(M.DRIVES[case.drive], name .. ": unknown drive " .. case.drive)
  return case
end

--- All cases in the order of their names.
---@return perilune.corpus_case[]
function M.cases()
  local cases = {}
  for file in dirent.files(M.FOLDER) do
    local name = file:match("^(.*)%.lua$")
    if name then cases[#cases + 1] = parse(name, read(M.FOLDER .. "/" .. file)) end
  end
  table.sort(cases, function(a, b) return a.name < b.name end)
  return cases
end

-- A call of closed() is noted, whatever the agent makes of it.
local HEAD = [[
local perilune = require "perilune"

local function noting(agent)
  local own = agent.closed
  rawset(agent, "closed", function(self, reason)
    perilune.log("info", "closed " .. reason)
    if own then return own(self, reason) end
  end)
  return agent
end

local function watched(agent)
  if type(agent) == "table" then return noting(agent) end
  return function(conn) return noting(agent(conn)) end
end

local Canary = {}
function Canary:proceed(line) return line end

local listeners = { { "tcp://127.0.0.1:0", name = "canary", frame = "line", agent = Canary,
  limits = { proceed = "5s" } } }
local function add(name, proceed)
  local entry = require(name)
  entry[1], entry.listen, entry.name = "tcp://127.0.0.1:0", nil, name
  entry.limits = entry.limits or {}
  entry.limits.proceed = entry.limits.proceed or proceed
  entry.agent = watched(entry.agent)
  listeners[#listeners + 1] = entry
end

]]

--- For server.start(): `cases` behind a listener each, from the second on, in their order.
---@param cases perilune.corpus_case[]
---@param settings string? more of what the script returns
function M.app(cases, settings)
  local lines, modules = { HEAD }, {}
  for _, case in ipairs(cases) do
    lines[#lines + 1] = ("add(%q, %q)\n"):format(case.name, case.expect.proceed_timeout and "20ms" or TIME_FOR_OTHERS)
    modules[case.name] = case.source
  end
  lines[#lines + 1] = ("return { listen = listeners, log = { level = %q }, %s }\n"):format("debug", settings or "")
  return { script = table.concat(lines), modules = modules,
    args = { "--set", "limits.memory=" .. M.MEMORY } }
end

return M
