--- Every broken handler of spec/corpus on the real binary: it ends as it should, alone.
local command = require "spec.support.command"
local corpus = require "spec.support.corpus"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- How much processor time the server may use while the canary waits for its echo: see docs/containment.md.
local CANARY_SECONDS = 2

-- They stand in a row before the canary, each with its budget.
local AT_ONCE = 10

local function cases_with(accept)
  local cases = {}
  for _, case in ipairs(corpus.cases()) do
    if accept(case) then cases[#cases + 1] = case end
  end
  return cases
end

local function start(cases, settings)
  local app = server.start(corpus.app(cases, settings))
  local number = {}
  for i, listener in ipairs(app.listeners) do number[listener.name] = i end
  for _, case in ipairs(cases) do case.listener = assert(number[case.name]) end
  return app
end

local function drive(app, case)
  local one = app:connect({ listener = case.listener, receive_buffer = case.drive == "receive" and 8192 or nil })
  if case.drive == "none" then return one end
  one:send(case.send)
  if case.drive == "leave" then one:close() end
  if case.drive == "finish" then one:shutdown("send") end
  if case.drive == "receive" then pcall(one.recv_all, one) end
  return one
end

local function ping(app, canary, what)
  local before = app:cpu()
  canary:echo_line(what)
  local took = app:cpu() - before
  if took > CANARY_SECONDS * server.SLOWER then error(("%s: the canary waited %.3f s"):format(what, took), 0) end
  return took
end

-- The end of a case's only connection, as the log tells it; while we wait, the canary sings. Once more after that: the
-- entry comes before closed() is called.
local function await_end(app, case, canary)
  local wanted = { message = "closed", listener = case.name }
  local entry = wait.until_true("the end of " .. case.name, function()
    ping(app, canary, case.name)
    return app:find_log(wanted)[1]
  end)
  ping(app, canary, case.name)
  return entry
end

local function check_end(app, case, entry, complaints)
  if not case.expect[entry.reason] then
    complaints[#complaints + 1] = ("%s ended with %s"):format(case.name, entry.reason)
  end
  local notes = #app:find_log({ message = "closed " .. entry.reason, listener = case.name })
  if notes ~= case.closed then
    complaints[#complaints + 1] = ("%s: closed() was called %d times"):format(case.name, notes)
  end
end

local function run_each(app, cases)
  local complaints, canary = {}, app:connect()
  for _, case in ipairs(cases) do
    drive(app, case)
    local ok, entry = pcall(await_end, app, case, canary)
    if app:has_ended() then error("the server died of " .. case.name, 0) end
    if ok then check_end(app, case, entry, complaints) else complaints[#complaints + 1] = tostring(entry) end
  end
  ping(app, canary, "afterwards")
  assert.equal("", table.concat(complaints, "\n"))
end

describe("a broken handler", function()
  after_each(server.finish)

  it("is in the corpus only to be tried", function()
    local files = tonumber(command.shell("ls " .. corpus.FOLDER .. "/*.lua | wc -l"))
    local tried = 0
    for _, stops in ipairs { true, false } do
      tried = tried + #cases_with(function(case) return (case.drive == "drain") == stops end)
    end
    assert.is_true(files > 100)
    assert.equal(files, tried)
  end)

  for _, mode in ipairs { "jit = true", "jit = false" } do
    it("ends with its reason, and nobody else notices: " .. mode, function()
      local cases = cases_with(function(case) return case.drive ~= "drain" end)
      local app = start(cases, mode)
      run_each(app, cases)
      local summary = app:stop().summary
      assert.equal(#cases + 1, summary.accepted)
      assert.equal(0, summary.cut)
    end)
  end

  it("ends with its reason beside others that are broken", function()
    local cases = cases_with(function(case) return case.drive == "send" and case.expect.proceed_timeout end)
    local app = start(cases)
    local complaints, canary = {}, app:connect()
    for first = 1, #cases, AT_ONCE do
      local last = math.min(first + AT_ONCE - 1, #cases)
      for i = first, last do drive(app, cases[i]) end
      for i = first, last do check_end(app, cases[i], await_end(app, cases[i], canary), complaints) end
    end
    assert.equal("", table.concat(complaints, "\n"))
  end)

  it("ends with its reason while the server stops", function()
    local cases = cases_with(function(case) return case.drive == "drain" end)
    assert.is_true(#cases > 0)
    local app = start(cases)
    for _, case in ipairs(cases) do app:connect({ listener = case.listener }) end
    wait.until_true("all to be accepted", function()
      return app:find_log({ message = "closed" })[1] or ping(app, app:connect(), "ready")
    end)
    assert.equal(0, app:stop().code)
    local complaints = {}
    for _, case in ipairs(cases) do
      check_end(app, case, app:find_log({ message = "closed", listener = case.name })[1], complaints)
    end
    assert.equal("", table.concat(complaints, "\n"))
  end)
end)
