-- @NAME@: collects measurements. Messages are fields of a tag, a length and a value, behind a length
-- of the whole; the README has the table. Handlers get a view of the bytes, not a string: nothing is
-- copied that is not kept.
local tlv = require "tlv"

local DEVICE, MEASUREMENT, SUMMARY, REFUSAL = 0x01, 0x02, 0x81, 0xff
local NAME_MAX = 64

---@class Collector: perilune.agent
---@field device string? who measures, once it has said so
---@field count integer
---@field sum number
local Collector = {}

function Collector:opened()
  self.count, self.sum = 0, 0
end

-- What each field does: fn(agent, view, from, to). What a peer does wrong is raised as a table, for refuse().
local fields = {}

fields[DEVICE] = function(self, view, from, to)
  if self.device then error { "the device is known already" } end
  if to < from or to - from >= NAME_MAX then error { "a name has 1 to 64 bytes" } end
  self.device = view:sub(from, to) -- a string: it outlives the view
end

fields[MEASUREMENT] = function(self, view, from, to)
  if not self.device then error { "who are you?" } end
  if to - from + 1 ~= 4 then error { "a measurement has 4 bytes" } end
  self.count, self.sum = self.count + 1, self.sum + view:u32be(from)
end

local function take(self, view)
  for tag, from, to in tlv.fields(view) do
    local field = fields[tag]
    if not field then error { ("unknown field 0x%02x"):format(tag) } end
    field(self, view, from, to)
  end
end

-- A mistake of ours is raised on: it is logged with its place, and ends this connection.
local function refuse(why)
  if type(why) ~= "table" then error(why, 0) end
  return tlv.field(REFUSAL, why[1]), "close"
end

function Collector:proceed(view)
  local ok, why = pcall(take, self, view)
  if not ok then return refuse(why) end
  if self.count == 0 then return end
  return tlv.field(SUMMARY, tlv.u32(self.count) .. tlv.u32(math.floor(self.sum / self.count + 0.5)))
end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "u16be", max = 1024, view = true },
  agent = Collector,
  limits = { connections = 20000, per_ip = 100 },
  timeout = { read = "5s", first_frame = "10s", idle = "15m" },
}
