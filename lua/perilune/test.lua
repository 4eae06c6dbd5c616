--- For specifications of handlers, run by `perilune test`: an app in memory with the real codecs, connections, limits
--- and agents, and a clock that goes on when it is told to; or the same over real sockets.
---
---     local perilune = require "perilune.test"
---     local app = perilune.app("app.lua")
---     local ann = app:connect()
---     ann:expect("your name?"):send("ann"):expect("you are in lobby with: ann")
---     app:advance("5m")
---     ann:expect("you have been silent for too long")
---     assert.equal("idle_timeout", ann:closed())
local has_core = package.loaded["perilune.workbench.app"]
if not has_core then error("perilune.test: specifications that use it are run by `perilune test`", 2) end

local beside = require "perilune.test.beside"
local direct = require "perilune.test.direct"
local memory = require "perilune.test.memory"
local methods = require "perilune.test.methods"
local net = require "perilune.test.net"
local pattern = require "perilune.test.pattern"
local property = require "perilune.test.property"
local replay = require "perilune.test.replay"
local sockets = require "perilune.test.sockets"
local spending = require "perilune.test.spending"

local M = {}

--- An app in memory.
---@param what string|table the script's file; or what a script returns: it is copied to the app's own VM, with all that
---  its functions refer to
---@param overrides table? settings that win over the script's: { timeout = { idle = "1s" } }
---@param options { takes: number|string|table<string, number|string>|nil, workers: integer? }? `takes`: how long
---  callbacks take; `workers`: how many there are
---@return perilune.test.app
function M.app(what, overrides, options) return memory.open(beside.find(what), overrides, options) end

--- Apps in memory that reach each other by their addresses, on one clock. What is drawn is drawn from the seed.
---@param options { seed: integer? }?
---@return perilune.test.net
function M.net(options) return net.new(beside.find, options) end

--- In a handler of an app that is a table: it takes so long, on the app's clock.
---@param time number|string
function M.spend(time) spending.spend(time) end

--- The same app in a server of its own, that listens on a port that the system chooses: real sockets, real time.
---@param file string
---@param overrides table?
---@return perilune.test.server
function M.start(file, overrides) return sockets.start(beside.find(file), overrides) end

--- Proves that the handler does not care how the network splits what it is sent.
---@param frames any[]
---@param open fun(): perilune.test.client a fresh one each time, of an app in memory
---@param time number|string|nil to let pass before what came back is looked at
function M.splits(frames, open, time) property.splits(frames, open, time) end

--- Sends what is made of these frames, for a while, and shows the smallest transcript with which a handler fails.
---@param open fun(): perilune.test.client
---@param options { frames: any[], seconds: number?, seed: integer?, check: (fun(client): boolean?)? }
---@return integer cases that were tried
function M.fuzz(open, options) return property.fuzz(open, options) end

--- Runs what `perilune record` has recorded against an app in memory; fails if something comes back that differs.
---@param file string the trace
---@param what string|table as M.app takes it
---@param options perilune.test.replay_options?
---@return perilune.test.replay_result
function M.replay(file, what, options) return replay.expect(beside.find(file), beside.find(what), options) end

--- A request that no client has sent, to call a handler with.
---@param options perilune.test.request
---@return perilune.http.request
function M.request(options) return direct.request(options) end

--- Calls a handler, or a router or another agent, and returns what a client would get.
---@param handler function|table
---@param request perilune.http.request|perilune.test.request
---@return perilune.test.response
function M.respond(handler, request) return direct.respond(handler, request) end

--- What `expect` compares with a Lua pattern: client:expect(perilune.pattern "^welcome, ").
---@param text string
---@return perilune.test.pattern
M.pattern = pattern.new

methods.lock("perilune.test", M)

return M
