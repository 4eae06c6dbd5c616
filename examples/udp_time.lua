-- What time is it? Over UDP: a datagram with nothing in it is answered as RFC 868 says, with the seconds since 1900 in
-- four bytes; one with the word "time" in words.
--
--   scripts/run examples/udp_time.lua
--   printf time | nc -u -w 1 127.0.0.1 9037

-- RFC 868: 1 January 1900 is so many seconds before 1970, and the number is one of 32 bits.
local FROM_1900_TO_1970 = 2208988800

local Time = {}

function Time:proceed(datagram)
  local now = os.time()
  if datagram == "" then return string.pack(">I4", (now + FROM_1900_TO_1970) % 2 ^ 32) end
  if datagram == "time" then return os.date("!%Y-%m-%dT%H:%M:%SZ", now) end
  -- Whatever else it may be, there is no reason to answer.
end

return { listen = "udp://127.0.0.1:9037", frame = { "datagram", max = "16b" }, agent = Time }
