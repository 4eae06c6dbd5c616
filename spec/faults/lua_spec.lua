--- Beside every broken handler of spec/corpus: finalisers that raise, stacks that cannot grow, no memory for what the
--- core
--- asks of Lua between calls. Handlers end, for whatever reason; the process does not.
local command = require "spec.support.command"
local corpus = require "spec.support.corpus"
local faults = require "spec.support.faults"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- So many at once stand before the canary.
local AT_ONCE = 15

local function drive(app, case)
  local ok, one = pcall(app.connect, app, { listener = case.listener })
  if not ok or case.drive == "none" then return end
  pcall(one.send, one, case.send)
  if case.drive == "leave" then one:close() end
  if case.drive == "finish" then pcall(one.shutdown, one, "send") end
end

local function is_served(app)
  local probe = app:connect()
  local ok = pcall(probe.echo_line, probe, "here")
  probe:close()
  return ok
end

-- The faults may hit the canary as well, but not each time that it comes.
local function await_canary(app, after)
  wait.until_true("an echo after " .. after, function()
    if app:has_ended() then error("the server died of " .. after, 0) end
    return is_served(app)
  end)
end

local function run_beside(fault)
  local cases = {}
  for _, case in ipairs(corpus.cases()) do
    if case.drive ~= "drain" then cases[#cases + 1] = case end
  end
  local made = corpus.app(cases)
  local app = faults.start(fault, { script = made.script, modules = made.modules, args = made.args, workers = 1 })
  local number = {}
  for i, listener in ipairs(app.listeners) do number[listener.name] = i end
  for _, case in ipairs(cases) do case.listener = assert(number[case.name]) end
  assert(is_served(app))
  faults.arm(app)
  for first = 1, #cases, AT_ONCE do
    for i = first, math.min(first + AT_ONCE - 1, #cases) do drive(app, cases[i]) end
    await_canary(app, cases[first].name .. " and those after it")
  end
  -- Some have not read what they were sent: a drain would wait for that, and cut it.
  for _, one in ipairs(app.clients) do one:close() end
  local stopped = app:stop()
  assert.equal(0, stopped.code)
  assert.is_true(faults.fired(app))
  assert.is_true(stopped.summary.accepted >= #cases)
  command.remove(app.folder)
end

describe("beside the corpus of broken handlers", function()
  after_each(server.finish)

  for _, fault in ipairs { "finaliser:53/", "lua_stack:1+", "lua_memory:2/" } do
    it("nothing ends the process: " .. fault, function() run_beside(fault) end)
  end
end)
