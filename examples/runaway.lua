-- A handler that goes wrong ends its own connection, and no other. "loop" never returns, "fill" uses up
-- the worker's memory, "fail" raises. Everybody else gets their echo all the while.
local Agent = {}

local function fill()
  local kept = {}
  while true do kept[#kept + 1] = ("x"):rep(1000) .. #kept end
end

function Agent:proceed(line)
  if line == "loop" then
    while true do end
  end
  if line == "fill" then fill() end
  if line == "fail" then error("on purpose") end
  return line
end

return {
  listen = "tcp://127.0.0.1:9000",
  frame = "line",
  agent = Agent,
  limits = { proceed = "100ms", memory = "8m" },
}
