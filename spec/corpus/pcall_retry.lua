-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function work()
    while true do end
  end
  local function retry()
    local ok = pcall(work)
    if not ok then return retry() end
  end
  retry()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
