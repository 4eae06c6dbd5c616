-- expect: error|proceed_timeout
local Agent = {}

function Agent:proceed()
  local compare
  function compare(a, b)
    table.sort({ 3, 2, 1 }, compare)
    return a < b
  end
  table.sort({ 3, 2, 1 }, compare)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
