-- A collector of measurements, as StatsD is one: clients send "name value", one a line, and each minute a report of all
-- that has come is written to the log, and to clients that have said "follow".
--
--   scripts/run examples/collector.lua
--   printf 'room 21\nroom 23\nreport\n' | nc -q 1 127.0.0.1 9038
--
-- Each worker reports what its own connections have sent: run it with one, or add the reports up.
local perilune = require "perilune"

local sums = {}      -- name → { count =, sum = }, since the last report
local followers = {} -- connection → true

local function lines_of(measured)
  local lines = {}
  for name, one in pairs(measured) do
    lines[#lines + 1] = ("%s: %d, on average %g"):format(name, one.count, one.sum / one.count)
  end
  table.sort(lines)
  return lines
end

local function report()
  local lines = lines_of(sums)
  sums = {}
  for _, line in ipairs(lines) do perilune.log("info", "measured", { what = line }) end
  for conn in pairs(followers) do
    for _, line in ipairs(lines) do conn:send(line) end
  end
end

local Collector = {}

function Collector:proceed(line)
  if line == "report" then return lines_of(sums) end
  if line == "follow" then
    followers[self.conn] = true
    self.conn:defer(function() followers[self.conn] = nil end)
    return
  end
  local name, value = line:match "^(%S+) (%S+)$"
  if not tonumber(value) then return "expected: name value" end
  local one = sums[name] or { count = 0, sum = 0 }
  one.count, one.sum = one.count + 1, one.sum + tonumber(value)
  sums[name] = one
end

local function setup(app) app:every("1m", report) end

return { listen = "tcp://127.0.0.1:9038", frame = "line", agent = Collector, setup = setup, workers = 1 }
