-- expect: proceed_timeout
local function decode(bytes, position)
  local stop = bytes:find("\n", position, true)
  if stop then return bytes:sub(position, stop - 1), stop + 1 end
end

local function encode()
  while true do end
end

local Agent = {}

function Agent:proceed()
  return "x"
end

return { listen = "tcp://127.0.0.1:9000", agent = Agent, frame = { decode = decode, encode = encode } }
