--- MQTT's packets, cut in C: a byte of type and flags, a varint of what remains, and that. So a handler gets whole
--- packets, and what it returns is one: `frame = { "varint", offset = 1 }`.
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local MQTT = { "varint", offset = 1, max = "256k" }

-- What a broker says to a client, and nothing more: a frame is the first byte, then what the length announces.
local Broker = {}

function Broker:proceed(packet)
  local kind = math.floor(packet:byte() / 16)
  if kind == 1 then return "\32\0\0" end                                                 -- CONNECT: CONNACK
  if kind == 12 then return "\208" end                                                   -- PINGREQ: PINGRESP
  if kind == 14 then return nil, "close" end                                             -- DISCONNECT
  if kind ~= 3 then return nil, "close" end
  local topic_bytes = packet:byte(2) * 256 + packet:byte(3)
  local id = packet:sub(4 + topic_bytes, 5 + topic_bytes)
  self.conn:send("\49" .. packet:sub(2, 3 + topic_bytes) .. packet:sub(6 + topic_bytes)) -- to whom it may concern
  return "\64" .. id                                                                     -- PUBLISH, QoS 1: PUBACK
end

local CONNECT = "\16\14\0\4MQTT\4\2\0\60\0\2me"
local CONNACK, PINGREQ, PINGRESP, DISCONNECT = "\32\2\0\0", "\192\0", "\208\0", "\224\0"

-- A length of one byte, or of three.
local function publish(payload)
  local long = #payload > 100
  local rest = "\0\3a/b\1\2" .. payload
  local sent = "\50" .. (long and string.char(#rest % 128 + 128, math.floor(#rest / 128) % 128 + 128, 4)
    or string.char(#rest)) .. rest
  local passed_on = "\0\3a/b" .. payload
  local n = #passed_on
  return sent, "\49" .. (long and string.char(n % 128 + 128, math.floor(n / 128) % 128 + 128, 4) or string.char(n))
    .. passed_on .. "\64\2\1\2"
end

describe("MQTT", function()
  after_each(memory.finish)

  local function connect() return memory.raw(memory.start(Broker, { frame = MQTT })) end

  it("is cut into its packets, and what is returned gets its header", function()
    local sent, answer = publish("hello")
    connect():send(CONNECT):expect(CONNACK):send(sent):expect(answer):send(PINGREQ):expect(PINGRESP)
      :send(DISCONNECT):expect_nothing():expect_closed("agent")
  end)

  it("has lengths of several bytes", function()
    local sent, answer = publish(("x"):rep(70000))
    assert.is_true(answer == memory.bytes(connect():send(CONNECT):expect(CONNACK):send(sent)))
  end)

  it("is the same wherever the stream is cut", function()
    perilune.splits({ CONNECT, PINGREQ, (publish "hello"), PINGREQ }, connect)
  end)

  it("is framed for a client in a specification as well", function()
    local client = memory.start(Broker, { frame = MQTT }):connect()
    client:send(CONNECT:sub(1, 1) .. CONNECT:sub(3)):expect("\32\0\0"):send("\192"):expect("\208")
  end)

  it("that is over the limit is refused at its length, and a length without an end is no packet", function()
    connect():send("\48\129\128\16"):expect_nothing():expect_closed("oversize")
    connect():send("\48\128\128\0"):expect_nothing():expect_closed("frame_error")
    connect():send("\48" .. ("\255"):rep(10)):expect_nothing():expect_closed("frame_error")
  end)

  it("can begin on a connection that began with lines, and be asked for alone", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "read" then return (self.conn:read(MQTT):gsub("%c", ".")) end
      if line == "mqtt" then self.conn:set_frame(MQTT) return "\32\0\0" end
      return "got " .. (line:gsub("%c", "."))
    end
    memory.raw(memory.lines(Agent)):send("read\n" .. PINGREQ):expect("\192\n"):send("a\nmqtt\n" .. PINGREQ)
      :expect("got a\n" .. CONNACK .. "g\4ot \192")
  end)
end)
