local perilune = require "perilune.test"

describe("examples/http_upload.lua", function()
  local app

  before_each(function() app = perilune.app "http_upload.lua" end)
  after_each(function() app:close() end)

  local function begin(client, fields)
    client.asked = { "PUT" }
    return client:send_raw("PUT /sums/a HTTP/1.1\r\nHost: a\r\n" .. fields .. "\r\n")
  end

  it("adds up what comes, piece by piece", function()
    local client = begin(app:connect(), "X-Key: secret\r\nContent-Length: 3000000\r\n")
    for _ = 1, 30 do client:send_raw(("x"):rep(100000)) end
    local response = client:response()
    assert.same({ 201, { bytes = 3000000, crc32 = "f0e94f8f" } }, { response.status, response:json() })
  end)

  it("refuses before the body has come", function()
    local client = begin(app:connect(), "Expect: 100-continue\r\nContent-Length: 3000000\r\n")
    local response = client:response()
    assert.same({ 401, "close" }, { response.status, response.headers.Connection })
  end)

  it("compares with the trailer", function()
    for sum, status in pairs { ["3610A686"] = 201, ["3610a687"] = 422 } do
      local client = begin(app:connect(), "X-Key: secret\r\nTransfer-Encoding: chunked\r\n")
      client:send_raw("5\r\nhello\r\n0\r\nX-Crc32: " .. sum .. "\r\n\r\n")
      assert.equal(status, client:response().status)
    end
  end)

  it("lists the sums, compressed for who takes that", function()
    for i = 1, 100 do
      assert.equal(201, app:connect():request({ method = "PUT", path = "/sums/n" .. i, body = "hello",
        headers = { ["X-Key"] = "secret" } }).status)
    end
    local plain = app:connect():get "/sums"
    local coded = app:connect():get("/sums", { ["Accept-Encoding"] = "gzip" })
    assert.truthy(plain.body:find("3610a686 5 n1\n", 1, true))
    assert.same({ "gzip", true }, { coded.headers["Content-Encoding"], #coded.body < #plain.body / 3 })
  end)
end)
