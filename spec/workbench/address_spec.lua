--- Addresses of one link, and IPv4 ones that are written as IPv6: bound, shown, connected to.
local ffi = require "ffi"
local assert_has = require "spec.support.has"
local failure = require "spec.support.failure"
local perilune = require "perilune.test"

ffi.cdef "int unshare(int flags);"

local CLONE_NEWNET = 0x40000000

local SCRIPT = [[
local A = {}
function A:opened() return self.conn.peer .. " " .. self.conn.local_addr end
function A:proceed() error "oh" end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A }
]]

-- A network of this thread's own, whose only interface has an address of its link.
local function has_link()
  if ffi.C.unshare(CLONE_NEWNET) ~= 0 then return false end
  return os.execute "ip link set lo up && ip addr add fe80::77/64 dev lo nodad" == 0
end

describe("an address", function()
  local app, path

  local function start(host)
    path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(SCRIPT)
    file:close()
    app = perilune.start(path, { listen = ("tcp://%s:0"):format(host) })
    return app
  end

  after_each(function()
    if app then app:close() end
    if path then os.remove(path) end
    app, path = nil, nil
  end)

  for _, host in ipairs { "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1" } do
    it("of IPv4 is bound as one, however it is written: " .. host, function()
      local peer, own = start(host):connect():receive():match "^127%.0%.0%.1:(%d+) 127%.0%.0%.1:(%d+)$"
      assert.is_truthy(peer and own)
      assert_has("tcp://127.0.0.1:" .. own, app:log("listening")[1].address)
    end)
  end

  it("of IPv6 is shown with its brackets", function()
    local client = start("[::1]"):connect()
    assert.is_truthy(client:receive():find "^%[::1%]:%d+ %[::1%]:%d+$")
    client:send("x"):expect_closed "error"
  end)

  it("of one link is shown with it, wherever it is", function()
    if not has_link() then return pending "takes a network of its own, and ip(8)" end
    local client = start("[fe80::77%lo]"):connect()
    local peer, own = client:receive():match "^(%[fe80::77%%lo%]:%d+) (%[fe80::77%%lo%]:%d+)$"
    assert.is_truthy(peer)
    assert.equal("tcp://" .. own, app:log("listening")[1].address)
    client:send("x"):expect_closed "error"
    assert.equal(peer, app:faults()[1].peer)
    assert_has(peer .. " → ", app:faults()[1].excerpt)
  end)

  it("of one link is shown with it in memory, too", function()
    app = perilune.app { listen = "tcp://:0", frame = "line", agent = {
      opened = function(self) return self.conn.peer .. tostring(self.conn) end, proceed = function() end } }
    local client = app:connect { from = "[fe80::1%lo]:5060" }
    assert_has("[fe80::1%lo]:5060", client:receive())
    app:connect { from = "[fe80::1%1]:5060" }:skip()
    assert_has("network interface", failure(function() app:connect { from = "[fe80::1%nosuch0]:1" } end))
  end)

  it("without its link, or with one that is not there, is told of it", function()
    assert_has("needs its network interface", failure(function() start "[fe80::77]" end))
    assert_has("there is no network interface of that name", failure(function() start "[fe80::77%nosuch0]" end))
    assert_has('follows "%" as it is: "[fe80::77%lo]"', failure(function() start "[fe80::77%25lo]" end))
  end)
end)
