-- Takes an order, JSON of 4 KiB, and answers with JSON.
local http = require "perilune.http"

local Orders = {}

function Orders:proceed(request)
  local order, message = request:json()
  if not order then return http.error(400, message) end
  local pieces = 0
  for _, item in ipairs(order.items) do pieces = pieces + item.pieces end
  return { order = order.order, items = #order.items, pieces = pieces }
end

return {
  listen = "http://127.0.0.1:0",
  limits = { connections = 20000 },
  agent = Orders,
}
