--- The readers of views: what string.unpack makes of the same bytes, interpreted and compiled.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

-- Reader, format of string.unpack, bytes.
local READERS = {
  { "u8", "B", 1 }, { "i8", "b", 1 }, { "u16be", ">I2", 2 }, { "u16le", "<I2", 2 }, { "i16be", ">i2", 2 },
  { "i16le", "<i2", 2 }, { "u24be", ">I3", 3 }, { "u24le", "<I3", 3 }, { "i24be", ">i3", 3 }, { "i24le", "<i3", 3 },
  { "u32be", ">I4", 4 }, { "u32le", "<I4", 4 }, { "i32be", ">i4", 4 }, { "i32le", "<i4", 4 }, { "u64be", ">I8", 8 },
  { "u64le", "<I8", 8 }, { "i64be", ">i8", 8 }, { "i64le", "<i8", 8 }, { "f32be", ">f", 4 }, { "f32le", "<f", 4 },
  { "f64be", ">d", 8 }, { "f64le", "<d", 8 },
}

-- Bytes at which integers change their sign or their type, and those of numbers that are none.
local EDGES = {
  "\0", "\127\255\255\255\255\255\255\255", "\128\0\0\0\0\0\0\0", "\255\255\255\255\255\255\255\255",
  "\0\31\255\255\255\255\255\255", "\0\32\0\0\0\0\0\0", "\0\32\0\0\0\0\0\1", "\255\224\0\0\0\0\0\0",
  "\255\224\0\0\0\0\0\1", "\255\223\255\255\255\255\255\255", "\128\0\0\0\0\0\0\1",
  "\127\240\0\0\0\0\0\0", "\255\240\0\0\0\0\0\0", "\127\240\0\0\0\0\0\1", "\255\248\0\0\0\0\0\0",
  "\255\250\128\0\0\1\2\3", "\255\253\0\0\18\52\86\120", "\127\128\0\0", "\255\128\0\0", "\127\128\0\1",
  "\255\192\18\52", "\63\240\0\0\0\0\0\0", "\191\128\0\0", "\0\0\0\0\0\0\0\1", "\0\0\0\1",
}

describe("a view's readers", function()
  after_each(memory.finish)

  -- A handler that reads the frame by each reader `times` times, and tells where it differs from string.unpack.
  local function start(times)
    local Agent = {}
    local function describe_value(value) return value ~= value and "nan" or type(value) .. " " .. tostring(value) end
    function Agent:proceed(view)
      local text, wrong = view:string(), {}
      for _, reader in ipairs(READERS) do
        local name, format, bytes = reader[1], reader[2], reader[3]
        local read = view[name]
        for at = 1, #text - bytes + 1 do
          local expected = describe_value((string.unpack(format, text, at)))
          for _ = 1, times do
            local got = describe_value(read(view, at))
            if got ~= expected then wrong[#wrong + 1] = ("%s(%d): %s, not %s"):format(name, at, got, expected) break end
          end
        end
      end
      return #wrong == 0 and "ok" or table.concat(wrong, "\n")
    end
    -- However long that takes: it is about what is read.
    return memory.start(Agent, { frame = { "u32be", view = true }, limits = { proceed = "10m" } })
  end

  local function reversed(list)
    local all = {}
    for _, bytes in ipairs(list) do
      bytes = bytes .. ("\0"):rep(8 - #bytes)
      all[#all + 1] = bytes
      all[#all + 1] = bytes:reverse()
    end
    return table.concat(all)
  end

  for _, times in ipairs { 1, 200 } do
    it("read what string.unpack does, " .. times .. " times each", function()
      local client = start(times):connect()
      client:send(reversed(EDGES)):expect("ok")
      math.randomseed(times)
      for _ = 1, times == 1 and 20 or 3 do
        local bytes = {}
        for i = 1, 40 do bytes[i] = string.char(math.random(0, 255)) end
        client:send(table.concat(bytes)):expect("ok")
      end
    end)
  end

  it("make one NaN of all, which is a number whatever is done with it", function()
    local Agent = {}
    function Agent:proceed(view)
      local kept, sum = {}, 0
      for round = 1, 300 do
        for at = 1, view:len() - 7 do
          local value = view:f64be(at)
          kept[(round + at) % 50 + 1] = value
          sum = sum + (value == value and 1 or 0)
        end
      end
      for _, value in ipairs(kept) do assert(type(value) == "number" and tostring(value)) end
      return "alive " .. (sum > 0 and "some" or "none")
    end
    local client = memory.start(Agent, { frame = { "u32be", view = true } }):connect()
    for _, byte in ipairs { 248, 249, 250, 251, 252, 253, 254, 255 } do
      client:send(("\255" .. string.char(byte) .. "\18\52\86\120\1\2"):rep(6)):expect(function(text)
        return text:find "^alive" end)
    end
  end)

  it("raise where not all of it is there, and on a dead view", function()
    local kept
    local Agent = {}
    function Agent:proceed(view)
      local failed = {}
      for _, reader in ipairs(READERS) do
        for _, at in ipairs { 0, -1, view:len() - reader[3] + 2, 1e9, 0 / 0 } do
          local ok, message = pcall(view[reader[1]], view, at)
          if ok or not message:find "outside of it" then failed[#failed + 1] = reader[1] .. " " .. at end
        end
        assert(pcall(view[reader[1]], view, view:len() - reader[3] + 1))
      end
      kept = view
      return table.concat(failed, ", ")
    end
    function Agent:closed() memory.note(tostring(select(2, pcall(kept.f64be, kept, 1)))) end
    local app = memory.start(Agent, { frame = { "u32be", view = true, empty = "deliver" } })
    app:connect():send(("x"):rep(8)):expect(""):close()
    has("this view is dead", memory.notes(app, 1)[1])
  end)
end)
