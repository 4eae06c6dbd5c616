--- Coroutines of handlers that are not resumed any more, as keys. A handler that was ended by a yield, or whose peer left
--- while it waited, has the status "suspended" for ever.
---@type table<thread, true>
return setmetatable({}, { __mode = "k" })
