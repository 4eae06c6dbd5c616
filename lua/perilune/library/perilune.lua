---@meta perilune

-- Types of Perilune's API for language servers (LuaCATS): `perilune new` writes a .luarc.json that leads here. No code:
-- what these do is in docs/reference.md, and a test holds the two and the program together.

---@alias perilune.duration number|string|false seconds, or a text such as "250ms", "30s", "5m"; 0 and false: off
---@alias perilune.size integer|string bytes, or a text such as "64k", "1m"
---@alias perilune.level "debug"|"info"|"warn"|"error"

--- `require "perilune"`: in handlers. `perilune exec` and specifications have sleep, now, time and log of it. While a
--- script is only being checked, and at its top level during that check, its functions raise. What compresses, and the
--- libraries of JSON and so on, are there everywhere.
---@class perilune
---@field crc perilune.crc
---@field crypto perilune.crypto
---@field encoding perilune.encoding
---@field hub perilune.hub
---@field json perilune.json
local perilune = {}

--- Suspends the running handler; frames that arrive meanwhile wait, other connections go on. The time counts from the
--- call, whatever was computed before it: a wait may take longer, never less. A disconnect cancels the wait, and the
--- handler with it. 0 lets others have their turn. Raises where nothing can wait.
---@param duration perilune.duration
function perilune.sleep(duration) end

--- Seconds on a monotonic clock. In a server it is read when events have come and when a wait is over, so it stands
--- still while a handler computes; in `perilune exec` it goes on.
---@return number seconds
function perilune.now() end

--- What the process has counted since it began, all its workers and generations together: the counters of
--- docs/reference.md, "Counters", by their names; `accepted`, `closed` and `open`; and by reason, those that are not 0,
--- the tables `reasons` and `fault_reasons`. A new table each time. Counts of other workers may be a moment old.
---@return table<string, number|table<string, number>>
function perilune.stats() end

--- Gives the agent a name, by which others can send to it, on whatever worker they are: what is sent comes to its
--- message(), which it must have. It has the name until it ends, or gives it up. It has 100 at most. Raises where
--- perilune.after() does, and in tasks of the app's.
---@param name string 1 to 255 bytes; those that begin with @ are given, not registered
---@param options? { replace?: boolean } replace: whoever has the name loses it
---@return true? ok
---@return string? message
---@return string? code "EEXIST": another agent has it; "ENOMEM"
function perilune.register(name, options) end

--- Gives a name up.
---@param name string
---@return boolean had false: the agent did not have it
function perilune.unregister(name) end

--- Sends to whoever has the name: its message(topic, data, from) is called with a copy of the data. What one sender
--- sends to a name comes in that order. Raises outside of handlers; closed() and deferred functions can send.
---@param name string
---@param data any plain data: nil, booleans, numbers, strings and tables of those; 1 MiB at most
---@return true? ok it is on its way: if the agent ends before it takes it, it is dropped
---@return string? message
---@return string? code "ENOENT": nobody has the name; "EBUSY": too many messages wait; "EMSGSIZE"; "ENOMEM"
function perilune.send(name, data) end

--- Sends, and waits for what message() returns: plain data. Raises where nothing can wait.
---@param name string
---@param data any
---@param timeout? perilune.duration default: 5s; no call waits for ever
---@return any reply
---@return string? message
---@return string? code as of send(); "ETIMEDOUT"; "ECANCELED": the agent ended, or failed; "EDEADLK": it is the caller
function perilune.call(name, data, timeout) end

--- The time of day. In an app in memory it goes on with the app's clock, and begins with the first second of 2026.
---@return number seconds since 1970, with fractions
function perilune.time() end

--- Calls a function later: a callback of the agent's, and so never beside another; one that is due while the agent
--- waits is called when it is free. What it returns is taken as of any callback: a reply, an action. It ends with the
--- agent. An agent has 10,000 timers at most. Raises where nothing can begin: in closed(), snapshot(), deferred
--- functions, and outside of handlers, where setup(app) has app:after().
---@param duration perilune.duration
---@param fn function
---@param ... any at most 16 arguments
---@return perilune.timer
function perilune.after(duration, fn, ...) end

--- The same again and again, in step with the first time: a call that comes late does not put the next one off, and
--- what was missed is left out.
---@param duration perilune.duration above 0
---@param fn function
---@param ... any at most 16 arguments
---@return perilune.timer
function perilune.every(duration, fn, ...) end

--- Begins a task: the function runs in a coroutine of its own, when the agent's callbacks wait or have returned, and
--- may wait itself. It ends with the agent, before closed(). A fault is raised where somebody waits for the task, and
--- is the agent's where nobody does. An agent has 10,000 tasks at most. Raises where perilune.after() does.
---@param fn fun(...): any
---@param ... any at most 16 arguments
---@return perilune.task
function perilune.spawn(fn, ...) end

--- In a task: a function that runs when the task has ended, however it ends, the latest first. It must not wait. Raises
--- elsewhere: a callback has conn:defer().
---@param fn fun()
function perilune.defer(fn) end

--- Runs functions as tasks and waits for all. Raises the first fault of one, and cancels the others.
---@param functions (fun(): any)[] at most 1000
---@return any results the first result of each, in their order
function perilune.all(functions) end

--- Runs functions as tasks and waits for the first that returns something other than nil and false; cancels the others.
--- Raises the first fault of one.
---@param functions (fun(): any)[]
---@return any results what it returned; where none has anything, what the last one to end returned
function perilune.any(functions) end

--- Runs a function as a task, for that long at most; then cancels it.
---@param duration perilune.duration 0 and false: as long as it takes
---@param fn fun(...): any
---@param ... any at most 16 arguments
---@return any results what it returned; or nil, "timeout", "ETIMEDOUT". Raises what it raises
function perilune.timeout(duration, fn, ...) end

--- A channel between calls of a worker, whichever agents' they are. May be made at the top level of a file.
---@param capacity? integer so many values may wait in it; default: 0, a sender waits until its value is taken
---@return perilune.channel
function perilune.channel(capacity) end

--- A semaphore for calls of a worker, whichever agents' they are. May be made at the top level of a file.
---@param permits? integer default: 1
---@return perilune.semaphore
function perilune.semaphore(permits) end

--- Connects to an address, and waits until that is done. What comes back is a conn, of which reading is the caller's:
--- conn:read() waits for its frames, in any call of the agent, and a conn with an `agent` of its own has that called
--- for them. It ends with the agent that has made it, or, in a task of app:spawn(), with the app. An agent has 10,000
--- at most. What is wrong with address or options raises.
---@param address string "tcp://127.0.0.1:6379", "tls://db:6380", "unix:///run/r.sock", "udp://10.0.0.1:53", "ws://a/b"
---@param options? perilune.connect_options
---@return perilune.conn? conn nil: there is none, and why
---@return string? message
---@return string? code "ECONNREFUSED", "ETIMEDOUT", "EAI_NONAME" …: see [connections.md](connections.md#errors)
---@return integer? status of ws://: that of an answer that is not 101
function perilune.connect(address, options) end

--- A dictionary that all workers share, and all generations of the script: docs/shared.md. At the top level of a file,
--- or later. Raises where the script's `shared` declares none of that name: at load, if the top level asks for it.
---@param name string
---@return perilune.shared
function perilune.shared(name) end

--- The addresses of a name, IPv6 and IPv4, as perilune.connect() finds them.
---@param name string "db.example"; an address is its own
---@param timeout? perilune.duration default: 5s
---@return string[]? addresses at least one; nil: there is none, and why
---@return string? message
---@return string? code "EAI_NONAME", "EAI_AGAIN", "ETIMEDOUT" …
function perilune.resolve(name, timeout) end

--- Connections to one address, for all callers of a worker; made when they are needed. May be made at the top level of
--- a file. What is wrong with address or options raises.
---@param address string
---@param options? perilune.pool_options
---@return perilune.pool
function perilune.pool(address, options) end

---@class perilune.job_options
---@field lane? string one of the setting `jobs.lanes`; default: the first
---@field timeout? perilune.duration default: that of the setting `jobs.timeout`

--- Calls a function of one of the app's modules in a thread for jobs, and waits for what it returns: for what computes
--- for long, or blocks in the system. The module is required in a VM of that thread's. Arguments and results are
--- copied: plain data. The job ends with the agent, or the app's task, that has given it. Raises where nothing can
--- wait, where the script's `jobs` is not set, and where there is no such module or function. See docs/jobs.md.
---@overload fun(module: string, name: string, ...: any): any
---@param options perilune.job_options may be left out
---@param module string as for require()
---@param name string of a function in the table that the module returns
---@param ... any at most 255 values
---@return any results what it has returned, at most 255 values; or nil, message, code
function perilune.job(options, module, name, ...) end

--- Writes a log entry; in a handler it names connection, peer and listener. Fields, at most 16, stand beside these:
--- their names have letters, digits and _, at most 32, and are none of the server's own; a text longer than 512 bytes
--- is cut. What cannot be written raises, and so does an argument too many.
---@param level perilune.level
---@param message string
---@param fields? table<string, string|number|boolean>
function perilune.log(level, message, fields) end

---@class perilune.deflate_options
---@field format? "zlib"|"gzip"|"raw" default: "zlib"
---@field level? integer 0 (as it is) to 9 (as small as it gets, and slow); default: zlib's own, 6

---@class perilune.inflate_options
---@field format? "zlib"|"gzip"|"raw" default: "zlib"
---@field max? perilune.size bytes that may come of it; default: "16m"

--- Compresses data, by zlib.
---@param data string
---@param options? perilune.deflate_options
---@return string bytes
function perilune.deflate(data, options) end

--- The reverse. What would become larger than `max` is refused before it has the memory.
---@param data string one whole stream
---@param options? perilune.inflate_options
---@return string? bytes nil: the data is at fault
---@return string? message "the data is cut short at byte 40", "there is something behind the end at byte 42" …
function perilune.inflate(data, options) end

--- What perilune.after() and perilune.every() return.
---@class perilune.timer
local timer = {}

--- It is not called again.
---@return boolean cancelled false: it had been called for the last time, or cancelled, or its agent has ended
function timer:cancel() end

--- What perilune.spawn() returns. It may be kept after the task has ended.
---@class perilune.task
local task = {}

--- Waits for its end; at once, where it has ended. Any task or callback of the worker may, and several. Raises what the
--- task has raised.
---@param timeout? perilune.duration
---@return any results what it returned; or nil, "timeout", "ETIMEDOUT"; or nil, "cancelled", "ECANCELED"
function task:join(timeout) end

--- Ends it where it waits: it never goes on, not even into a pcall of its own; what it has deferred runs. Those that it
--- has begun are cancelled with it.
---@return boolean cancelled false: it had ended
function task:cancel() end

--- What has become of it.
---@return "running"|"done"|"failed"|"cancelled" status
function task:status() end

--- Values from call to call, in their order; who waits is served in the order of coming. One who is cancelled, or whose
--- time is over, takes and leaves nothing.
---@class perilune.channel
local channel = {}

--- Waits while it is full.
---@param value any anything but nil; it is passed on, not copied
---@param timeout? perilune.duration
---@return boolean? sent true; nil, "timeout", "ETIMEDOUT"; nil, "closed", "EPIPE"
---@return string? message
---@return string? code
function channel:send(value, timeout) end

--- The same without waiting.
---@param value any
---@return boolean? sent false: it is full; nil, "closed", "EPIPE"
---@return string? message
---@return string? code
function channel:try_send(value) end

--- Waits while it is empty.
---@param timeout? perilune.duration
---@return any value nil, "timeout", "ETIMEDOUT"; nil, "closed", "EOF"
---@return string? message
---@return string? code
function channel:receive(timeout) end

--- The same without waiting.
---@return any value nil, "empty", "EAGAIN"; nil, "closed", "EOF"
---@return string? message
---@return string? code
function channel:try_receive() end

--- Who waits is told, and nothing more can be sent; what is in it can still be received.
function channel:close() end

--- How many values wait in it.
---@return integer
function channel:count() end

--- So many may have a permit at once; who waits is served in the order of coming.
---@class perilune.semaphore
local semaphore = {}

--- Waits while there is none left.
---@param timeout? perilune.duration
---@return boolean? acquired true; nil, "timeout", "ETIMEDOUT"
---@return string? message
---@return string? code
function semaphore:acquire(timeout) end

--- The same without waiting.
---@return boolean acquired
function semaphore:try_acquire() end

--- Gives a permit back, or one more: anybody may, which makes it a signal.
function semaphore:release() end

--- Calls a function with a permit, which goes back when the function returns or raises, and also when the call or task
--- ends that it runs in.
---@param fn fun(...): any
---@param ... any
---@return any results what it returned
function semaphore:with(fn, ...) end

--- How many permits are left.
---@return integer
function semaphore:count() end

return perilune
