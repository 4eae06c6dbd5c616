---@meta

--- The options of perilune.connect(). What a connection out has in common with a listener's has the same name and means
--- the same.
---@class perilune.connect_options
---@field frame? perilune.framing how bytes become frames; default: "u32be", of udp:// "datagram"
---@field agent? perilune.agent|table|fun(conn: perilune.conn): table serves it; without one it is read with conn:read()
---@field timeout? perilune.connect_timeouts
---@field limits? perilune.connect_limits
---@field tls? perilune.connect_tls of a tls:// or wss:// address
---@field from? string the address of this machine to connect from: "10.0.0.7"
---@field keepalive? perilune.duration TCP (and not UDP) asks a silent peer after so long; default: 30s
---@field subprotocols? string[] of ws://: names that the server may choose from, the best first; default: none
---@field origin? string of ws://: where the page is from that asks, "https://example.org"
---@field headers? table<string, string|number|string[]|false> of ws://: more fields of the request
---@field compress? boolean|"alone" of ws://: offers permessage-deflate; default: false
---@field ping? perilune.duration of ws://: a server that is silent is asked whether it is there; default: 54s
---@field pong? perilune.duration of ws://: and gone when it is silent for so long; default: 60s

---@class perilune.connect_timeouts
---@field connect? perilune.duration the look-up, the connection, TLS and a WebSocket's handshake together; default: 5s
---@field read? perilune.duration a frame that was begun must be complete; and how long conn:read() waits; default: 10s
---@field write? perilune.duration what is sent must make progress; default: 10s
---@field idle? perilune.duration a frame must complete now and then; default: off
---@field first_frame? perilune.duration the first frame must complete; default: off
---@field proceed? perilune.duration of an agent of its own: a call, its waits included; default: the first listener's

---@class perilune.connect_limits
---@field frame? perilune.size default of a framing's `max`; default: 1m
---@field message? perilune.size of ws://: bytes of a message, put together and inflated; default: 64k
---@field inbox? integer frames that may wait; default: 1024
---@field send_buffer? perilune.size high-water mark of output that the peer has not taken; default: 1m
---@field slow_consumer? "pause"|"close"|"drop" past the high-water mark; default: "pause"
---@field proceed? perilune.duration of an agent of its own: CPU time of a call; default: the first listener's
---@field allocation? perilune.size of an agent of its own: what a call may allocate; default: the first listener's

--- Paths are of PEM files, beside the script unless they are absolute.
---@class perilune.connect_tls
---@field server_name? string whom the certificate must be for; default: the host of the address
---@field verify? boolean false takes whoever answers; default: true
---@field authority? string who must have signed the certificate; default: those of the system
---@field certificate? string our own, for a server that asks for one
---@field key? string of that certificate, without a password
---@field alpn? string|string[] protocols, the best first
---@field min? "1.2"|"1.3" the oldest version; default: "1.2"
---@field ciphers? string names of OpenSSL's with ":" between; default: its own choice

--- The options of perilune.pool(), beside those of perilune.connect() but for `agent`.
---@class perilune.pool_options: perilune.connect_options
---@field size? integer connections at most, of a worker; default: 8
---@field total? integer the same of the process: each worker has its share, and so needs one at least; default: off
---@field queue? integer calls that may wait for one; one more is refused with "EBUSY"; default: 1000
---@field wait? perilune.duration how long they wait; default: 5s
---@field idle? perilune.duration one that nobody has used for so long ends; default: 30s
---@field lifetime? perilune.duration one that is as old ends when nobody uses it; default: off
---@field pipeline? boolean requests of several callers share a connection, without waiting for replies; default: false
---@field depth? integer with `pipeline`: replies that a connection may owe; default: 1000

---@class perilune.request_options
---@field timeout? perilune.duration for the reply; default: timeout.read
---@field idempotent? boolean asks once more where the connection has ended instead of answering; default: false

---@class perilune.forward_options
---@field timeout? perilune.duration for the reply; default: timeout.read
---@field otherwise? perilune.reply the reply if none comes; default: the client's connection ends

--- What perilune.pool() returns: connections to one address, kept and shared by all callers of a worker.
---@class perilune.pool
local pool = {}

--- Sends a frame, and waits for the next one that comes: the reply.
---@param data perilune.reply
---@param options? perilune.request_options
---@return any reply nil: there is none, and why
---@return string? message
---@return string? code "EBUSY": too many calls wait; "ECANCELED": the pool is closed; else one of a connection's
function pool:request(data, options) end

--- For a handler's return: sends a frame, and the reply goes to the client in the place of the handler's own. As
--- `return pool:request(data)`, but the call is over and nothing waits: several times as fast. With `pipeline`.
---@param data perilune.reply
---@param options? perilune.forward_options
---@return any reply what `proceed` is to return, with or without an action after it; it is not the reply itself
---@return string? action "close" if it is known at once that no reply comes, and there is no `otherwise`
function pool:forward(data, options) end

--- Calls a function with a connection that nobody else has meanwhile. The connection goes back when the function
--- returns, and ends where it raises, or where the call ends that it runs in. Not with `pipeline`.
---@param fn fun(conn: perilune.conn, ...: any): any
---@param ... any
---@return any results what it returned; or nil, message, code: there is no connection
function pool:with(fn, ...) end

--- What there is, and what has happened.
---@return perilune.pool_status
function pool:status() end

--- Its connections end; those in use when they come back. After that it has none.
function pool:close() end

---@class perilune.pool_status
---@field address string
---@field size integer
---@field idle integer connections that nobody uses; with `pipeline` all that are open
---@field used integer connections in use, or being made
---@field owed integer replies that are owed
---@field waiting integer calls that wait for a connection
---@field is_down boolean connecting has failed just now, and is not tried again before a while
---@field error string? how it failed the last time
---@field uses integer requests, and calls of with()
---@field connects integer
---@field failures integer attempts to connect that failed
---@field retries integer requests that were sent once more
---@field refused integer calls that were refused with "EBUSY"
