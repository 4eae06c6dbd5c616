-- expect: memory
local Agent = {}

function Agent:proceed()
  local t = {}
  for i = 1, 1e6 do t[i] = { i } end
end

return {
  listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent,
  limits = { proceed = "20s", allocation = "1m" },
}
