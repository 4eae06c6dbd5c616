---@meta

--- What setup(), snapshot() and teardown() are given. What it begins belongs to no connection. Timers end when a newer
--- generation of the script serves, which has begun its own by then, and tasks with the last connection of their own
--- generation. It may be kept; snapshot() and teardown() can begin nothing.
---@class perilune.worker
---@field worker integer from 0: who does what is to be done once asks for 0
---@field workers integer
---@field generation integer of the script, from 1
---@field script string its file
local worker = {}

--- Begins a task later. The time counts from when the worker serves.
---@param duration perilune.duration
---@param fn fun(...)
---@param ... any at most 16 arguments
---@return perilune.timer
function worker:after(duration, fn, ...) end

--- Begins a task again and again, in step with the first time, unless that of the last time is still at work.
---@param duration perilune.duration above 0
---@param fn fun(...)
---@param ... any at most 16 arguments
---@return perilune.timer
function worker:every(duration, fn, ...) end

--- Begins a task. A fault that nobody joins is in the log.
---@param fn fun(...): any
---@param ... any at most 16 arguments
---@return perilune.task
function worker:spawn(fn, ...) end

--- What a listener has of its own, or takes from the top level.
---@class perilune.listener_settings
---@field frame? perilune.framing how bytes become frames; default: "u32be"; of udp:// "datagram"
---@field agent? perilune.agent|table|fun(conn: perilune.conn): table a prototype with a method proceed, or a factory
---@field name? string in logs and in conn.listener; default: the address
---@field mode? string permissions of a Unix socket, as "0660"
---@field backlog? integer connections that the system keeps until they are accepted; default: 1024
---@field keepalive? perilune.duration of TCP; default: 30s
---@field nodelay? boolean default: true
---@field reuse_port? boolean several processes of one user may listen at the same address; default: false
---@field protocol? "http"|"ws"|false what a Unix socket speaks in place of frames; default: false
---@field tls? perilune.tls_settings|false of tls:// and https://; default: false
---@field proxy? boolean|"optional" connections begin with a PROXY header, which names the client; default: false
---@field trust? string[] the proxies whose header is taken: "10.0.0.0/8", "2001:db8::1", "unix"
---@field amplification? integer|false of udp://: bytes sent for each that came, until it answers; default: 3
---@field origins? string[]|false of ws://: pages that may open WebSockets, "https://example.org"; default: any
---@field subprotocols? string[] of ws://: names, the one that is liked best first; default: none
---@field compress? boolean|"alone" where the client can; default: true of ws://, false of http://
---@field ping? perilune.duration|false of WebSockets: a silence after which the client is asked; default: 54s
---@field pong? perilune.duration|false of WebSockets: a silence after which it is given up; default: 60s
---@field limits? perilune.limits
---@field timeout? perilune.timeouts
---@field reload? perilune.reload|"pin"|"migrate"|"drain"

--- An entry of `listen`: the address first, or at the key `address`; then what is its own.
---@class perilune.listen_entry: perilune.listener_settings
---@field [1]? string
---@field address? string

--- A kind of agents without a socket. One is made when something is sent to a name such as "user:42", and ends when
--- nothing has come for `idle`: docs/agents.md. What of `reload`, `limits` and `timeout` it has not is the top level's.
---@class perilune.kind
---@field agent perilune.resident|table|fun(key: string, name: string): table a prototype with message, or a factory
---@field idle? perilune.duration nothing has come for so long; default: 10m
---@field most? integer at once, of each worker; default: 100000
---@field reload? { policy: "pin"|"migrate"|"drain" }|"pin"|"migrate"|"drain" when a newer generation comes
---@field limits? perilune.kind_limits
---@field timeout? { proceed: perilune.duration? }

---@class perilune.kind_limits
---@field proceed? perilune.duration CPU time of each call of a handler
---@field allocation? perilune.size|false bytes that one call may allocate
---@field mailbox? integer messages that may wait for one of them

--- The table that a script returns.
---@class perilune.app: perilune.listener_settings
---@field listen string|(string|perilune.listen_entry)[] "tcp://127.0.0.1:9000", "http://:8080", "unix:///app.sock" …
---@field workers? integer worker threads; default: the processors available
---@field shared? table<string, perilune.size> dictionaries that all workers share; default: none
---@field jobs? perilune.job_settings|boolean threads for perilune.job(); true: with the defaults; default: false
---@field hub? perilune.hub_settings what conn:join() has where it says nothing else
---@field agents? table<string, perilune.kind> kinds of agents without a socket, by name; default: none
---@field modules? string[] modules of the system that the script may require
---@field unsafe? perilune.door[] opens what leads out of the VM
---@field compat? perilune.compat[] what drivers of others are written for
---@field setup? fun(app: perilune.worker, data: any) once in each worker, before anything is served
---@field snapshot? fun(app: perilune.worker): any plain data that the next generation's setup(app, data) is given
---@field teardown? fun(app: perilune.worker) once in each worker, after its last connection
---@field control? string|false the control socket: a path, "auto" (the default) or "off"
---@field jit? boolean compile what runs often; default: true
---@field log? perilune.log_settings
---@field record? perilune.record

--- Who the server is, to clients that ask for a name: paths of PEM files, beside the script unless they are absolute.
---@class perilune.tls_identity
---@field certificate string|string[] the server's own, then those that lead to an authority; or a list
---@field key string|string[] of that certificate, without a password; or a list, of each
---@field ocsp? string a response of the authority (DER) for the first certificate, to be stapled

---@class perilune.tls_settings: perilune.tls_identity
---@field names? table<string, perilune.tls_identity> for "example.org" and "*.example.org"; all others get the first
---@field client? string|false certificates of clients: the file of who must have signed them, "request" or false
---@field alpn? string|string[] protocols, the best first; who offers none of them is refused
---@field min? "1.2"|"1.3" the oldest version; default: "1.2"
---@field ciphers? string names of OpenSSL's with ":" between; default: its own choice

---@alias perilune.compat "ngx"|"socket"
---@alias perilune.door
---| "debug"
---| "ffi"
---| "io.popen"
---| "io.special"
---| "jit"
---| "newproxy"
---| "os.execute"
---| "os.exit"
---| "os.setlocale"
---| "package"
---| "string.buffer"
---| "string.dump"

---@class perilune.job_settings
---@field workers? integer|false threads, shared by all workers of the process; default: 2; false: there are no jobs
---@field queue? integer jobs that may wait in each lane; default: 1024
---@field when_full? "block"|"shed"|"error" what becomes of one more: it waits, is refused, or raises; default: "block"
---@field lanes? (string|perilune.job_lane)[] at most 8; a free thread takes of the first ones first. Default: one
---@field timeout? perilune.duration how long a call waits for its job, unless it says so itself; default: 30s
---@field proceed? perilune.duration CPU time of a job; default: 10s
---@field memory? perilune.size for the Lua of each thread; default: 256m
---@field message? perilune.size arguments of a job, and its results; default: 16m
---@field buffers? perilune.size arguments of all jobs that wait; default: 256m
---@field unsafe? perilune.door[] opens what leads out of the VM, for jobs alone

---@class perilune.hub_settings
---@field policy? "disconnect"|"drop_newest"|"drop_oldest"|"latest" of members; default: "disconnect"
---@field messages? integer that may wait for a member; default: 256
---@field bytes? perilune.size that may wait for a member; default: 1m
---@field inbox? integer messages of other workers that may wait in each; default: 8192

---@class perilune.job_lane
---@field [1] string its name
---@field workers? integer so many of its jobs run at once; default: 0, any

---@class perilune.limits
---@field memory? perilune.size for the Lua of one worker; of the process. Default: half of the machine's, shared out
---@field garbage? number share of what is live that may wait as garbage; of the process. Default: 0.28
---@field buffers? perilune.size for all bytes that have to be kept; of the process. Default: 256m
---@field snapshot? perilune.size what setup(app, data) may be given, packed; of the process. Default: 16m
---@field deflate? perilune.size for compression windows of WebSockets, of a worker; of the process. Default: 64m
---@field handshakes? integer of TLS at once, for each worker; of the process. Default: 1000
---@field outgoing? integer connections out at once, for each worker; of the process. Default: 10000
---@field connections? integer at once; default: 10000
---@field per_ip? integer|false at once from one address; default: off
---@field accept_rate? integer|false connections a second; default: off
---@field reject? string|false sent to who is refused
---@field frame? perilune.size default of a framing's `max`; default: 1m
---@field uri? perilune.size of http://: a request's target; default: 8k
---@field headers? perilune.size of http://: all header fields of a request; default: 16k
---@field fields? integer of http://: how many they are; default: 100
---@field body? perilune.size of http://: a request's body; default: 1m
---@field requests? integer|false of http://: of a connection; default: any number
---@field upload? perilune.size|false of http://: a body that is read in pieces; default: none is
---@field message? perilune.size of WebSockets: bytes of a message; default: 64k
---@field inbox? integer frames that may wait for a suspended agent; default: 1024
---@field mailbox? integer messages that may wait for a name of an agent; default: 1000
---@field send_buffer? perilune.size high-water mark of output that the peer has not taken; default: 1m
---@field proceed? perilune.duration CPU time of each call of a handler; default: 1s
---@field allocation? perilune.size|false bytes that one call may allocate; default: off
---@field slow_consumer? "pause"|"close"|"drop" past the high-water mark; default: "pause"

---@class perilune.timeouts
---@field read? perilune.duration a frame that was begun must be complete; default: 10s
---@field write? perilune.duration pending output must make progress; default: 10s
---@field idle? perilune.duration a frame must complete now and then; default: 60s; of udp:// 30s
---@field first_frame? perilune.duration the first frame must complete; default: off
---@field proceed? perilune.duration each call of a handler must be over, its waits included; default: off
---@field handshake? perilune.duration a PROXY header and the handshake of tls:// must be complete; default: 10s
---@field header? perilune.duration of http://: a request's head must be complete; default: 10s
---@field body? perilune.duration of http://: a request's body must come on; default: 10s
---@field drain? perilune.duration how long a stop may take; of the process. Default: 10s
---@field upgrade? perilune.duration how long a new process may take until it serves; of the process. Default: 30s

---@class perilune.reload
---@field policy? "pin"|"migrate"|"drain" what becomes of connections of older generations; default: "pin"; of http://
---  "migrate"
---@field keep? integer old generations that may still have connections; of the process. Default: 3
---@field when_full? "refuse"|"drain" what to do past that; of the process. Default: "refuse"
---@field canary? number|false share of new connections that a new generation gets first; of the process. Default: off
---@field window? perilune.duration how long a canary is watched; of the process. Default: 30s
---@field max_errors? number share of a canary's connections that may fail; of the process. Default: 0.01

---@class perilune.record
---@field redact? fun(frame: string, direction: "in"|"out"): string? what is recorded of a frame; nil: its length

---@class perilune.log_settings
---@field format? "auto"|"text"|"json" default: "auto", which is text on a terminal and else JSON
---@field level? perilune.level entries below it are left out; default: "info"
---@field file? string|false where the log goes instead of standard error
---@field frame_bytes? perilune.size how many of the first bytes of the frame at fault are shown; default: 0
