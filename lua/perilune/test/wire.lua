--- What carries the bytes of a client of an app in memory. Internal; perilune.test.memory makes them.
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c

local codec = require "perilune.test.codec"
local failing = require "perilune.test.fail"

local M = {}

local wire = {}
wire.__index = wire

local RESTLESS = "the app does not come to rest: a handler waits for no time (perilune.sleep(0)) again and again"
local STOPPED = "the test's time is over"

--- Fails where settling did not come to an end.
function M.check_quiet(app, quiet, why)
  if not quiet then failing.fail(why == "restless" and RESTLESS .. app:about() or STOPPED) end
end

---@param app perilune.test.app
---@param number integer of the client
---@return perilune.test.wire
function M.new(app, number)
  local framing = core.framing(app.core, number)
  return setmetatable({ app = app, core = app.core, number = number, is_stream = framing == "raw",
    is_datagram = framing == "datagram" }, wire)
end

function wire:now_ms() return self.is_over and self.over_at or core.now(self.core) end

-- To whom the app has died, nothing that he does happens any more.
function wire:act(name, ...)
  if self.is_dead then return end
  if self.is_over then failing.misuse("the app is closed") end
  core[name](self.core, self.number, ...)
  M.check_quiet(self.app, core.settle(self.core))
end

function wire:put(bytes) self:act("put", bytes) end

--- Whose client it is, of the app's workers; nil: it was refused.
---@return integer?
function wire:worker()
  if self.is_over then return self.kept_worker end
  return core.worker(self.core, self.number)
end

function wire:tls() return core.tls(self.core, self.number) end
function wire:stall(bytes) self:act("stall", bytes) end
function wire:unstall() self:act("stall") end
function wire:half_close() self:act("half_close") end
function wire:reset() self:act("reset") end
function wire:close() self:act("hang_up") end

function wire:set_frame(framing)
  if self.is_dead then return end
  self.is_stream = codec.set_frame(self.core, self.number, framing)
end

function wire:encode(frame) return self.is_dead and "" or codec.encode(self.core, self.number, frame) end

function wire:next()
  if self.is_over then return nil end
  return codec.next(self.core, self.number)
end

function wire:ended()
  if self.is_over then return self.reason, self.ended_ms end
  return core.ended(self.core, self.number)
end

function wire:was_reset()
  if self.is_over then return self.saw_reset end
  return select(4, core.ended(self.core, self.number))
end

--- The app is about to close: what may be asked is kept.
function wire:finish()
  self.reason, self.ended_ms = self:ended()
  self.saw_reset, self.over_at, self.kept_worker = self:was_reset(), core.now(self.core), self:worker()
  self.is_over = true
end

--- The app has died, after finish(): a connection that there was is reset; or its end is never seen.
function wire:die(is_silent)
  self.is_dead = true
  if self.reason or self.is_datagram or is_silent then return end
  self.reason, self.ended_ms, self.saw_reset = "reset", self.over_at, true
end

local UNSENT = "\n%d datagrams were not sent: they would amplify (docs/udp.md), or were refused"
local TRUNCATED = "\n%d datagrams of clients were dropped: they were larger than `max` of the framing"

-- What else there is to know when a client does not get what it should.
function wire:about()
  if not self.is_datagram or self.is_over then return self.app:about() end
  local counters = core.counters(self.core)
  return self.app:about()
    .. (counters.unsent_datagrams > 0 and UNSENT:format(counters.unsent_datagrams) or "")
    .. (counters.truncated_datagrams > 0 and TRUNCATED:format(counters.truncated_datagrams) or "")
end

return M
