--- The control socket when calls of the system fail: a client of it is hit, nobody else, and the next one is served.
local faults = require "spec.support.faults"
local json_decode = require "spec.support.json_decode"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local REQUESTS = {
  [[{"command":"status"}]], [[{"command":"kick","conn":4711}]], [[{"command":"reload","wait":true}]],
  [[{"command":"generations"}]],
}

-- The answers that come, and whether all did.
local function converse(app)
  local one = app:connect { path = app.folder .. "/control.sock" }
  local all = true
  for _, request in ipairs(REQUESTS) do
    local ok, line = pcall(function() return one:send(request .. "\n"):recv_line() end)
    if not ok and tostring(line):find("timeout", 1, true) then error(line, 0) end
    all = all and ok
    if ok then json_decode(line) end
  end
  one:close()
  return all
end

describe("the control socket", function()
  after_each(server.finish)

  it("without memory loses one client at most", function()
    local hit = 0
    for number = 1, 200 do
      local app = faults.arm(faults.start(("memory:%d"):format(number), { control = "control.sock" }))
      local all = converse(app)
      hit = hit + (all and 0 or 1)
      if not converse(app) then assert.is_true(all, "two were lost") end
      local is_last = not faults.fired(app)
      assert.equal(0, app:stop().code)
      server.finish()
      if is_last then
        assert.is_true(number > 5 and hit > 0)
        return
      end
    end
    error "there is no end of them"
  end)

  it("that cannot accept waits, and does not spin", function()
    local app = faults.arm(faults.start("accept4:1+:EMFILE", { control = "control.sock" }))
    local one = app:connect { path = app.folder .. "/control.sock" }
    one:send "{}\n"
    wait.until_true("the fault", function() return faults.fired(app) end)
    local cpu = app:cpu()
    one:expect_silence(1)
    assert.is_true(app:cpu() - cpu < 0.3)
    one:close()
  end)
end)
