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

--- A net without apps: those that are opened in it reach each other by the addresses that they listen at.
---@param options? perilune.test.net_options
---@return perilune.test.net
function test.net(options) end

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

--- A request that no client has sent, to call a handler with. Beside what a client's request has: peer, agent.
---@param options perilune.test.request
---@return perilune.http.request
function test.request(options) end

--- Calls a handler, or an agent's proceed, and returns what a client would get.
---@param handler function|table
---@param request perilune.http.request|perilune.test.request
---@return perilune.test.response
function test.respond(handler, request) end

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
---@field workers? integer how many it has, each with its own VM; default: one, whatever the script says
---@field takes? perilune.duration|table<string, perilune.duration> how long each callback takes, on the app's clock

---@class perilune.test.net_options
---@field seed? integer what is drawn is drawn from it; default: the environment's PERILUNE_NET_SEED, or 1

---@class perilune.test.net_app_options: perilune.test.app_options
---@field name? string what the history calls it; default: its file, or its first address

---@class perilune.test.link_options
---@field latency? perilune.duration|perilune.duration[] of all that passes; of two: the least, the most
---@field rate? perilune.size|false bytes a second; default: any number
---@field refuse? number the share of connects that are refused, from 0 to 1; default: 0
---@field loss? number the share of datagrams that are lost, from 0 to 1; default: 0
---@field one_way? boolean only from the first app to the other

---@class perilune.test.partition_options
---@field one_way? boolean only from the first app to the other

---@class perilune.test.kill_options
---@field silent? boolean nobody is told, and who connects gets no answer

---@class perilune.test.connect_options
---@field listener? integer|string its number or its name; default: the first
---@field from? string the client's address: "10.0.0.7:5060"; with `proxy` the proxy's; default: one that is trusted
---@field proxy? string|perilune.test.proxied it comes through a proxy: the bytes of the header, or what it says
---@field read_max? integer the app's reads bring so many bytes at most
---@field write_max? integer … and its writes take so many
---@field frame? perilune.framing a framing of the client's own
---@field worker? integer whose client it is, from 0 on; default: as a server deals clients out
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

--- What a server counts, or one of its workers.
---@param worker? integer default: all
---@return table<string, integer>
function app:counters(worker) end

--- What it has at this moment: `vm`, bytes of Lua values that are in use; `buffers`, bytes for what waits; `tasks`;
--- `generations` of the script, each worker's.
---@param worker? integer default: all
---@return table<string, integer>
function app:memory(worker) end

--- As a server that is told to reload: the next generation takes new connections; those that there are stay, migrate
--- or are drained, as `reload` of the new script says; in all workers. What cannot be loaded fails the test, and
--- changes nothing.
---@param what? string|perilune.app another script, at the same addresses; default: the same, a file is read anew
---@param overrides? table default: those that it was opened with
---@return perilune.test.app
function app:reload(what, overrides) end

--- The n-th call of this callback from now on, of whichever agent, raises.
---@param callback string
---@param n? integer default: 1
---@param worker? integer only calls of that worker count; default: those of all
---@return perilune.test.app
function app:fail(callback, n, worker) end

--- A worker does nothing any more, as one whose handler waits in the system. The others go on; new clients are theirs.
---@param worker integer
---@return perilune.test.app
function app:stall(worker) end

--- It goes on. What had become due is so now.
---@param worker integer
---@return perilune.test.app
function app:resume(worker) end

--- There is no memory for bytes that have to wait; false: there is again.
---@param on? boolean default: true
---@return perilune.test.app
function app:no_memory(on) end

--- Jobs wait from now on, as if all threads for them were busy; false: they run by themselves again.
---@param on? boolean default: true
---@return perilune.test.app
function app:hold_jobs(on) end

--- Runs some of the jobs that wait, those first that are next.
---@param most? integer default: 1
---@return integer count how many there were
function app:run_jobs(most) end

--- It begins to stop, as a server does that gets TERM; clients go on, and advance() lets the time pass.
---@return perilune.test.app
function app:begin_drain() end

--- It stops as a server does that gets TERM: to its end.
---@return perilune.test.app
function app:drain() end

--- Ends it: its clients hang up, and it stops.
function app:close() end

--- Apps in memory that reach each other: what perilune.net() returns. Methods that do something return the net.
---@class perilune.test.net
---@field seed integer
local net = {}

--- Opens an app in it, as perilune.app() does. All of them have one clock.
---@param what string|perilune.app
---@param overrides? table
---@param options? perilune.test.net_app_options
---@return perilune.test.app
function net:app(what, overrides, options) end

--- Stands in for what is reached at an address, or at each of a list: an app that listens there. It need not be an
--- address of this machine. At udp:// it takes datagrams.
---@param address string|string[] "tcp://cache:11211"
---@param script table what a script returns, without `listen`
---@param options? perilune.test.net_app_options
---@return perilune.test.app
function net:serve(address, script, options) end

--- Lets time pass, for all of its apps: whatever becomes due happens, in order, at its own time.
---@param time perilune.duration
---@return perilune.test.net
function net:advance(time) end

--- Seconds since the net began.
---@return number
function net:now() end

--- A number from 1 to n, or from m to n, drawn from the seed: for choices of the specification's own.
---@param m integer n, where it stands alone
---@param n? integer
---@return integer
function net:random(m, n) end

--- What the link between two apps is like from now on. With the options alone: all links that have none of their own.
---@param one perilune.test.app|perilune.test.app[]|perilune.test.link_options
---@param other? perilune.test.app|perilune.test.app[]
---@param options? perilune.test.link_options
---@return perilune.test.net
function net:link(one, other, options) end

--- Nothing passes between these apps any more, and nobody is told; what is under way waits.
---@param one perilune.test.app|perilune.test.app[]
---@param other perilune.test.app|perilune.test.app[]
---@param options? perilune.test.partition_options
---@return perilune.test.net
function net:partition(one, other, options) end

--- Ends the partition of these apps, or all partitions. What has waited arrives.
---@param one? perilune.test.app|perilune.test.app[]
---@param other? perilune.test.app|perilune.test.app[]
---@return perilune.test.net
function net:heal(one, other) end

--- Resets connections: between two apps, of one, or all; a number in place of an app is the share.
---@param one? perilune.test.app|number
---@param other? perilune.test.app|number
---@param share? number from 0 to 1, of connections that are drawn; default: all
---@return integer count of those that were reset
function net:reset(one, other, share) end

--- The app does nothing any more, until it is resumed: as a process that is stopped.
---@param one perilune.test.app
---@return perilune.test.net
function net:stall(one) end

--- It goes on. What had become due is so now.
---@param one perilune.test.app
---@return perilune.test.net
function net:resume(one) end

--- The app dies, as a process does that is killed: its connections are reset, its addresses refuse.
---@param one perilune.test.app
---@param options? perilune.test.kill_options
---@return perilune.test.net
function net:kill(one, options) end

--- The same script anew, at the same addresses. What runs is killed first.
---@param one perilune.test.app
---@return perilune.test.net
function net:restart(one) end

--- What has happened, a line for each event: the last 5000.
---@return string
function net:history() end

--- Ends all of its apps, those first that were opened last. Partitions and stalls end before.
function net:close() end

---@class perilune.test.request
---@field method? string default: "GET"
---@field path? string what the request line has; default: "/"
---@field headers? table<string, string|number> Host is added, and what a body needs
---@field body? string|table a table is sent as JSON

---@class perilune.test.response
---@field status integer
---@field headers table<string, string> by name, in any case
---@field body string
---@field trailers? table<string, string> by name, in any case, of a chunked body
local response = {}

--- The body as JSON; fails where it is none.
---@return any
function response:json() end

---@class perilune.test.websocket_options
---@field subprotocols? string[]
---@field origin? string
---@field compress? boolean|string permessage-deflate is offered; or what is, as the header has it
---@field answers? boolean pings are answered when they are seen; default: true
---@field headers? table<string, string|false> more of them, or false: none of that name

---@class perilune.test.websocket_frame
---@field opcode? "text"|"binary"|"more"|"close"|"ping"|"pong"|integer default: "text"
---@field data? string default: ""
---@field last? boolean false: its message goes on; default: true
---@field reserved? integer 0x40, 0x20, 0x10, or their sum; default: 0
---@field masked? boolean default: true
---@field length? integer what its head says; default: that of `data`

--- A WebSocket of a client. Methods that do something return it.
---@class perilune.test.websocket
---@field client perilune.test.client
---@field response perilune.test.response to its handshake
---@field subprotocol? string
---@field compresses boolean
local websocket = {}

--- Sends a message.
---@param data string
---@param kind? "text"|"binary" default: "text"
---@return perilune.test.websocket
function websocket:send(data, kind) end

--- The same, compressed.
---@param data string
---@param kind? "text"|"binary" default: "text"
---@return perilune.test.websocket
function websocket:send_compressed(data, kind) end

--- The same, which arrives byte by byte.
---@param data string
---@param kind? "text"|"binary" default: "text"
---@return perilune.test.websocket
function websocket:send_split(data, kind) end

--- Sends frames as they are described, whether they are right or not; several arrive at once.
---@param ... perilune.test.websocket_frame
---@return perilune.test.websocket
function websocket:send_frame(...) end

--- Sends bytes as they are.
---@param bytes string
---@return perilune.test.websocket
function websocket:send_raw(bytes) end

--- Sends a ping.
---@param data? string
---@return perilune.test.websocket
function websocket:ping(data) end

--- Sends a close frame.
---@param code? integer nil: it says nothing
---@param text? string
---@return perilune.test.websocket
function websocket:close(code, text) end

--- Hangs up without a word.
---@return perilune.test.websocket
function websocket:hang_up() end

--- The next message, which must come.
---@return string message
---@return "text"|"binary" kind
function websocket:receive() end

--- The next frame as it came, control frames too; nil: none has come.
---@return perilune.test.websocket_frame?
function websocket:frame() end

--- The next messages must be these texts; or have this pattern (perilune.pattern); or be accepted by a function.
---@param ... any
---@return perilune.test.websocket
function websocket:expect(...) end

--- The same of binary messages.
---@param ... any
---@return perilune.test.websocket
function websocket:expect_binary(...) end

--- Leaves out the next n messages, which must come.
---@param n? integer default: 1
---@return perilune.test.websocket
function websocket:skip(n) end

--- The data of all messages that have come and were not taken yet; they are.
---@return string[]
function websocket:messages() end

--- There must be no message by now.
---@return perilune.test.websocket
function websocket:expect_nothing() end

--- The next frame must be a ping.
---@return perilune.test.websocket
function websocket:expect_ping() end

--- The next frame must be a pong with this.
---@param data? string default: ""
---@return perilune.test.websocket
function websocket:expect_pong(data) end

--- The next frame that is no ping or pong must be a close frame.
---@param code? integer 1005: without one; nil: any
---@param text? string
---@return perilune.test.websocket
function websocket:expect_close(code, text) end

--- Why the connection has ended, as the agent's closed() was told; nil: it has not.
---@return string?
function websocket:closed() end

--- The connection must have ended, for this reason if one is given.
---@param reason? string
---@return perilune.test.websocket
function websocket:expect_closed(reason) end

--- What happened so far, as text.
---@return string
function websocket:transcript() end

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

--- Of an http:// listener: sends a request whose response is yet to come.
---@param request string|perilune.test.request a path stands for GET
---@return perilune.test.client
function client:ask(request) end

--- Of an http:// listener: the next response.
---@return perilune.test.response
function client:response() end

--- Of an http:// listener: the head of the next response, whose body is yet to come.
---@return perilune.test.response
function client:head() end

--- Of an http:// listener: what has come of a body since this was last asked for, at least a byte; nil: it has ended.
---@return string?
function client:piece() end

--- Of an http:// listener: the next event of server-sent events, without comments; nil: the stream has ended.
---@return { event: string?, data: string, id: string?, retry: integer? }?
function client:event() end

--- Of an http:// listener: the next event must have this data, or these fields.
---@param wanted string|table
---@return perilune.test.client
function client:expect_event(wanted) end

--- Of an http:// listener: sends a request, and returns the response.
---@param request perilune.test.request
---@return perilune.test.response
function client:request(request) end

--- Of an http:// listener: the response to GET.
---@param path string
---@param headers? table<string, string|number>
---@return perilune.test.response
function client:get(path, headers) end

--- Of an http:// or ws:// listener: asks for a WebSocket, which must be had.
---@param path string
---@param options? perilune.test.websocket_options
---@return perilune.test.websocket
function client:websocket(path, options) end

--- Whose client it is, of the app's workers, from 0 on; nil: it was refused.
---@return integer?
function client:worker() end

--- What happened so far, as text.
---@return string
function client:transcript() end

return test
