--- What the handshake of a WebSocket has in it, for settings and for http.websocket(…).
local headers = require "perilune.headers"

local M = {}

--- "https://example.org", as browsers send it.
---@param text any
---@return boolean
function M.is_origin(text)
  if type(text) ~= "string" then return false end
  if text:find "^https://.*:443$" or text:find "^http://.*:80$" then return false end
  return text == "null" or text:find "^%l[%l%d+.-]*://[^/%s%u]+$" ~= nil
end

--- A token, as Sec-WebSocket-Protocol has it.
---@type fun(text: any): boolean
M.is_subprotocol = headers.is_token

--- A copy of a list, each item of which is right; nil, and what is wrong.
---@param value any
---@param is_item fun(item: any): boolean
---@return string[]?
---@return any wrong
function M.list(value, is_item)
  if type(value) ~= "table" then return nil, value end
  local list = {}
  for key in next, value do
    local is_right = type(key) == "number" and key >= 1 and key <= #value and is_item(value[key])
    if not is_right then return nil, value[key] end
    list[key] = value[key]
  end
  return list
end

--- Is a page from there meant by the list?
---@param origins string[]
---@param origin string as the client has sent it: names of hosts have no case
---@return boolean
function M.is_listed(origins, origin)
  local lower = origin:lower()
  for _, item in ipairs(origins) do
    if item == lower then return true end
  end
  return false
end

M.ORIGINS = 'a list of origins such as { "https://example.org" }, in lower case, without a path or the usual port'
M.SUBPROTOCOLS = 'a list of names such as { "chat.v2", "chat.v1" }, the one that is liked best first'

return M
