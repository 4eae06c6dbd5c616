-- expect: error
local function decode(_, position) return "frame", position end

local function encode(text) return text end

local Agent = {}

function Agent:proceed()

end

return { listen = "tcp://127.0.0.1:9000", agent = Agent, frame = { decode = decode, encode = encode } }
