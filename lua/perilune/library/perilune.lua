---@meta perilune

-- Types of Perilune's API for language servers (LuaCATS): `perilune new` writes a .luarc.json that leads here. No code:
-- what these do is in docs/reference.md, and a test holds the two and the program together.

---@alias perilune.duration number|string|false seconds, or a text such as "250ms", "30s", "5m"; 0 and false: off
---@alias perilune.size integer|string bytes, or a text such as "64k", "1m"
---@alias perilune.level "debug"|"info"|"warn"|"error"

--- `require "perilune"`: in handlers, and in `perilune exec`. While a script is only being checked, and at its top
--- level during that check, its functions raise.
---@class perilune
local perilune = {}

--- Suspends the running handler; frames that arrive meanwhile wait, other connections go on. The time counts from the
--- call, whatever was computed before it: a wait may take longer, never less. A disconnect cancels the wait, and the
--- handler with it. 0 lets others have their turn. Raises where nothing can wait.
---@param duration perilune.duration
function perilune.sleep(duration) end

--- Seconds on a monotonic clock. In a server it is read when events have come and when a wait is over, so it stands
--- still while a handler computes; in `perilune exec` it goes on.
---@return number seconds
function perilune.now() end

--- Writes a log entry; in a handler it names connection, peer and listener. Fields, at most 16, stand beside these:
--- their names have letters, digits and _, at most 32, and are none of the server's own; a text longer than 512 bytes
--- is cut. What cannot be written raises, and so does an argument too many.
---@param level perilune.level
---@param message string
---@param fields? table<string, string|number|boolean>
function perilune.log(level, message, fields) end

return perilune
