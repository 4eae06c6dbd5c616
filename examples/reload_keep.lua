-- What a script keeps: a table of its own, which the next version of the script is given, and the next process.
--
--   scripts/run examples/reload_keep.lua
--   nc 127.0.0.1 9000: a name is a vote for it, "votes" lists them. Then change TITLE, kill -HUP, and list them again
local TITLE = "votes so far"

local votes = {}

local Poll = {}

function Poll:proceed(line)
  if line ~= "votes" then
    votes[line] = (votes[line] or 0) + 1
    return ("%s has %d"):format(line, votes[line])
  end
  local list = {}
  for name, count in pairs(votes) do list[#list + 1] = ("%s %d"):format(name, count) end
  table.sort(list)
  return ("%s: %s"):format(TITLE, table.concat(list, ", "))
end

return {
  listen = "tcp://127.0.0.1:9000", frame = "line", agent = Poll,
  workers = 1, -- each worker has its own `votes`, and keeps its own
  snapshot = function() return votes end,
  setup = function(_, data) votes = data or votes end,
}
