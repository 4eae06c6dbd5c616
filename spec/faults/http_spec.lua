--- Each allocation in C fails once while requests are served: they are answered, or refused with a 503, or the
--- connection ends; and nothing else happens.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local SCRIPT = [[
  local Agent = {}
  function Agent:proceed(request)
    if request.path == "/late" then require("perilune").sleep("1ms") end
    if request.path == "/table" then return { length = #request.body, type = request.headers["content-type"] } end
    return request.body
  end
  return { listen = "http://127.0.0.1:0", agent = Agent, timeout = { drain = "3s" } }]]

local CHUNK = ("x"):rep(9000)

-- In pieces, so that each has to be kept.
local PIECES = {
  "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2328\r\n",
  CHUNK:sub(1, 4000),
  CHUNK:sub(4001) .. "\r\n0\r\n\r\nPOST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
  "llo" .. "PUT /table HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: t\r\n\r\nhi",
}

local function talk(app)
  local client = app:connect()
  local _, said = pcall(function()
    for i, piece in ipairs(PIECES) do
      client:send(piece)
      if i == 1 then client:recv_exact(#"HTTP/1.1 100 Continue\r\n\r\n") end
    end
    return client:recv_all()
  end)
  client:close()
  return said
end

local function is_whole(said)
  return said:find(CHUNK, 1, true) and said:find("\r\n\r\nhelloHTTP", 1, true) and said:find('"length":2', 1, true)
end

describe("without memory for a request", function()
  after_each(server.finish)

  it("it is answered, or refused, or its connection ends", function()
    local number, whole, others = 0, 0, 0
    repeat
      number = number + 1
      local fault = "memory:" .. number
      local app = faults.start(fault, { script = SCRIPT, workers = 1 })
      faults.arm(app)
      local said = talk(app)
      if is_whole(said) then whole = whole + 1 else others = others + 1 end
      local fired = faults.fired(app)
      if fired then assert.is_truthy(is_whole(talk(app)), fault) end
      assert.equal(0, app:stop().code, fault)
      command.remove(app.folder)
    until not fired
    assert.is_true(others > 2, whole .. ", " .. others)
  end)
end)

describe("of a file that the system", function()
  after_each(server.finish)

  local LARGE = ("0123456789abcdef"):rep(65536) -- 1 MiB
  local FILES = [[
    local http = require "perilune.http"
    local files = http.files "."
    return { listen = "http://127.0.0.1:0", agent = { proceed = function(_, request) return files(request) end } }]]

  -- To how many of two requests it comes.
  local function get(fault)
    local app = faults.start(fault, { script = FILES, workers = 1 })
    local file = assert(io.open(app.folder .. "/large", "w"))
    file:write(LARGE)
    file:close()
    faults.arm(app)
    local client = app:connect():send(("GET /large HTTP/1.1\r\nHost: a\r\n\r\n"):rep(2))
    local said, bodies, at = client:shutdown("send"):recv_all(), 0, 1
    repeat
      local _, head_end = said:find("\r\n\r\n", at, true)
      at = (head_end or #said) + #LARGE + 1
      if said:sub(at - #LARGE, at - 1) == LARGE then bodies = bodies + 1 end
    until at > #said
    assert.is_truthy(faults.fired(app), fault)
    assert.equal(0, app:stop().code, fault)
    command.remove(app.folder)
    return bodies
  end

  for _, how in ipairs { "EINVAL", "EAGAIN", "EIO", "short" } do
    it("does not send by itself (" .. how .. ") all of it comes", function()
      assert.equal(2, get("sendfile:1+:" .. how))
      assert.equal(2, get("sendfile:1:" .. how))
    end)
  end

  it("cannot send, as the client has gone, no more comes", function()
    assert.equal(0, get "sendfile:1:EPIPE")
    assert.is_true(get "sendfile:2:EPIPE" < 2)
  end)
end)
