-- An API: 200 routes with parameters, a handler that reads ten header fields, a table for a reply: 200 bytes of JSON.
local http = require "perilune.http"

local FIELDS = {
  "Host", "User-Agent", "Accept", "Accept-Language", "Accept-Encoding",
  "Authorization", "Cookie", "X-Request-Id", "X-Forwarded-For", "Referer",
}

local api = http.router()

local function item_of(request)
  local headers, bytes = request.headers, 0
  for i = 1, #FIELDS do bytes = bytes + #headers[FIELDS[i]] end
  local params = request.params
  return {
    user = params.user,
    item = params.item,
    name = "a thing of medium size, as they go in shops in all countries",
    tags = { "red", "round", "heavy" },
    price = 1295,
    stock = { here = 12, elsewhere = 340 },
    bytes = bytes,
  }
end

for i = 1, 200 do api:get(("/things%d/{user}/items/{item}"):format(i), item_of) end

return {
  listen = "http://127.0.0.1:0",
  limits = { connections = 20000 },
  agent = api,
}
