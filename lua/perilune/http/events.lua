--- Server-sent events: http.events. A stream (stream.lua) of the type text/event-stream, as HTML has it.
local core = require "perilune.http_core"
local http = require "perilune.http"
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"
local units = require "perilune.units"

local M = {}

local HEARTBEAT_S = 15

local methods = {}
local meta = { __index = methods, __metatable = "http.events" }

function meta.__tostring() return "HTTP events" end

function meta.__newindex() error("events cannot be written to: events:send(data) sends", 2) end

local function check_events(events, method)
  if getmetatable(events) == "http.events" then return end
  error(("http.events: write it with a colon, as in events:%s(…)"):format(method), 3)
end

local OPTIONS = { event = true, id = true, retry = true }

-- A field of one line.
local function field(name, value, level)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" or value:find "[\r\n%z]" then
    error(("http.events: %s: expects a text of one line, got %s"):format(name, printable.value(value)), level + 1)
  end
  return name .. ": " .. value .. "\n"
end

local function retry_of(value, level)
  local seconds = units.duration(value)
  if not seconds then
    error("http.events: retry: expects a duration such as \"5s\", got " .. printable.value(value), level + 1)
  end
  return ("retry: %d\n"):format(seconds)
end

-- The lines of data, whichever way they end.
local function data_lines(data)
  if not data:find "[\r\n]" then return "data: " .. data .. "\n" end
  return "data: " .. data:gsub("\r\n?", "\n"):gsub("\n", "\ndata: ") .. "\n"
end

local function text_of(data, level)
  if type(data) == "string" then return data end
  if type(data) == "number" then return tostring(data) end
  if type(data) == "table" then return require("perilune.json_core").encode(data) end
  error("http.events: send: expects a text, or a table for JSON, got " .. printable.value(data), level + 1)
end

--- Sends an event.
---@param data string|number|table a table is sent as JSON
---@param options { event: string?, id: string|number|nil, retry: string|number|nil }?
---@return boolean? ok
---@return string? why "closed"
function methods.send(events, data, options)
  check_events(events, "send")
  options = option_checks.check("http.events: send", options, OPTIONS, 2)
  local lines = {}
  if options.event ~= nil then lines[1] = field("event", options.event, 2) end
  if options.id ~= nil then lines[#lines + 1] = field("id", options.id, 2) end
  if options.retry ~= nil then lines[#lines + 1] = retry_of(options.retry, 2) end
  lines[#lines + 1] = data_lines(text_of(data, 2))
  lines[#lines + 1] = "\n"
  return rawget(events, "out"):write(table.concat(lines))
end

--- Sends a comment, which clients leave out.
---@param text string?
---@return boolean? ok
---@return string? why "closed"
function methods.comment(events, text)
  check_events(events, "comment")
  text = text == nil and "" or tostring(text)
  return rawget(events, "out"):write(": " .. text:gsub("[\r\n]+", "\n: ") .. "\n\n")
end

local function id_of(events, method)
  check_events(events, method)
  local out = rawget(events, "out")
  local id = rawget(out, "id")
  if not id then error(("http.events: %s: this response is over"):format(method), 3) end
  if rawget(out, "coder") then
    error(("http.events: %s: this response is compressed: leave `compress` out around it"):format(method), 3)
  end
  return id
end

--- The client is a member of the topic, as by conn:join: what is published to it is sent as an event, until the
--- response ends.
---@param topic string
---@param options table?
---@return boolean? ok
---@return string? message
---@return string? code
function methods.join(events, topic, options)
  if type(options) == "table" and rawget(options, "deliver") == "agent" then
    error("events:join: a client is sent what is published; for the agent's message(topic, data) use conn:join", 2)
  end
  return core.join(id_of(events, "join"), topic, options)
end

--- It is no member any more.
---@param topic string
---@return boolean? was
---@return string? message
---@return string? code
function methods.leave(events, topic) return core.leave(id_of(events, "leave"), topic) end

--- Waits until the client has left, or the server would have it leave: the producer has nothing to send by itself.
function methods.wait(events)
  check_events(events, "wait")
  local sleep = require("perilune").sleep
  while rawget(rawget(events, "out"), "id") do sleep(3600) end
end

local function beat(out, seconds)
  local sleep = require("perilune").sleep
  repeat sleep(seconds) until not out:write ":\n\n"
end

-- Runs the producer, with heartbeats beside it: connections through which nothing goes are ended by what lies between,
-- and a client that has left is noticed by what cannot be sent to it.
local function produce(out, producer, seconds)
  out:flush()
  local heart = seconds and require("perilune.waiting").spawn(beat, out, seconds)
  producer(setmetatable({ out = out }, meta))
  if heart then heart:cancel() end
end

local EVENTS_OPTIONS = { status = true, headers = "table", heartbeat = true }

local function check_heartbeat(value, level)
  if value == nil then return HEARTBEAT_S end
  if value == false then return false end
  local ms = units.duration(value)
  if ms and ms > 0 then return ms / 1000 end
  error("http.events: heartbeat: expects a duration such as \"15s\", or false, got " .. printable.value(value),
    level + 1)
end

local function headers_with(given)
  local headers = { ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-cache",
    ["X-Accel-Buffering"] = "no" }
  local names = {}
  for name in pairs(headers) do names[name:lower()] = name end
  for name, value in next, given or {} do
    if type(name) == "string" and names[name:lower()] then headers[names[name:lower()]] = nil end
    headers[name] = value
  end
  return headers
end

--- A response of server-sent events.
---@param producer fun(events: perilune.http.events_stream)
---@param options { headers: table?, heartbeat: number|string|false|nil }?
---@return perilune.http.response
function M.events(producer, options)
  if type(producer) ~= "function" then
    error("http.events: expects a function that gets the events, got " .. printable.value(producer), 2)
  end
  options = option_checks.check("http.events", options, EVENTS_OPTIONS, 2)
  local seconds = check_heartbeat(options.heartbeat, 2)
  local response = http.stream(function(out) produce(out, producer, seconds) end,
    { status = options.status, headers = headers_with(options.headers) })
  rawset(response, 8, true) -- it ends with the client, and at once in a drain: the client comes back
  return response
end

return M
