--- The HTTP client, asking apps of ours and servers that say whatever a test wants, in memory.
local core = require "perilune"
local has = require "spec.support.has"
local http = require "perilune.http"
local perilune = require "perilune.test"
local pki = require "spec.support.pki"

local pattern = perilune.pattern

describe("the HTTP client", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  -- An app that calls fn(line, agent) for each line, and says what it returns.
  local function asker(fn)
    return net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(self, line)
      return (fn(line, self):gsub("\n", "\\n"):gsub("\r", "\\r"))
    end } }
  end

  -- A client of such an app, which has asked.
  local function ask(fn, line) return asker(fn):connect():send(line or "x") end

  -- "200 body", or "CODE: message".
  local function told(response, why, code)
    return response and ("%d %s"):format(response.status, response.body) or ("%s: %s"):format(code, why)
  end

  -- An http:// app that tells what it was asked.
  local function api(settings)
    local script = { agent = { proceed = function(_, request)
      if request.path == "/echo" then return request.body end
      if request.path == "/text" then return "text" end
      if request.path == "/nothing" then return nil end
      if request.path == "/close" then return http.response { headers = { Connection = "close" }, body = "bye" } end
      return {
        method = request.method, target = request.target, body = request.body, host = request.host,
        fields = request:fields(),
      }
    end } }
    for key, value in pairs(settings or {}) do script[key] = value end
    return net:serve("http://api:80", script)
  end

  -- A server that says these bytes to each request, one after the other, and then again the last; bytes in a table end
  -- its side.
  local function says(...)
    local answers, n = { ... }, 0
    return net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self, data)
      if not data:find("\r\n\r\n", 1, true) then return end
      n = math.min(n + 1, #answers)
      local answer = answers[n]
      if type(answer) == "string" then return answer end
      if answer[1] ~= "" then self.conn:send(answer[1]) end
      if answer.abort then self.conn:abort() else self.conn:close() end
    end } })
  end

  -- How many connections it has.
  local function open(server) return server:counters().accepted - server:counters().closed end

  local OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

  describe("a request", function()
    it("is sent as it was said, and answered", function()
      api()
      ask(function()
        local response = http.get("http://api/a?b=c",
          { query = { z = "x y", a = { 1, true } }, headers = { ["X-A"] = "b" } })
        return ("%d %s %s %s %s %s"):format(response.status, tostring(response.ok), response.version, response.url,
          response.headers["content-TYPE"], response:json().target)
      end):expect("200 true 1.1 http://api/a?b=c&a=1&a=true&z=x%20y application/json /a?b=c&a=1&a=true&z=x%20y")
    end)

    it("has a head that is made", function()
      says(OK)
      local db = net:serve("tcp://seen:81", { frame = "raw", agent = { proceed = function(_, data)
        return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#data, data)
      end } })
      ask(function()
        return http.request({ method = "put", url = "http://SEEN:81?q#frag", headers = { ["X-A"] = { "b", "c" } },
          body = "hi" }).body
      end):expect("PUT /?q HTTP/1.1\\r\\nHost: seen:81\\r\\nUser-Agent: perilune\\r\\nX-A: b\\r\\nX-A: c\\r\\n"
        .. "Content-Length: 2\\r\\n\\r\\nhi")
      assert.equal(1, db:counters().accepted)
    end)

    it("goes to the host of its address, however that is written", function()
      local function hosts(request) return ("%s %s"):format(request.host, request.target) end
      net:serve({ "http://[::1]:81", "http://127.0.0.1:80", "http://a-b.example:8080" }, {
        agent = { proceed = function(_, request) return hosts(request) end },
      })
      local client = asker(function(line) return told(http.get(line)) end):connect()
      client:send("http://[::1]:81/a"):expect("200 [::1]:81 /a")
      client:send("HTTP://127.0.0.1"):expect("200 127.0.0.1 /")
      client:send("http://127.0.0.1:80?a#b"):expect("200 127.0.0.1 /?a")
      client:send("http://A-b.Example:8080/%2F//?"):expect("200 a-b.example:8080 /%2F//?")
    end)

    it("has a body of each kind", function()
      api()
      local client = asker(function(line)
        if line == "bytes" then return told(http.post("http://api/echo", line)) end
        local response
        if line == "json" then response = http.post("http://api/", { a = 1 })
        elseif line == "form" then response = http.post("http://api/", nil, { form = { a = "x y&", b = 2 } })
        else response = http.post("http://api/") end
        local seen, fields = response:json(), {}
        for i, field in ipairs(seen.fields) do fields[i] = field[1] .. "=" .. field[2] end
        return table.concat(fields, " ", 3) .. " " .. seen.body
      end):connect()
      client:send("json"):expect('Content-Type=application/json Content-Length=7 {"a":1}')
      client:send("form"):expect("Content-Type=application/x-www-form-urlencoded Content-Length=12 a=x+y%26&b=2")
      client:send("none"):expect("Content-Length=0 ")
      client:send("bytes"):expect("200 bytes")
    end)

    it("may be without what a client has", function()
      api()
      ask(function()
        local client = http.client { headers = { Accept = "a/b", ["X-B"] = "c" }, auth = { "ann", "secret" } }
        return told(client:get("http://api/", { headers = { accept = false, ["User-Agent"] = false, ["x-b"] = "d" } }))
      end):expect(pattern '%[%["Host","api"%],%["Authorization","Basic YW5uOnNlY3JldA=="%],%["x%-b","d"%]%]')
    end)

    it("has a large body, which is sent no faster than it is taken", function()
      api { limits = { body = "4m" } }
      ask(function()
        local response = http.post("http://api/echo", ("x"):rep(3000000))
        return told({ status = response.status, body = #response.body })
      end):expect("200 3000000")
    end)
  end)

  describe("a body that nobody wants", function()
    it("is given up when the server has answered", function()
      net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self)
        if self.has_answered then return end
        self.has_answered = true
        self.conn:pause()
        return "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
      end } })
      local client = asker(function(line)
        local body = line == "whole" and ("x"):rep(3000000) or function() return ("x"):rep(10000) end
        return told(http.post("http://raw/", body))
      end):connect()
      for _, line in ipairs { "whole", "pieces" } do
        client:send(line)
        net:advance "10s" -- timeout.write: nothing is taken any more
        client:expect("413 no")
      end
    end)
  end)

  describe("a response", function()
    it("has fields in order, lists, trailers and JSON", function()
      says("HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: \t y \r\nset-cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "3\r\n{\"a\r\n3\r\n\":1\r\n1\r\n}\r\n0\r\nX-Sum: 7\r\n\r\n")
      ask(function()
        local r = http.get "http://raw/"
        local fields = r:fields()
        return ("%s|%s|%s|%s|%s|%d|%s"):format(table.concat(r:list "SET-COOKIE", ";"), r.headers["Set-Cookie"],
          r.headers.X, r.trailers["x-sum"], r:json().a, #fields, tostring(r))
      end):expect("a=1;b=2|a=1, b=2|y|7|1|4|HTTP response 200 of http://raw/")
    end)

    it("is read whole, however it is cut", function()
      local whole = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n"
        .. "3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
      local app = asker(function() return told(http.get "http://raw/") end)
      local server = net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self)
        for i = 1, #whole do
          self.conn:send(whole:sub(i, i))
          core.sleep "1ms"
        end
      end } })
      local client = app:connect():send("x")
      for _ = 1, #whole do net:advance "1ms" end
      client:expect("200 abcde")
      assert.equal(1, server:counters().accepted)
    end)

    it("ends with the stream where it says no length", function()
      says({ "HTTP/1.1 200 OK\r\n\r\nhello" })
      ask(function() return told(http.get "http://raw/") end):expect("200 hello")
    end)

    it("is refused where it is none", function()
      says("SSH-2.0\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe" }, { "HTTP/1.1 20" }, { "" },
        "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 200 OK\r\nA: " .. ("x"):rep(70000) .. "\r\n\r\n")
      local client = asker(function() return told(http.get "http://raw/") end):connect()
      client:send("x"):expect("EPROTO: raw: this is no HTTP response")
      client:send("x"):expect("EPROTO: raw: a line must end in CR LF: a CR or LF stands alone")
      client:send("x"):expect("EPROTO: raw: Content-Length is there twice")
      client:send("x"):expect("EOF: raw: the connection has ended in the middle of the body")
      client:send("x"):expect("EOF: raw: the connection has ended in the middle of the head")
      client:send("x"):expect("EOF: raw: the connection has ended before there was a response")
      client:send("x"):expect("EPROTO: raw: it switches protocols (101), which nobody has asked for")
      client:send("x"):expect("EMSGSIZE: raw: the header fields are too large")
    end)

    it("has a body within max_body", function()
      says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n",
        { "HTTP/1.1 200 OK\r\n\r\nabcdef" })
      local client = asker(function() return told(http.get("http://raw/", { max_body = 5 })) end):connect()
      client:send("x"):expect("200 hello")
      for _ = 1, 3 do client:send("x"):expect("EMSGSIZE: raw: the body is too large") end
    end)

    it("has no body where there is none", function()
      says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
      ask(function()
        local client = http.client { base = "http://raw" }
        return told(client:head "/") .. told(client:get "/") .. told(client:get "/")
          .. client:status().servers["tcp://raw:80"].connects
      end):expect("200 204 304 1")
    end)
  end)

  describe("connections", function()
    it("are kept, and used again", function()
      local server = api()
      local app = asker(function() return told(http.get "http://api/text") end)
      app:connect():send("a", "b"):expect("200 text", "200 text")
      app:connect():send("c"):expect("200 text")
      assert.equal(1, server:counters().accepted)
    end)

    it("are not kept where the server ends them, or says more than it was asked", function()
      local server = api()
      local raw = says(OK .. "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", OK)
      local client = asker(function(line) return told(http.get("http://" .. line)) end):connect()
      client:send("api/close", "api/close"):expect("200 bye", "200 bye")
      assert.equal(2, server:counters().accepted)
      client:send("raw/", "raw/", "raw/", "raw/"):expect("200 hi", "200 hi", "200 hi", "200 hi")
      assert.equal(3, raw:counters().accepted)
    end)

    it("are bounded, and end when they idle", function()
      local server = net:serve("http://api:80", { agent = { proceed = function()
        core.sleep "1s"
        return "late"
      end } })
      local client
      local app = asker(function()
        client = client or http.client { size = 2, idle = "10s" }
        return told(client:get "http://api/")
      end)
      local clients = {}
      for i = 1, 4 do clients[i] = app:connect():send("x") end
      net:advance "1s"
      net:advance "1s"
      for i = 1, 4 do clients[i]:expect("200 late") end
      assert.equal(2, server:counters().accepted)
      assert.equal(2, open(server))
      net:advance "30s"
      assert.equal(0, open(server))
    end)

    it("are not kept where a request says so", function()
      local raw = says(OK)
      local client = asker(function()
        return told(http.get("http://raw/", { headers = { Connection = "close" } }))
      end):connect()
      client:send("x", "x"):expect("200 hi", "200 hi")
      assert.equal(2, raw:counters().accepted)
    end)

    it("that had ended are replaced, where a request may be sent again", function()
      local n = 0
      net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self)
        n = n + 1
        if n == 2 or n == 4 then return self.conn:abort() end -- just when it is used again
        return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
      end } })
      local client = asker(function(line)
        return told(http.request { method = line, url = "http://raw/", body = line == "POST" and "x" or nil })
      end):connect()
      client:send("GET"):expect("200 hi")
      client:send("GET"):expect("200 hi")
      client:send("POST"):expect(pattern "^ECONNRESET: raw: ")
      client:send("POST"):expect("200 hi")
    end)

    it("are waited for, one request after the other, by as many as may wait", function()
      local begun = 0
      local server = net:serve("http://api:80", { agent = { proceed = function(_, request)
        begun = begun + 1
        core.sleep "1s"
        return ("%s %d"):format(request.path, begun)
      end } })
      local client
      local app = asker(function(line)
        client = client or http.client { base = "http://api", size = 1, queue = 1 }
        return told(client:get("/" .. line))
      end)
      local first, second = app:connect():send("first"), app:connect():send("second")
      app:connect():send("third"):expect("EBUSY: api: 1 calls wait for this pool already (queue)")
      second:expect_nothing()
      net:advance "1s"
      first:expect("200 /first 1")
      second:expect_nothing()
      net:advance "1s"
      second:expect("200 /second 2")
      assert.equal(1, server:counters().accepted)
    end)

    it("end with who has left, and are another's then", function()
      local server = net:serve("http://api:80", { agent = { proceed = function(_, request)
        if request.path == "/late" then core.sleep "1s" end
        return "served"
      end } })
      local client
      local app = asker(function(line)
        client = client or http.client { base = "http://api", size = 1 }
        return told(client:get("/" .. line))
      end)
      local leaving, waiting = app:connect():send("late"), app:connect():send("soon")
      leaving:close()
      waiting:expect("200 served")
      assert.equal(2, server:counters().accepted)
      net:advance "1s"
    end)

    it("are of so many servers at most", function()
      ask(function()
        local client, codes = http.client {}, {}
        for i = 1, 150 do
          local _, _, code = client:get(("http://nobody-%d/"):format(i))
          codes[code] = (codes[code] or 0) + 1
        end
        local n = 0
        for _ in pairs(client:status().servers) do n = n + 1 end
        return ("%d %s"):format(codes.ECONNREFUSED, tostring(n <= 100))
      end):expect("150 true")
    end)

    it("end with the client that is closed", function()
      local server = api()
      ask(function()
        local client = http.client {}
        local first = told(client:get "http://api/text")
        client:close()
        return first .. " " .. told(client:get "http://api/text")
      end):expect("200 text ECANCELED: api: the client is closed")
      assert.equal(0, open(server))
    end)

    it("end with their generation", function()
      local server = api()
      local app = asker(function() return told(http.get "http://api/text") end)
      local client = app:connect():send("x"):expect("200 text")
      assert.equal(1, open(server))
      client:close()
      app:reload()
      assert.equal(0, open(server))
      app:connect():send("x"):expect("200 text")
    end)
  end)

  describe("what fails", function()
    it("is told, and never raised", function()
      ask(function() return told(http.get "http://nobody/") end):expect(pattern "^ECONNREFUSED: nobody:80: ")
    end)

    it("times out without progress, and in all", function()
      net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self, data)
        if data:find "silent" then return end
        self.conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while true do
          core.sleep "1s"
          self.conn:send "1\r\na\r\n"
        end
      end } })
      local app = asker(function(line)
        return told(http.get("http://raw/" .. line, { timeout = { read = "2s", total = "5s" } }))
      end)
      local silent, drips = app:connect():send("silent"), app:connect():send("drips")
      net:advance "2s"
      silent:expect("ETIMEDOUT: raw: timeout: the server has sent nothing more")
      for _ = 1, 3 do net:advance "1s" end
      drips:expect("ETIMEDOUT: raw: timeout: the request has taken too long")
    end)

    it("times out where nobody answers, and while it waits for a connection", function()
      local server = api()
      local app = asker(function()
        return told(http.get("http://api/", { timeout = "3s" }))
      end)
      net:partition(app, server)
      local client = app:connect():send("x")
      net:advance "3s"
      client:expect(pattern "^ETIMEDOUT: api: timeout: ")
      net:heal()
      client:send("x"):expect(pattern "^200 ")
    end)

    it("is tried again, where that is wanted and may be", function()
      local n = 0
      net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self)
        n = n + 1
        if n % 3 ~= 0 then return self.conn:abort() end
        return "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n" .. n
      end } })
      local asking
      local client = asker(function(line)
        asking = asking or http.client { retries = 2 }
        if line == "status" then return tostring(asking:status().servers["tcp://raw:80"].retries) end
        return told(asking:request { method = line, url = "http://raw/" })
      end):connect()
      client:send("GET")
      net:advance "1s"
      client:expect("200 3")
      client:send("POST"):expect(pattern "^ECONNRESET: ")
      client:send("status"):expect("2")
    end)
  end)

  describe("misuse", function()
    local cases = {
      ["an address without a scheme"] = { function() http.get "api/" end, 'expects an address such as "http://' },
      ["another scheme"] = { function() http.get "ftp://api/" end, "expects http:// or https://" },
      ["no host"] = { function() http.get "http:///a" end, "there is no host in it" },
      ["a name and a password"] = { function() http.get "http://a:b@api/" end, 'auth = { "name", "password" }' },
      ["a blank in the path"] = { function() http.get "http://api/a b" end,
        "has a blank, at byte 3 of them: percent-encode the parts with perilune.encoding.encode_url" },
      ["a line break in the path"] = { function() http.get "http://api/a\r\nX: y" end, "has a control character" },
      ["what is not ASCII"] = { function() http.get "http://api/\195\169" end, "a byte that is not ASCII" },
      ["port 0"] = { function() http.get "http://api:0/" end, "a port is a number from 1 to 65535" },
      ["IPv6 without brackets"] = { function() http.get "http://::1/" end, "an IPv6 address needs brackets" },
      ["a line break in a header"] = { function() http.get("http://api/", { headers = { A = "b\r\nX: y" } }) end,
        "headers: A: its value has a control character, at byte 2" },
      ["a header that is none"] = { function() http.get("http://api/", { headers = { ["A b"] = "c" } }) end,
        "the name of a field is a word such as Accept" },
      ["a header that is made"] = { function() http.get("http://api/", { headers = { ["Content-Length"] = 5 } }) end,
        "headers: Content-Length: it is made from the body" },
      ["a host that is none"] = { function() http.get("http://api/", { headers = { Host = "a b" } }) end,
        "headers: Host: expects a host" },
      ["a method that is none"] = { function() http.request { url = "http://api/", method = "G T" } end,
        'http.request: method: expects a word such as "GET"' },
      ["an unknown option"] = { function() http.get("http://api/", { timout = 5 }) end, 'did you mean "timeout"?' },
      ["an option that others have"] = { function() http.get("http://api/", { params = {} }) end, "that is: query" },
      ["an option of clients"] = { function() http.get("http://api/", { tls = {} }) end, "http.client { tls = … }" },
      ["a time-out that is none"] = { function() http.get("http://api/", { timeout = "5 min" }) end,
        'http.get: timeout: total: expects a duration' },
      ["a body and a form"] = { function() http.post("http://api/", "a", { form = {} }) end,
        "a request has one of them" },
      ["a body that is none"] = { function() http.post("http://api/", true) end,
        "body: expects a text, a table for JSON" },
      ["a table in place of the address"] = { function() http.get { url = "http://api/" } end, "http.request { … }" },
      ["a dot in place of the colon"] = { function() http.client({}).get "http://api/" end, "write it with a colon" },
      ["an unknown option of a client"] = { function() http.client { baseurl = "http://api" } end,
        'http.client: unknown option "baseurl"' },
      ["an option of a pool that is none"] = { function() http.client { size = 0 } end,
        "http.client: size: expects a whole number from 1 to 10000, got 0" },
      ["tls of an http:// base"] = { function() http.client { base = "http://api", tls = {} } end,
        "write it as https://" },
      ["another server than the base"] = { function() http.client({ base = "http://api/v1" }):get "http://b/" end,
        "this client asks api alone (base), not b" },
    }
    it("raises, and names the line of the script", function()
      local client = asker(function(what)
        local ok, message = pcall(cases[what][1])
        return ok and "nothing" or tostring(message)
      end):connect()
      for what, case in pairs(cases) do
        local message = client:send(what):receive()
        has(case[2], message)
        has("http_client_spec.lua:", message)
      end
    end)

    it("raises where no server runs", function()
      local ok, message = pcall(http.get, "http://api/")
      assert.is_false(ok)
      has("http.get: only inside a running server", message)
    end)
  end)

  describe("a base", function()
    it("is what addresses are below", function()
      api()
      ask(function()
        local client = http.client { base = "http://api/v1/" }
        local targets = {}
        local paths = { "/users", "users", "", "?a=b", "http://API:80/v1/x", "http://api/v1", "http://api/v1?c" }
        for i, path in ipairs(paths) do
          targets[i] = client:get(path):json().target
        end
        return table.concat(targets, " ") .. " " .. tostring(client)
      end):expect("/v1/users /v1/users /v1 /v1?a=b /v1/x /v1 /v1?c HTTP client of http://api/v1")
    end)

    it("is what addresses in full are below, too", function()
      api()
      local client = asker(function(line)
        local below = http.client { base = "http://api/v1/" }
        local ok, message = pcall(below.get, below, line)
        return ok and "asked" or message
      end):connect()
      for _, rest in ipairs { "/x", "", "/v10", "/V1/x", "/x?/v1/" } do
        client:send("http://api" .. rest)
          :expect(pattern "this client asks below http://api/v1 alone %(base%), not http://api")
      end
      client:send("http://api/v1/../x"):expect(pattern "has no `%.` and `%.%.` in it")
    end)
  end)

  describe("redirects", function()
    local function redirecting()
      local function to(status, location)
        return http.response { status = status, headers = { Location = location }, body = "gone" }
      end
      net:serve("http://b:80", { agent = { proceed = function(_, request)
        return ("b %s %s"):format(request.method, request.headers.authorization or "none")
      end } })
      return net:serve("http://api:80", { agent = { proceed = function(_, request)
        local status, rest = request.path:match "^/(%d+)(.*)$"
        if status then return to(tonumber(status), rest == "" and "/end?a=b#c" or rest) end
        if request.path == "/loop" then return to(302, "/loop") end
        if request.path == "/away" then return to(302, "http://b/") end
        if request.path == "/dots/x" then return to(302, "../y/./z") end
        if request.path == "/bad" then return to(302, "http://u@b/") end
        return ("%s %s %q %s"):format(request.method, request.target, request.body,
          request.headers.authorization or "none")
      end } })
    end

    it("are followed, by their methods", function()
      redirecting()
      local client = asker(function(line)
        local method, path = line:match "^(%S+) (%S+)$"
        return told(http.request { method = method, url = "http://api" .. path, body = method ~= "GET" and "x" or nil,
          auth = { "a", "b" } })
      end):connect()
      client:send("GET /302"):expect('200 GET /end?a=b "" Basic YTpi')
      client:send("POST /301"):expect('200 GET /end?a=b "" Basic YTpi')
      client:send("PUT /302"):expect('200 PUT /end?a=b "x" Basic YTpi')
      client:send("PUT /303"):expect('200 GET /end?a=b "" Basic YTpi')
      client:send("POST /307"):expect('200 POST /end?a=b "x" Basic YTpi')
      client:send("POST /308"):expect('200 POST /end?a=b "x" Basic YTpi')
      client:send("GET /dots/x"):expect('200 GET /y/z "" Basic YTpi')
      client:send("GET /away"):expect("200 b GET none")
    end)

    it("do not take along what is meant for one server", function()
      local function told_fields(_, request)
        local to = request.path:match "^/to/(.*)$"
        if to then return http.redirect(to, 307) end
        local fields = {}
        for _, name in ipairs { "authorization", "cookie", "proxy-authorization", "x-a" } do
          fields[#fields + 1] = request.headers[name] or "none"
        end
        return ("%s: %s"):format(request.host, table.concat(fields, ", "))
      end
      net:serve({ "http://api:80", "http://api:81", "http://b:80" }, { agent = { proceed = told_fields } })
      local client = asker(function(line)
        local secret = http.client { headers = { Cookie = "a=b", ["X-A"] = "c" }, auth = { "a", "b" } }
        return told(secret:get("http://api/to/" .. line, {
          headers = { Host = "hidden.example", ["Proxy-Authorization"] = "Basic YTpi" },
        }))
      end):connect()
      client:send("/same"):expect "200 hidden.example: Basic YTpi, a=b, Basic YTpi, c"
      client:send("http://API:80/same"):expect "200 hidden.example: Basic YTpi, a=b, Basic YTpi, c"
      client:send("http://b/"):expect "200 b: none, none, none, c"
      client:send("//b/"):expect "200 b: none, none, none, c"
      client:send("http://api:81/"):expect "200 api:81: none, none, none, c"
      client:send("http://b/to/http://api/back"):expect "200 api: none, none, none, c"
    end)

    it("that become a GET may be asked twice from then on", function()
      local n = 0
      net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function(self, data)
        if data:find "^POST" then
          return "HTTP/1.1 303 See Other\r\nLocation: /made\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        end
        n = n + 1
        if n == 1 then return self.conn:abort() end
        return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
      end } })
      local client = ask(function() return told(http.post("http://raw/", "x", { retries = 1 })) end)
      net:advance "1s"
      client:expect "200 hi"
    end)

    it("are bounded, or not followed at all", function()
      redirecting()
      ask(function()
        return told(http.get "http://api/loop") .. ", " .. told(http.get("http://api/loop", { redirects = false }))
          .. ", " .. told(http.get "http://api/bad")
      end):expect(pattern("^ELOOP: more than 5 redirects, the last one to http://api/loop, 302 gone, "
        .. "EPROTO: the redirect of http://api/bad leads nowhere: "))
    end)
  end)

  describe("compression", function()
    it("is asked for and decoded, within max_body", function()
      net:serve("http://api:80", { agent = { proceed = function(_, request)
        if request.headers["accept-encoding"] ~= "gzip" then return "plain" end
        local text = request.path == "/bomb" and ("x"):rep(100000) or "packed"
        local body = request.path == "/broken" and "no gzip" or core.deflate(text, { format = "gzip" })
        return http.response { headers = { ["Content-Encoding"] = "gzip" }, body = body }
      end } })
      local client = asker(function(line)
        return told(http.get("http://api/" .. line, { compress = line ~= "not", max_body = 1000 }))
      end):connect()
      client:send("not"):expect("200 plain")
      client:send("packed"):expect("200 packed")
      client:send("bomb"):expect(pattern "^EMSGSIZE: api: the body is too large: ")
      client:send("broken"):expect(pattern "^EPROTO: api: the body is no gzip: ")
    end)
  end)

  describe("in pieces", function()
    it("reads a body as it comes, and keeps the connection", function()
      says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", OK)
      ask(function()
        local client = http.client { base = "http://raw" }
        local response = client:get("/", { stream = true })
        local pieces = {}
        for piece in function() return response:read() end do pieces[#pieces + 1] = piece end
        return table.concat(pieces, "|") .. " " .. told(client:get "/") .. " "
          .. client:status().servers["tcp://raw:80"].connects
      end):expect("abcde 200 hi 1")
    end)

    it("reads what has no body, too", function()
      says("HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 4\r\n\r\ngone")
      ask(function()
        local none = http.get("http://raw/", { stream = true })
        local gone = http.post("http://raw/", function() end, { stream = true })
        return ("%s %s %d %s %s"):format(tostring(none:read()), tostring(none.body), gone.status, gone:read "1s",
          tostring(gone:read()))
      end):expect("nil nil 302 gone nil")
    end)

    it("does not end a body that has not come whole", function()
      local server = net:serve("tcp://raw:80", { frame = "raw", agent = { proceed = function() end } })
      local client = ask(function()
        local n = 0
        return told(http.post("http://raw/", function()
          n = n + 1
          if n == 1 then return "abc" end
          core.sleep "1s"
          return nil, "gone", "EPIPE"
        end))
      end)
      net:advance "1s"
      client:expect "EPIPE: raw: the body was not sent whole: gone"
      local head = "POST / HTTP/1.1\r\nHost: raw\r\nUser-Agent: perilune\r\nTransfer-Encoding: chunked\r\n\r\n"
      assert.equal(#head + #"3\r\nabc\r\n", server:counters().bytes_in)
    end)

    it("does not read more than is wanted", function()
      local sent = 0
      local server = net:serve("tcp://raw:80", { frame = "raw", limits = { send_buffer = "64k" }, agent = {
        proceed = function(self)
          self.conn:send "HTTP/1.1 200 OK\r\n\r\n"
          for _ = 1, 1000 do
            self.conn:send(("x"):rep(10000))
            self.conn:flush()
            sent = sent + 10000
          end
        end } })
      local client = ask(function()
        local response = http.get("http://raw/", { stream = true })
        response:read()
        core.sleep "1s"
        response:close()
        return "closed"
      end)
      net:advance "1s"
      client:expect("closed")
      assert.is_true(server:counters().bytes_out < 2000000, server:counters().bytes_out)
    end)

    it("ends with its call, where nobody has read it to its end", function()
      says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", OK)
      local client = asker(function()
        local response = http.get("http://raw/", { stream = true })
        return response.status .. " " .. response:read()
      end):connect():send("x"):expect("200 hello")
      client:send("x"):expect("200 hi")
    end)

    it("is of no use to a later call", function()
      says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", OK)
      local client, kept
      local conn = asker(function(line)
        client = client or http.client { base = "http://raw", size = 1, wait = "1s" }
        if line == "ask" then
          kept = client:get("/", { stream = true })
          return "asked"
        elseif line == "read" then
          local came = kept:read() -- by the time its call was over
          return came .. " " .. select(3, kept:read())
        end
        return told(client:get "/")
      end):connect()
      conn:send("ask"):expect("asked")
      conn:send("read"):expect("hello ECANCELED")
      conn:send("get", "get"):expect("200 hi", "200 hi")
    end)

    it("says where a body was cut short", function()
      says({ "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello" })
      ask(function()
        local response = http.get("http://raw/", { stream = true })
        return tostring(response:read()) .. " " .. told(response:read()) .. " " .. told(response:read())
      end):expect("hello EOF: raw: the connection has ended in the middle of the body "
        .. "EOF: raw: the connection has ended in the middle of the body")
    end)

    it("sends a body as it is made", function()
      api()
      ask(function()
        local n = 0
        return told(http.post("http://api/echo", function()
          n = n + 1
          return n <= 3 and ("<%d>"):format(n) or nil
        end))
      end):expect("200 <1><2><3>")
    end)

    it("ends the connection where the function raises", function()
      local server = api()
      ask(function()
        local ok, message = pcall(http.post, "http://api/echo", function() error("no more", 0) end)
        return tostring(ok) .. " " .. message
      end):expect("false no more")
      assert.equal(0, open(server))
    end)
  end)

  describe("https://", function()
    local PKI, server_files

    setup(function()
      PKI = pki.new()
      server_files = PKI:sign("server", { names = { "api" } })
    end)
    teardown(function() PKI:remove() end)

    it("verifies whom it asks", function()
      net:serve("https://api:443", { tls = { certificate = server_files.certificate, key = server_files.key },
        agent = { proceed = function(_, request) return "over TLS " .. tostring(request.tls ~= nil) end } })
      local authority = PKI.folder .. "/ca.pem"
      local client = asker(function(line)
        local trusting = http.client { tls = { authority = authority } }
        return told((line == "trusting" and trusting or http.client {}):get "https://api/")
      end):connect()
      client:send("trusting"):expect("200 over TLS true")
      client:send("not"):expect(pattern "^EPROTO: tls://api:443: .*not trusted")
    end)

    it("is not left by a redirect", function()
      net:serve("https://api:443", { tls = { certificate = server_files.certificate, key = server_files.key },
        agent = { proceed = function(_, request)
          if request.path == "/here" then return "still TLS" end
          return http.redirect(request.path == "/up" and "https://api/here" or "http://api/plain")
        end } })
      local plain = api()
      local authority = PKI.folder .. "/ca.pem"
      local client = asker(function(line)
        return told(http.client({ tls = { authority = authority } }):get("https://api" .. line))
      end):connect()
      client:send("/up"):expect("200 still TLS")
      client:send("/down"):expect("EPROTO: the redirect of https://api/down leads from https to http: http://api/plain")
      assert.equal(0, plain:counters().accepted)
    end)
  end)

  describe("a proxy", function()
    it("is told all of an address", function()
      net:serve("http://proxy:3128", { agent = { proceed = function(_, request) return request.target end } })
      ask(function()
        local client = http.client { proxy = "http://proxy:3128" }
        return told(client:get "http://api/a?b") .. ", " .. told(client:get "https://api/")
      end):expect(pattern "^200 http://api/a%?b, ENOTSUP: api: https through a proxy")
    end)
  end)
end)
