--- Traces, as `perilune record` writes them; docs/replay.md says what is in them. Internal.
local core = require "perilune.workbench.app" -- in C: src/workbench/app_tape.c

local named = require "perilune.named"

local M = {}

local FORMAT = 1

---@class perilune.trace.event
---@field t number seconds since the recording began
---@field conn integer
---@field event "open"|"in"|"out"|"eof"|"bad_frame"|"drain"|"close"|"lost"
---@field frame string? of "in" and "out"; or
---@field redacted integer? ... only its length is known
---@field wire boolean? the frame is as a codec in Lua has it: framed
---@field reason string? of "close"
---@field generation integer?
---@field number integer the how manieth of the trace it is

---@class perilune.trace.conn
---@field id integer
---@field worker integer
---@field listener string its name
---@field peer string
---@field events perilune.trace.event[] without "open"
---@field opened_at number
---@field lost boolean? parts of it are missing

---@class perilune.trace
---@field path string
---@field header table
---@field conns perilune.trace.conn[] in the order in which they began
---@field events perilune.trace.event[] of all connections, in the order of time
---@field summary table? the last line
---@field cut_short string? why the end is missing

-- ---- one line ----

local function is_whole(value) return type(value) == "number" and value >= 0 and value == math.floor(value) end

local function check_header(header)
  local format = header.perilune_trace
  if format == nil then return "it does not begin with the line of a trace: {\"perilune_trace\":1,…}" end
  if format ~= FORMAT then
    return ("it has format %s, and this version reads format %d"):format(tostring(format), FORMAT)
  end
end

local function check_open(event)
  if not is_whole(event.worker) then return '"worker" is to be a whole number' end
  if type(event.listener) ~= "string" or type(event.peer) ~= "string" then
    return '"listener" and "peer" are to be texts'
  end
end

-- The frame, whichever way it is written.
local function check_frame(event)
  if event.base64 ~= nil then
    local bytes = type(event.base64) == "string" and core.base64(event.base64)
    if not bytes then return '"base64" is not Base64' end
    event.frame, event.base64 = bytes, nil
  end
  if is_whole(event.redacted) then return nil end
  if type(event.frame) ~= "string" then return 'a frame is missing: "frame", "base64" or "redacted"' end
end

local function check_close(event)
  if type(event.reason) ~= "string" then return '"reason" is to be a text' end
end

local function fine() end

local CHECKS = {
  open = check_open, ["in"] = check_frame, out = check_frame, close = check_close, eof = fine, bad_frame = fine,
  drain = fine, lost = fine,
}

local function check_event(event)
  if type(event.t) ~= "number" or event.t < 0 then return '"t" is to be seconds' end
  if not is_whole(event.conn) then return '"conn" is to be a whole number' end
  local check = CHECKS[event.event]
  if not check then return ('unknown event "%s"'):format(tostring(event.event)) end
  return check(event)
end

-- ---- all of them ----

local function add_event(trace, by_id, event)
  local conn = by_id[event.conn]
  if event.event == "open" then
    if conn then return ("connection %d begins a second time"):format(event.conn) end
    conn = { id = event.conn, worker = event.worker, listener = event.listener, peer = event.peer, events = {},
      opened_at = event.t }
    by_id[conn.id] = conn
    trace.conns[#trace.conns + 1] = conn
  elseif not conn then
    return ("connection %d has not begun"):format(event.conn)
  else
    conn.events[#conn.events + 1] = event
  end
  if event.event == "lost" then conn.lost = true end
  event.number = #trace.events + 1
  trace.events[event.number] = event
end

-- Workers write in turns, each of them in order.
local function sort(trace)
  table.sort(trace.events, function(a, b)
    if a.t ~= b.t then return a.t < b.t end
    return a.number < b.number
  end)
end

local function parse_lines(path, text)
  local trace, by_id, number, at = { path = path, conns = {}, events = {} }, {}, 0, 1
  while at <= #text do
    local stop = text:find("\n", at, true)
    local line = text:sub(at, (stop or 0) - 1)
    number, at = number + 1, (stop or #text) + 1
    local value, message = core.parse(line)
    local is_last = not stop
    if not value and is_last and number > 1 then
      trace.cut_short = ("line %d, the last one, is not whole"):format(number)
    elseif not value then
      return nil, ("%s:%d: not a line of JSON: %s"):format(path, number, message)
    elseif number == 1 then
      message = check_header(value)
      trace.header = value
    elseif trace.summary then
      message = "there is more after the last line of the trace"
    elseif value.event == "end" then
      trace.summary, message = value, nil
    else
      message = check_event(value) or add_event(trace, by_id, value)
    end
    if value and message then return nil, ("%s:%d: %s"):format(path, number, message) end
  end
  return trace
end

--- Reads a trace. nil, message: it is none; the message names the file and the line.
---@param path string
---@return perilune.trace?
---@return string? message
function M.read(path)
  local file, message = named.open(path, "rb")
  if not file then return nil, "cannot read the trace " .. message end
  local text = file:read "*a"
  file:close()
  if not text then return nil, ("cannot read the trace %s: is it a file?"):format(path) end
  if text == "" then return nil, path .. ": it is empty, so nothing was recorded" end
  local trace
  trace, message = parse_lines(path, text)
  if not trace then return nil, message end
  if not trace.summary and not trace.cut_short then trace.cut_short = "its last line is missing" end
  sort(trace)
  return trace
end

return M
