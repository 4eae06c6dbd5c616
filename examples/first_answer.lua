-- Asks two backends the same at once, and takes the answer that comes first: a slow one, or one that is down, costs
-- nobody time.
--
--   for port in 9103 9104; do build/perilune run examples/echo.lua --listen tcp://127.0.0.1:$port & done
--   scripts/run examples/first_answer.lua
--   nc 127.0.0.1 9041
local perilune = require "perilune"

local BACKENDS = { "tcp://127.0.0.1:9103", "tcp://127.0.0.1:9104" }
local OPTIONS = { frame = "line", timeout = { connect = "1s", read = "2s" } }

-- A connection is the agent's. Who loses is cancelled wherever it waits, and what it has deferred ends its connection.
local function ask(address, question)
  local conn, why = perilune.connect(address, OPTIONS)
  if not conn then return nil, why end
  perilune.defer(function() conn:close() end)
  conn:send(question)
  return conn:read()
end

local First = {}

function First.proceed(_, line)
  local questions = {}
  for i, address in ipairs(BACKENDS) do
    questions[i] = function() return ask(address, line) end
  end
  local answer, why = perilune.any(questions)
  return answer or "nobody answers: " .. why
end

return { listen = "tcp://127.0.0.1:9041", frame = "line", agent = First }
