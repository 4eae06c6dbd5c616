-- @NAME@: a chat with names and rooms. What belongs to a connection is in its agent; what all of them share is a local
-- of this file. Each worker thread has its own copy of the file, so everybody has to be in one worker; and each reload
-- makes another one, into whose tables agents have to follow.
--
--   perilune run --watch
--   nc 127.0.0.1 9000            (twice: the first line is your name)
local LOBBY = "lobby"
local NAME = "^[%w_-]+$"
local NAME_MAX = 20

local users = {} ---@type table<string, Chat> by name
local rooms = {} ---@type table<string, table<Chat, true>> by name; no empty ones

---@class Chat: perilune.agent
---@field name string? once it is known
---@field room string? where this user is
local Chat = {}

local function is_name(text) return text:find(NAME) and #text <= NAME_MAX end

-- Says something to everybody in a room but one.
local function tell(room, text, except)
  for user in pairs(rooms[room] or {}) do
    if user ~= except then user.conn:send(text) end
  end
end

local function names_in(room)
  local names = {}
  for user in pairs(rooms[room]) do names[#names + 1] = user.name end
  table.sort(names)
  return table.concat(names, " ")
end

function Chat:enter(room)
  rooms[room] = rooms[room] or {}
  rooms[room][self] = true
  self.room = room
  tell(room, ("* %s is here"):format(self.name), self)
  return ("you are in %s with: %s"):format(room, names_in(room))
end

function Chat:leave()
  local room = self.room
  rooms[room][self] = nil
  self.room = nil
  tell(room, ("* %s has left"):format(self.name))
  if not next(rooms[room]) then rooms[room] = nil end
end

-- What follows a "/": the name of a command, and then its argument. A method each.
local commands = {}

function commands:who() return names_in(self.room) end

function commands:join(room)
  if not is_name(room) then return "/join ROOM: letters, digits, _ and - only, at most " .. NAME_MAX end
  if room == self.room then return "you are there" end
  self:leave()
  return self:enter(room)
end

function commands:quit() return "bye", "close" end

function Chat:opened() return "your name?" end

function Chat:introduce(name)
  if not is_name(name) then return "letters, digits, _ and - only, at most " .. NAME_MAX end
  if users[name] then return "that name is taken" end
  self.name, users[name] = name, self
  return self:enter(LOBBY)
end

function Chat:proceed(line)
  if not self.name then return self:introduce(line) end
  local name, argument = line:match("^/(%w+)%s*(.-)%s*$")
  if not name then return tell(self.room, self.name .. ": " .. line, self) end
  local command = commands[name]
  if not command then return "there are: /join ROOM, /who, /quit" end
  return command(self, argument)
end

function Chat:timeout(kind)
  if kind == "idle" then return "you have been silent for too long" end
end

function Chat:drain() return "the server is going down" end

-- Runs once for every agent, whatever ended its connection: so nobody stays in the tables.
function Chat:closed()
  if not self.name then return end
  users[self.name] = nil
  self:leave()
end

-- A reload: the old agent says what the new one is to know. Nobody comes or leaves by that.
function Chat:snapshot() return { name = self.name, room = self.room } end

function Chat:upgrade(old)
  if not old.name then return end
  if users[old.name] then -- by somebody who came in this very moment
    self.conn:send("your name has been taken; another one?")
    return
  end
  self.name, users[old.name] = old.name, self
  self.room = old.room
  rooms[old.room] = rooms[old.room] or {}
  rooms[old.room][self] = true
end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1,
  reload = "migrate",
  frame = { "line", max = "1k", empty = "ignore" },
  agent = Chat,
  -- Who does not read what is said is dropped rather than waited for.
  limits = { connections = 5000, per_ip = 100, send_buffer = "64k", slow_consumer = "close" },
  timeout = { idle = "5m", first_frame = "30s" },
}
