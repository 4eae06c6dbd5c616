--- Chromium without a window, which opens a page and is ended by its process group. What the page finds out it has to
--- tell its server: nothing is asked of the browser itself.
---
---     local chromium = browser.open "http://127.0.0.1:8080/"
---     app:wait_log("a page has seen this", browser.SECONDS)
---     chromium:close()
local command = require "spec.support.command"
local fcntl = require "posix.fcntl"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"

local M = {}

--- What a page may take on a machine that is busy with other things.
M.SECONDS = 300

-- Debian's package has a script of this name in the PATH; what it calls can be ended by its id.
local PROGRAMS = { "/usr/lib/chromium/chromium-headless-shell", "/usr/lib/chromium/chromium" }

---@class perilune.spec.browser
---@field pid integer of the process, and of its group
---@field folder string
local browser = {}
browser.__index = browser

local function program()
  for _, path in ipairs(PROGRAMS) do
    if command.exists(path) then return path end
  end
end

--- Is there one?
---@return boolean
function M.is_there() return program() ~= nil end

-- Runs in the child. The certificates of specifications are nobody's, and inside a container there is no sandbox.
local function become(path, folder, url)
  unistd.setpid("p", 0, 0)
  unistd.chdir(folder)
  stdlib.setenv("HOME", folder)
  local out = fcntl.open("out", fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_APPEND, 420)
  for _, fd in ipairs { 1, 2 } do unistd.dup2(out, fd) end
  unistd.execp(path, { [0] = path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--no-first-run", "--no-proxy-server", "--ignore-certificate-errors",
    "--user-data-dir=" .. folder .. "/profile", "--remote-debugging-port=0", url })
  unistd._exit(127)
end

---@param url string
---@return perilune.spec.browser
function M.open(url)
  local self = setmetatable({ folder = command.folder() }, browser)
  local path = assert(program())
  self.pid = assert(unistd.fork())
  if self.pid == 0 then become(path, self.folder, url) end
  return self
end

--- What it has said, for a message of failure.
---@return string
function browser:text() return command.read(self.folder .. "/out") end

function browser:close()
  posix_signal.kill(self.pid, posix_signal.SIGKILL)
  posix_signal.kill(-self.pid, posix_signal.SIGKILL)
  posix_wait.wait(self.pid)
  command.remove(self.folder)
end

return M
