-- A chat for browsers: one listener has the page, and at /chat a WebSocket for each of its visitors.
-- Who is there is in a local of this file, so everybody must be in one worker; see chat.lua.
--
--     perilune run examples/websocket_chat.lua
--     xdg-open http://127.0.0.1:8080/
local http = require "perilune.http"

local users = {} -- name → agent

local function tell_all(text, except)
  for _, user in pairs(users) do
    if user ~= except then user.conn:send(text) end
  end
end

local function names()
  local list = {}
  for name in pairs(users) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, ", ")
end

local Chat = {}

function Chat:opened(request)
  local name = request.args.name
  if not name or not name:find "^%w+$" then return self.conn:close(4000, "a name of letters and digits is needed") end
  if users[name] then return self.conn:close(4001, "this name is taken") end
  self.name, users[name] = name, self
  tell_all("* " .. name .. " has joined", self)
  return "* here are " .. names()
end

function Chat:proceed(message, meta)
  if not meta.binary then return tell_all(self.name .. ": " .. message) end
  self.conn:close(4002, "text is expected")
end

function Chat:closed()
  if not self.name then return end
  users[self.name] = nil
  tell_all("* " .. self.name .. " has left")
end

local PAGE = http.html [[
<!doctype html>
<title>chat</title>
<pre id="log"></pre>
<form><input id="line" autofocus autocomplete="off"></form>
<script>
const log = document.getElementById("log"), line = document.getElementById("line");
const name = prompt("Your name?");
const socket = new WebSocket(location.href.replace("http", "ws") + "chat?name=" + encodeURIComponent(name));
const show = text => log.append(text + "\n");
socket.onmessage = event => show(event.data);
socket.onclose = event => show("* the end: " + (event.reason || event.code));
document.forms[0].onsubmit = event => {
  event.preventDefault();
  socket.send(line.value);
  line.value = "";
};
</script>
]]

local CHAT = http.websocket(Chat, { origins = { "http://127.0.0.1:8080", "http://localhost:8080" } })

local Site = {}

function Site:proceed(request)
  if request.path == "/chat" then return CHAT end
  if request.path == "/" then return PAGE end
  return http.error(404)
end

return { listen = "http://127.0.0.1:8080", workers = 1, agent = Site }
