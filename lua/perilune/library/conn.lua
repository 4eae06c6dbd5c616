---@meta

--- Why a connection ended: the argument of an agent's closed().
---@alias perilune.reason
---| "peer" # the peer ended its side, and the agent did not keep the connection
---| "agent" # conn:close(), conn:abort(), or the action "close"
---| "kick" # conn:close("kick"), or `perilune kick`
---| "error" # the handler raised
---| "read_timeout" # a frame that was begun was not complete in time
---| "write_timeout" # the peer did not take what was sent
---| "idle_timeout" # no frame was complete for too long
---| "frame_error" # an empty or malformed frame
---| "oversize" # a frame over its limit
---| "limit" # refused at the door; no agent was made
---| "slow_consumer" # limits.slow_consumer = "close"
---| "memory" # a limit of memory, or the system's memory, was used up
---| "proceed_timeout" # a call took more CPU time than limits.proceed, or longer than timeout.proceed
---| "reset" # the peer reset the connection, or the network failed
---| "drain" # the server stopped
---| "tls" # the handshake failed, or what came after it is no TLS
---| "proxy" # no PROXY header, or from whom the listener does not trust; no agent was made
---| "link" # a connection that it is linked or piped with has ended, or of one out the agent that has made it

---@alias perilune.timeout_kind "read"|"write"|"idle"|"first_frame"

--- What is sent: text, a number as its text, a view as its bytes, a list of them (a frame each); with a codec in Lua,
--- whatever its encode() takes.
---@alias perilune.reply string|number|perilune.view|(string|number|perilune.view)[]|any

--- A connection: self.conn, the argument of a factory, or what perilune.connect() returns. It may be kept: after the
--- end, methods that send return nil, "closed". It cannot be written to: one that something was written into all the
--- same, as by a module in C, raises. Any agent of the worker may use it, but only its own agent can wait with it, or
--- of a connection out the one that has made it. Wrong arguments raise, and one too many. So does waiting where that
--- cannot be: in a method that may not, in a coroutine of one's own, for another's connection, outside of a handler.
---@class perilune.conn
---@field id integer ascending, and never reused in a process. Stays readable
---@field peer string? "10.0.0.7:5060", "[::1]:5060" or "unix"; nil after closed(), as are the next four
---@field local_addr string? our side's address; "unix:/run/app.sock"
---@field listener string? the listener's name; of a connection out the address, as it was given
---@field usage perilune.usage? what this connection's handler has used so far
---@field tls perilune.tls? what the handshake has settled; nil where there is no TLS
---@field subprotocol string? of a WebSocket out: the one that the server has chosen
local conn = {}

--- What a handshake has settled. Each look makes it anew: keep what is needed more than once.
---@class perilune.tls
---@field version "1.2"|"1.3"
---@field cipher string OpenSSL's name: "TLS_AES_256_GCM_SHA384"
---@field server_name string? that the client asked for, in its own spelling
---@field alpn string? the protocol that was chosen of tls.alpn
---@field resumed boolean the client has come back with a session of before
---@field peer_certificate perilune.certificate? the peer's: a client has one where tls.client asks for it

--- Whose certificate it is. Texts are as the certificate has them: compare them, and escape them before they are shown.
---@class perilune.certificate
---@field subject string as RFC 2253 writes it: "CN=alice,O=Example"
---@field issuer string the same, of who has signed it
---@field names string[] alternative names of hosts: "example.org", "*.example.org"
---@field emails string[] alternative names of people: "alice@example.org"
---@field serial string hexadecimal
---@field not_before number seconds since 1970
---@field not_after number
---@field fingerprint string SHA-256 of all of it, hexadecimal
---@field verified boolean signed by tls.client's authority; with "request" nobody is known, and so it is false

--- What a connection's handler has used, and its codec if that is in Lua. The time is that on the clock (the
--- processor's time stamp counter), not CPU time: on a busy machine it has the time in it that others had the core. Who
--- sends to another connection pays for the encoding.
---@class perilune.usage
---@field frames integer whole frames served before the batch at hand
---@field seconds number of time spent in Lua
---@field bytes integer of memory allocated there, freed or not

--- Sends now, in order with replies returned before. false: past the high-water mark, and sent all the same unless
--- limits.slow_consumer is "drop". Of a connection out over [udp://](connections.md#datagrams) there are codes:
--- "EMSGSIZE", the datagram is too large; "ECONNREFUSED" and others, one that was sent before was refused.
---@param reply perilune.reply not nil
---@param kind? "text"|"binary" of a [WebSocket](websocket.md); default: "text"
---@return boolean? ok nil: the connection has ended, or with a code: it was not sent
---@return "closed"|string|nil message
---@return string? code
function conn:send(reply, kind) end

--- Begins a message of a [WebSocket](websocket.md#in-pieces) that is sent in pieces. Until it is finished no other
--- message is sent: conn:send and a reply raise. Not with limits.slow_consumer = "drop".
---@param kind? "text"|"binary" default: "text"
---@return perilune.message? message nil: the connection has ended
---@return "closed"? why
function conn:begin(kind) end

--- A message that is sent in pieces: what conn:begin() returns.
---@class perilune.message
local message = {}

--- Sends a piece now, as conn:send() does. Pieces of a text may end within a character.
---@param data string
---@return boolean? ok false: past the high-water mark, and sent all the same; nil: the connection has ended
---@return "closed"? message
function message:write(data) end

--- Sends the last piece: the message is whole.
---@param data? string
---@return boolean? ok
---@return "closed"? message
function message:finish(data) end

--- Waits until all output was handed to the system.
---@return true? ok
---@return "closed"? message
function conn:flush() end

--- Waits for the next frame, in the connection's framing or another: never for a view. Of a [WebSocket](websocket.md)
--- that is the next message, with a second value, `meta`: meta.binary. The time-out counts from the
--- call. Without one timeout.read and timeout.idle still apply, and end the connection; of a connection out it is
--- timeout.read. Codes: "EOF", the end of the stream; "ETIMEDOUT"; when the connection ends for what came instead,
--- "EMSGSIZE" (over limits.frame) or "EPROTO" (a malformed frame): what is sent then still goes out; and of a
--- connection out "ECONNRESET" and [others](connections.md#errors).
---@param framing? perilune.framing
---@param timeout? perilune.duration
---@return any frame nil: there is none, and why
---@return string|table|nil message of a message of a WebSocket: its `meta`
---@return "EOF"|"ETIMEDOUT"|"EMSGSIZE"|"EPROTO"|string|nil code
---@return integer? close_code with "EOF", of a WebSocket out: what the server's close frame says
---@return string? close_text
function conn:read(framing, timeout) end

--- Sets how bytes become frames, from the next frame on, bytes already received included. A reply returned by this call
--- is framed anew too. Without an argument: the listener's own framing again. Views and codecs in Lua belong to a
--- listener: a connection whose protocol begins with something else sets that in opened(), and returns.
---@param framing? perilune.framing
---@return true? ok
---@return "closed"? message
function conn:set_frame(framing) end

--- Makes the connection a member of a [topic](hub.md): what is published to that from then on is sent to it, in its own
--- framing. Once a member, it gets other options by joining again. It has 1000 topics at most, and leaves them when it
--- ends. Raises outside of handlers, and where options are wrong.
---@param topic string of parts, "room.7.chat"; of a pattern a part may be "*", any one, or the last ">", all the rest
---@param options? perilune.join_options
---@return true? ok it counts, on all workers
---@return "closed"|string|nil message
---@return string? code "EINVAL": this is no topic; "EBUSY": it has 1000 already; "ENOMEM"
function conn:join(topic, options) end

--- It is no member any more; what waits for it is dropped.
---@param topic string as it was joined
---@return boolean? was false: it was none
---@return string? message
---@return string? code "EINVAL"
function conn:leave(topic) end

--- Publishes to a topic: its members get it, on all workers. What one publishes to a topic comes in that order at each
--- of them. Never waits for anybody.
---@param topic string
---@param data string|number|table a table is sent as JSON; 1 MiB at most
---@param options? perilune.publish_options
---@return true? ok it is on its way to all workers that have members
---@return "closed"|string|nil message
---@return string? code "EINVAL": this is no topic; "EBUSY": a worker's inbox is full; "EMSGSIZE"; "ENOMEM"
function conn:publish(topic, data, options) end

--- What it has joined, and how that goes.
---@return table<string, { delivered: integer, dropped: integer, waiting: integer }>
function conn:topics() end

--- Sets a time-out for this connection.
---@param kind perilune.timeout_kind
---@param duration perilune.duration
---@return true? ok
---@return "closed"? message
function conn:set_timeout(kind, duration) end

--- No more frames, and no reading, until resume().
---@return true? ok
---@return "closed"? message
function conn:pause() end

--- Ends what pause() began.
---@return true? ok
---@return "closed"? message
function conn:resume() end

--- Delivers what was sent, then ends. A reply returned by the same call is still sent; frames after it are not served.
---@param reason? "agent"|"kick"|integer for closed(); default: "agent". Of a WebSocket a code: 1000, 3000 to 4999
---@param text? string of a WebSocket: what its client is told with the code, at most 123 bytes
---@return true? ok
---@return "closed"? message
function conn:close(reason, text) end

--- Ends at once; the peer sees a reset.
---@return true? ok
---@return "closed"? message
function conn:abort() end

--- Ends our side once what was sent has gone; frames are still received. See [half-close](#half-close).
---@return true? ok
---@return "closed"? message
function conn:shutdown() end

--- fn() runs after closed(), the latest first, even if there is no agent. At most 1000 at a time.
---@param fn fun()
---@return true? ok
---@return "closed"? message
function conn:defer(fn) end

--- When one of the two ends, the other one does, with the reason "link". What was sent to it is delivered before,
--- unless `how` is "abort". Any number of them, in any order.
---@param other perilune.conn
---@param how? "close"|"abort" default: "close"
---@return true? ok
---@return "closed"? message one of them has ended
function conn:link(other, how) end

--- From now on what comes from one goes to the other, as it is and without Lua, bytes already received included. Agents
--- get no more frames. One that does not take what it is sent stops the other from being read. An end of stream is
--- passed on; when both sides have ended, both connections end with "peer". When one ends otherwise, the other does
--- with "link". What was sent before the call goes out first. Not for udp://.
---@param other perilune.conn
---@return true? ok
---@return "closed"? message one of them has ended
function conn:pipe(other) end
