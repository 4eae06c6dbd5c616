--- Runs a trace against an app in memory, and compares what comes back. Internal: perilune.test and `perilune replay`.
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c, app_tape.c

local compare = require "perilune.test.compare"
local failing = require "perilune.test.fail"
local memory = require "perilune.test.memory"
local traces = require "perilune.test.trace"
local transcript = require "perilune.test.transcript"

local M = {}

---@class perilune.test.replay_options
---@field timing "virtual"|"none"|nil default: time goes on as it was recorded; "none": it does not at all
---@field ignore string|string[]|nil Lua patterns: replies that have one of them are left out, on both sides
---@field normalize nil|fun(frame: string, conn: perilune.trace.conn): string? what is compared in place of a reply;
---  nil: it is left out
---@field overrides table? settings that win over the script's

local OPTIONS = { timing = true, ignore = true, normalize = true, overrides = true }

-- Why a connection ended, where a replay can bring about the same.
local REPEATABLE = { agent = true, error = true, idle_timeout = true, proceed_timeout = true, peer = true,
  reset = true, memory = true }
local BY_PEER = { peer = true, reset = true }

-- ---- the run ----

---@class perilune.replayed one connection of the trace, as it went now
---@field conn perilune.trace.conn
---@field app perilune.test.app
---@field client integer? its number
---@field id integer? its id now
---@field problems table[] { at_ms, text }: what else went another way
---@field cut_at number? from this event on the trace cannot be followed

-- Upwards: what a timer led to happens after it here, too.
local function ms_of(seconds) return math.ceil(seconds * 1000) end

local function advance(run, app, at_ms)
  local now = core.now(app.core)
  if run.timing ~= "none" and at_ms > now then app:advance(("%dms"):format(at_ms - now)) end
end

local function problem(one, text)
  one.problems[#one.problems + 1] = { at_ms = core.now(one.app.core), text = text }
end

local function number_of_listener(app, trace, name)
  local names = core.listeners(app.core)
  for i, other in ipairs(names) do
    if other == name then return i end
  end
  if #names == 1 then return 1 end
  -- The n-th of the script that was recorded, if it has as many.
  for i, listener in ipairs(trace.header.listeners or {}) do
    if listener.name == name and #trace.header.listeners == #names then return i end
  end
  return nil, ("the script has no listener %s; it has %s"):format(name, table.concat(names, ", "))
end

local function open(run, one)
  local app, conn = one.app, one.conn
  local listener, message = number_of_listener(app, run.trace, conn.listener)
  if not listener then return problem(one, message) end
  core.next_conn(app.core, conn.id)
  local from = conn.peer:find(":%d+$") and conn.peer:gsub("[%[%]]", "") or nil
  local connected, client, id = pcall(core.connect, app.core, listener, from, 0, 0, false)
  -- The recorded machine's network interfaces need not be this one's.
  if not connected then client, id = core.connect(app.core, listener, (from:gsub("%%[^:]*", "")), 0, 0, false) end
  if not id then return problem(one, "the connection is refused, by a limit of the script") end
  one.client, one.id = client, id
end

local function reason_now(one) return one.client and core.ended(one.app.core, one.client) end

local function put(one, event)
  if one.stopped then return end
  local frame = event.frame or ("*"):rep(event.redacted)
  local ok, message = core.put_frame(one.app.core, one.client, frame, event.wire)
  if ok then return end
  local reason = reason_now(one)
  problem(one, ("%s cannot be sent: %s"):format(transcript.show(frame),
    reason and "the connection has ended: " .. reason or message))
  one.stopped = true
end

local function hang_up(one, reason)
  if core.ended(one.app.core, one.client) then return end
  core[reason == "reset" and "reset" or "hang_up"](one.app.core, one.client)
end

local function check_end(one, reason)
  if one.cut_at or not REPEATABLE[reason] or BY_PEER[reason] then return end
  local now = reason_now(one)
  if not now then
    problem(one, ("it goes on, where it ended: %s"):format(reason))
  elseif now ~= reason then
    problem(one, ("it has ended with %s, not %s"):format(now, reason))
  end
end

local ACTIONS = {
  ["in"] = put,
  out = function() end,
  lost = function() end,
  eof = function(one) core.half_close(one.app.core, one.client) end,
  bad_frame = function(one, event)
    one.cut_at = one.cut_at or event.number
    hang_up(one)
  end,
  drain = function(one, event)
    one.cut_at = one.cut_at or event.number
    hang_up(one)
  end,
  close = function(one, event)
    check_end(one, event.reason)
    hang_up(one, event.reason)
  end,
}

local function step(run, event)
  local one = run.by_id[event.conn]
  if not one then return end -- it is left out
  advance(run, one.app, ms_of(event.t))
  if event.event == "open" then
    open(run, one)
  elseif one.client then
    ACTIONS[event.event](one, event)
  end
  one.app:settle()
end

-- What workers keep to themselves is kept apart here, too.
local function app_of(run, worker)
  local app = run.apps[worker]
  if not app then
    app = memory.open(run.what, run.overrides)
    run.apps[worker] = app
    run.app_list[#run.app_list + 1] = app
    core.record(app.core)
  end
  return app
end

local function prepare(run)
  for _, conn in ipairs(run.trace.conns) do
    if conn.lost then
      run.lost = run.lost + 1
    else
      local one = { conn = conn, app = app_of(run, conn.worker), problems = {}, replies = {} }
      run.by_id[conn.id] = one
      run.list[#run.list + 1] = one
    end
  end
  -- Without a connection, too, a script that cannot be loaded is an error.
  if #run.app_list == 0 then app_of(run, 0) end
end

-- Time-outs that were heard of a little later than they were due have come, too.
local SLACK_MS = 50

local function play(run)
  local events, last = run.trace.events, 0
  for _, event in ipairs(events) do step(run, event) end
  if #events > 0 then last = ms_of(events[#events].t) + SLACK_MS end
  for _, app in ipairs(run.app_list) do advance(run, app, last) end
end

-- Replies, by connection.
local function collect(run)
  for _, app in ipairs(run.app_list) do
    local by_id = {}
    for _, one in ipairs(run.list) do
      if one.app == app and one.id then by_id[one.id] = one end
    end
    for _, event in ipairs(core.taped(app.core)) do
      local one = by_id[event.conn]
      if one and event.event == "out" then one.replies[#one.replies + 1] = event end
    end
  end
end

-- ---- the comparison ----

local function is_ignored(run, frame)
  for _, pattern in ipairs(run.ignore) do
    if frame:find(pattern) then return true end
  end
  return false
end

-- As it is compared; nil: it is not.
local function compared(run, one, event)
  if event.redacted then return { event = event } end
  if is_ignored(run, event.frame) then return nil end
  local value = event.frame
  if run.normalize then
    value = run.normalize(value, one.conn)
    if value == nil then return nil end
  end
  return { event = event, value = value }
end

-- What was redacted in the trace may have been anything.
local function agree(recorded, now)
  if recorded.event.redacted then return true end
  return not now.event.redacted and recorded.value == now.value
end

local function list_of(run, one, events, is_wanted)
  local list = {}
  for _, event in ipairs(events) do
    if is_wanted(event) then list[#list + 1] = compared(run, one, event) end
  end
  return list
end

local function is_over(one)
  local last = one.conn.events[#one.conn.events]
  return last and last.event == "close"
end

-- Did it end between two events, and not in the midst of what one led to?
local function ended_in_order(trace)
  return trace.summary and trace.summary.reason ~= "max_size" and trace.summary.reason ~= "not enough memory"
end

-- Of a connection that was open still, what comes after the last that is known of it was not recorded any more.
local function may_be_later(run, one, event)
  if is_over(one) then return false end
  local last = one.conn.events[#one.conn.events]
  local last_ms = ms_of(last and last.t or one.conn.opened_at)
  if not ended_in_order(run.trace) then return event.at_ms >= last_ms or run.timing == "none" end
  return run.timing ~= "none" and event.at_ms > last_ms
end

local function shown(event)
  return event.redacted and ("(redacted, %d bytes)"):format(event.redacted) or transcript.show(event.frame)
end

local NOTES = { eof = "ends its side", bad_frame = "sends what is no frame", drain = "the server goes away" }

-- What was recorded, with what differs where it belongs.
local function ladder_events(one, steps)
  local events, differs_at, at = { { at_ms = ms_of(one.conn.opened_at), kind = "note", text = "connects" } }, nil, 1
  local function add(kind, at_ms, text)
    events[#events + 1] = { at_ms = at_ms, kind = kind, text = text }
    if kind == "lacking" or kind == "added" then differs_at = differs_at or #events end
  end
  local function add_added()
    while steps[at] and steps[at].kind == "added" do
      add("added", steps[at].b.event.at_ms, shown(steps[at].b.event))
      at = at + 1
    end
  end
  for _, event in ipairs(one.conn.events) do
    local at_ms = ms_of(event.t)
    if one.cut_at and event.number >= one.cut_at then break end
    if event.event == "in" then
      add("send", at_ms, shown(event))
    elseif event.event == "close" then
      add_added()
      add("note", at_ms, "the connection has ended: " .. event.reason)
    elseif NOTES[event.event] then
      add("note", at_ms, NOTES[event.event])
    elseif steps[at] and steps[at].a and steps[at].a.event == event then
      add(steps[at].kind == "same" and "receive" or "lacking", at_ms, shown(event))
      at = at + 1
    end
    if event.event == "out" then add_added() end
  end
  add_added()
  for _, one_problem in ipairs(one.problems) do add("added", one_problem.at_ms, one_problem.text) end
  return events, differs_at
end

local BEFORE, AFTER = 8, 24

-- Around the first difference.
local function ladder(one, steps, count)
  local events, at = ladder_events(one, steps)
  local first, last = math.max(1, (at or 1) - BEFORE), math.min(#events, (at or 1) + AFTER)
  local window = {}
  for i = first, last do window[#window + 1] = events[i] end
  if last < #events then
    window[#window + 1] = { at_ms = events[last].at_ms, kind = "note", text = ("… %d more"):format(#events - last) }
  end
  local title = ("conn %d of %s (%s), %d difference%s"):format(one.conn.id, one.conn.listener, one.conn.peer, count,
    count == 1 and "" or "s")
  return transcript.ladder(title, window)
end

local function compare_one(run, one)
  local recorded = list_of(run, one, one.conn.events, function(event)
    return event.event == "out" and not (one.cut_at and event.number > one.cut_at)
  end)
  local now = list_of(run, one, one.replies, function() return true end)
  local steps, count = compare.lists(recorded, now, agree), 0
  while #steps > 0 and steps[#steps].kind == "added" and may_be_later(run, one, steps[#steps].b.event) do
    table.remove(steps)
  end
  for _, s in ipairs(steps) do
    run.frames = run.frames + (s.a and 1 or 0)
    if s.kind ~= "same" then count = count + 1 end
  end
  count = count + #one.problems
  if count == 0 then return nil end
  local difference = { conn = one.conn.id, listener = one.conn.listener, peer = one.conn.peer, count = count,
    frames = {}, problems = {}, ladder = ladder(one, steps, count) }
  for _, s in ipairs(steps) do
    if s.kind ~= "same" then
      local event = (s.a or s.b).event
      difference.frames[#difference.frames + 1] = { kind = s.kind, frame = event.frame, redacted = event.redacted,
        t = s.a and event.t or event.at_ms / 1000 }
    end
  end
  for i, one_problem in ipairs(one.problems) do difference.problems[i] = one_problem.text end
  return difference
end

-- ---- the result ----

local LADDERS_MAX = 5

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

local function logs_of(run)
  for _, app in ipairs(run.app_list) do
    local log = transcript.log(core.log(app.core))
    if log then return log end
  end
end

local function stand_ins(trace)
  local n = 0
  for _, event in ipairs(trace.events) do
    if event.event == "in" and event.redacted then n = n + 1 end
  end
  return n
end

-- What is to be known about the trace, whatever comes out.
local function notes_of(run)
  local notes, trace = {}, run.trace
  local lost = math.max(run.lost, trace.summary and tonumber(trace.summary.lost) or 0)
  if trace.cut_short then notes[#notes + 1] = ("the trace is cut short: %s"):format(trace.cut_short) end
  if lost > 0 then
    notes[#notes + 1] = plural(lost, "connection") .. " left out: the recording had no room for all of what happened"
  end
  local n = stand_ins(trace)
  if n > 0 then
    notes[#notes + 1] = plural(n, "frame") .. " redacted when it was recorded: as many asterisks are sent instead"
  end
  return notes
end

---@class perilune.test.replay_result
---@field same boolean
---@field connections integer that were compared
---@field frames integer replies that were recorded for them
---@field differences table[] { conn, listener, peer, count, frames, problems, ladder }
---@field notes string[] what is to be known about the trace
---@field log string? what the app has logged

local function result_of(run)
  local differences = {}
  for _, one in ipairs(run.list) do
    differences[#differences + 1] = compare_one(run, one)
  end
  return { same = #differences == 0, connections = #run.list, frames = run.frames, differences = differences,
    notes = notes_of(run), log = #differences > 0 and logs_of(run) or nil }
end

--- A result as a text for people.
---@param result perilune.test.replay_result
---@return string
function M.text(result)
  local parts = {}
  local compared_text = ("%s, %s compared"):format(plural(result.connections, "connection"),
    plural(result.frames, "reply"):gsub("replys$", "replies"))
  if result.same then
    parts[1] = compared_text .. ": no differences"
  else
    local n = #result.differences
    parts[1] = ("%s: %s (- recorded, + now)"):format(compared_text,
      n == 1 and "1 connection differs" or n .. " connections differ")
  end
  for i = 1, math.min(#result.differences, LADDERS_MAX) do parts[#parts + 1] = "\n" .. result.differences[i].ladder end
  if #result.differences > LADDERS_MAX then
    parts[#parts + 1] = ("\n… and %s more"):format(plural(#result.differences - LADDERS_MAX, "connection"))
  end
  if result.log then parts[#parts + 1] = "\n" .. result.log end
  if #result.notes > 0 then parts[#parts + 1] = "\nnote: " .. table.concat(result.notes, "\nnote: ") end
  return table.concat(parts, "\n")
end

local function check_options(options)
  for key in pairs(options) do
    if not OPTIONS[key] then
      failing.misuse(("replay: unknown option %s (there are: ignore, normalize, overrides, timing)")
        :format(tostring(key)))
    end
  end
  if type(options.overrides) == "table" and options.overrides.workers ~= nil then
    failing.misuse("replay: overrides: workers: there are those of the trace")
  end
  if options.timing ~= nil and options.timing ~= "virtual" and options.timing ~= "none" then
    failing.misuse(('replay: timing is "virtual" or "none", got %s'):format(transcript.show(options.timing)))
  end
  if options.normalize ~= nil and type(options.normalize) ~= "function" then
    failing.misuse("replay: normalize is a function, got a " .. type(options.normalize))
  end
  local ignore = options.ignore or {}
  if type(ignore) == "string" then ignore = { ignore } end
  for _, pattern in ipairs(ignore) do
    local ok, message = pcall(string.find, "", pattern)
    if not ok then failing.misuse(("replay: ignore: %s: %s"):format(transcript.show(pattern), message)) end
  end
  return ignore
end

--- Runs a trace that was read.
---@param trace perilune.trace
---@param what string|table as perilune.app takes it
---@param options perilune.test.replay_options?
---@return perilune.test.replay_result
function M.run(trace, what, options)
  options = options or {}
  local run = { trace = trace, what = what, overrides = options.overrides, timing = options.timing,
    ignore = check_options(options), normalize = options.normalize, apps = {}, app_list = {}, by_id = {}, list = {},
    lost = 0, frames = 0 }
  prepare(run)
  play(run)
  collect(run)
  local result = result_of(run)
  for _, app in ipairs(run.app_list) do app:dispose() end
  return result
end

--- Why a result says nothing, or nil.
---@param result perilune.test.replay_result
---@param path string of the trace
---@return string? message
function M.empty(result, path)
  if result.connections > 0 then return nil end
  local parts = { path .. ": it has no connection that could be compared" }
  for _, note in ipairs(result.notes) do parts[#parts + 1] = note end
  return table.concat(parts, "; ")
end

--- For specifications: fails where something differs.
---@param path string
---@param what string|table
---@param options perilune.test.replay_options?
---@return perilune.test.replay_result
function M.expect(path, what, options)
  local trace, message = traces.read(path)
  if not trace then failing.misuse("replay: " .. message) end
  local result = M.run(trace, what, options)
  local empty = M.empty(result, path)
  if empty then failing.misuse("replay: " .. empty) end
  if not result.same then failing.fail(("%s of %s\n"):format(M.text(result), path)) end
  return result
end

return M
