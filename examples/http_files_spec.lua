local perilune = require "perilune.test"

describe("examples/http_files.lua", function()
  local app, client

  before_each(function()
    app = perilune.app "http_files.lua"
    client = app:connect()
  end)
  after_each(function() app:close() end)

  it("serves the files of its folder", function()
    local index = client:get "/"
    assert.same({ 200, "text/html; charset=utf-8", "max-age=60" },
      { index.status, index.headers["Content-Type"], index.headers["Cache-Control"] })
    assert.equal("text/css; charset=utf-8", client:get("/style.css").headers["Content-Type"])
    assert.equal("/docs/", client:get("/docs").headers.Location)
    assert.equal(404, client:get("/../http_files.lua").status)
  end)

  it("sends what has not changed once", function()
    local style = client:get "/style.css"
    assert.equal(304, client:get("/style.css", { ["If-None-Match"] = style.headers.ETag }).status)
    local range = client:get("/style.css", { Range = "bytes=0-3" })
    assert.same({ 206, style.body:sub(1, 4) }, { range.status, range.body })
  end)

  it("writes a report while it is read", function()
    local response = client:get "/report.csv"
    assert.equal("row,square\n1,1\n2,4\n", response.body:sub(1, 19))
    assert.equal("10000", response.trailers["X-Rows"])
  end)
end)
