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

M.ORIGINS = 'a list of origins such as { "https://example.org" }, in lower case, without a path or the usual port'
M.SUBPROTOCOLS = 'a list of names such as { "chat.v2", "chat.v1" }, the one that is liked best first'

return M
