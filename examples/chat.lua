-- A chat room: state of a connection lives in its agent, what all of them share in a local of this file.
-- Each worker has its own copy of the file, so a room that everybody is in needs one worker. So has each generation of
-- it, which a reload makes: so agents migrate, and put themselves into the new one's table.
--
--   scripts/run examples/chat.lua
--   nc 127.0.0.1 9000            (twice: the first line is your name)
local users = {} -- name → agent

local function tell_all(text, except)
  for _, user in pairs(users) do
    if user ~= except then user.conn:send(text) end
  end
end

local Chat = {}

function Chat:opened()
  return "your name?"
end

function Chat:join(name)
  if not name:find("^[%w_-]+$") or #name > 20 then return "letters, digits, _ and - only, at most 20" end
  if users[name] then return "that name is taken" end
  self.name, users[name] = name, self
  tell_all("* " .. name .. " joined", self)
  return "welcome, " .. name
end

function Chat:proceed(line)
  if not self.name then return self:join(line) end
  if line == "/quit" then return "bye", "close" end
  tell_all(self.name .. ": " .. line, self)
end

function Chat:timeout(kind)
  if kind == "idle" then return "you have been silent for too long" end
end

function Chat:drain()
  return "the server is going down"
end

-- Runs once for every agent, whatever ended its connection.
function Chat:closed()
  if not self.name then return end
  users[self.name] = nil
  tell_all("* " .. self.name .. " left")
end

-- A reload: the old agent says what the new one is to know. Nobody joins or leaves by that.
function Chat:snapshot() return { name = self.name } end

function Chat:upgrade(old)
  if old.name and users[old.name] then -- by somebody who came in this very moment
    self.conn:send("your name has been taken; another one?")
  elseif old.name then
    self.name, users[old.name] = old.name, self
  end
end

return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1,
  reload = "migrate",
  frame = { "line", max = "1k", empty = "ignore" },
  agent = Chat,
  -- Whoever does not read what is said is dropped rather than waited for.
  limits = { connections = 1000, per_ip = 100, send_buffer = "64k", slow_consumer = "close" },
  timeout = { idle = "5m" },
}
