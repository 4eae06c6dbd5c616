--- Very many small things of one client: requests in a pipeline, pings, fragments of one byte. All are answered, in
--- order, the memory stays, and a neighbour is served between any two portions.
local server = require "spec.support.server"

local SCRIPT = [[
local Web, Chat = {}, {}
function Web:proceed(request) return request.path end
function Chat:proceed(message) return #message .. " bytes" end
return { limits = { message = "64k" }, listen = {
  { "http://127.0.0.1:0", agent = Web },
  { "ws://127.0.0.1:0/", agent = Chat },
} }
]]

local HTTP, WS = 1, 2 -- the listeners

local UPGRADE = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

local function head_of(client)
  local length = 0
  repeat
    local line = client:recv_line():gsub("\r$", "")
    length = tonumber(line:match "^Content%-Length: (%d+)$") or length
  until line == ""
  return length
end

local function get(client, path) return client:send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(path)) end
local function answered(client) return client:recv_exact(head_of(client)) end

-- A frame of a client, masked by nothing.
local function frame(first, data) return string.char(first, 0x80 + #data) .. "\0\0\0\0" .. data end

local function start()
  local app = server.start { script = SCRIPT, workers = 1 }
  return app, app:connect { listener = HTTP }
end

local function chat(app)
  local client = app:connect({ listener = WS }):send(UPGRADE)
  head_of(client)
  return client
end

describe("of one client", function()
  after_each(server.finish)

  it("ten thousand requests in a pipeline are answered in their order", function()
    local app, neighbour = start()
    local client, requests, TIMES, AT_ONCE = app:connect { listener = HTTP }, {}, 10, 1000
    for i = 1, AT_ONCE do requests[i] = ("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"):format(i) end
    requests = table.concat(requests)
    for _ = 1, TIMES do
      client:send(requests)
      assert.equal("/neighbour", answered(get(neighbour, "/neighbour")))
      for i = 1, AT_ONCE do assert.equal("/" .. i, answered(client)) end
    end
    client:close()
    assert.equal(TIMES * AT_ONCE + TIMES, app:stop().summary.http_requests)
  end)

  it("a million pings are answered each", function()
    local app, neighbour = start()
    local client, AT_ONCE = chat(app), 10000
    local pings, pongs = frame(0x89, "p"):rep(AT_ONCE), "\x8a\1p"
    local before
    for round = 1, server.scaled(100, 10) do
      client:send(pings)
      assert.is_true(client:recv_exact(3 * AT_ONCE) == pongs:rep(AT_ONCE), "round " .. round)
      assert.equal("/neighbour", answered(get(neighbour, "/neighbour")))
      before = before or app:rss()
    end
    if server.measures_memory and not server.sanitizer then assert.is_true(app:rss() - before < 2 ^ 20) end
  end)

  it("a message in fragments of one byte is a message", function()
    local app, neighbour = start()
    local client, BYTES = chat(app), 65535
    client:send(frame(1, "x") .. frame(0, "x"):rep(BYTES - 2))
    assert.equal("/neighbour", answered(get(neighbour, "/neighbour")))
    client:send(frame(0x80, "x"))
    assert.equal("\x81\x0b65535 bytes", client:recv_exact(13))
  end)
end)
