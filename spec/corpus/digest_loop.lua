-- expect: proceed_timeout
local crypto = require("perilune").crypto
local text = ("x"):rep(1e6)
local Agent = {}

function Agent:proceed()
  while true do
    pcall(crypto.hmac, "sha512", text, text)
    pcall(crypto.open, text:sub(1, 16), text:sub(1, 12), crypto.seal(text:sub(1, 16), text:sub(1, 12), text))
    pcall(crypto.verify, text, text, text)
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
