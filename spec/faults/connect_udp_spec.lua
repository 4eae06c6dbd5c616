--- Calls that fail while connections out over UDP are made and used: one may not be made, a datagram may be lost, and
--- no more.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local BACKEND = [[
  local Agent = {}
  function Agent:proceed(datagram) return datagram end
  return { listen = "udp://127.0.0.1:0", agent = Agent, amplification = false, workers = 1 }]]

-- Each line is sent as a datagram, again and again until it has come back.
local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  local function ask(line)
    local conn, message, code = perilune.connect("udp://127.0.0.1:%d", { limits = { inbox = 4 } })
    if not conn then return "no: " .. code end
    for _ = 1, 20 do
      conn:send(line)
      conn:send(line .. "!")
      repeat
        local reply = conn:read(nil, "100ms")
        if reply == line then
          perilune.sleep "1ms"
          conn:close()
          return line
        end
      until not reply
    end
    return "no answer"
  end
  function Agent:proceed(line)
    if line == "many" then
      local one = function() return ask "x" end
      return tostring(#perilune.all { one, one, one } == 3 and "many")
    end
    return ask(line)
  end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, timeout = { drain = "3s" } }]]

local function descriptors_of(app)
  local n = 0
  for _, what in pairs(app:descriptors()) do n = n + (what == app.folder .. "/report" and 0 or 1) end
  return n
end

-- Whether the line came back; a client whose connection was hit has none any more.
local function ask(app, line)
  local client = app:connect()
  local ok, answer = pcall(function() return client:send(line .. "\n"):recv_line() end)
  client:close()
  return ok and answer == line
end

local function serve(app, fault)
  local before = descriptors_of(app)
  faults.arm(app)
  for _, line in ipairs { "one", "two", "many", ("x"):rep(5000) } do ask(app, line) end
  local tries = 0
  repeat tries = tries + 1 until ask(app, "three") or tries == 4
  assert(tries < 4, fault)
  app.clients = {}
  wait.until_true("descriptors are back: " .. fault, function() return descriptors_of(app) <= before end)
end

-- Has it come to pass?
local function try(backend, fault)
  local folder = command.folder()
  local app = server.try_start {
    script = SCRIPT:format(backend.port), folder = folder, workers = 1, asan = server.SMALL_QUARANTINE,
    env = { FAULT = fault, FAULT_REPORT = folder .. "/report", FAULT_ARM = folder .. "/arm" },
  }
  serve(app, fault)
  assert.equal(0, app:stop().code, fault)
  local has_fired = faults.fired(app)
  command.remove(folder)
  return has_fired
end

-- How many calls there are of a kind that can fail, each of which does so once.
local function each(kind, how)
  local backend = server.start { script = BACKEND }
  for number = 1, 400 do
    if not try(backend, ("%s:%d%s"):format(kind, number, how and ":" .. how or "")) then return number - 1 end
  end
  error(kind .. ": there is no end of them")
end

describe("connections out over UDP", function()
  after_each(server.finish)

  for _, point in ipairs {
    { "recvmmsg", "EINTR" }, { "recvmmsg", "ECONNREFUSED" }, { "recvmmsg", "ENOMEM" }, { "sendmmsg", "EINTR" },
    { "sendmmsg", "EAGAIN" }, { "sendmmsg", "ECONNREFUSED" }, { "sendmmsg", "ENOBUFS" }, { "sendmmsg", "EPERM" },
    { "sendmmsg", "EINVAL" }, { "sendmmsg", "EIO" }, { "sendmmsg", "EMSGSIZE" },
  } do
    it(("are served on where %s() fails with %s"):format(unpack(point)), function()
      local backend = server.start { script = BACKEND }
      for i, fault in ipairs(faults.spread(unpack(point))) do assert.is_true(try(backend, fault) or i > 1) end
    end)
  end

  for _, point in ipairs {
    { "connect", "ENETUNREACH" }, { "connect", "EPERM" }, { "socket" }, { "getsockname" }, { "getpeername" },
    { "setsockopt" }, { "epoll_ctl" },
  } do
    it(("are served on where %s() fails once%s"):format(point[1], point[2] and " with " .. point[2] or ""), function()
      assert.is_true(each(point[1], point[2]) > 0)
    end)
  end

  it("are served where there is no memory for one of them, or for nothing", function()
    assert.is_true(each "memory" > 5)
  end)
end)
