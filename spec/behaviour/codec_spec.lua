--- Codecs in Lua: how often decode() is called, and what it is given.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local perilune = require "perilune.test"

local raw = memory.raw

-- A script whose decode() is `body`, with `calls` and `given` counted; `proceed` is the body of that method.
local function start(body, proceed, settings)
  return assert(memory.script(([[
    local perilune = require "perilune"
    local calls, given, longest = 0, 0, 0
    local function count(bytes)
      calls, given, longest = calls + 1, given + #bytes, math.max(longest, #bytes)
    end
    local function decode(bytes, at) count(bytes) %s end
    local function encode(reply) return reply .. "\n" end
    local Agent = {}
    function Agent:proceed(frame, meta) %s end
    function Agent:oversize(n) return "over: " .. n end
    return { listen = "tcp://127.0.0.1:0", frame = { decode = decode, encode = encode, max = "2m" }, agent = Agent, %s }
  ]]):format(body, proceed, settings or "")))
end

-- "5:hello", the length in digits; it says how much it needs.
local BY_LENGTH = [[
  local n, from = bytes:match("^(%d+):()", at)
  if not n then return nil end
  if #bytes < from + n - 1 then return nil, nil, from - at + n end
  return bytes:sub(from, from + n - 1), from + n
]]
local REPORT = [[ return ("%d bytes, %d calls, %d given"):format(#frame, calls, given) ]]

local function send_in_pieces(client, text, size)
  for at = 1, #text, size do client:send_raw(text:sub(at, at + size - 1)) end
end

describe("a codec in Lua that says how much it needs", function()
  after_each(memory.finish)

  it("is not called before, however many reads bring it", function()
    local client = raw(start(BY_LENGTH, REPORT))
    client:send("1000000:")
    send_in_pieces(client, ("x"):rep(1000000), 1000)
    client:expect("1000000 bytes, 2 calls, 1000016 given\n")
  end)

  it("is called at the byte that it waits for, and asked again when it needs still more", function()
    local client = raw(start([[
      if #bytes - at + 1 < 2 then return nil, nil, 2 end
      local n = bytes:byte(at)
      if #bytes - at + 1 < n then return nil, nil, n end
      return bytes:sub(at, at + n - 1), at + n
    ]], REPORT))
    client:send_split("\5abcd"):expect("5 bytes, 3 calls, 8 given\n")
  end)

  it("is asked behind each frame anew", function()
    local client = raw(start(BY_LENGTH, [[ return frame .. " " .. calls ]]))
    client:send("3:abc3:d"):expect("abc 2\n"):send("ef1:g4:h"):expect("def 5\ng 5\n"):send("ijk"):expect("hijk 6\n")
  end)

  it("is refused a frame over the limit as soon as it says so", function()
    local app = start(BY_LENGTH, REPORT, [[limits = { frame = 100 }, frame = { decode = decode, encode = encode }]])
    raw(app):send("1:a170:"):expect("1 bytes, 2 calls, 14 given\nover: 174\n"):expect_closed("oversize")
    assert.equal("frame too large: 174 > 100", app:log("bad frame")[1].error)
  end)

  it("may not ask for what it has, or for what is no number", function()
    for _, need in ipairs { "0", "-1", "1", "0/0", [["2"]], "true", "{}" } do
      local app = start(("return nil, nil, %s"):format(need), REPORT)
      raw(app):send("x"):expect_nothing():expect_closed("error")
      has("decode must say a need of more bytes than it has", app:faults()[1].error)
    end
  end)

  it("is not believed in another framing", function()
    local app = start(BY_LENGTH, [[
      self.conn:send(frame)
      self.conn:set_frame("line")
      self.conn:send "lines"
      self.proceed = function(_, line) return "<" .. line .. ">" end
    ]])
    raw(app):send("3:abc900:"):expect("abc\nlines\n"):send("\n"):expect("<900:>\n")
    local waits = start(BY_LENGTH, [[
      local line = self.conn:read "line"
      return "line " .. line
    ]])
    raw(waits):send("3:abc900:"):send("de\n"):expect("line 900:de\n")
  end)

  it("gets frames whole by conn:read as well", function()
    local client = raw(start(BY_LENGTH, [[ return frame .. self.conn:read() .. " " .. calls ]]))
    client:send("1:a"):send("100:")
    send_in_pieces(client, ("x"):rep(100), 1)
    client:expect("a" .. ("x"):rep(100) .. " 3\n")
  end)
end)

describe("a codec in Lua", function()
  after_each(memory.finish)

  -- Each frame of a full inbox is waited with: what decode() is given must not grow with what waits.
  local function given_for(frames)
    local app = start([[
      local stop = bytes:find("\n", at, true)
      if stop then return bytes:sub(at, stop - 1), stop + 1 end
    ]], [[
      perilune.sleep(0)
      if frame == "end" then return tostring(given) end
    ]])
    local client = raw(app):send(("123456789\n"):rep(frames) .. "end\n")
    return tonumber(client:receive())
  end

  it("is given no more for each frame when more of them wait", function()
    local few, many = given_for(2000), given_for(8000)
    assert.is_true(many < 5 * few, ("%d bytes for 2000 frames, %d for 8000"):format(few, many))
  end)

  it("is given all of a frame, whatever its size, and called a few times for it", function()
    local client = raw(start([[
      local stop = bytes:find("\n", at, true)
      if stop then return bytes:sub(at, stop - 1), stop + 1 end
    ]], [[ return #frame .. " " .. calls ]]))
    client:send(("x"):rep(60000) .. "\nab\n"):expect(perilune.pattern "^60000 [1-6]\n2 [1-6]\n$")
  end)

  for _, case in ipairs {
    { "a string of the limit behind a header", ("x"):rep(100), true },
    { "a string over the limit", ("x"):rep(101), false },
  } do
    it("takes or refuses the same however the stream is cut: " .. case[1], function()
      local app = start([[
        local n, from = bytes:match("^(%d+):::::::()", at)
        if not n then return nil end
        if #bytes < from + n - 1 then return nil end
        return bytes:sub(from, from + n - 1), from + n
      ]], [[ return #frame .. "" ]], [[frame = { decode = decode, encode = encode, max = 100 }]])
      local stream = #case[2] .. ":::::::" .. case[2]
      local cuts = { stream, 1, 7, 100 }
      for _, cut in ipairs(cuts) do
        local client = raw(app)
        if cut == stream then client:send(stream) else send_in_pieces(client, stream, cut) end
        if case[3] then
          client:expect("100\n"):expect_nothing():close()
        else
          client:expect("over: 101\n"):expect_closed("oversize")
        end
      end
    end)
  end

  it("may take no more bytes for a frame of any type, or to skip, than the limit and a header", function()
    local app = start([[
      local stop = bytes:find("\n", at, true)
      if not stop then return nil end
      if bytes:sub(at, at) == "#" then return nil, stop + 1 end
      return {}, stop + 1
    ]], [[ return "table" ]], [[frame = { decode = decode, encode = encode, max = 100 }]])
    for _, first in ipairs { "#", "x" } do
      for _, size in ipairs { 1, 200 } do
        local client = raw(app)
        send_in_pieces(client, first .. ("y"):rep(164) .. "\n", size)
        client:expect(function(text) return text:find "^over: " end):expect_closed("oversize")
      end
    end
    raw(app):send("#" .. ("y"):rep(162) .. "\nx\n"):expect("table\n")
  end)

  it("does not care how the stream is cut", function()
    perilune.splits({ "5:hello", "0:", "12:hello world!", "70:" .. ("x"):rep(70), "3:abc" }, function()
      return raw(start(BY_LENGTH, [[ return frame ]]))
    end)
  end)
end)
