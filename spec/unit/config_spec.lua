local address = require "perilune.config.address"
local config = require "perilune.config"

local function agent() end
local function noop() end

-- A valid script with `fields` on top; NONE takes a field away.
local NONE = {}
local function script_with(fields)
  local script = { listen = "tcp://127.0.0.1:9000", agent = agent }
  for key, value in pairs(fields or {}) do
    if value == NONE then script[key] = nil else script[key] = value end
  end
  return script
end

local function normalise(fields, opts)
  local conf, errors = config.normalise(script_with(fields), opts)
  assert(conf, errors and config.format_errors(errors, "app.lua"))
  return conf
end

local function errors_of(fields, opts)
  local conf, errors = config.normalise(script_with(fields), opts)
  assert.is_nil(conf)
  return config.format_errors(errors, "app.lua")
end

local function override(path, value, origin)
  return { path = path, value = value, origin = origin or "flag --set " .. path }
end

describe("a key that means well", function()
  local function told(script)
    local _, errors = config.normalise(script, { cpus = 1 })
    local texts = {}
    for i, err in ipairs(errors or {}) do texts[i] = err.message end
    return texts
  end

  local A = { proceed = function() end }

  -- Each is one error, with the key that was meant.
  for given, meant in pairs {
    framing = "frame", codec = "frame", handler = "agent", handlers = "agent", on_connect = "agent",
    onConnection = "agent", max_connections = "limits.connections", maxConnections = "limits.connections",
    maxconn = "limits.connections", ["max-clients"] = "limits.connections", connection_limit = "limits.connections",
    idle_timeout = "timeout.idle", idleTimeout = "timeout.idle", timeout_idle = "timeout.idle",
    idle_timeout_ms = "timeout.idle", read_timeout = "timeout.read", readTimeout = "timeout.read",
    handshake_timeout = "timeout.handshake", write_timeout_seconds = "timeout.write", drain_timeout = "timeout.drain",
    graceful_timeout = "timeout.drain", address = "listen", listener = "listen", server = "listen", threads = "workers",
    worker_processes = "workers", max_frame_size = "limits.frame", max_message_size = "limits.frame",
    max_frame_bytes = "limits.frame", high_water_mark = "limits.send_buffer", max_per_ip = "limits.per_ip",
    rate_limit = "limits.accept_rate", loglevel = "log.level", log_file = "log.file", logfile = "log.file",
    verbose = "log.level", tcp_nodelay = "nodelay", so_reuseport = "reuse_port", on_start = "setup",
    on_exit = "teardown", on_save = "snapshot", max_snapshot = "limits.snapshot", deflate_memory = "limits.deflate",
    max_memory = "limits.memory", cpu_limit = "limits.proceed", hot_reload = "reload.policy",
    wrokers = "workers", pidfile = "control", keepalive_timeout = "timeout.idle",
  } do
    it("is asked for: " .. given, function()
      local script = { listen = "tcp://:1", agent = A, [given] = 1 }
      if meant == "listen" or meant == "agent" then script[meant] = nil end
      local texts = told(script)
      assert.equal(1, #texts, table.concat(texts, "\n"))
      assert.equal(('unknown key "%s" (did you mean "%s"?)'):format(given, meant), texts[1])
    end)
  end

  it("is asked for in groups, in listeners, and from outside", function()
    local function only(script) return told(script)[1] end
    assert.matches('did you mean "limits.connections"',
      only { listen = "tcp://:1", agent = A, limits = { max_clients = 1 } })
    assert.matches('did you mean "timeout.idle"', only { listen = { { "tcp://:1", idle_timeout = 1 } }, agent = A })
    local _, errors = config.normalise({ listen = "tcp://:1", agent = A }, {
      cpus = 1, overrides = { { path = "max_connections", value = "1", origin = "flag --set max_connections" } } })
    assert.matches('did you mean "limits.connections"', errors[1].message)
  end)

  it("is not made of what means nothing", function()
    for _, name in ipairs { "xyzzy", "max", "timeouts", "size", "_", "thing_of_mine" } do
      local text = told({ listen = "tcp://:1", agent = A, [name] = 1 })[1]
      if name ~= "timeouts" then assert.is_nil(text:find "did you mean", text) end
    end
  end)
end)

describe("config.address", function()
  local good = {
    ["tcp://127.0.0.1:9000"] = { kind = "tcp", host = "127.0.0.1", port = 9000 },
    ["tcp://:9000"] = { kind = "tcp", host = "", port = 9000 },
    ["tcp://localhost:0"] = { kind = "tcp", host = "localhost", port = 0 },
    ["tcp://a-b.example:65535"] = { kind = "tcp", host = "a-b.example", port = 65535 },
    ["tcp://[::1]:9000"] = { kind = "tcp", host = "::1", port = 9000 },
    ["tcp://[::]:9000"] = { kind = "tcp", host = "::", port = 9000 },
    ["tcp://[fe80::1%eth0]:1"] = { kind = "tcp", host = "fe80::1%eth0", port = 1 },
    ["tcp://[1:2:3:4:5:6:7:8]:1"] = { kind = "tcp", host = "1:2:3:4:5:6:7:8", port = 1 },
    ["tcp://[::ffff:10.0.0.1]:1"] = { kind = "tcp", host = "::ffff:10.0.0.1", port = 1 },
    ["unix:///run/app.sock"] = { kind = "unix", path = "/run/app.sock" },
    ["unix://app.sock"] = { kind = "unix", path = "app.sock" },
    ["tls://example.org:443"] = { kind = "tcp", secure = true, host = "example.org", port = 443 },
    ["tls://[::1]:443"] = { kind = "tcp", secure = true, host = "::1", port = 443 },
    ["tls://:443"] = { kind = "tcp", secure = true, host = "", port = 443 },
    ["unix://" .. ("a"):rep(107)] = { kind = "unix", path = ("a"):rep(107) },
  }
  for text, expected in pairs(good) do
    it("reads " .. text:sub(1, 40), function()
      expected.address = text
      assert.same(expected, address.parse(text))
    end)
  end

  local bad = {
    [""] = "expects an address such as", ["9000"] = "expects an address such as",
    ["127.0.0.1:9000"] = 'did you mean "tcp://127.0.0.1:9000"?', [":9000"] = 'did you mean "tcp://:9000"?',
    ["/run/app.sock"] = 'did you mean "unix:///run/app.sock"?',
    ["unix:/run/app.sock"] = 'did you mean "unix:///run/app.sock"?', ["unix:a"] = 'did you mean "unix:///a"?',
    ["tcp:127.0.0.1:9000"] = 'did you mean "tcp://127.0.0.1:9000"?', ["tcp:/:1"] = 'did you mean "tcp://:1"?',
    ["tpc://:9000"] = 'unknown scheme "tpc" (did you mean "tcp"?)', ["unxi:///a"] = '(did you mean "unix"?)',
    ["ftp://:80"] = 'unknown scheme "ftp"', ["http://:80/"] = "expects a port", ["http://a"] = 'no port in "http://a"',
    ["https://:"] = 'no port in "https://:"',
    ["udp://:"] = 'no port in "udp://:"',
    ["tls://localhost"] = 'no port in "tls://localhost" (write it as in "tls://localhost:9000"',
    ["tls://:65536"] = "expects a port", ["tls://[::1"] = 'no closing "]"',
    ["tcp://localhost"] = 'no port in "tcp://localhost" (write it as in "tcp://localhost:9000"',
    ["tcp://localhost:"] = 'no port in "tcp://localhost:"', ["tcp://"] = "no port", ["tcp://[::1]"] = "no port",
    ["tcp://:65536"] = 'expects a port from 0 to 65535, got "65536"', ["tcp://:-1"] = "expects a port",
    ["tcp://:99999999999999999999"] = "expects a port", ["tcp://:http"] = "expects a port",
    ["tcp://:80/"] = "expects a port", ["tcp://[::1]9000"] = "expects a port",
    ["tcp://::1:9000"] = "an IPv6 address needs brackets", ["tcp://[::1:9000"] = 'no closing "]"',
    ["tcp://[]:1"] = "not an IPv6 address", ["tcp://[:::]:1"] = "not an IPv6 address",
    ["tcp://[1:2]:1"] = "not an IPv6 address", ["tcp://[1::2::3]:1"] = "not an IPv6 address",
    ["tcp://[12345::]:1"] = "not an IPv6 address", ["tcp://[::10.0.0.256]:1"] = "not an IPv6 address",
    ["tcp://[10.0.0.1::]:1"] = "not an IPv6 address", ["tcp://[1:2:3:4:5:6:7:8:9]:1"] = "not an IPv6 address",
    ["tcp://*:9000"] = '"tcp://:9000"', ["tcp://a b:1"] = "not a host name", ["tcp://256.0.0.1:1"] = "not an IPv4",
    ["tcp://1.2.3:1"] = "not an IPv4", ["tcp://" .. ("a"):rep(254) .. ":1"] = "not a host name",
    ["unix://"] = "no path", ["unix:///run/"] = "is a directory", ["unix://@name"] = "not available in this version",
    ["unix://a\0b"] = "NUL", ["unix://" .. ("a"):rep(108)] = "takes at most 107 bytes, this one has 108",
  }
  for text, expected in pairs(bad) do
    it("refuses " .. ("%q"):format(text:sub(1, 40)), function()
      local parsed, message = address.parse(text)
      assert.is_nil(parsed)
      assert.truthy(message:find(expected, 1, true), message)
      assert.is_true(#message < 300)
    end)
  end
end)

describe("config.frame", function()
  local LIMIT = 1048576

  local function length(fields)
    local frame = {
      kind = "length", bytes = 4, endian = "big", offset = 0, adjust = 0, max = LIMIT, empty = "error", view = false,
    }
    for key, value in pairs(fields) do frame[key] = value end
    return frame
  end

  local function other(kind, fields)
    local frame = { kind = kind, max = LIMIT, empty = "deliver", view = false }
    for key, value in pairs(fields or {}) do frame[key] = value end
    return frame
  end

  local good = {
    { "u8", length { bytes = 1 } }, { "u16be", length { bytes = 2 } },
    { "u16le", length { bytes = 2, endian = "little" } }, { "u24be", length { bytes = 3 } },
    { "u32be", length {} }, { "u32le", length { endian = "little" } }, { "u64be", length { bytes = 8 } },
    { "varint", length { bytes = 0 } },
    { "line", other "line" }, { "raw", other "raw" }, { "netstring", other "netstring" },
    { { "u32be" }, length {} }, { { "line" }, other "line" },
    { { "u32be", view = true, max = "64k", empty = "deliver" },
      length { view = true, max = 65536, empty = "deliver" } },
    { { "u16be", offset = 2, adjust = -4 }, length { bytes = 2, offset = 2, adjust = -4 } },
    { { "u32be", max = "1g" }, length { max = 2 ^ 30 } },
    { { "length" }, length {} },
    { { "length", bytes = "varint" }, length { bytes = 0 } },
    { { "varint", offset = 1 }, length { bytes = 0, offset = 1 } },
    { { "length", bytes = "varint", offset = 1, adjust = -2 }, length { bytes = 0, offset = 1, adjust = -2 } },
    { { "length", bytes = 3, endian = "little", offset = 64, adjust = 5, max = 100, empty = "ignore" },
      length { bytes = 3, endian = "little", offset = 64, adjust = 5, max = 100, empty = "ignore" } },
    { { "delimiter", "\0" }, other("delimiter", { delimiter = "\0" }) },
    { { "delimiter", ("x"):rep(32), empty = "ignore" },
      other("delimiter", { delimiter = ("x"):rep(32), empty = "ignore" }) },
    { { "fixed", 32 }, other("fixed", { fixed = 32, max = 32 }) },
    { { "fixed", "2m", view = true }, other("fixed", { fixed = 2097152, max = 2097152, view = true }) },
    { { "raw", max = 10, view = true }, other("raw", { max = 10, view = true }) },
    { { "netstring", empty = "error" }, other("netstring", { empty = "error" }) },
    { { decode = agent, encode = noop }, other("lua", { decode = agent, encode = noop }) },
    { { decode = agent, encode = noop, max = "1k" }, other("lua", { decode = agent, encode = noop, max = 1024 }) },
  }
  for i, case in ipairs(good) do
    it("reads " .. tostring(type(case[1]) == "table" and case[1][1] or case[1]) .. " (" .. i .. ")", function()
      assert.same(case[2], config.frame(case[1], LIMIT))
    end)
  end

  local bad = {
    { "u23be", 'unknown framing "u23be" (did you mean "u32be"?)' }, { "lines", '(did you mean "line"?)' },
    { "u16", 'unknown framing "u16" (did you mean "u16be" or "u16le"?)' }, { "u24", '(did you mean "u24be"?)' },
    { "lua", 'unknown framing "lua"' }, { "", 'unknown framing ""' },
    { 4, "expects a name" }, { true, "expects a name" }, { {}, "a table without a name at [1]" },
    { { 4 }, "got 4 at [1]" }, { { max = 1 }, "a table without a name" },
    { "delimiter", 'expects a text of 1 to 32 bytes, as in { "delimiter", "\\0" }, got nothing' },
    { { "delimiter", "" }, "got 0 bytes" }, { { "delimiter", ("x"):rep(33) }, "got 33 bytes" },
    { { "delimiter", 0 }, "got 0" }, { { "delimiter", delimiter = "x" }, 'unknown option "delimiter"' },
    { "fixed", 'as in { "fixed", 32 }, got nothing' }, { { "fixed", 0 }, "got 0" },
    { { "fixed", "2g" }, 'got "2g"' }, { { "fixed", 1.5 }, "got 1.5" },
    { { "fixed", 32, max = 64 }, '"fixed" does not take the option "max"' },
    { { "length", bytes = 5 }, 'option "bytes" expects 1, 2, 3, 4, 8 or "varint", got 5' },
    { { "length", endian = "middle" }, 'option "endian" expects "big" or "little", got "middle"' },
    { { "length", offset = 65 }, 'option "offset" expects a whole number from 0 to 64, got 65' },
    { { "length", offset = -1 }, "got -1" }, { { "length", adjust = 0.5 }, "got 0.5" },
    { { "length", adjust = 2 ^ 40 }, 'option "adjust"' }, { { "length", offset = 0 / 0 }, 'option "offset"' },
    { { "varint", offset = 65 }, 'option "offset" expects a whole number from 0 to 64, got 65' },
    { { "varint", offset = 1, view = true }, 'cannot be combined with "view"' },
    { { "length", bytes = "varint", endian = "big" }, "makes no sense with a varint" },
    { { "u32be", offset = 1, view = true }, 'cannot be combined with "view"' },
    { { "u32be", max = "2g" }, 'option "max" expects a size from 1b to 1g, got "2g"' },
    { { "u32be", max = 2 ^ 30 + 1 }, 'option "max"' }, { { "u32be", max = 0 }, 'option "max"' },
    { { "u32be", empty = "drop" }, 'option "empty" expects "error", "deliver" or "ignore", got "drop"' },
    { { "u32be", view = 1 }, 'option "view" expects true or false, got 1' },
    { { "u32be", veiw = true }, 'unknown option "veiw" (did you mean "view"?)' },
    { { "u32be", bytes = 4 }, '"u32be" does not take the option "bytes"' },
    { { "line", "x" }, "unknown option [2]" }, { { "raw", empty = "error" }, 'does not take the option "empty"' },
    { { decode = agent }, 'option "encode" expects a function, got nothing' },
    { { encode = agent }, 'option "decode" expects a function, got nothing' },
    { { decode = 1, encode = agent }, 'option "decode" expects a function, got 1' },
    { { decode = agent, encode = agent, view = true }, 'does not take the option "view"' },
    { { "line", decode = agent }, '"line" does not take the option "decode"' },
    { { "u32be", max = "x", view = 2 }, 'got "x"; option "view"' },
  }
  for i, case in ipairs(bad) do
    it(("refuses %s (%d)"):format(case[2], i), function()
      local frame, message = config.frame(case[1], LIMIT)
      assert.is_nil(frame)
      assert.truthy(message:find(case[2], 1, true), message)
    end)
  end
  it("refuses nothing at all", function() assert.matches("got nothing$", select(2, config.frame(nil, LIMIT))) end)
  it("leaves the spec as it was", function()
    local spec = { "u32be", max = "64k" }
    config.frame(spec, LIMIT)
    assert.same({ "u32be", max = "64k" }, spec)
  end)
end)

describe("config.normalise", function()
  it("takes a policy in place of a table, for all listeners or for one", function()
    local conf = normalise { reload = "drain", listen = { "tcp://:1", { "tcp://:2", reload = "migrate" } } }
    assert.same({ "drain", "migrate" }, { conf.listeners[1].reload.policy, conf.listeners[2].reload.policy })
    assert.equal("drain", conf.reload.policy)
    assert.truthy(errors_of({ reload = "restart" }):find('"pin"', 1, true))
    local entry = { "tcp://:2", reload = { keep = 2 } }
    assert.truthy(errors_of({ listen = { entry } }):find("reload.keep: applies to the whole process", 1, true))
  end)

  it("takes shares", function()
    local conf = normalise { reload = { canary = 0.05, window = "5m", max_errors = 0 } }
    assert.same({ 0.05, 300000, 0 }, { conf.reload.canary, conf.reload.window, conf.reload.max_errors })
    assert.equal(0, normalise { reload = { canary = false, window = 0 } }.reload.canary)
    assert.equal(1, normalise { reload = { max_errors = 1 } }.reload.max_errors)
    conf = normalise({}, { overrides = { override("reload.canary", ".5"), override("reload.max_errors", "0.25") } })
    assert.same({ 0.5, 0.25 }, { conf.reload.canary, conf.reload.max_errors })
    assert.equal(0, normalise({ reload = { canary = 0.1 } },
      { overrides = { override("reload.canary", "off") } }).reload.canary)
    for _, bad in ipairs { 1, -0.1, 1.5, 0 / 0, "5%", true, {} } do
      assert.truthy(errors_of({ reload = { canary = bad } })
        :find("reload.canary: expects a share from 0 to less than 1", 1, true))
    end
    for _, bad in ipairs { 1.01, -1, false, "1" } do
      assert.truthy(errors_of({ reload = { max_errors = bad } }):find("reload.max_errors: expects a share from 0 to 1 ",
        1, true))
    end
    assert.truthy(errors_of({ reload = { canary = 0.1, window = 0 } }):find("reload.window: reload.canary needs", 1,
      true))
    local entry = { "tcp://:2", reload = { canary = 0.1 } }
    assert.truthy(errors_of({ listen = { entry } }):find("reload.canary: applies to the whole process", 1, true))
  end)

  it("completes a minimal script with the defaults", function()
    local conf = normalise({}, { cpus = 6 })
    conf.origins = nil
    assert.same({
      workers = 6, modules = {}, unsafe = {}, compat = {}, record = {},
      log = { format = "auto", level = "info", frame_bytes = 0, file = false },
      reload = { keep = 3, when_full = "refuse", policy = "pin", canary = 0, window = 30000, max_errors = 0.01 },
      jit = true, memory = 2 ^ 32 / 2 / 6 - 2 ^ 32 / 2 / 6 % 1, buffers = 256 * 1024 * 1024, garbage = 0.28,
      jobs = {
        workers = 0, queue = 1024, when_full = "block", lanes = { { name = "main", workers = 0 } }, timeout = 30000,
        proceed = 10000, memory = 256 * 1024 * 1024, message = 16 * 1024 * 1024,
        buffers = 256 * 1024 * 1024, unsafe = {}, all_modules = "",
        all_unsafe = "", all_compat = "",
      },
      hub = { policy = "disconnect", messages = 256, bytes = 2 ^ 20, inbox = 8192 },
      shared = {}, agents = {}, drain_ms = 10000, handshakes = 1000, outgoing = 10000, deflate = 64 * 2 ^ 20,
      snapshot_bytes = 16 * 2 ^ 20,
      takes_snapshot = false,
      upgrade_ms = 30000, control = "auto",
      listeners = { {
        kind = "tcp", host = "127.0.0.1", port = 9000, address = "tcp://127.0.0.1:9000", name = "tcp://127.0.0.1:9000",
        backlog = 1024, keepalive = 30000, nodelay = true, reuse_port = false, agent = agent,
        frame = {
          kind = "length", bytes = 4, endian = "big", offset = 0, adjust = 0, max = 1048576, empty = "error",
          view = false,
        },
        limits = {
          connections = 10000, per_ip = 0, accept_rate = 0, frame = 1048576, inbox = 1024, mailbox = 1000,
          send_buffer = 1048576, proceed = 1000, allocation = 0, slow_consumer = "pause", reject = false, uri = 8192,
          headers = 16384, fields = 100, body = 1048576, upload = 0, requests = 0, message = 65536,
        },
        timeout = { read = 10000, write = 10000, idle = 60000, first_frame = 0, handshake = 10000, proceed = 0,
          header = 10000, body = 10000 },
        tls = false, protocol = false,
        origins = false, subprotocols = {}, compress = true, ping = 54000, pong = 60000,
        reload = { policy = "pin" }, proxy = false, trust = {}, amplification = 3,
      } },
    }, conf)
  end)

  describe("agents", function()
    local User = { message = function() end }

    it("are kinds by name, which take what is a listener's as well from the top level", function()
      local conf = normalise({ limits = { proceed = "2s" }, reload = "drain", agents = {
        user = { agent = User, idle = "10s", most = 5, reload = "migrate", limits = { proceed = "50ms" } },
        room = { agent = function() return User end, idle = false, timeout = { proceed = "3s" } },
      } })
      local room, user = conf.agents[1], conf.agents[2]
      assert.same({ "room", 0, 1e5, "drain", 2000, 3000 },
        { room.name, room.idle, room.most, room.reload.policy, room.limits.proceed, room.timeout.proceed })
      assert.same({ "user", 10000, 5, "migrate", 50, 0 },
        { user.name, user.idle, user.most, user.reload.policy, user.limits.proceed, user.timeout.proceed })
      assert.equal(600e3, normalise({ agents = { user = { agent = User } } }).agents[1].idle)
    end)

    for text, agents in pairs {
      ['agents: expects kinds of agents by name such as { user = { agent = User, idle = "10m" } }, got 1'] = 1,
      ["agents: a kind's name has at most 32 of a-z, 0-9 and \"_\", and begins with a letter, got \"User\""] =
        { User = { agent = User } },
      ["agents.user: expects a kind's settings: write it as { agent = … }"] = { user = User },
      ["agents.user: no agent: set agent = function(key) … end, or a table with a message method"] =
        { user = { idle = 1 } },
      ["agents.user.agent: no message: the table has no function message; it has \"mesage\" (did you mean"] =
        { user = { agent = { mesage = function() end } } },
      ["agents.user.mailbox: unknown key \"mailbox\" (did you mean \"limits.mailbox\"?)"] =
        { user = { agent = User, mailbox = 1 } },
      ["agents.user.idel: unknown key \"idel\" (did you mean \"idle\"?)"] = { user = { agent = User, idel = 1 } },
      ["agents.user.frame: is of connections, and an agent without a socket has none"] =
        { user = { agent = User, frame = "line" } },
      ["agents.user.timeout.idle: has its own name: write idle = \"10m\""] =
        { user = { agent = User, timeout = { idle = 1 } } },
      ["agents.user.most: expects a whole number from 1 to 10000000, got 0"] = { user = { agent = User, most = 0 } },
      ["agents.user.limits: expects a table, got 1"] = { user = { agent = User, limits = 1 } },
    } do
      it("refuse what makes no sense: " .. text, function()
        assert.truthy(errors_of({ agents = agents }):find(text, 1, true))
      end)
    end

    it("are at most 64", function()
      local agents = {}
      for i = 1, 65 do agents["k" .. i] = { agent = User } end
      assert.truthy(errors_of({ agents = agents }):find("agents: has 65 kinds, at most 64 are possible", 1, true))
    end)

    it("are shown, each with its settings", function()
      local text = config.print(normalise({ agents = { user = { agent = User, idle = false } } }))
      assert.truthy(text:find("\nagents +%= user"))
      assert.truthy(text:find("agents without a socket: user\n  agent +%= table +%(script%)\n  idle +%= never"))
    end)
  end)

  it("takes a function that redacts, and nothing else in its place", function()
    local redact = function() end
    assert.equal(redact, normalise({ record = { redact = redact } }).record.redact)
    assert.truthy(errors_of({ record = { redact = "all" } }):find("record.redact: expects a function", 1, true))
    assert.truthy(errors_of({ record = { redakt = redact } }):find('did you mean "redact"', 1, true))
    assert.truthy(errors_of({ record = redact }):find("record: expects a table", 1, true))
    local entry = { "tcp://:2", record = { redact = redact } }
    assert.truthy(errors_of({ listen = { entry } }):find("applies to the whole process", 1, true))
  end)

  it("takes every key", function()
    local conf = normalise {
      listen = "unix://app.sock", jit = false, name = "front", mode = "0660", workers = 3,
      modules = { "app.rooms", "app.users" }, setup = agent, teardown = noop, backlog = 5, keepalive = false,
      nodelay = false, frame = "line", log = { format = "json", level = "warn", frame_bytes = 64 },
      limits = {
        connections = 1, per_ip = 2, accept_rate = 3, frame = "4k", inbox = 5, mailbox = 6, send_buffer = "6k",
        slow_consumer = "drop", reject = "busy\n", buffers = "7m", memory = "64m", garbage = 1, proceed = "5ms",
        allocation = "1m", handshakes = 8,
      },
      timeout = { read = 1, write = "2s", idle = "3m", first_frame = 0.5, handshake = "4s", proceed = "5s",
        drain = false },
      proxy = "optional", trust = { "unix", "10.0.0.0/8", "10.1.0.0/16", "::1", "2001:db8::/32" },
    }
    assert.same({ 3, 7 * 2 ^ 20, 0, agent, noop },
      { conf.workers, conf.buffers, conf.drain_ms, conf.setup, conf.teardown })
    assert.same({ "app.rooms", "app.users" }, conf.modules)
    assert.same({ format = "json", level = "warn", frame_bytes = 64, file = false }, conf.log)
    local front = conf.listeners[1]
    assert.same({ "front", 432, 5, 0, false, "line", 4096 },
      { front.name, front.mode, front.backlog, front.keepalive, front.nodelay, front.frame.kind, front.frame.max })
    assert.same({
      connections = 1, per_ip = 2, accept_rate = 3, frame = 4096, inbox = 5, mailbox = 6, send_buffer = 6144,
      slow_consumer = "drop", reject = "busy\n", proceed = 5, allocation = 2 ^ 20, uri = 8192, headers = 16384,
      fields = 100, body = 2 ^ 20, upload = 0, requests = 0, message = 65536,
    }, front.limits)
    assert.same({ 64 * 2 ^ 20, false }, { conf.memory, conf.jit })
    assert.same({ read = 1000, write = 2000, idle = 180000, first_frame = 500, handshake = 4000, proceed = 5000,
      header = 10000, body = 10000 }, front.timeout)
    assert.same({ "optional", { "unix", "10.0.0.0/8", "10.1.0.0/16", "::1", "2001:db8::/32" } },
      { front.proxy, front.trust })
    assert.same({ 0, 8 }, { conf.drain_ms, conf.handshakes })
  end)

  describe("ws://", function()
    local TLS = { certificate = "a", key = "b" }

    it("is HTTP with one path, and has settings of its own", function()
      local conf = normalise { listen = { "ws://127.0.0.1:80/chat", { "wss://:443", tls = TLS, ping = "1s", pong = "2s",
        origins = { "https://a.example" }, subprotocols = { "b", "a" }, compress = false, limits = { message = "1k" } },
        { "unix://app.sock", protocol = "ws" } } }
      local one, two, three = unpack(conf.listeners)
      assert.same({ "tcp", 80, "ws", "raw", "pin", { path = "/chat", subprotocols = {}, compress = true } },
        { one.kind, one.port, one.protocol, one.frame.kind, one.reload.policy, one.websocket })
      assert.same({ 65536, 54000, 60000 }, { one.limits.message, one.ping, one.pong })
      assert.same({ true, "ws", 1024, 1000, 2000, { path = "/", origins = { "https://a.example" },
        subprotocols = { "b", "a" }, compress = false } },
        { two.secure, two.protocol, two.limits.message, two.ping, two.pong, two.websocket })
      assert.same({ "unix", "ws", { subprotocols = {}, compress = true } },
        { three.kind, three.protocol, three.websocket })
    end)

    it("is shown with what concerns it", function()
      local text = config.print(normalise { listen = { "ws://:1", "http://:2", "tcp://:3" } })
      local one, two, three = text:match "listener 1: (.-)listener 2: (.-)listener 3: (.*)"
      local function has(part, key) return part:find("\n  " .. key .. " ", 1, true) ~= nil end
      for _, key in ipairs { "origins", "subprotocols" } do
        assert.same({ true, false, false }, { has(one, key), has(two, key), has(three, key) }, key)
      end
      for _, key in ipairs { "ping", "pong", "limits.message", "compress" } do
        assert.same({ true, true, false }, { has(one, key), has(two, key), has(three, key) }, key)
      end
      for _, key in ipairs { "limits.body", "timeout.body" } do
        assert.same({ false, true, false }, { has(one, key), has(two, key), has(three, key) }, key)
      end
    end)

    for what, case in pairs {
      ["a query"] = { { listen = "ws://:1/a?b" }, "the path of a ws:// address has no query" },
      ["a path with a blank"] = { { listen = "ws://:1/a b" }, "a path is percent-encoded" },
      ["an address without a port"] = { { listen = "ws://127.0.0.1/a" }, 'no port in "ws://127.0.0.1"' },
      ["a framing"] = { { listen = "ws://:1", frame = "line" }, "leave `frame` out" },
      ["a body"] = { { listen = "ws://:1", limits = { body = 5 } }, "limits.message is for messages" },
      ["timeout.idle"] = { { listen = "ws://:1", timeout = { idle = 5 } }, "ping and pong tell" },
      ["a pong before the ping"] = { { listen = "ws://:1", ping = "20s", pong = "20s" },
        "pong: must be longer than ping (20s)" },
      ["a ping of tcp://"] = { { ping = "20s" }, "ping: only WebSockets have it" },
      ["limits.upload of ws://"] = { { listen = "ws://:1", limits = { upload = "2m" } }, "sends no body" },
      ["limits.upload of tcp://"] = { { limits = { upload = "2m" } }, "only an http:// address has requests" },
      ["a small limits.upload"] = { { listen = "http://:1", limits = { upload = "2k" } },
        "limits.upload: 2k is less than limits.body (1m), which bodies may have in any case" },
      ["compress that is something else"] = { { listen = "ws://:1", compress = "both" },
        'compress: expects true, false or "alone", got "both"' },
      ["compress of tcp://"] = { { compress = true }, "compress: only responses of HTTP and messages of WebSockets" },
      ["limits.message of tcp://"] = { { limits = { message = 5 } }, "limits.message: only WebSockets have it" },
      ["origins of http://"] = { { listen = "http://:1", origins = { "https://a" } }, "origins: only a ws:// address" },
      ["an origin with a path"] = { { listen = "ws://:1", origins = { "https://a/" } }, "origins: expects a list" },
      ["an origin in capitals"] = { { listen = "ws://:1", origins = { "https://A" } }, "origins: expects a list" },
      ["a subprotocol that is no token"] = { { listen = "ws://:1", subprotocols = { "a b" } },
        "subprotocols: expects a list" },
      ["wss:// without a certificate"] = { { listen = "wss://:1" }, "wss:// needs a certificate" },
    } do
      it("refuses " .. what, function()
        local text = errors_of(case[1])
        assert.truthy(text:find(case[2], 1, true), text)
      end)
    end
  end)

  describe("http://", function()
    it("has requests for frames, and limits and time-outs of its own", function()
      local conf = normalise { listen = { "http://127.0.0.1:80", { "https://:443", reload = "pin",
        limits = { uri = "1k", headers = "2k", fields = 3, body = 0 }, timeout = { header = "4s", body = false },
        tls = { certificate = "a", key = "b" } }, { "unix://app.sock", protocol = "http" }, "tcp://:9000" },
        frame = "line" }
      local one, two, three, four = unpack(conf.listeners)
      assert.same({ "tcp", "127.0.0.1", 80, "http", "raw", "migrate" },
        { one.kind, one.host, one.port, one.protocol, one.frame.kind, one.reload.policy })
      assert.same({ 8192, 16384, 100, 2 ^ 20, 10000, 10000 }, { one.limits.uri, one.limits.headers, one.limits.fields,
        one.limits.body, one.timeout.header, one.timeout.body })
      assert.same({ "http", true, "pin", 1024, 2048, 3, 0, 4000, 0 }, { two.protocol, two.secure, two.reload.policy,
        two.limits.uri, two.limits.headers, two.limits.fields, two.limits.body, two.timeout.header, two.timeout.body })
      assert.same({ "unix", "http", "raw" }, { three.kind, three.protocol, three.frame.kind })
      assert.same({ false, "line", "pin" }, { four.protocol, four.frame.kind, four.reload.policy })
    end)

    it("is shown with what concerns it", function()
      local text = config.print(normalise { listen = { "http://:1", "tcp://:2", { "unix://a", protocol = "http" } } })
      local one, two, three = text:match "listener 1: (.-)listener 2: (.-)listener 3: (.*)"
      for _, key in ipairs { "protocol", "limits.uri", "limits.body", "timeout.header", "timeout.body" } do
        assert.truthy(one:find(key .. " ", 1, true) and three:find(key .. " ", 1, true), key)
        assert.is_nil(two:find(key .. " ", 1, true), key)
      end
      for _, key in ipairs { "frame", "limits.frame", "limits.inbox", "timeout.read" } do
        assert.is_nil(one:find("\n  " .. key .. " ", 1, true), key)
        assert.truthy(two:find("\n  " .. key .. " ", 1, true), key)
      end
    end)

    for what, case in pairs {
      ["a framing"] = { { listen = "http://:1", frame = "line" }, "frame: an http:// address has requests" },
      ["a framing of an entry"] = { { listen = { { "http://:1", frame = "line" }, "tcp://:2" } },
        "listen[1].frame: an http:// address has requests" },
      ["timeout.read"] = { { listen = "http://:1", timeout = { read = 5 } }, "timeout.header is for the head" },
      ["limits.frame"] = { { listen = "http://:1", limits = { frame = 5 } }, "limits.body are for the parts" },
      ["limits.inbox"] = { { listen = "http://:1", limits = { inbox = 5 } }, "requests that wait are bytes" },
      ["a framing of ws://"] = { { listen = "ws://:1", frame = "line" }, "frame: a ws:// address has messages" },
      ["timeout.read of ws://"] = { { listen = "ws://:1", timeout = { read = 5 } }, "each message from its beginning" },
      ["limits.frame of ws://"] = { { listen = "ws://:1", limits = { frame = 5 } }, "limits.message is for messages" },
      ["limits.inbox of ws://"] = { { listen = "ws://:1", limits = { inbox = 5 } }, "messages that wait are bytes" },
      ["a body of tcp://"] = { { limits = { body = 5 } }, "limits.body: only an http:// address has requests" },
      ["a head of tcp://"] = { { timeout = { header = 5 } }, "timeout.header: only an http:// address" },
      ["another protocol"] = { { listen = "unix://a", protocol = "h2" }, 'protocol: expects "http", "ws", or false' },
      ["a protocol of tcp://"] = { { listen = "tcp://:1", protocol = "http" }, "protocol: only for unix://" },
      ["a protocol of an entry"] = { { listen = { { "tcp://:1", protocol = "http" }, "unix://a" } },
        "listen[1].protocol: only for unix://" },
      ["responses that are dropped"] = { { listen = "http://:1", limits = { slow_consumer = "drop" } },
        "limits.slow_consumer: a response that is left out" },
      ["a body that no buffer holds"] = { { listen = "http://:1", limits = { body = "300m" } },
        "limits.buffers: 256m in all cannot hold one request" },
      ["https:// without a certificate"] = { { listen = "https://:1" }, "https:// needs a certificate" },
      ["TLS of http://"] = { { listen = { { "http://:1", tls = { certificate = "a", key = "b" } } } },
        "write the address as https://" },
      ["the same address twice"] = { { listen = { "http://:1", "tcp://:1" } }, "has the same address as listen[1]" },
    } do
      it("refuses " .. what, function()
        local text = errors_of(case[1])
        assert.truthy(text:find(case[2], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end
  end)

  describe("udp://", function()
    it("has datagrams for frames, and time-outs of its own", function()
      local conf = normalise { listen = { "udp://127.0.0.1:53", { "udp://:1", frame = { "datagram", max = "1k" },
        timeout = { idle = "5s" }, amplification = false } } }
      local one, two = conf.listeners[1], conf.listeners[2]
      assert.same({ "udp", "127.0.0.1", 53, "datagram", 65507, 30000, 3 },
        { one.kind, one.host, one.port, one.frame.kind, one.frame.max, one.timeout.idle, one.amplification })
      assert.same({ 1024, 5000, 0 }, { two.frame.max, two.timeout.idle, two.amplification })
      assert.equal("default", conf.origins["listen[1].frame"])
      assert.equal(100, normalise({ listen = "udp://:1", limits = { frame = 100 } }).listeners[1].frame.max)
    end)

    it("has its port beside TCP's, and leaves what is meant for others to them", function()
      local conf = normalise { listen = { "udp://:7000", "tcp://:7000" }, frame = "line", backlog = 5, proxy = true,
        trust = { "10.0.0.1" }, amplification = 5 }
      assert.same({ "datagram", "line", 5 },
        { conf.listeners[1].frame.kind, conf.listeners[2].frame.kind, conf.listeners[1].amplification })
      assert.same({ false, true, {}, { "10.0.0.1" } }, { conf.listeners[1].proxy, conf.listeners[2].proxy,
        conf.listeners[1].trust, conf.listeners[2].trust })
    end)

    for what, case in pairs {
      ["another framing"] = { { listen = "udp://:1", frame = "line" }, "frame: each datagram of udp:// is a frame" },
      ["another framing of an entry"] = { { listen = { { "udp://:1", frame = "u32be" }, "tcp://:2" } },
        "listen[1].frame: each datagram of udp:// is a frame" },
      ["datagrams of tcp://"] = { { listen = "tcp://:1", frame = "datagram" }, "frame: only a udp:// address has" },
      ["datagrams that are too large"] = { { listen = "udp://:1", frame = { "datagram", max = "64k" } },
        'option "max": a datagram has at most 65507 bytes' },
      ["TLS"] = { { listen = { { "udp://:1", tls = { certificate = "a", key = "b" } } } },
        "listen[1].tls: DTLS, which is TLS over udp://, is not available" },
      ["TLS at the top level"] = { { listen = "udp://:1", tls = { certificate = "a", key = "b" } }, "tls: DTLS" },
      ["amplification of tcp://"] = { { amplification = 5 }, "amplification: only a udp:// address" },
      ["amplification of nothing"] = { { listen = "udp://:1", amplification = 0 }, "from 1 to 1000, got 0" },
      ["a mode"] = { { listen = "udp://:1", mode = "0600" }, "mode: only a Unix socket has permissions" },
      ["a backlog"] = { { listen = "udp://:1", backlog = 5 }, "backlog: a udp:// address has no backlog" },
      ["keep-alive"] = { { listen = { { "udp://:1", keepalive = false } } }, "listen[1].keepalive: a udp:// address" },
      ["a reject"] = { { listen = "udp://:1", limits = { reject = "busy" } }, "its address may be forged" },
      ["timeout.read"] = { { listen = "udp://:1", timeout = { read = 5 } }, "a datagram comes whole" },
      ["timeout.first_frame"] = { { listen = "udp://:1", timeout = { first_frame = 5 } }, "begins with its first" },
      ["a proxy"] = { { listen = "udp://:1", proxy = true }, "proxy: a udp:// address has no PROXY header" },
      ["the same address twice"] = { { listen = { "udp://:1", "udp://:1" } }, "has the same address as listen[1]" },
      ["one slash"] = { { listen = "udp:/127.0.0.1:1" }, '(did you mean "udp://127.0.0.1:1"?)' },
      ["no port"] = { { listen = "udp://127.0.0.1" }, 'write it as in "udp://127.0.0.1:9000"' },
    } do
      it("refuses " .. what, function()
        local text = errors_of(case[1])
        assert.truthy(text:find(case[2], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end

    it("tells whose framing it is where the address comes from outside", function()
      local text = errors_of({ frame = "line" }, { overrides = { override("listen", "udp://:1") } })
      assert.truthy(text:find("or change the address", 1, true), text)
      assert.is_nil(text:find("app.lua", 1, true), text)
      local conf = normalise({}, { overrides = { override("listen", "udp://:1") } })
      assert.equal("datagram", conf.listeners[1].frame.kind)
    end)

    it("shows what concerns it, and nothing else", function()
      local text = config.print(normalise { listen = { "udp://:1", "tcp://:2" } })
      local one, two = text:match "listener 1: (.-)listener 2: (.*)"
      assert.truthy(one:find "amplification" and one:find "datagram max=65507b")
      for _, key in ipairs { "backlog", "nodelay", "proxy", "timeout.read", "tls" } do
        assert.is_nil(one:find(key .. " ", 1, true), key)
        assert.truthy(two:find(key .. " ", 1, true), key)
      end
      assert.is_nil(two:find "amplification")
    end)
  end)

  it("wants to know whose PROXY headers are to be taken", function()
    local function wrong(script, wanted)
      local found = errors_of(script)
      assert.truthy(found:find(wanted, 1, true), found)
    end
    wrong({ proxy = true }, 'trust: proxy needs it: the addresses of the proxies, such as trust = { "10.0.0.0/8" }')
    wrong({ listen = { { "tcp://:1", proxy = "optional" } } }, "listen[1].trust: proxy needs it")
    wrong({ proxy = true, trust = {} }, "trust: proxy needs it")
    wrong({ proxy = true, trust = { "unix" } }, 'trust: nobody could connect: "unix" is for Unix sockets')
    wrong({ listen = "unix://a.sock", proxy = true, trust = { "::1" } }, 'are "unix", as in trust = { "unix" }')
    wrong({ trust = { "::1" } }, 'trust: has no effect without proxy = true, or "optional"')
    wrong({ listen = { { "tcp://:1", trust = { "::1" } }, { "tcp://:2", proxy = true, trust = { "::1" } } } },
      "listen[1].trust: has no effect")
    wrong({ proxy = "yes" }, 'proxy: expects true, false or "optional", got "yes"')
    wrong({ proxy = true, trust = "10.0.0.0/8" }, "trust: expects a list of addresses such as")
    wrong({ proxy = true, trust = { "10.0.0.0/33" } }, 'up to 32 bits, as in "10.0.0.0/8", got "10.0.0.0/33"')
    wrong({ proxy = true, trust = { "::1/x" } }, 'up to 128 bits, as in "::1/32"')
    for _, item in ipairs { "localhost", "010.0.0.1", "10.0.0", "fe80::1%eth0", "", 5, "10.0.0.1:80" } do
      wrong({ proxy = true, trust = { item } }, 'trust: expects addresses such as "10.0.0.7"')
    end
    assert.equal(1, #select(2, config.normalise({ listen = "tcp://:1", agent = agent, proxy = true, trust = { "x" } })))
  end)

  it("takes a list of trusted networks from the top level, for the listeners that have a proxy", function()
    local conf = normalise { trust = { "10.0.0.0/8", "unix" }, listen = {
      { "tcp://:1", proxy = true }, { "unix://a.sock", proxy = "optional" }, "tcp://:2",
    } }
    assert.same({ true, "optional", false },
      { conf.listeners[1].proxy, conf.listeners[2].proxy, conf.listeners[3].proxy })
    assert.equal(false, normalise({ trust = { "::1" }, proxy = false }).listeners[1].proxy)
  end)

  it("takes the control socket's place as a path, or false and \"off\" for none", function()
    for given, expected in pairs { ["/run/x.sock"] = "/run/x.sock", off = "off", auto = "auto", [false] = "off" } do
      assert.equal(expected, normalise({ control = given }).control)
    end
    for _, bad in ipairs { "", ("x"):rep(108), "a\0b", true, 1 } do
      assert.truthy(errors_of({ control = bad }):find("control", 1, true))
    end
  end)

  it("takes a share of what lives as garbage", function()
    assert.equal(0.04, normalise({ limits = { garbage = 0.04 } }).garbage)
    assert.equal(1, normalise({}, { overrides = { override("limits.garbage", "1") } }).garbage)
    for _, bad in ipairs { 0, 0.03, 1.5, -1, 0 / 0, "40%", true, false } do
      assert.truthy(errors_of({ limits = { garbage = bad } })
        :find("limits.garbage: expects a share from 0.04 to 1 such as 0.28", 1,
        true))
    end
    assert.truthy(errors_of({ gc_pause = 200 }):find('did you mean "limits.garbage"', 1, true))
    local entry = { "tcp://:2", limits = { garbage = 0.1 } }
    assert.truthy(errors_of({ listen = { entry } }):find("limits.garbage: applies to the whole process", 1, true))
  end)

  it("gives the workers' VMs half of the memory", function()
    assert.equal(256 * 2 ^ 20, normalise({ workers = 4 }, { memory = 2 ^ 31 }).memory)
    assert.equal(4 * 2 ^ 20, normalise({ workers = 256 }, { memory = 2 ^ 20 }).memory)
  end)

  it("bounds the default of workers", function()
    assert.equal(256, normalise({}, { cpus = 1024 }).workers)
    assert.equal(1, normalise({}).workers)
  end)

  it("does not change the script, and shares nothing between results", function()
    local script = { listen = { { "tcp://:0", limits = { inbox = 5 } } }, agent = agent, timeout = { idle = "5m" } }
    local first = assert(config.normalise(script))
    first.modules[1] = "x"
    assert.same({}, config.normalise(script).modules)
    assert.same({ listen = { { "tcp://:0", limits = { inbox = 5 } } }, agent = agent, timeout = { idle = "5m" } },
      script)
  end)

  describe("listen", function()
    it("takes a list of addresses and tables, which inherit key by key", function()
      local function other() end
      local conf = normalise {
        listen = {
          "tcp://:1",
          { "tcp://:2", frame = "line", limits = { inbox = 5 }, timeout = { idle = 0 }, name = "two", backlog = 7 },
          { address = "unix://three.sock", agent = other, mode = "600", limits = { frame = "2k" } },
        },
        frame = "u16be", limits = { inbox = 9, connections = 8, frame = "1k" }, timeout = { read = 1, idle = 2 },
      }
      local one, two, three = unpack(conf.listeners)
      assert.same({ "tcp://:1", "two", "unix://three.sock" }, { one.name, two.name, three.name })
      assert.same({ 9, 5, 9 }, { one.limits.inbox, two.limits.inbox, three.limits.inbox })
      assert.same({ 8, 8, 8 }, { one.limits.connections, two.limits.connections, three.limits.connections })
      assert.same({ 2000, 0, 2000 }, { one.timeout.idle, two.timeout.idle, three.timeout.idle })
      assert.same({ 1000, 1000, 1000 }, { one.timeout.read, two.timeout.read, three.timeout.read })
      assert.same({ "length", "line", "length" }, { one.frame.kind, two.frame.kind, three.frame.kind })
      assert.same({ 1024, 1024, 2048 }, { one.frame.max, two.frame.max, three.frame.max })
      assert.same({ 1024, 7, 1024 }, { one.backlog, two.backlog, three.backlog })
      assert.same({ agent, agent, other }, { one.agent, two.agent, three.agent })
      assert.same({ n = 3, [3] = 384 }, { n = 3, one.mode, two.mode, three.mode })
    end)

    for what, case in pairs {
      ["nothing"] = { NONE, 'app.lua: listen: no address to listen on: set listen = "tcp://127.0.0.1:9000"' },
      ["a number"] = { 9000, "app.lua: listen: expects an address such as" },
      ["an empty list"] = { {}, "app.lua: listen: expects an address" },
      ["an unknown scheme"] = { "tpc://:1", 'app.lua: listen: unknown scheme "tpc" (did you mean "tcp"?)' },
      ["a list with a number"] = { { "tcp://:1", 9000 }, "app.lua: listen[2]: expects an address" },
      ["an entry without address"] = { { { frame = "line" } }, "app.lua: listen[1]: has no address" },
      ["an entry with two"] = { { { "tcp://:1", address = "tcp://:2" } }, "app.lua: listen[1]: has two addresses" },
      ["settings beside the address"] =
        { { "tcp://:1", frame = "line" }, "app.lua: listen: unknown key frame; one listener with its own settings" },
      ["an unknown key in an entry"] =
        { { { "tcp://:1", fraem = "line" } }, 'app.lua: listen[1].fraem: unknown key "fraem" (did you mean "frame"?)' },
      ["an unknown limit in an entry"] = { { { "tcp://:1", limits = { conections = 1 } } },
        'app.lua: listen[1].limits.conections: unknown key "conections" (did you mean "connections"?)' },
      ["a process key in an entry"] = { { { "tcp://:1", workers = 2 } },
        "listen[1].workers: applies to the whole process" },
      ["the log in an entry"] = { { { "tcp://:1", log = {} } }, "listen[1].log: applies to the whole process" },
      ["buffers in an entry"] =
        { { { "tcp://:1", limits = { buffers = 1 } } }, "listen[1].limits.buffers: applies to the whole process" },
      ["the same address twice"] = { { "tcp://:1", "tcp://:1" },
        "app.lua: listen[2]: has the same address as listen[1]" },
      ["the same name twice"] = { { { "tcp://:1", name = "a" }, { "tcp://:2", name = "a" } },
        'app.lua: listen[2].name: listen[1] already has the name "a"' },
      ["a mode of a TCP entry"] = { { { "tcp://:1", mode = "600" }, "unix://a" },
        "listen[1].mode: only a Unix socket" },
    } do
      it("refuses " .. what, function()
        local text = errors_of { listen = case[1] }
        assert.truthy(text:find(case[2], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end

    it("takes port 0 as often as you like", function()
      assert.equal(2, #normalise({ listen = { "tcp://:0", "tcp://:0" } }).listeners)
    end)
    it("refuses one name for several listeners", function()
      assert.matches("^app.lua: name: several listeners cannot share a name", errors_of {
        listen = { "tcp://:1", "tcp://:2" }, name = "a",
      })
    end)
    it("applies an inherited mode to the Unix sockets only", function()
      local conf = normalise { listen = { "tcp://:1", "unix://a" }, mode = "0600" }
      assert.same({ n = 2, [2] = 384 }, { n = 2, conf.listeners[1].mode, conf.listeners[2].mode })
      assert.matches("^app.lua: mode: only a Unix socket", errors_of { mode = "0600" })
    end)
  end)

  describe("agent", function()
    it("takes a factory, a prototype, and what leads to proceed", function()
      local base = { proceed = agent }
      local by_function = setmetatable({}, { __index = function(_, key) return base[key] end })
      for _, value in ipairs { agent, base, setmetatable({}, { __index = base }), by_function } do
        assert.equal(value, normalise({ agent = value }).listeners[1].agent)
      end
    end)

    it("is required, with one clear line", function()
      local expected = "app.lua: agent: no agent: set agent = function(conn) … end, or a table with a proceed method"
      assert.equal(expected, errors_of { agent = NONE })
      assert.equal(expected, errors_of { agent = NONE, listen = { "tcp://:1", "tcp://:2" } })
    end)
    it("that is misspelt is one error, not a missing one as well", function()
      assert.equal('app.lua: agnet: unknown key "agnet" (did you mean "agent"?)',
        errors_of { agent = NONE, agnet = agent })
      assert.equal('app.lua: listen[1].agnet: unknown key "agnet" (did you mean "agent"?)',
        errors_of { agent = NONE, listen = { { "tcp://:1", agnet = agent } } })
      assert.equal('app.lua: lisen: unknown key "lisen" (did you mean "listen"?)',
        errors_of { listen = NONE, lisen = "tcp://:1" })
    end)

    it("may be missing at the top when each entry has its own", function()
      assert.equal(agent, normalise({ agent = NONE, listen = { { "tcp://:1", agent = agent } } }).listeners[1].agent)
      assert.matches("^app.lua: listen%[2%]%.agent: no agent: [^\n]*$",
        errors_of { agent = NONE, listen = { { "tcp://:1", agent = agent }, "tcp://:2" } })
    end)

    for what, case in pairs {
      ["a number"] = { 1, "expects a function(conn), or a table with a proceed method, got 1" },
      ["an empty table"] = { {}, "no proceed: the table has no function proceed" },
      ["a misspelt method"] = { { procede = noop, helper = noop, opened = noop },
        'no proceed: the table has no function proceed; it has "procede" (did you mean "proceed"?)' },
      ["several misspelt methods"] = { { procede = noop, close = noop },
        'it has "close" (did you mean "closed"?), "procede" (did you mean "proceed"?)' },
      ["an inherited misspelling"] = { setmetatable({}, { __index = { proced = noop } }),
        '"proced" (did you mean "proceed"?)' },
      ["a proceed that is no function"] = { { proceed = "x" }, 'its method proceed must be a function, got "x"' },
      ["an __index that raises"] = { setmetatable({}, { __index = function() error("boom", 0) end }),
        'looking up its method proceed failed: "boom"' },
    } do
      it("refuses " .. what, function()
        local text = errors_of { agent = case[1] }
        assert.truthy(text:find("app.lua: agent: ", 1, true), text)
        assert.truthy(text:find(case[2], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end

    it("survives a table that inherits from itself", function()
      local loop = {}
      setmetatable(loop, { __index = loop })
      assert.truthy(errors_of({ agent = loop }):find("no proceed", 1, true)
        or errors_of({ agent = loop }):find("failed"))
    end)
  end)

  describe("refuses", function()
    local whole = "expects a whole number from "
    for i, case in ipairs {
      { { limits = { conections = 1 } }, 'limits.conections: unknown key "conections" (did you mean "connections"?)' },
      { { port = 9000 }, 'port: unknown key "port": an address is one text, as in "tcp://127.0.0.1:9000" or' },
      { { fram = "line" }, 'fram: unknown key "fram" (did you mean "frame"?)' },
      { { colour = 1 }, 'colour: unknown key "colour"' }, { { [1] = "x" }, "[1]: unknown key [1]" },
      { { connections = 5 }, 'connections: unknown key "connections" (did you mean "limits.connections"?)' },
      { { idle_timeout = 5 }, 'idle_timeout: unknown key "idle_timeout"' },
      { { limits = { idle = 5 } }, 'limits.idle: unknown key "idle" (did you mean "timeout.idle"?)' },
      { { limits = 5 }, "limits: expects a table such as { memory = … }, got 5" },
      { { timeout = "5m" }, 'timeout: expects a table such as { read = … }, got "5m"' },
      { { log = true }, "log: expects a table such as { format = … }, got true" },
      { { workers = 0 }, "workers: " .. whole .. "1 to 256, got 0" }, { { workers = 257 }, "got 257" },
      { { workers = 1.5 }, "got 1.5" }, { { workers = "2" }, 'got "2"' }, { { workers = 0 / 0 }, whole },
      { { limits = { connections = 0 } }, "limits.connections: " .. whole .. "1 to 10000000, got 0" },
      { { limits = { per_ip = -1 } }, "limits.per_ip: " .. whole },
      { { limits = { inbox = 0 } }, "limits.inbox: " .. whole },
      { { limits = { frame = "2g" } }, 'limits.frame: expects a size from 1b to 1g, got "2g"' },
      { { limits = { frame = 0 } }, "limits.frame: expects a size from 1b to 1g, got 0" },
      { { limits = { send_buffer = "1x" } }, "limits.send_buffer: expects a size such as" },
      { { limits = { slow_consumer = "wait" } },
        'limits.slow_consumer: expects "pause", "close" or "drop", got "wait"' },
      { { limits = { reject = true } }, "limits.reject: expects a text of at most 1024 bytes" },
      { { limits = { reject = ("x"):rep(1025) } }, "limits.reject: expects a text" },
      { { limits = { buffers = 1 } }, "limits.buffers: expects a size from 64k to 1024g, got 1" },
      { { limits = { frame = "300m" } }, "limits.buffers: 256m in all cannot hold one frame of listen (up to 300m)" },
      { { frame = { "u32be", max = "1g" } }, "limits.buffers: 256m in all cannot hold one frame" },
      { { timeout = { read = {} } }, 'timeout.read: expects a duration such as 10, "10s" or "5m", got a table' },
      { { timeout = { read = "30d" } }, 'timeout.read: expects a duration from 1ms to 20d, or 0 for off, got "30d"' },
      { { timeout = { idle = true } }, "timeout.idle: expects a duration" }, { { timeout = { idle = -1 } }, "got -1" },
      { { keepalive = "500ms" }, 'keepalive: expects a duration from 1s to 20d, or 0 for off, got "500ms"' },
      { { nodelay = 1 }, "nodelay: expects true or false, got 1" },
      { { backlog = 0 }, "backlog: " .. whole .. "1 to 65535, got 0" },
      { { name = "" }, "name: expects a name" }, { { name = "a b" }, "name: expects a name" },
      { { listen = "unix://a", mode = 660 }, 'mode: expects permissions as an octal text such as "0660", got 660' },
      { { listen = "unix://a", mode = "0999" }, 'got "0999"' },
      { { listen = "unix://a", mode = "4755" }, 'got "4755"' },
      { { modules = "app" }, "modules: expects a list of module names" }, { { modules = { 1 } }, "got 1" },
      { { modules = { a = "b" } }, "modules: expects a list" },
      { { compat = "ngx" }, 'compat: expects a list of names such as { "ngx", "socket" }' },
      { { compat = { "nxg" } }, 'compat: knows no "nxg" (did you mean "ngx"?)' },
      { { compat = { "resty" } }, 'compat: knows no "resty"; it knows ngx, socket' }, { { setup = {} },
        "setup: expects a function, got a table" }, { { teardown = 1 }, "teardown: expects a function, got 1" },
      { { snapshot = true }, "snapshot: expects a function, got true" },
      { { limits = { deflate = "x" } }, 'limits.deflate: expects a size such as' },
      { { limits = { snapshot = "17m" } }, "limits.snapshot: expects a size from 1k to 16m, got \"17m\"" },
      { { frame = "u23be" }, 'frame: unknown framing "u23be" (did you mean "u32be"?)' },
      { { log = { level = "verbose" } }, 'log.level: expects "debug", "info", "warn" or "error", got "verbose"' },
      { { log = { format = "xml" } }, "log.format: expects" },
      { { log = { file = 3 } }, "log.file: expects the path of a file" },
      { { log = { frame_bytes = "1m" } }, "log.frame_bytes: expects" },
    } do
      it(("%s (%d)"):format(case[2], i), function()
        local text = errors_of(case[1])
        assert.equal("app.lua: ", text:sub(1, 9))
        assert.truthy(text:find(case[2], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end

    it("what is no table", function()
      for value, got in pairs { [12] = "12", x = '"x"', [agent] = "a function" } do
        local conf, errors = config.normalise(value)
        assert.is_nil(conf)
        assert.equal("app.lua: the script must end in return { listen = …, agent = … }; it returned " .. got,
          config.format_errors(errors, "app.lua"))
      end
      assert.matches("it returned nothing$", config.format_errors(select(2, config.normalise(nil))))
    end)

    it("everything that is wrong at once, each once", function()
      local _, errors = config.normalise({
        listen = { "tpc://:1", { "tcp://:2", timeout = { idle = {} } }, "tcp://:3" }, fram = 1, frame = "x",
        limits = { memory = 1, inbox = 0 },
      }, { overrides = { override("workers", "many"), override("nope", "1") } })
      local paths = {}
      for i, err in ipairs(errors) do paths[i] = err.path end
      table.sort(paths)
      assert.same({
        "agent", "fram", "frame", "limits.inbox", "limits.memory", "listen[1]", "listen[2].timeout.idle", "nope",
        "workers",
      }, paths)
    end)

    it("with bounded, printable messages", function()
      local evil = "\27[2J\n" .. ("x"):rep(1e5)
      local text = errors_of { [evil] = 1, frame = evil, listen = evil, name = evil, timeout = { read = evil } }
      assert.is_true(#text < 2000)
      assert.is_nil(text:find("[%z\1-\9\11-\31]"))
      assert.equal(4, select(2, text:gsub("\n", "")))
    end)

    it("does not run the script's metamethods", function()
      local trap = setmetatable({}, { __index = error, __tostring = error, __newindex = error, __len = error })
      assert.is_string(errors_of { [trap] = 1, frame = trap, workers = trap, limits = trap, listen = trap,
        modules = trap })
    end)
  end)

  describe("overrides", function()
    local function with(...) return { overrides = { ... }, cpus = 2 } end

    it("are parsed by the key's type", function()
      local conf = normalise({}, with(
        override("workers", "3"), override("limits.connections", "100"), override("limits.frame", "64k"),
        override("timeout.idle", "5m"), override("timeout.read", "2"), override("timeout.write", "off"),
        override("nodelay", "no"), override("limits.per_ip", "off"), override("limits.slow_consumer", "drop"),
        override("limits.reject", "busy"), override("log.level", "debug"), override("frame", "line"),
        override("modules", "a.b, c"), override("name", "front"), override("limits.buffers", "1g")))
      local front = conf.listeners[1]
      assert.same({ 3, 100, 65536, 300000, 2000, 0, false, 0, "drop", "busy", "debug", "line", "front", 2 ^ 30 }, {
        conf.workers, front.limits.connections, front.limits.frame, front.timeout.idle, front.timeout.read,
        front.timeout.write, front.nodelay, front.limits.per_ip, front.limits.slow_consumer, front.limits.reject,
        conf.log.level, front.frame.kind, front.name, conf.buffers,
      })
      assert.equal(65536, front.frame.max)
      assert.same({ "a.b", "c" }, conf.modules)
    end)

    it("win over the script, everywhere; the last one wins", function()
      local conf = normalise({
        listen = { { "tcp://:1", limits = { inbox = 5 } }, "tcp://:2" }, limits = { inbox = 6 },
        timeout = { drain = 1 },
      }, with(override("limits.inbox", "7", "env PERILUNE_LIMITS_INBOX"), override("limits.inbox", "8", "flag --inbox"),
        override("timeout.drain", "3")))
      assert.same({ 8, 8, 3000 }, { conf.listeners[1].limits.inbox, conf.listeners[2].limits.inbox, conf.drain_ms })
      assert.equal("flag --inbox", conf.origins["limits.inbox"])
      assert.equal("flag --inbox", conf.origins["listen[1].limits.inbox"])
    end)

    describe("of listen", function()
      local to_unix = override("listen", "unix://a", "flag --listen")

      it("replaces an address", function()
        for _, listen in ipairs { NONE, "tcp://:1", { "tcp://:1", "tcp://:2" } } do
          local conf = normalise({ listen = listen }, with(to_unix))
          assert.equal(1, #conf.listeners)
          assert.equal("a", conf.listeners[1].path)
          assert.equal("flag --listen", conf.origins["listen[1].address"])
          assert.equal("flag --listen", conf.origins.listen)
        end
      end)
      it("is refused for frames, where the script speaks HTTP or WebSocket there", function()
        local to_tcp = with(override("listen", "tcp://127.0.0.1:2", "flag --listen"))
        assert.equal('flag --listen: "tcp://127.0.0.1:2" is for frames, and the script speaks HTTP there: '
          .. "http://127.0.0.1:2", errors_of({ listen = "https://:1" }, to_tcp))
        assert.equal('flag --listen: "tcp://127.0.0.1:2" is for frames, and the script speaks WebSocket there: '
          .. "ws://127.0.0.1:2", errors_of({ listen = { { "ws://:1/chat" } } }, to_tcp))
        local conf = normalise({ listen = "http://:1" },
          with(override("listen", "http://127.0.0.1:2", "flag --listen")))
        assert.equal("http", conf.listeners[1].protocol)
      end)

      it("keeps the settings of a single entry", function()
        local conf = normalise({ listen = { { "tcp://:1", frame = "line" } } }, with(to_unix))
        assert.same({ "a", "line" }, { conf.listeners[1].path, conf.listeners[1].frame.kind })
      end)
      it("may have several, with commas or blanks between them", function()
        for _, text in ipairs { "tcp://:1,unix://a b,c,tcp://[::1]:2", "tcp://:1 unix://a b,c  tcp://[::1]:2",
          "tcp://:1, unix://a b,c ,tcp://[::1]:2" } do
          for _, listen in ipairs { NONE, "tcp://:7", { { "tcp://:7", frame = "line" } },
            { "tcp://:7", "tcp://:8" } } do
            local conf = normalise({ listen = listen, frame = "line" }, with(override("listen", text, "flag --listen")))
            assert.equal(3, #conf.listeners)
            for i, wanted in ipairs { "tcp://:1", "unix://a b,c", "tcp://[::1]:2" } do
              assert.same({ wanted, "line" }, { conf.listeners[i].address, conf.listeners[i].frame.kind })
              assert.equal("flag --listen", conf.origins[("listen[%d].address"):format(i)])
            end
          end
        end
      end)
      it("may have a comma or a blank too many, as other lists", function()
        for text, wanted in pairs {
          ["tcp://:1,"] = { "tcp://:1" }, [" ,tcp://:1 "] = { "tcp://:1" }, ["unix:///a b,c, "] = { "unix:///a b,c" },
          [",tcp://:1,, ,tcp://:2,,"] = { "tcp://:1", "tcp://:2" },
        } do
          local found = {}
          for i, listener in ipairs(normalise({}, with(override("listen", text))).listeners) do
            found[i] = listener.address
          end
          assert.same(wanted, found, text)
        end
        assert.same({ "a", "b" }, normalise({}, with(override("modules", ",a,, b,"))).modules)
      end)
      it("shows the one of several that is wrong, and by itself", function()
        local expects = 'flag --listen: expects an address such as "tcp://127.0.0.1:9000" '
          .. 'or "unix:///run/app.sock", got '
        for text, shown in pairs {
          ["a,"] = '"a"', [""] = '""', [","] = '","', [" "] = '" "', [" , ,"] = '" , ,"',
          ["tcp://:1,9000"] = '"9000" (did you mean "tcp://127.0.0.1:9000"?)',
          ["tcp://:1,localhost:2,tcp://:3"] = '"localhost:2" (did you mean "tcp://localhost:2"?)',
        } do
          assert.equal(expects .. shown, errors_of({}, with(override("listen", text, "flag --listen"))))
        end
      end)
      it("names itself when one of several is wrong", function()
        assert.equal('flag --listen: unknown scheme "tpc" (did you mean "tcp"?)',
          errors_of({}, with(override("listen", "tcp://:1,tpc://:2", "flag --listen"))))
        assert.matches("^flag %-%-listen: has the same address",
          errors_of({}, with(override("listen", "tcp://:1,tcp://:1", "flag --listen"))))
      end)
      it("is refused as ambiguous when several have their own", function()
        assert.equal("flag --listen: is ambiguous: the script has 2 listeners with their own settings",
          errors_of({ listen = { { "tcp://:1", frame = "line" }, "tcp://:2" } }, with(to_unix)))
      end)
      it("names itself when it is wrong", function()
        assert.equal('flag --listen: unknown scheme "tpc" (did you mean "tcp"?)',
          errors_of({}, with(override("listen", "tpc://:1", "flag --listen"))))
      end)
    end)

    for i, case in ipairs {
      { "limits.conections", "1", 'unknown key "limits.conections" (did you mean "limits.connections"?)' },
      { "limit.connections", "1", '(did you mean "limits.connections"?)' },
      { "connections", "1", '(did you mean "limits.connections"?)' }, { "colour", "1", 'unknown key "colour"' },
      { "limits", "1", 'unknown key "limits"' },
      { "limits.memory", "1", "expects a size from 4m to 1024g" },
      { "limits.garbage", "2", "expects a share from 0.04 to 1 " },
      { "reload.canary", "1", "expects a share from 0 to less than 1" },
      { "reload.canary", "5%", 'got "5%"' }, { "reload.max_errors", "1.5", "expects a share from 0 to 1 " },
      { "timeout.proceed", "soon", 'got "soon"' },
      { "agent", "x", "can only be set in the script" }, { "setup", "x", "can only be set in the script" },
      { "workers", "many", 'expects a whole number from 1 to 256, got "many"' },
      { "workers", "", 'got ""' }, { "workers", "1e2", 'got "1e2"' }, { "workers", "0x10", 'got "0x10"' },
      { "nodelay", "perhaps", 'expects true or false, got "perhaps"' }, { "timeout.idle", "soon", 'got "soon"' },
      { "frame", "delimiter", "expects a text of 1 to 32 bytes" }, { "frame", "u23be", "did you mean" },
      { "limits.garbage", "off", 'got "off"' }, { "limits.garbage", "false", "got false" },
      { "workers", "off", 'got "off"' }, { "reload.keep", "false", "got false" }, { "workers", "0", "got 0" },
      { "workers", "000", 'got "000"' }, { "limits.garbage", ".010", 'got ".010"' },
    } do
      it(("refuse %s=%s (%d) and name the origin"):format(case[1], case[2], i), function()
        local text = errors_of({}, with(override(case[1], case[2], "env X")))
        assert.equal("env X: ", text:sub(1, 7))
        assert.truthy(text:find(case[3], 1, true), text)
        assert.is_nil(text:find("\n"), text)
      end)
    end

    it("that are refused are shown as they were typed, whatever the key", function()
      for _, path in ipairs(config.paths()) do
        for _, typed in ipairs { "off", "false", "no", "0", "-1", "1e99" } do
          local _, errors = config.normalise(script_with {}, with(override(path, typed, "env X")))
          for _, err in ipairs(errors or {}) do
            local shown = err.message:match "got (.*)$" or typed
            assert.truthy(shown == typed or shown:find('"' .. typed .. '"', 1, true), path .. ": " .. err.message)
          end
        end
      end
    end)
  end)

  it("knows where each value comes from", function()
    local conf = normalise({
      listen = { "tcp://:1", { "tcp://:2", limits = { inbox = 5 } } }, limits = { connections = 7 },
    }, { overrides = { override("timeout.idle", "5", "env PERILUNE_TIMEOUT_IDLE") } })
    for path, origin in pairs {
      listen = "script", workers = "default", agent = "script", ["limits.connections"] = "script",
      ["limits.inbox"] = "default", ["timeout.idle"] = "env PERILUNE_TIMEOUT_IDLE",
      ["listen[1].address"] = "script", ["listen[1].limits.inbox"] = "default", ["listen[2].limits.inbox"] = "script",
      ["listen[2].limits.connections"] = "script", ["listen[2].timeout.idle"] = "env PERILUNE_TIMEOUT_IDLE",
      ["listen[1].name"] = "default",
    } do
      assert.equal(origin, conf.origins[path], path)
    end
  end)
end)

describe("config.paths", function()
  it("lists what can be set from outside", function()
    local set = {}
    for _, path in ipairs(config.paths()) do set[path] = true end
    assert.is_true(set["limits.connections"] and set.listen and set.workers and set["log.level"])
    assert.is_nil(set.agent or set.setup or set.teardown)
  end)
end)

describe("config.print", function()
  it("shows each value with its origin, aligned", function()
    local text = config.print(normalise({
      listen = { "tcp://:1", { "unix://a", mode = "0660", frame = { "delimiter", "\0" } } }, timeout = { idle = "90s" },
    }, { cpus = 4, overrides = { override("limits.connections", "5") } }))
    for _, pattern in ipairs {
      "^workers           = 4 +%(default%)\n", "\nlimits%.buffers    = 256m +%(default%)\n",
      "\nlimits%.garbage    = 0.28 +%(default%)\n",
      "\nreload%.canary     = off +%(default%)\n", "\nreload%.window     = 30s +%(default%)\n",
      "\nreload%.max_errors = 0.01 +%(default%)\n",
      "\nlistener 1: tcp://:1\n", "\nlistener 2: unix://a\n", "\n  timeout%.idle         = 90s +%(script%)\n",
      "\n  limits%.connections   = 5 +%(flag %-%-set limits%.connections%)\n",
      "\n  frame                = u32be max=1m empty=error +%(default%)\n",
      "\n  frame                = delimiter \"\\x00\" max=1m empty=deliver +%(script%)\n",
      "\n  mode                 = 0660 +%(script%)\n", "\n  limits%.per_ip        = off +%(default%)\n",
    } do
      assert.matches(pattern, text)
    end
  end)

  it("aligns the values of a section", function()
    local columns = {}
    for line in config.print(normalise()):match("listener 1[^\n]*\n(.*)$"):gmatch("[^\n]+") do
      columns[line:find(" = ", 1, true) .. ":" .. line:find("   (", 1, true)] = true
    end
    assert.equal(1, #(function() local n = {} for _ in pairs(columns) do n[#n + 1] = 1 end return n end)())
  end)

  it("shows every framing", function()
    for spec, expected in pairs {
      u8 = "u8 max=1m empty=error", u24be = "u24be max=1m empty=error", u32le = "u32le max=1m empty=error",
      varint = "varint max=1m empty=error", line = "line max=1m empty=deliver", raw = "raw max=1m",
      [{ "fixed", 32, view = true }] = "fixed 32 max=32b view", [{ decode = agent, encode = agent }] = "lua max=1m",
      [{ "u16be", offset = 2, adjust = -4 }] = "u16be offset=2 adjust=-4 max=1m empty=error",
      [{ "varint", offset = 1, adjust = 3 }] = "varint offset=1 adjust=3 max=1m empty=error",
    } do
      assert.truthy(config.print(normalise { frame = spec }):find("= " .. expected .. " ", 1, true), expected)
    end
  end)
end)

describe("config.to_json", function()
  it("writes plain data in canonical units, without functions", function()
    local text = config.to_json(normalise({
      agent = { proceed = agent }, setup = agent, frame = { decode = agent, encode = agent },
      limits = { reject = "no\n" },
    }, { cpus = 2 }))
    for _, part in ipairs {
      '"agent":"table"', '"setup":"function"', '"decode":"function"', '"modules":[]', '"workers":2', '"reject":"no\\n"',
      '"limits.reject":"script"', '"listeners":[{"address":"tcp://127.0.0.1:9000"', '"drain_ms":10000', '"idle":60000',
    } do
      assert.truthy(text:find(part, 1, true), part)
    end
  end)
  it("is the same for the same script", function()
    assert.equal(config.to_json(normalise()), config.to_json(normalise()))
  end)
  it("leaves the configuration as it was", function()
    local conf = normalise()
    config.to_json(conf)
    assert.equal(agent, conf.listeners[1].agent)
    assert.is_nil(getmetatable(conf.modules))
  end)
end)
