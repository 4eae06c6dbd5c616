-- expect: memory
local Agent = {}

function Agent:proceed()
  local n = 0
  for i = 1, 1e6 do n = n + #tostring(i):rep(3) end
  return tostring(n)
end

return {
  listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent,
  limits = { proceed = "20s", allocation = "1m" },
}
