--- What the start needs and does not get.
local faults = require "spec.support.faults"
local server = require "spec.support.server"

describe("a start", function()
  after_each(server.finish)

  for _, kind in ipairs { "bind", "listen", "getsockname", "epoll_create1", "eventfd", "pthread_create" } do
    it(("without %s() fails with one line and code 1"):format(kind), function()
      local calls = faults.each(kind, nil, function(result, fault) assert.is_false(result.started, fault) end)
      assert.is_true(calls > 0)
    end)
  end

  it("without socket() fails with one line and code 1 if it is for a listener, and else one connection does", function()
    local LISTENERS, failed = 3, 0
    faults.each("socket", nil, function(result, fault)
      failed = failed + (result.started and 0 or 1)
      assert.is_true(not result.started or result.lost <= 1, fault)
    end)
    assert.equal(LISTENERS, failed)
  end)

  it("without descriptors for pipes fails with one line and code 1", function()
    local result, message = faults.run("pipe2:1+")
    assert.is_nil(message)
    assert.is_false(result.started)
  end)

  for _, kind in ipairs { "setsockopt", "getrlimit" } do
    it(("without %s() serves all the same"):format(kind), function()
      local calls = faults.each(kind, nil, function(result, fault)
        assert.same({ true, 0, 0 }, { result.started, result.lost, result.code }, fault)
      end)
      assert.is_true(calls > 0)
    end)
  end

  it("without opendir() fails with one line and code 1 if it is for the app's files, and else serves", function()
    local failed = 0
    faults.each("opendir", nil, function(result, fault)
      failed = failed + (result.started and 0 or 1)
      if result.started then assert.same({ 0, 0 }, { result.lost, result.code }, fault) end
    end)
    assert.equal(1, failed)
  end)

  it("without ioctl() fails, or one connection does", function()
    faults.each("ioctl", nil, function(result, fault)
      assert.is_true(not result.started or result.lost <= 1, fault)
    end)
  end)
end)
