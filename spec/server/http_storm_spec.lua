--- http:// under programs that measure servers, and one that starves them: every request is answered and counted.
local command = require "spec.support.command"
local drivers = require "spec.support.drivers"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local HELLO = command.read "examples/http_hello.lua"

local function start(script, workers)
  return server.start { script = script, workers = workers, control = "control.sock" }
end

local function start_hello() return start(HELLO:gsub("127%.0%.0%.1:8080\", agent", "127.0.0.1:0\", agent"), 2) end

local needs = command.needs

-- What a command of the shell writes, with {port} filled in.
local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder, (line:gsub("{port}", app.port))))
end

-- Sixteen requests at once, and each response is looked at.
local WRK = [[
local threads = {}
function setup(thread) threads[#threads + 1] = thread end
function init()
  wrong = 0
  local requests = {}
  for i = 1, 16 do requests[i] = wrk.format("GET", "/greetings?name=" .. i) end
  batch = table.concat(requests)
end
function request() return batch end
function response(status, headers, body)
  if status ~= 200 or not body:find "^hello %d+\n$" then wrong = wrong + 1 end
end
function done(summary)
  local errors = summary.errors
  print(("wrong %d, errors %d, answered %d"):format(threads[1]:get "wrong",
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, summary.requests))
end
]]

-- What is slow has a second; `large` is more than the system takes for a client that does not read.
local SITE = [[
local http = require "perilune.http"
local files = http.files "."
local Site = {}
function Site:proceed(request)
  if request.path == "/" then return "hello" end
  return files(request)
end
return { listen = "http://127.0.0.1:0", agent = Site, timeout = { header = "1s", body = "1s", write = "1s" } }
]]

local SLOW = 20 -- connections of each kind

-- By what slowhttptest calls them.
local ATTACKS = { headers = "-H -u {url}/", body = "-B -u {url}/", ranges = "-R -t GET -u {url}/app.lua",
  read = "-X -n 30 -u {url}/large" }

-- Starts all, each in the background, and gives their ids. They are ours to wait for: see spec/support/server.lua.
local function attack(app)
  local pids = {}
  for name, options in pairs(ATTACKS) do
    local line = ("slowhttptest -c %d -r 200 -i 1 -l 600 %s </dev/null >%s 2>&1 & echo $!"):format(SLOW,
      options:gsub("{url}", "http://127.0.0.1:{port}"), name)
    pids[#pids + 1] = tonumber(run(app, line):match "%d+")
  end
  return pids
end

local function stop(pids)
  for _, pid in ipairs(pids) do
    posix_signal.kill(pid, posix_signal.SIGKILL)
    posix_wait.wait(pid)
  end
end

-- A neighbour with a connection that it keeps.
local function ask(client)
  client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
  repeat local line = client:recv_line() until line == "" or line == "\r"
  assert.equal("hello", client:recv_exact(5))
end

describe("http:// under", function()
  after_each(server.finish)

  it("wrk, which pipelines, answers all of it", function()
    needs "wrk"
    local app = start_hello()
    command.write(app.folder .. "/pipeline.lua", WRK)
    local out = run(app, "timeout 300 wrk -t1 -c50 -d1 --timeout 200s -s pipeline.lua http://127.0.0.1:{port}/")
    local wrong, errors, answered = out:match "wrong (%d+), errors (%d+), answered (%d+)"
    assert.equal("0 0", ("%s %s"):format(wrong, errors), out)
    local counted = operator.status(app).counters.http_requests
    -- The last of each connection's were on their way when wrk ended, and wrk begins with a connection to try.
    assert.is_true(tonumber(answered) > 0 and counted >= tonumber(answered), out)
    local summary = app:stop().summary
    assert.equal(0, summary.faults + summary.http_400)
  end)

  it("h2load, which pipelines as well, counts as many as it does", function()
    needs "h2load"
    local app = start_hello()
    local out = run(app, "timeout 300 h2load --h1 -n 4000 -c 20 -m 10 http://127.0.0.1:{port}/ "
      .. "http://127.0.0.1:{port}/old")
    assert.equal("4000 succeeded, 0 failed, 0 errored, 0 timeout", out:match "%d+ succeeded[^\n]*")
    assert.equal("2000 2xx, 2000 3xx, 0 4xx, 0 5xx", out:match "status codes: ([^\n]*)")
    local summary = app:stop().summary
    assert.equal(4000, summary.http_requests)
    assert.same({ 2000, 2000, 0, 0 }, { summary.http_2xx, summary.http_3xx, summary.http_4xx, summary.http_5xx })
    assert.equal(20, summary.accepted)
  end)

  describe("autocannon,", function()
    -- A router's: a text, what was sent, and what a form has.
    local ECHO = [[
      local http = require "perilune.http"
      local api = http.router()
      api:get("/", function() return "hello" end)
      api:post("/echo", function(request) return request.body end)
      api:post("/form", function(request)
        local parts = assert(request:multipart())
        return parts[1].name .. "=" .. parts[1].body .. " " .. #parts
      end)
      return { listen = "http://127.0.0.1:0", agent = api }
    ]]

    -- It looks at each body, has as much time as it needs, and tells in JSON.
    local function fire(options, body)
      local autocannon, why = drivers.autocannon()
      if not autocannon then pending(why) end
      local app = start(ECHO, 2)
      local out = run(app, ("timeout 300 %s --json -n -t 200 -a 2000 -c 20 -E '%s' %s 2>/dev/null"):format(autocannon,
        body, options:gsub("{url}", "http://127.0.0.1:{port}")))
      local told = json_decode(out)
      assert.is_table(told, out)
      return told, app:stop().summary
    end

    -- `unheard`: what it has asked for and does not wait for any more, when each connection has sent its share.
    local function is_whole(told, summary, unheard)
      local got = told["2xx"]
      assert.same({ 2000, 0, 0, 0, 0 },
        { told.requests.sent, told.non2xx, told.errors, told.timeouts, told.mismatches })
      assert.is_true(got >= 2000 - unheard and got <= 2000, got .. " responses")
      assert.is_true(summary.http_2xx >= got and summary.http_requests == summary.http_2xx)
      assert.equal(0, summary.faults)
    end

    it("which pipelines, gets each response", function()
      local told, summary = fire("-p 8 {url}/", "hello")
      is_whole(told, summary, 20 * 7)
    end)

    it("gets its bodies back", function()
      local told, summary = fire("-m POST -b some-bytes {url}/echo", "some-bytes")
      is_whole(told, summary, 0)
    end)

    it("has its forms read", function()
      local told, summary = fire([[-m POST -F '{ "a": { "type": "text", "value": "b c" } }' {url}/form]], "a=b c 1")
      is_whole(told, summary, 0)
    end)
  end)

  it("slowhttptest, in all its ways at once, serves the others, and gets rid of the slow", function()
    needs "slowhttptest"
    local app = start(SITE)
    run(app, "truncate -s 16M large")
    local neighbour = app:connect()
    local pids = attack(app)
    finally(function() stop(pids) end)
    local counters
    wait.until_true("the end of what is slow", function()
      ask(neighbour)
      ask(app:connect())
      counters = operator.status(app).counters
      return counters.http_408 >= 2 * SLOW and (counters.reasons.write_timeout or 0) >= SLOW
    end, 300)
    ask(neighbour)
  end)
end)
