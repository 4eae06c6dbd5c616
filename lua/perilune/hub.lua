--- Topics: perilune.hub. Made when it is first asked for.
local core = package.loaded["perilune.core"]

local function pick(name)
  local found = core and core["hub_" .. name]
  if found then return found end
  local why = core and core.is_job and "not in a job, which has no agent" or "only inside a running server"
  return function() error(("perilune.hub.%s: %s"):format(name, why), 2) end
end

local M = {}

--- Publishes to a topic, on behalf of whoever runs.
---@type fun(topic: string, data: string|number|table, options: table?): boolean?, string?, string?
M.publish = pick "publish"

--- How many members a message to a topic would be for, on all workers.
---@type fun(topic: string): integer?, string?, string?
M.count = pick "count"

--- What was published and what has become of it, of the whole process, or of one topic or pattern that has members.
---@type fun(topic: string?): table?
M.stats = pick "stats"

return M
