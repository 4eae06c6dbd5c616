---@meta perilune.test

--- `require "perilune.test"`: in specifications that `perilune test` runs.
---@class perilune.test
local test = {}

--- An app in memory, with the real codecs, connections, limits and agents, and a clock that goes on when it is told to.
--- A file is sought from the specification's folder upwards, then in the current one.
---@param what string|perilune.app the script's file, or what a script returns: it is copied to the app's own VM
---@param overrides? table settings that win over the script's: { timeout = { idle = "1s" } }
---@param options? perilune.test.app_options
---@return perilune.test.app
function test.app(what, overrides, options) end

--- In a handler of an app that is a table: lets the app's clock go on, as if the handler computed for so long.
---@param time perilune.duration
function test.spend(time) end

--- The same in a server of its own: real sockets, real time.
---@param file string
---@param overrides? table
---@return perilune.test.app
function test.start(file, overrides) end

--- Proves that a handler does not care how the network splits what it is sent: the frames come at once, then byte by
--- byte, cut in two at each place, and cut at random. What comes back, and how the connection ends, must be the same.
---@param frames any[]
---@param open fun(): perilune.test.client a fresh client of an app in memory, each time
---@param time? perilune.duration to let pass before what came back is looked at
function test.splits(frames, open, time) end

--- Sends what is made of these frames: changed, cut, doubled, in another order. A handler that raises, does not return
--- or fills the memory has failed; the smallest transcript that shows it is in the failure.
---@param open fun(): perilune.test.client a fresh client of an app in memory, each time
---@param options perilune.test.fuzz_options
---@return integer cases that were tried
function test.fuzz(open, options) end

--- What expect() compares with a Lua pattern: client:expect(perilune.pattern "^welcome").
---@param text string
---@return perilune.test.pattern
function test.pattern(text) end

---@class perilune.test.replay_options
---@field timing? "virtual"|"none" default: time goes on as it was recorded
---@field ignore? string|string[] Lua patterns: replies that have one are left out, on both sides
---@field normalize? fun(frame: string, conn: table): string? what is compared in place of a reply; nil: nothing is
---@field overrides? table settings that win over the script's

---@class perilune.test.replay_result
---@field connections integer that were compared
---@field frames integer replies that were recorded for them
---@field notes string[] what is to be known about the trace

--- Runs what `perilune record` has recorded against an app in memory; fails where something comes back that differs.
---@param file string the trace
---@param what string|perilune.app as test.app takes it
---@param options? perilune.test.replay_options
---@return perilune.test.replay_result
function test.replay(file, what, options) end

---@class perilune.test.pattern
---@field text string

---@class perilune.test.fuzz_options
---@field frames any[] what a client might send
---@field seconds? number how long; default: 1, or without end where `cases` says how many
---@field cases? integer how many transcripts: the same work on any machine
---@field seed? integer the same seed tries the same; default: a new one each time, which a failure shows
---@field check? fun(client: perilune.test.client): boolean? false: the handler has failed

---@class perilune.test.app_options
---@field takes? perilune.duration|table<string, perilune.duration> how long each callback takes, on the app's clock

---@class perilune.test.connect_options
---@field listener? integer|string its number or its name; default: the first
---@field from? string the client's address: "10.0.0.7:5060"; with `proxy` the proxy's; default: one that is trusted
---@field proxy? string|perilune.test.proxied it comes through a proxy: the bytes of the header, or what it says
---@field read_max? integer the app's reads bring so many bytes at most
---@field write_max? integer … and its writes take so many
---@field frame? perilune.framing a framing of the client's own
---@field name? string for messages

---@class perilune.test.proxied
---@field client string the client's address: "203.0.113.7:5060"
---@field server? string the one that it has connected to

---@class perilune.test.app
---@field name string
local app = {}

--- A client connects. Where a limit refuses it, closed() tells "limit".
---@param options? perilune.test.connect_options
---@return perilune.test.client
function app:connect(options) end

--- Lets time pass: whatever becomes due happens, in order, at its own time.
---@param time perilune.duration
---@return perilune.test.app
function app:advance(time) end

--- Lets happen what can without time passing. All other methods do so by themselves.
---@return perilune.test.app
function app:settle() end

--- Seconds since the app was opened.
---@return number
function app:now() end

--- Its log entries.
---@param message? string only those that say this
---@return table[] entries level, message, at_ms and the fields
function app:log(message) end

--- Errors of handlers. The same one within ten seconds is there once.
---@return table[] entries error, place, callback, excerpt, …
function app:faults() end

--- What a server counts.
---@return table<string, integer>
function app:counters() end

--- The n-th call of this callback from now on, of whichever agent, raises.
---@param callback string
---@param n? integer default: 1
---@return perilune.test.app
function app:fail(callback, n) end

--- There is no memory for bytes that have to wait; false: there is again.
---@param on? boolean default: true
---@return perilune.test.app
function app:no_memory(on) end

--- It begins to stop, as a server does that gets TERM; clients go on, and advance() lets the time pass.
---@return perilune.test.app
function app:begin_drain() end

--- It stops as a server does that gets TERM: to its end.
---@return perilune.test.app
function app:drain() end

--- Ends it: its clients hang up, and it stops.
function app:close() end

--- Methods that do something return the client.
---@class perilune.test.client
---@field name string
local client = {}

--- Sends frames, encoded as the listener does it; several arrive at once.
---@param ... any
---@return perilune.test.client
function client:send(...) end

--- Sends bytes as they are.
---@param bytes string
---@return perilune.test.client
function client:send_raw(bytes) end

--- Sends a frame, or a list of them, in pieces that arrive one by one: each byte alone, or cut at random.
---@param frames any
---@param seed? number|"random"
---@return perilune.test.client
function client:send_split(frames, seed) end

--- The next frame has to be this one, or to have this pattern, or to be accepted by this function.
---@param ... any one after the other
---@return perilune.test.client
function client:expect(...) end

--- Nothing has come.
---@return perilune.test.client
function client:expect_nothing() end

--- The next frame.
---@return any
function client:receive() end

--- Leaves out the next n frames, which must come.
---@param n? integer default: 1
---@return perilune.test.client
function client:skip(n) end

--- All frames that have come and were not taken yet.
---@return any[]
function client:frames() end

--- Why the connection has ended; nil: it has not.
---@return perilune.reason?
function client:closed() end

--- It has ended, for this reason if one is given.
---@param reason? perilune.reason
---@return perilune.test.client
function client:expect_closed(reason) end

--- The end that it saw was a reset, as after conn:abort().
---@return perilune.test.client
function client:expect_reset() end

--- Reads no more, but so many bytes more.
---@param bytes? integer
---@return perilune.test.client
function client:stall(bytes) end

--- Reads again.
---@return perilune.test.client
function client:unstall() end

--- Ends its side, and reads on.
---@return perilune.test.client
function client:half_close() end

--- Resets the connection.
---@return perilune.test.client
function client:reset() end

--- Hangs up.
---@return perilune.test.client
function client:close() end

--- For handlers that change theirs.
---@param framing perilune.framing
---@return perilune.test.client
function client:set_frame(framing) end

--- What happened so far, as text.
---@return string
function client:transcript() end

return test
