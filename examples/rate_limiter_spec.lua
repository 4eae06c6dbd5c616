local perilune = require "perilune.test"

describe("examples/rate_limiter.lua", function()
  local app
  before_each(function() app = perilune.app("examples/rate_limiter.lua") end)
  after_each(function() app:close() end)

  local function ask(address, n)
    local client = app:connect { from = address }
    for _ = 1, n do client:send("hello"):expect("hello") end
    return client
  end

  it("lets an address have ten a minute, over all its connections", function()
    ask("192.0.2.1:1000", 6)
    local client = ask("192.0.2.1:1001", 4)
    client:send("hello"):expect("slow down: again in 60 s")
    app:advance "20s"
    client:send("hello"):expect("slow down: again in 40 s")
  end)

  it("begins anew when the minute is over", function()
    local client = ask("192.0.2.1:1000", 10)
    app:advance "59s"
    client:send("hello"):expect("slow down: again in 1 s")
    app:advance "1s"
    client:send("hello"):expect("hello")
  end)

  it("counts each address for itself", function()
    ask("192.0.2.1:1000", 10)
    ask("192.0.2.2:1000", 10)
  end)
end)
