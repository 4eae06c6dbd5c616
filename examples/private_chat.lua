-- Private messages between clients of any worker: who logs in has a name, and what is sent to a name comes to its
-- agent's message().
--
--   scripts/run examples/private_chat.lua
--   nc 127.0.0.1 9048            (twice: login ann, login bob; then: msg bob hello)
local perilune = require "perilune"

local Chat = {}

local HELP = "login NAME, take NAME, msg NAME text, or quit"

-- "take" is for who has lost a connection and comes again before the server has noticed: the old one loses the name.
function Chat:login(name, replace)
  if not name:find "^[%w_-]+$" or #name > 20 then return "letters, digits, _ and - only, at most 20" end
  if self.name then return "you are " .. self.name end
  local ok, message, code = perilune.register("chat " .. name, { replace = replace })
  if code == "EEXIST" then return name .. " is logged in already: take " .. name end
  if not ok then return message end
  self.name = name
  return "welcome, " .. name
end

-- The reply of the other's message() is the receipt.
function Chat:tell(name, text)
  if not self.name then return "login first" end
  local receipt, message, code = perilune.call("chat " .. name, { from = self.name, text = text }, "2s")
  if receipt then return receipt end
  if code == "ENOENT" then return name .. " is not here" end
  if code == "EDEADLK" then return "that is you" end
  return name .. " does not get it: " .. message
end

function Chat:proceed(line)
  if line == "quit" then return "bye", "close" end
  local command, rest = line:match "^(%a+) (.*)$"
  if command == "login" then return self:login(rest, false) end
  if command == "take" then return self:login(rest, true) end
  local name, text = (rest or ""):match "^(%S+) (.+)$"
  if command == "msg" and name then return self:tell(name, text) end
  return HELP
end

-- On whatever worker that is. What it returns goes to who has called, and not to this client.
function Chat:message(_, data)
  self.conn:send(("%s: %s"):format(data.from, data.text))
  return "told " .. self.name
end

-- A reload: the name goes along by itself.
function Chat:snapshot() return { name = self.name } end
function Chat:upgrade(old) self.name = old.name end

return {
  listen = "tcp://127.0.0.1:9048",
  frame = { "line", max = "1k", empty = "ignore" },
  agent = Chat,
  reload = "migrate",
  limits = { mailbox = 100 }, -- messages that wait for one client
  timeout = { idle = "5m" },
}
