--- Plain data on its way from VM to VM: what an agent of another worker and a job send back is what they were sent.
local memory = require "spec.support.memory"

-- "FROM TO": values of these numbers go to the agent of that name and to a job, and come back. Replies with how many
-- have, or with what is wrong.
local SCRIPT = [[
  local perilune = require "perilune"

  local function generator(seed)
    local state = (seed * 69621 + 12345) % 2147483646 + 1
    return function(n)
      state = state * 16807 % 2147483647
      return math.floor(state / 2147483647 * n) + 1
    end
  end

  local NUMBERS = { 0, -0, 1, -1, 0.1, 1 / 3, 2 ^ 31, -2 ^ 31, 2 ^ 53, 1e308, 5e-324, math.huge, -math.huge, 127, 128,
    255, 256, 65535, 65536 }

  local function text(draw)
    local bytes = {}
    for i = 1, draw(4) == 1 and draw(300) or draw(20) - 1 do bytes[i] = string.char(draw(256) - 1) end
    return table.concat(bytes)
  end

  local SCALARS = {
    function(draw) return NUMBERS[draw(#NUMBERS)] end,
    function(draw) return draw(2 ^ 31) / draw(1000) end,
    text,
    function(draw) return draw(2) == 1 end,
    function(draw) return draw(2) == 1 and 9007199254740993LL or -1LL end,
    function() return 18446744073709551615ULL end,
  }

  local value_of

  local function list(draw, depth)
    local items = {}
    for i = 1, draw(8) - 1 do items[i] = value_of(draw, depth + 1) end
    return items
  end

  local function map(draw, depth)
    local items = {}
    for _ = 1, draw(8) - 1 do
      local key = draw(3) == 1 and draw(1000) / 8 or text(draw)
      items[key] = value_of(draw, depth + 1)
    end
    return items
  end

  function value_of(draw, depth)
    local kind = draw(depth > 4 and #SCALARS or #SCALARS + 4)
    if kind <= #SCALARS then return SCALARS[kind](draw) end
    return (kind % 2 == 0 and list or map)(draw, depth)
  end

  local function differs(one, other, path)
    if type(one) ~= type(other) then return path .. ": " .. type(one) .. ", and then " .. type(other) end
    if type(one) ~= "table" then
      local same = one == other and (one ~= 0 or 1 / one == 1 / other)
      return not same and ("%s: %s, and then %s"):format(path, tostring(one), tostring(other)) or nil
    end
    for key, item in pairs(one) do
      local what = differs(item, other[key], ("%s[%s]"):format(path, tostring(key)))
      if what then return what end
    end
    for key in pairs(other) do
      if one[key] == nil then return ("%s[%s] was not there"):format(path, tostring(key)) end
    end
  end

  local Agent = {}

  function Agent:message(_, value) return value end

  local function check(value, number, way, back, message)
    local what = differs(value, back, "value")
    if what then error(("%d, %s: %s (%s)"):format(number, way, what, tostring(message)), 0) end
  end

  function Agent:proceed(line)
    if line == "echo" then return tostring(perilune.register "echo") end
    local from, to = line:match "^(%d+) (%d+)$"
    for number = tonumber(from), tonumber(to) do
      local value = value_of(generator(number), 0)
      check(value, number, "call", perilune.call("echo", value))
      check(value, number, "job", perilune.job("echo", "same", value))
    end
    return "fine"
  end

  return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, jobs = { workers = 1 },
    limits = { proceed = "1h", allocation = false } }]]

describe("plain data", function()
  after_each(memory.finish)

  it("comes back from other workers and from jobs as it was", function()
    local app = assert(memory.script(SCRIPT, { echo = "return { same = function(...) return ... end }" },
      { workers = 2 }))
    local echo, client = app:connect { worker = 1 }, app:connect { worker = 0 }
    echo:send("echo"):expect "true"
    local most = memory.scaled(10000, 1000)
    for from = 1, most, 500 do client:send(("%d %d"):format(from, from + 499)):expect "fine" end
  end)

  it("has at most 100 tables within each other, and more are refused by the way to them", function()
    local app = memory.lines({
      proceed = function(_, line)
        local value = "the innermost"
        for _ = 1, tonumber(line) do value = { value } end
        local perilune = require "perilune"
        local ok, message = pcall(perilune.shared("kept").set, perilune.shared "kept", "value", value)
        if not ok then return message end
        local back, depth = perilune.shared("kept"):get "value", 0
        while type(back) == "table" do back, depth = back[1], depth + 1 end
        return depth .. " " .. back
      end,
    }, { shared = { kept = "1m" } })
    local client = app:connect()
    client:send("100"):expect "100 the innermost"
    local refused = client:send("101"):receive()
    assert.truthy(refused:find("the value[1][1][1] has tables within each other, more than 100", 1, true), refused)
  end)
end)
