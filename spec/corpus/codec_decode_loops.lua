-- expect: proceed_timeout
local function decode()
  while true do end
end

local function encode(text) return text end

local Agent = {}

function Agent:proceed()

end

return { listen = "tcp://127.0.0.1:9000", agent = Agent, frame = { decode = decode, encode = encode } }
