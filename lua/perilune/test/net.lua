--- Apps in memory that reach each other by the addresses they listen on, over a network that goes wrong when it is told
--- to. Internal; perilune.test is the door.
local app_core = require "perilune.workbench.app" -- in C: src/workbench/app.c
local core = require "perilune.workbench.lan"     -- in C: src/workbench/app_lan.c

local failing = require "perilune.test.fail"
local leftovers = require "perilune.test.leftovers"
local memory = require "perilune.test.memory"
local methods = require "perilune.test.methods"
local settings = require "perilune.test.settings"
local units = require "perilune.units"
local wires = require "perilune.test.wire"

local M = {}

---@class perilune.test.net
---@field seed integer
local net = {}
net.__index = net

local SEED_VARIABLE, SEED_DEFAULT, SEED_MAX = "PERILUNE_NET_SEED", 1, 2 ^ 53
local SHOWN = 100 -- lines of the history in a failure

local open = {} -- nets of the test that runs

-- ---- checks ----

local function check_open(self, what)
  if not self.is_closed then return end
  failing.misuse(("%s: the net is closed: %s"):format(what, self.is_closed == "test"
    and "it has ended with the test that made it: make one in before_each, and call net:close() in after_each"
    or "perilune.net() makes another one"))
end

local function is_whole(value, least)
  return type(value) == "number" and value % 1 == 0 and value >= least and value <= SEED_MAX
end

local function seed_of(value)
  local origin = "net: seed"
  if value == nil and os.getenv(SEED_VARIABLE) then
    value, origin = os.getenv(SEED_VARIABLE), SEED_VARIABLE
    value = tonumber(value) or value
  end
  if value == nil then return SEED_DEFAULT end
  if not is_whole(value, 0) then
    failing.misuse(("%s: a whole number from 0 on is expected, got %s"):format(origin, tostring(value)))
  end
  return value
end

local function node_of(self, what, app)
  if type(app) ~= "table" or rawget(app, "net") ~= self then
    failing.misuse(what .. ": an app of this net is expected, got " .. (type(app) == "table" and "another" or
      tostring(app)))
  end
  return app.node
end

-- An app, or a list of them, as nodes.
local function nodes_of(self, what, apps)
  if type(apps) == "table" and rawget(apps, "net") == nil and #apps > 0 then
    local nodes = {}
    for i, app in ipairs(apps) do nodes[i] = node_of(self, what, app) end
    return nodes
  end
  return { node_of(self, what, apps) }
end

local function duration(what, value)
  local ms, message = units.duration(value)
  if not ms then failing.misuse(what .. ": " .. message) end
  return ms
end

local function share_of(what, value)
  if type(value) ~= "number" or not (value >= 0 and value <= 1) then
    failing.misuse(("%s: a share from 0 to 1 is expected, got %s"):format(what, tostring(value)))
  end
  return value
end

-- ---- apps ----

---@param find fun(what: string|table): string|table where the file of an app is
---@param options perilune.test.net_options?
---@return perilune.test.net
function M.new(find, options)
  if options ~= nil then settings.check_options("net", options, { seed = true }) end
  local seed = seed_of(options and options.seed)
  local self = setmetatable({
    apps = {}, is_closed = false, find = find, seed = seed, core = core.open(seed), names = {}, served = {},
  }, net)
  open[#open + 1] = self
  leftovers.add(self)
  return self
end

-- What the history calls an app; the second of that name is "cache (2)".
local function name_of(self, wanted)
  local n = (self.names[wanted] or 0) + 1
  self.names[wanted] = n
  return n == 1 and wanted or ("%s (%d)"):format(wanted, n)
end

-- Each start, each generation and each worker draws numbers of its own.
local function seed_app(self, app)
  app.starts = app.starts + 1
  for worker = 0, app.workers - 1 do
    local seed = self.seed * 65599 + app.node * 257 + app.starts + worker * 16777259
    app_core.seed(app.core, worker, seed % SEED_MAX)
  end
end

--- An app that has just been opened is there. For perilune.test.memory.
function net:enter(app)
  if not app.node then
    local listeners = app_core.listeners(app.core)
    local name = app.wanted_name or app.from.is_file and app.from.path:match "[^/]*$" or listeners[1]
    app.node, app.starts = core.add(self.core, name_of(self, name)), 0
  end
  seed_app(self, app)
  core.enter(self.core, app.node, app.core)
end

--- It has a new generation. For perilune.test.memory.
function net:reloaded(app)
  seed_app(self, app)
  core.note(self.core, app.node, "is reloaded")
end

local function open_app(self, what, overrides, options)
  local app = memory.open(what, overrides, options, self)
  self.apps[#self.apps + 1] = app
  return app
end

--- An app in memory, as of perilune.app(), which reaches the others of this net.
---@param what string|table
---@param overrides table?
---@param options table?
---@return perilune.test.app
function net:app(what, overrides, options)
  check_open(self, "app")
  return open_app(self, self.find(what), overrides, options)
end

-- The one that was opened by net:serve() for this address, and runs still.
local function served_by(self, address)
  local app = self.served[address]
  return app and not app.is_closed and app or nil
end

-- What listens: an address, or a list of addresses and of tables that begin with one, as in `listen`.
local function addresses_of(address)
  local list, found = type(address) == "table" and address or { address }, {}
  for i, one in ipairs(list) do found[i] = type(one) == "table" and one[1] or one end
  for _, one in ipairs(found) do
    if type(one) ~= "string" then found = {} end
  end
  if #found == 0 or #found ~= #list then
    failing.misuse('serve: an address such as "tcp://db:5432", or a list of them, is expected')
  end
  return found
end

--- Stands in for what is reached at an address, or at several: an app that listens there.
---@param address string|(string|table)[] "tcp://cache:11211"
---@param script table what a script returns, without `listen`
---@param options table?
---@return perilune.test.app
function net:serve(address, script, options)
  check_open(self, "serve")
  local addresses = addresses_of(address)
  if type(script) ~= "table" then
    failing.misuse("serve: an address, and the table that a script returns, are expected")
  end
  local with_address = {}
  for key, value in pairs(script) do with_address[key] = value end
  with_address.listen = address
  for _, one in ipairs(addresses) do
    local before = served_by(self, one)
    if before then
      failing.misuse(("serve: %q is served already, by %q: close that first, or net:kill it"):format(one, before.name))
    end
  end
  local app = open_app(self, with_address, nil, options)
  for _, one in ipairs(addresses) do self.served[one] = app end
  return app
end

-- ---- time and numbers ----

--- Lets time pass, for all of its apps: whatever becomes due happens, in order, at its own time.
---@param time number|string seconds, or "250ms", "5m"
---@return perilune.test.net
function net:advance(time)
  check_open(self, "advance")
  wires.check_quiet(self, core.advance(self.core, duration("advance", time)))
  return self
end

--- The clock: seconds since the net began.
---@return number
function net:now() return core.now(self.core) / 1000 end

--- A number from 1 to n, or from m to n, drawn from the seed: for choices of the specification's own.
---@param m integer n, where it stands alone
---@param n integer?
---@return integer
function net:random(m, n)
  if n == nil and not is_whole(m, 1) then
    failing.misuse(("random: a whole number from 1 on is expected, got %s"):format(tostring(m)))
  end
  if n == nil then return core.random(self.core, m) end
  if not is_whole(m, -2 ^ 53) or not is_whole(n, m) then
    failing.misuse(("random: two whole numbers are expected, the second not less than the first, got %s and %s")
      :format(tostring(m), tostring(n)))
  end
  return m - 1 + core.random(self.core, n - m + 1)
end

-- ---- links ----

local LINK_OPTIONS = { latency = true, rate = true, refuse = true, loss = true, one_way = true }

local function latency_of(value)
  if type(value) ~= "table" then
    local ms = duration("link: latency", value or 0)
    return ms, ms
  end
  if #value ~= 2 then failing.misuse('link: latency: a duration is expected, or two of them, { "1ms", "20ms" }') end
  local least, most = duration("link: latency", value[1]), duration("link: latency", value[2])
  if most < least then failing.misuse("link: latency: the second duration is less than the first") end
  return least, most
end

local function rate_of(value)
  if value == nil or value == false then return 0 end
  local bytes, message = units.size(value)
  if not bytes then failing.misuse("link: rate: " .. message) end
  if bytes == 0 then failing.misuse("link: rate: bytes a second are expected; false is any number of them") end
  return bytes
end

local function each_pair(self, what, one, other, one_way, act)
  local here, there = nodes_of(self, what, one), nodes_of(self, what, other)
  for _, a in ipairs(here) do
    for _, b in ipairs(there) do
      if a == b then failing.misuse(what .. ": an app has no link to itself") end
      act(a, b)
      if not one_way then act(b, a) end
    end
  end
end

--- What the link between two apps is like from now on: its latency, its rate, how many connects it refuses, how many
--- datagrams it loses. What is left out is as without a link.
---@param one perilune.test.app|perilune.test.app[]
---@param other perilune.test.app|perilune.test.app[]
---@param options perilune.test.link_options
---@return perilune.test.net
function net:link(one, other, options)
  check_open(self, "link")
  local is_default = other == nil and options == nil
  if is_default then options = one end
  settings.check_options("link", options, LINK_OPTIONS)
  local least, most = latency_of(options.latency)
  local rate, refuse = rate_of(options.rate), share_of("link: refuse", options.refuse or 0)
  local loss = share_of("link: loss", options.loss or 0)
  local function set(a, b) core.link(self.core, a, b, least, most, rate, refuse, loss) end
  if is_default then
    set(0, 0)
  else
    each_pair(self, "link", one, other, options.one_way, set)
  end
  return self
end

-- What a fault leads to has happened when it returns, as for what clients do.
local function settle(self)
  wires.check_quiet(self, core.advance(self.core, 0))
  return self
end

local function part(self, what, one, other, is_parted, options)
  options = options or {}
  settings.check_options(what, options, { one_way = true })
  each_pair(self, what, one, other, options.one_way, function(a, b)
    core.part(self.core, a, b, is_parted)
  end)
end

--- Nothing passes between these apps any more, and nobody is told. What is under way waits.
---@param one perilune.test.app|perilune.test.app[]
---@param other perilune.test.app|perilune.test.app[]
---@param options { one_way: boolean? }?
---@return perilune.test.net
function net:partition(one, other, options)
  check_open(self, "partition")
  part(self, "partition", one, other, true, options)
  return self
end

--- Ends partitions: between these apps, or all. What has waited arrives.
---@param one perilune.test.app|perilune.test.app[]|nil
---@param other perilune.test.app|perilune.test.app[]|nil
---@return perilune.test.net
function net:heal(one, other)
  check_open(self, "heal")
  if one == nil and other == nil then
    core.heal(self.core)
  else
    part(self, "heal", one, other, false)
  end
  return settle(self)
end

--- Resets connections: between two apps, of one, or all; or a share of them.
---@param one perilune.test.app?
---@param other perilune.test.app?
---@param share number? 0.3: three of ten, as they are drawn; default: all
---@return integer count of those that were reset
function net:reset(one, other, share)
  check_open(self, "reset")
  if type(other) == "number" then other, share = nil, other end
  if type(one) == "number" then one, share = nil, one end
  local count = core.reset(self.core, one and node_of(self, "reset", one) or 0,
    other and node_of(self, "reset", other) or 0, share_of("reset", share or 1))
  settle(self)
  return count
end

-- ---- apps that fail ----

local function node_of_open(self, what, app)
  local node = node_of(self, what, app)
  if app.is_closed then failing.misuse(what .. ": the app is closed, or was killed") end
  return node
end

--- The app does nothing any more, as a process that is stopped or a machine that swaps: its connections stay, new ones
--- are made and wait. Its time-outs are due when it goes on.
---@param one perilune.test.app
---@return perilune.test.net
function net:stall(one)
  check_open(self, "stall")
  local node = node_of_open(self, "stall", one)
  if not one.is_stalled then core.note(self.core, node, "stalls") end
  one.is_stalled = true
  core.stall(self.core, node, true)
  return self
end

--- It goes on.
---@param one perilune.test.app
---@return perilune.test.net
function net:resume(one)
  check_open(self, "resume")
  local node = node_of(self, "resume", one)
  if one.is_stalled then core.note(self.core, node, "goes on") end
  one.is_stalled = false
  core.stall(self.core, node, false)
  return settle(self)
end

--- The app dies as a process does that is killed: nothing of it runs any more, whoever is connected to it gets a reset,
--- and its addresses refuse. With `silent` it dies as a machine does that loses power: nobody is told, and who connects
--- gets no answer.
---@param one perilune.test.app
---@param options { silent: boolean? }?
---@return perilune.test.net
function net:kill(one, options)
  check_open(self, "kill")
  options = options or {}
  settings.check_options("kill", options, { silent = true })
  local node = node_of_open(self, "kill", one)
  one.is_stalled = false
  core.stall(self.core, node, false)
  core.kill(self.core, node, options.silent)
  one:die(options.silent)
  return settle(self)
end

--- The same script anew, at the same addresses; what runs is killed first. The app is the same object, with a new log,
--- new counters and no clients.
---@param one perilune.test.app
---@return perilune.test.net
function net:restart(one)
  check_open(self, "restart")
  node_of(self, "restart", one)
  if not one.is_closed then self:kill(one) end
  one:open_again()
  return settle(self)
end

-- ---- the history ----

local function text_of(self, most)
  local lines, before = core.history(self.core, most)
  if before > 0 then table.insert(lines, 1, ("… %d lines before these"):format(before)) end
  return table.concat(lines, "\n")
end

--- What has happened in it, a line for each event: the last 5000.
---@return string
function net:history() return text_of(self) end

--- For failures.
function net:about()
  return ("the net, of seed %d (perilune.net { seed = %d })\n%s"):format(self.seed, self.seed, text_of(self, SHOWN))
end

--- What a failure of a test should tell of the nets that are open; nil: there are none.
---@return string?
function M.about_open()
  local texts = {}
  for i, one in ipairs(open) do texts[i] = one:about() end
  return #texts > 0 and table.concat(texts, "\n\n") or nil
end

-- ---- the end ----

local function forget(self)
  leftovers.forget(self)
  for i, one in ipairs(open) do
    if one == self then
      table.remove(open, i)
      return
    end
  end
end

--- Ends all of its apps, those first that were opened last: who is connected to goes after those who connect. Nothing
--- is parted or stalled any more then. Again: nothing.
function net:close()
  if self.is_closed then return end
  self:heal()
  for _, app in ipairs(self.apps) do
    if app.is_stalled then self:resume(app) end
  end
  for i = #self.apps, 1, -1 do
    local app = self.apps[i]
    if not app.is_closed then
      app:close()
      app.ended_by = "net"
    end
  end
  self.is_closed = true
  forget(self)
end

-- For perilune.test.leftovers: its apps tell what is left.
function net.left() return nil end

function net:dispose()
  self.is_closed = "test"
  forget(self)
end

methods.lock_objects("a net", net)

return M
