--- Servers that others have written, for specifications: started in a folder of their own, stopped by their pid.
---
---     local redis = program.redis()
---     redis.port, redis.path           -- both lead to it
---     redis:stop()
local command = require "spec.support.command"
local fcntl = require "posix.fcntl"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local socket = require "posix.sys.socket"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

---@class perilune.spec.program
---@field pid integer
---@field port integer on 127.0.0.1
---@field path string? of its Unix socket
---@field folder string
local program = {}
program.__index = program

local function connects(address)
  local fd = assert(socket.socket(address.family, socket.SOCK_STREAM, 0))
  local ok = socket.connect(fd, address)
  unistd.close(fd)
  return ok == 0
end

local function on_port(port) return { family = socket.AF_INET, addr = "127.0.0.1", port = port } end

-- One that nobody has at the moment.
local function free_port()
  local fd = assert(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0))
  assert(socket.bind(fd, on_port(0)))
  local port = socket.getsockname(fd).port
  unistd.close(fd)
  return port
end

-- Starts it and waits until something can connect; false: it has ended.
local function try(self, words)
  local pid = assert(unistd.fork())
  if pid == 0 then
    unistd.chdir(self.folder)
    stdlib.setenv("LC_ALL", "C")
    local out = fcntl.open(self.folder .. "/out", fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_APPEND, 420)
    for _, fd in ipairs { 1, 2 } do unistd.dup2(out, fd) end
    unistd.execp(words[0], words)
    unistd._exit(127)
  end
  self.pid = pid
  return wait.until_true(words[0] .. " to listen", function()
    if posix_wait.wait(pid, posix_wait.WNOHANG) == pid then return "ended" end
    return connects(on_port(self.port)) and "listens"
  end) == "listens"
end

-- The port may be somebody's by the time it is used.
local function start(make_words, port)
  local self = setmetatable({ folder = command.folder() }, program)
  for _ = 1, 10 do
    self.port = port or free_port()
    if try(self, make_words(self)) then return self end
  end
  error("cannot be started:\n" .. command.read(self.folder .. "/out"), 2)
end

--- Are the programs there that these names stand for?
function M.has(name) return command.has(name) end

---@param port integer? where one was before
---@return perilune.spec.program
function M.redis(port)
  return start(function(self)
    self.path = self.folder .. "/redis.sock"
    return { [0] = "redis-server", "--port", tostring(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path,
      "--save", "", "--dir", self.folder }
  end, port)
end

---@param port integer? where one was before
---@return perilune.spec.program
function M.memcached(port)
  return start(function(self)
    local words = { [0] = "memcached", "-p", tostring(self.port), "-l", "127.0.0.1", "-U", "0", "-m", "8" }
    if unistd.geteuid() == 0 then
      words[#words + 1] = "-u"
      words[#words + 1] = "nobody"
    end
    return words
  end, port)
end

--- A name server of a few records.
---@param records string[] options of dnsmasq
---@return perilune.spec.program
function M.dnsmasq(records)
  return start(function(self)
    local words = { [0] = "dnsmasq", "--keep-in-foreground", "--port=" .. self.port, "--listen-address=127.0.0.1",
      "--bind-interfaces", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=" }
    if unistd.geteuid() == 0 then words[#words + 1] = "--user=root" end
    for _, record in ipairs(records) do words[#words + 1] = record end
    return words
  end)
end

---@param name string "STOP", "CONT", "KILL"
function program:signal(name)
  assert(posix_signal.kill(self.pid, posix_signal["SIG" .. name]))
  -- It is sent, and not yet obeyed: a thread of it may still be answering somebody.
  if name == "STOP" then posix_wait.wait(self.pid, posix_wait.WUNTRACED) end
end

function program:stop()
  posix_signal.kill(self.pid, posix_signal.SIGTERM)
  posix_signal.kill(self.pid, posix_signal.SIGCONT) -- it may be stopped
  posix_wait.wait(self.pid)
  command.remove(self.folder)
end

return M
