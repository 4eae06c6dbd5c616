--- How a specification fails: at its own line, as a failure of busted's. Internal.
local M = {}

local OURS = "/perilune/test[%./]"

-- "spec/chat_spec.lua:14: ", where perilune.test was called.
local function place()
  local level = 3
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return "" end
    if info.what ~= "C" and not info.source:find(OURS) then
      return ("%s:%d: "):format(info.short_src, info.currentline)
    end
    level = level + 1
  end
end

--- Does not return.
---@param text string
function M.fail(text)
  local busted = package.loaded.busted
  text = place() .. text
  if busted then busted.fail(text, 0) end
  error(text, 0)
end

--- For misuse: the same, as an error.
---@param text string
function M.misuse(text) error(place() .. text, 0) end

--- An app that cannot be loaded, and what the server would say.
---@param name string of its file
---@param message string
function M.cannot_load(name, message)
  local missing = "error: " .. name .. ": "
  if message:sub(1, #missing) == missing then M.misuse(message:sub(#"error: " + 1)) end
  M.misuse(("%s cannot be loaded:\n%s"):format(name, message))
end

return M
