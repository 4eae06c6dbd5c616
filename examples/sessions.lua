-- Sessions that outlive connections: a basket for each user, which is there again when the user comes back, by whatever
-- connection, on whatever worker. A basket is an agent without a socket; it ends when its user was away for long.
--
--   scripts/run examples/sessions.lua
--   nc 127.0.0.1 9047     # type: login 42, put apple, show; end it, and begin anew with login 42, show
local perilune = require "perilune"

local Basket = {}

function Basket:opened() self.items = {} end

-- Of one user's connections, the messages come one after the other: nobody else changes the basket meanwhile.
function Basket:message(_, request)
  if request.put then self.items[#self.items + 1] = request.put end
  if request.empty then return "emptied", "close" end
  return #self.items > 0 and table.concat(self.items, ", ") or "nothing yet"
end

local Shop = {}

function Shop:ask(request)
  local reply, message = perilune.call("basket:" .. self.user, request)
  return reply or "try again: " .. message
end

function Shop:proceed(line)
  local command, argument = line:match "^(%l+) ?(.*)$"
  if command == "login" and argument ~= "" and #argument <= 32 then
    self.user = argument
    return "hello " .. argument
  end
  if not self.user then return "first: login NAME" end
  if command == "put" then return self:ask { put = argument } end
  if command == "show" then return self:ask {} end
  if command == "empty" then return self:ask { empty = true } end
  return "put ITEM, show, empty"
end

return {
  listen = "tcp://127.0.0.1:9047",
  frame = "line",
  agent = Shop,
  agents = { basket = { agent = Basket, idle = "30m" } },
}
