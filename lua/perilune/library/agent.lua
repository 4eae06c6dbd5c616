---@meta

--- The Lua object behind a connection: an instance of a prototype, which has the field `conn`, or what a factory
--- returned. All methods but proceed() are optional, and may return `reply [, "close"]`. Never are two running for one
--- connection at a time, and none begins while another waits. They may wait where it does not say that they cannot.
---@class perilune.agent
---@field conn perilune.conn of agents made from a prototype
local agent = {}

--- For each frame, in order. Its replies are sent as frames; "close" delivers them and ends the connection. To return
--- true is an error.
---@param frame any a string; a view where the framing has `view = true`; a codec in Lua's; a request of http://
---@param meta any of a codec in Lua
---@return perilune.reply? reply
---@return "close"? action
function agent:proceed(frame, meta) end

--- Once, before any frame. What it returns is a greeting.
---@return perilune.reply? reply
---@return "close"? action
function agent:opened() end

--- The peer has ended its side, and all its frames were served. true keeps the connection for sending; else it is
--- closed. Not of udp://, where no peer can.
---@return true|perilune.reply|nil reply
---@return "close"? action
function agent:eof() end

--- A deadline has passed. true keeps the connection, and the deadline begins anew ("first_frame" is asked once); else
--- it is closed. Cannot wait.
---@param kind perilune.timeout_kind
---@return true|perilune.reply|nil reply
---@return "close"? action
function agent:timeout(kind) end

--- A frame was over the limit; the connection then ends. Cannot wait. Not of udp://, where such datagrams are dropped.
---@param bytes integer as announced, or one more than the limit where no length is
---@return perilune.reply? reply
---@return "close"? action
function agent:oversize(bytes) end

--- A frame was empty or malformed; the connection then ends. Cannot wait.
---@param why string as in the log; a codec's own words, escaped and cut
---@return perilune.reply? reply
---@return "close"? action
function agent:malformed(why) end

--- Output had passed the high-water mark, and half of it has drained.
---@return perilune.reply? reply
---@return "close"? action
function agent:writable() end

--- The server stops, at the deadline at the latest. Called when nothing is in flight. true: the agent will close by
--- itself; else the connection is closed once nothing is in flight.
---@param deadline number seconds that are left; math.huge where timeout.drain is off
---@return true|perilune.reply|nil reply
---@return "close"? action
function agent:drain(deadline) end

--- Something was sent to a name of the agent, by perilune.send or perilune.call. What it returns goes back to who has
--- called, and nowhere else: nothing of it is sent to the connection, which is what self.conn:send() is for.
---@param topic string the name that it was sent to
---@param data any a copy
---@param from string? a name that reaches who has sent it, if that takes messages; nil: a task of the app's has
---@return any reply plain data
---@return "close"? action
function agent:message(topic, data, from) end

--- The connection is to go to a newer generation of the script: plain data for it. Cannot wait.
---@return any data
function agent:snapshot() end

--- In place of opened(), for a connection from an older generation. Cannot wait.
---@param data any a copy of what the old agent's snapshot() returned
---@param from integer that generation
function agent:upgrade(data, from) end

--- A method raised `err` (not failed(), closed() or a deferred function), or a codec did; the connection then ends. The
--- reply is a last word. Cannot wait.
---@param err any
---@param callback string what has failed: the name of a method, "task", "timer", "defer", "decode" or "encode"
---@return perilune.reply? reply
---@return "close"? action
function agent:failed(err, callback) end

--- The end, once for each agent. What it returns goes nowhere. Cannot wait.
---@param reason perilune.reason
function agent:closed(reason) end

--- An agent without a socket: an instance of a prototype, which has the field `key`, or what a factory returned. It has
--- no conn, and must have the method message. Its other methods are opened(), timeout("idle"), drain(), snapshot(),
--- upgrade(), failed() and closed(); there is nobody to reply to but who has called it.
---@class perilune.resident: perilune.agent
---@field key string of agents made from a prototype: "42" of "user:42"
