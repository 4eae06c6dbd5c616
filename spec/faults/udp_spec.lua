--- Calls that fail while datagrams are served: a datagram may be lost, and no more.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local poll = require "posix.poll"
local server = require "spec.support.server"
local udp = require "spec.support.udp"
local wait = require "spec.support.wait"

local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(datagram)
    if datagram:find "^sleep" then perilune.sleep "1ms" end
    return datagram
  end
  return { listen = { "udp://127.0.0.1:0", "udp://[::1]:0" }, agent = Agent, timeout = { drain = "3s" },
    amplification = false, limits = { per_ip = 100 } }]]

local PATIENCE_MS = 100

-- The peers of a worker that has not got its socket have nobody, and the log says so.
local function is_deaf(app) return #app:find_log "a worker cannot read its datagrams" > 0 end

-- Datagrams may be lost: then it asks again, as clients do. An answer that comes twice is no harm.
local function ask(app, one, datagram)
  local deadline = wait.deadline()
  repeat
    one:send(datagram)
    local ready = poll.poll({ [one.fd] = { events = { IN = true } } }, PATIENCE_MS) == 1
    local answer
    repeat answer = ready and one:try_receive() or nil until answer == datagram or answer == nil
    if answer or is_deaf(app) then return end
  until wait.now() > deadline
  error("no answer to " .. datagram)
end

local function talk(app)
  local peers = udp.connect_all(app, 3)
  peers[4] = udp.connect(app, { listener = 2 })
  for _, datagram in ipairs { "one", "sleep", ("x"):rep(9000), "", "two" } do
    for _, one in ipairs(peers) do ask(app, one, datagram) end
  end
  for i = 1, 20 do peers[1]:send("burst " .. i) end
  ask(app, peers[1], "three")
  udp.close_all()
end

-- Has it come to pass?
local function try(fault, options)
  local folder = command.folder()
  local app = server.try_start {
    script = SCRIPT, folder = folder, workers = options.workers or 2, asan = server.SMALL_QUARANTINE,
    env = { FAULT = fault, FAULT_REPORT = folder .. "/report", FAULT_ARM = options.late and folder .. "/arm" or nil },
  }
  if app.ended then
    assert.equal(1, app.ended.code, fault)
  else
    if options.late then faults.arm(app) end
    talk(app)
    assert.equal(0, app:stop().code, fault)
  end
  local has_fired = faults.fired(app)
  command.remove(folder)
  return has_fired
end

-- How many calls there are of a kind that can fail, each of which does so once.
local function each(kind, options)
  for number = 1, 400 do
    if not try(kind .. ":" .. number, options or {}) then return number - 1 end
  end
  error(kind .. ": there is no end of them")
end

describe("datagrams", function()
  after_each(function()
    udp.close_all()
    server.finish()
  end)

  for _, point in ipairs {
    { "recvmmsg", "EINTR" }, { "recvmmsg", "ECONNREFUSED" }, { "recvmmsg", "ENOMEM" }, { "sendmmsg", "EINTR" },
    { "sendmmsg", "EAGAIN" }, { "sendmmsg", "ENOBUFS" }, { "sendmmsg", "EPERM" }, { "sendmmsg", "EINVAL" },
    { "sendmmsg", "EIO" },
  } do
    it(("are served on where %s() fails with %s"):format(unpack(point)), function()
      for i, fault in ipairs(faults.spread(unpack(point))) do assert.is_true(try(fault, { late = true }) or i > 1) end
    end)
  end

  it("are served where there is no memory for one of them, or nothing is", function()
    assert.is_true(each("memory", { workers = 1 }) > 20)
  end)

  for _, kind in ipairs { "socket", "bind", "getsockname", "setsockopt", "epoll_ctl" } do
    it(("are served where %s() fails once, or the start fails"):format(kind), function()
      assert.is_true(each(kind) > 0)
    end)
  end
end)
