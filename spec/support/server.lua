--- The real binary, running a script, with clients of its own.
---
---     after_each(server.finish)
---     local app = server.start { script = "return { … }" }
---     app:connect():echo_line("hello")
---
--- However a server ends, it is checked: no report of a sanitizer, every log line whole, every connection
--- accounted for. One that the specification did not stop has to end with 0 when it is asked to.
local client = require "spec.support.client"
local command = require "spec.support.command"
local dirent = require "posix.dirent"
local ffi = require "ffi"
local fcntl = require "posix.fcntl"
local json_decode = require "spec.support.json_decode"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local resource = require "posix.sys.resource"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

-- A write to a peer that has gone is an error, not the end of the specifications.
posix_signal.signal(posix_signal.SIGPIPE, posix_signal.SIG_IGN)

-- Who an upgrade has started is ours to wait for once its parent has gone (PR_SET_CHILD_SUBREAPER).
ffi.cdef [[
  int prctl(int option, unsigned long, unsigned long, unsigned long, unsigned long);
  int setsid(void);
  long readlink(const char *path, char *text, size_t size);
  int sigprocmask(int how, const unsigned long *set, unsigned long *before);
]]
ffi.C.prctl(36, 1, 0, 0, 0)

-- luaposix takes the links in /proc for truncated: their size is not that of their text.
local function readlink(path)
  local text = ffi.new "char[512]"
  local n = tonumber(ffi.C.readlink(path, text, 512))
  return n >= 0 and ffi.string(text, n) or nil
end

local read = command.read

--- "address", "thread" or nil: what the binary was built with.
M.sanitizer = (function()
  local file = io.open(command.binary, "rb")
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return text:find("__asan_init", 1, true) and "address" or text:find("__tsan_init", 1, true) and "thread" or nil
end)()

--- How much more processor time the same takes in this build.
M.SLOWER = M.sanitizer and 3 or 1

--- Does resident memory say anything about ours? ThreadSanitizer's shadow drowns it.
M.measures_memory = M.sanitizer ~= "thread"

--- For `asan` where memory is measured. AddressSanitizer keeps what is freed: 256 MiB of it, and 1 MiB more for each
--- thread, which would drown what a server holds.
M.SMALL_QUARANTINE = "quarantine_size_mb=1:thread_local_quarantine_size_kb=16"

--- `full` of a quantity, or `reduced` where everything is several times slower.
function M.scaled(full, reduced) return M.sanitizer and reduced or full end

--- In front of a script: note(text) writes a log entry, which wait_log() finds.
M.NOTE = [[local perilune = require "perilune"; local function note(text) perilune.log("info", text) end; ]]

local running = {}

---@class perilune.server
---@field pid integer
---@field port integer? of the first listener
---@field listeners { name: string, address: string, host: string?, port: integer?, path: string? }[]
---@field folder string
local server = {}
server.__index = server

-- ---- starting ----

local KEPT = { PERILUNE_LUA_PATH = true }

-- Socket activation: descriptors from 3 on, none of which is there yet. Runs in the child.
local function pass_on(fds)
  local copies = {}
  for i, fd in ipairs(fds) do copies[i] = fcntl.fcntl(fd, fcntl.F_DUPFD, 100) end
  for i, fd in ipairs(copies) do
    unistd.dup2(fd, 2 + i)
    unistd.close(fd)
  end
  stdlib.setenv("LISTEN_FDS", tostring(fds.count or #fds))
  stdlib.setenv("LISTEN_PID", tostring(fds.pid or unistd.getpid()))
  if fds.names then stdlib.setenv("LISTEN_FDNAMES", fds.names) end
end

-- Runs in the child, between fork and exec.
local function set_environment(options)
  for name in pairs(stdlib.getenv()) do
    if name:find("^PERILUNE_") and not KEPT[name] then stdlib.setenv(name, nil) end
  end
  for name, value in pairs(options.env or {}) do stdlib.setenv(name, value) end
  if options.asan then
    stdlib.setenv("ASAN_OPTIONS", (stdlib.getenv("ASAN_OPTIONS") or "") .. ":" .. options.asan)
  end
end

local function redirect(path, fd)
  local file = fcntl.open(path, fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_TRUNC + fcntl.O_APPEND, 420)
  unistd.dup2(file, fd)
  unistd.close(file)
end

-- Runs in the child: what else it begins with.
local function leave_behind(options)
  if options.terminal then
    if options.terminal.owns then ffi.C.setsid() end
    local fd = fcntl.open(options.terminal.path,
      options.terminal.owns and fcntl.O_RDWR or fcntl.O_RDWR + fcntl.O_NOCTTY)
    unistd.dup2(fd, 0)
    unistd.close(fd)
  end
  for _, fd in ipairs(options.closed or {}) do unistd.close(fd) end
  for fd, to in pairs { [1] = options.stdout, [2] = options.stderr } do
    local opened = fcntl.open(to[1], to[2])
    unistd.dup2(opened, fd)
    unistd.close(opened)
  end
  for _, name in ipairs(options.ignored or {}) do
    posix_signal.signal(posix_signal["SIG" .. name], posix_signal.SIG_IGN)
  end
  if options.blocked then ffi.C.sigprocmask(0, ffi.new("unsigned long[16]", { -1ULL, 0 }), nil) end -- SIG_BLOCK
end

-- What we have open, and who runs us: CTest has its log at descriptor 3. Runs in the child.
local function close_others(kept)
  local wanted = {}
  for _, fd in ipairs(kept) do wanted[fd] = true end
  for _, name in ipairs(dirent.dir "/proc/self/fd") do
    local fd = tonumber(name)
    if fd and fd > 2 and not wanted[fd] then unistd.close(fd) end
  end
end

local function become(self, options, words)
  posix_signal.signal(posix_signal.SIGPIPE, posix_signal.SIG_DFL)
  close_others(options.fds or {})
  set_environment(options)
  unistd.chdir(options.dir or self.folder)
  redirect(self.folder .. "/out", 1)
  redirect(self.folder .. "/err", 2)
  unistd.close(0)
  fcntl.open("/dev/null", fcntl.O_RDONLY)
  if options.nofile then
    resource.setrlimit(resource.RLIMIT_NOFILE, { rlim_cur = options.nofile, rlim_max = options.nofile })
  end
  if options.fsize then
    resource.setrlimit(resource.RLIMIT_FSIZE, { rlim_cur = options.fsize, rlim_max = options.fsize })
  end
  if options.fds then pass_on(options.fds) end
  leave_behind(options)
  unistd.execp(words[0], words)
  unistd._exit(127)
end

local function launch(options)
  local folder = options.folder or command.folder()
  local self = setmetatable({
    folder = folder, own_folder = not options.folder, clients = {}, entries = {}, at = 1,
    format = options.format or "json", binary = options.binary,
    log_file = options.log_file and folder .. "/" .. options.log_file,
  }, server)
  local path = options.file or command.write(folder .. "/app.lua", options.script)
  for name, text in pairs(options.modules or {}) do command.write(folder .. "/" .. name .. ".lua", text) end
  command.write(folder .. "/err", "")
  if self.log_file then os.execute("mkdir -p " .. self.log_file:match "^(.*)/") end
  local words = { [0] = options.binary or command.binary, "run", path }
  if not options.scripts_own then
    words[#words + 1] = "--log-format=" .. self.format
    words[#words + 1] = "--workers=" .. (options.workers or 1)
    -- In places that all share it would be in the way of others.
    words[#words + 1] = "--control=" .. (options.control or "off")
  end
  if options.log_file then words[#words + 1] = "--log-file=" .. options.log_file end
  for _, word in ipairs(options.args or {}) do words[#words + 1] = word end
  local pid = assert(unistd.fork())
  if pid == 0 then become(self, options, words) end
  self.pid = pid
  running[#running + 1] = self
  return self
end

-- "tcp://[::1]:80", "unix:///a" in parts.
local function listener_of(entry)
  local host, port = entry.address:match("^%a+://%[?([^%]]-)%]?:(%d+)$")
  return {
    name = entry.listener, address = entry.address, host = host, port = tonumber(port),
    path = entry.address:match("^unix://(.*)$"),
  }
end

-- The same from text: "12:00:00.000 info  listening  address=… listener=…".
local function listener_of_line(line)
  local address, name = line:match("  listening  address=(%S+)  listener=(.*)$")
  return address and listener_of { address = address, listener = name }
end

local function find_listeners(self)
  local found = {}
  if self.format == "text" then
    for line in self:text():gmatch("[^\n]+") do found[#found + 1] = listener_of_line(line) end
    return self:text():find("serving  script=", 1, true) and found
  end
  for _, entry in ipairs(self:log()) do
    if entry.message == "listening" then found[#found + 1] = listener_of(entry) end
    if entry.message == "serving" then return found end
  end
end

local SAID_MAX = 6000

-- The same for a message of failure: the beginning and the end of it.
local function said(self)
  local text = self:text()
  if #text <= SAID_MAX then return "it said:\n" .. text end
  return "it said:\n" .. text:sub(1, SAID_MAX / 2) .. "\n[…]\n" .. text:sub(-SAID_MAX / 2)
end

local REPORTS = { "AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:", "Assertion", "PANIC" }

-- No sanitizer had anything to say, and no signal ended it.
local function check_reports(self)
  local text = self:text()
  for _, report in ipairs(REPORTS) do
    if text:find(report, 1, true) then error("the server failed; " .. said(self), 0) end
  end
  if self.ended.how ~= "exited" then
    error(("the server was %s by signal %d; %s"):format(self.ended.how, self.ended.code, said(self)), 0)
  end
end

--- Starts the binary, and does not wait: for what happens before it serves.
---@return perilune.server
M.launch = launch

--- Starts the binary on a script and waits until it serves. One worker, unless `workers` says otherwise.
---@param options { script: string?, file: string?, modules: table<string, string>?, args: string[]?,
---  env: table<string, string>?, asan: string?, nofile: integer?, fsize: integer?, workers: integer?,
---  format: "json"|"text"|nil,
---  folder: string?, dir: string?, binary: string?, control: string?, log_file: string?, scripts_own: boolean?,
---  fds: { names: string?, pid: integer|string|nil, count: integer|string|nil, [integer]: integer }?, closed:
--- integer[]?,
---  stdout: table?, stderr: table?, ignored: string[]?, blocked: boolean?,
---  terminal: { path: string, owns: boolean? }? } `control`: a control socket, none by default;
---  `scripts_own`: workers, log format and control socket are what the script says;
---  `log_file`: where the log goes instead of standard error; `fsize`: the limit of a file's size, in bytes;
---  `fds`: descriptors, handed over as by a service manager, who may say that there are more (`count`);
---  `asan`: more for ASAN_OPTIONS, such as SMALL_QUARANTINE;
---  `dir`: where it is started, `folder` otherwise;
---  `closed`: descriptors that it begins without; `stdout`, `stderr`: a path, and the flags to open it with; `ignored`:
--- signals;
---  `blocked`: all signals are; `terminal`: its standard input, in whose foreground it runs if it `owns` it
---@return perilune.server
function M.start(options)
  local self = M.try_start(options)
  if self.ended then error("the server ended instead of serving; it said:\n" .. self:text(), 2) end
  return self
end

--- The same for one that may end instead: `ended` tells.
---@return perilune.server
function M.try_start(options)
  local self = launch(options)
  self.listeners = wait.until_true(function() return "the server to serve; it said:\n" .. self:text() end, function()
    if self:has_ended() then return {} end
    -- Before there is a log, what fails is told in plain words.
    local ok, found = pcall(find_listeners, self)
    return ok and found
  end)
  if self.ended then
    self.stopped, self.listeners = true, {}
    check_reports(self)
    return self
  end
  self.port, self.path = self.listeners[1].port, self.listeners[1].path
  return self
end

--- Starts a script of lines: `body` defines the methods of Agent, and may call note().
---@param body string
---@param options table? as for start()
---@param settings string? more of what the script returns, such as `limits = { inbox = 4 }`
---@return perilune.server
function M.start_lines(body, options, settings)
  local copy = {}
  for key, value in pairs(options or {}) do copy[key] = value end
  copy.script = ("%slocal Agent = {}; %s\nreturn { listen = %q, frame = %q, agent = Agent, %s }"):format(M.NOTE, body,
    copy.listen or "tcp://127.0.0.1:0", "line", settings or "")
  return M.start(copy)
end

--- Starts the binary on a script that cannot be served, and waits for its end.
---@param seconds number? until then; 10 unless it says otherwise
---@return { code: integer, log: table[], text: string }
function M.start_failing(options, seconds)
  local self = launch(options)
  wait.until_true("the end of a server that cannot serve", function() return self:has_ended() end, seconds)
  self.stopped = true
  return { code = self.ended.code, log = self:log(), text = self:text() }
end

--- The one started last, even when it did not come so far as to serve.
---@return perilune.server
function M.last() return running[#running] end

-- ---- watching ----

function server:has_ended()
  if self.ended then return true end
  local pid, how, status = posix_wait.wait(self.pid, posix_wait.WNOHANG)
  if pid == self.pid and how ~= "running" then self.ended = { how = how, code = status } end
  -- A successor may end before who started it, and then that one has waited for it.
  if not pid and self.succeeds and not posix_signal.kill(self.pid, 0) then
    local entry = self:find_log({ message = "the process that took over has ended, and this one accepts no more",
      pid = self.pid })[1]
    self.ended = { how = "exited", code = entry and tonumber(entry.error:match "exit code (%d+)") or entry and -1 or 0 }
  end
  return self.ended ~= nil
end

--- All that it has written to standard error, and to its log file.
---@return string
function server:text()
  local log = self.log_file and unistd.access(self.log_file)
  return read(self.folder .. "/err") .. (log and read(self.log_file) or "")
end

--- Its log so far; raises when a line is not whole and valid JSON.
---@return table[]
function server:log()
  local file = io.open(self.log_file or self.folder .. "/err", "rb")
  -- A log file is there once the server has opened it.
  if not file then return self.entries end
  file:seek("set", self.at - 1)
  local text = file:read("*a")
  file:close()
  for line in text:gmatch("([^\n]*)\n") do
    local ok, entry = pcall(json_decode, line)
    -- A successor that cannot load its script says so in plain words: it has no log yet.
    if not ok and not self.tries_upgrade then error("not a log line: " .. line .. "\n" .. said(self), 2) end
    if ok then self.entries[#self.entries + 1] = entry end
    self.at = self.at + #line + 1
  end
  return self.entries
end

local function wanted_text(wanted)
  if type(wanted) ~= "table" then return tostring(wanted) end
  local parts = {}
  for key, value in pairs(wanted) do parts[#parts + 1] = ("%s = %s"):format(key, tostring(value)) end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function matcher(wanted)
  if type(wanted) == "function" then return wanted end
  if type(wanted) == "string" then wanted = { message = wanted } end
  return function(entry)
    for key, value in pairs(wanted) do
      if entry[key] ~= value then return false end
    end
    return true
  end
end

--- The entries that a predicate accepts, or that have these fields, or this message.
---@param wanted string|table|fun(entry: table): boolean
---@return table[]
function server:find_log(wanted)
  local matches, found = matcher(wanted), {}
  for _, entry in ipairs(self:log()) do
    if matches(entry) then found[#found + 1] = entry end
  end
  return found
end

--- What a connection's agent has noted so far.
---@param conn integer
---@return string[]
function server:notes(conn)
  local texts = {}
  for _, entry in ipairs(self:find_log { conn = conn, level = "info" }) do texts[#texts + 1] = entry.message end
  return texts
end

--- Waits for such an entry, or for the count-th one.
---@param wanted string|table|fun(entry: table): boolean
---@param seconds number?
---@param count integer?
---@return table entry
function server:wait_log(wanted, seconds, count)
  local function what()
    return ("log entry %s; %s"):format(wanted_text(wanted), said(self))
  end
  return wait.until_true(what, function() return self:find_log(wanted)[count or 1] end, seconds)
end

--- Descriptors that it has open.
---@return integer
function server:fds()
  local n = 0
  for name in dirent.files("/proc/" .. self.pid .. "/fd") do
    if name ~= "." and name ~= ".." then n = n + 1 end
  end
  return n
end

--- What they are, by number: "socket:[4711]", "anon_inode:[eventpoll]", a path.
---@return table<string, string>
function server:descriptors()
  local found, folder = {}, "/proc/" .. self.pid .. "/fd/"
  for name in dirent.files(folder) do
    if name ~= "." and name ~= ".." then found[name] = readlink(folder .. name) end
  end
  return found
end

--- Resident memory in bytes.
---@return integer
function server:rss()
  return tonumber(read("/proc/" .. self.pid .. "/status"):match("VmRSS:%s*(%d+)")) * 1024
end

--- Processor time it has used, in seconds. What a client waits for is measured by it: on a busy machine the clock on
--- the wall measures the others. Precise while no thread of it ends.
---@return number
function server:cpu()
  local ns, folder = 0, "/proc/" .. self.pid .. "/task/"
  for name in dirent.files(folder) do
    local file = name:find "^%d" and io.open(folder .. name .. "/schedstat")
    if file then
      ns = ns + (tonumber((file:read "*a" or ""):match "^%d+") or 0)
      file:close()
    end
  end
  return ns / 1e9
end

-- ---- clients ----

local function target(self, options)
  local to = {}
  for key, value in pairs(options or {}) do to[key] = value end
  local listener = self.listeners[to.listener or 1]
  to.port, to.path = to.port or listener.port, to.path or listener.path
  to.host = to.host or (listener.host == "0.0.0.0" or listener.host == "::") and "127.0.0.1" or listener.host
  return to
end

--- A client of the first listener, or of number `listener`.
---@param options { listener: integer?, source: string?, receive_buffer: integer?, send_buffer: integer? }?
---@return perilune.client
function server:connect(options)
  local one = client.connect(target(self, options))
  self.clients[#self.clients + 1] = one
  return one
end

--- The same; or nil, message, code.
function server:try_connect(options)
  local one, message, code = client.try_connect(target(self, options))
  self.clients[#self.clients + 1] = one
  return one, message, code
end

---@param n integer
---@return perilune.client[]
function server:connect_many(n, options)
  local many = {}
  for i = 1, n do many[i] = self:connect(options) end
  return many
end

-- ---- the end ----

---@param name "TERM"|"INT"|"QUIT"|"HUP"|"USR1"|"USR2"
function server:signal(name) assert(posix_signal.kill(self.pid, posix_signal["SIG" .. name])) end

local function summary_of(self)
  if self.format == "json" then return self:find_log({ message = "stopped", pid = self.pid })[1] end
  local summary
  for line in self:text():gmatch("[^\n]+") do
    if line:find("  stopped  ", 1, true) then
      summary = {}
      for key, value in line:gmatch("([%w_]+)=(%d+)") do summary[key] = summary[key] or tonumber(value) end
    end
  end
  return summary
end

-- What must hold however it ended.
local function check_end(self)
  check_reports(self)
  local summary = summary_of(self)
  if not summary then error("the server ended without a summary; " .. said(self), 0) end
  if summary.messages_sent ~= summary.messages_delivered + summary.messages_dropped then
    error(("not every message is accounted for: %d sent, %d delivered, %d dropped"):format(summary.messages_sent,
      summary.messages_delivered, summary.messages_dropped), 0)
  end
  local lost = 0
  for _, name in ipairs { "dropped_oldest", "dropped_newest", "replaced", "unfit", "evicted", "left" } do
    lost = lost + (summary["hub_" .. name] or 0)
  end
  if summary.hub_addressed ~= summary.hub_delivered + lost or summary.hub_joined ~= summary.hub_parted then
    local text = "not everything of topics is accounted for: %d addressed, %d delivered, %d not; %d joined, %d parted"
    error(text:format(summary.hub_addressed, summary.hub_delivered, lost, summary.hub_joined, summary.hub_parted), 0)
  end
  if summary.open ~= 0 or summary.accepted ~= summary.closed then
    error(("not every connection is accounted for: %d accepted, %d closed, %d open"):format(summary.accepted,
      summary.closed, summary.open), 0)
  end
  return summary
end

--- Waits for its end and checks it.
---@param seconds number?
---@return { code: integer, summary: table }
function server:wait_end(seconds)
  wait.until_true(function() return "the server's end; " .. said(self) end, function()
    return self:has_ended()
  end, seconds)
  self.stopped = true
  return { code = self.ended.code, summary = check_end(self) }
end

--- Asks it to end, waits, and checks the end.
---@param name "TERM"|"INT"|"QUIT"|nil
---@param seconds number?
---@return { code: integer, summary: table }
function server:stop(name, seconds)
  self:signal(name or "TERM")
  return self:wait_end(seconds)
end

-- ---- upgrades ----

local OUTCOMES = { upgrading = false, ["upgraded: the new process has taken over"] = true }

--- Asks for an upgrade and waits for the entry that says what came of it.
---@param seconds number?
---@param ask function? how; without it, by the signal
---@return table entry
function server:try_upgrade(seconds, ask)
  local function outcome(entry)
    local known = OUTCOMES[entry.message]
    return known or known == nil and entry.message:find "^upgrade" ~= nil
  end
  local n = #self:find_log(outcome) + 1
  self.tries_upgrade = true
  if ask then ask() else self:signal "USR2" end
  return self:wait_log(outcome, seconds, n)
end

--- The process that has taken over, if one has. What was started now leaves, and finish() waits for its end.
---@param entry table what came of an upgrade
---@return perilune.server? successor
function server:successor(entry)
  if not OUTCOMES[entry.message] then return nil end
  local copy = {}
  for key, value in pairs(self) do copy[key] = value end
  copy.pid, copy.own_folder, copy.clients, copy.entries, copy.at = entry.pid, false, {}, {}, 1
  self.leaves, copy.succeeds, copy.leaves = true, true, nil
  running[#running + 1] = setmetatable(copy, server)
  return copy
end

--- Upgrades, which has to succeed.
---@param seconds number?
---@param ask function? as for try_upgrade()
---@return perilune.server successor
function server:upgrade(seconds, ask)
  local successor = self:successor(self:try_upgrade(seconds, ask))
  return successor or error("the upgrade failed; " .. said(self), 2)
end

local function finish(self)
  for _, one in ipairs(self.clients) do one:close() end
  if self.stopped then return end
  if self.leaves then
    local code = self:wait_end().code
    if code ~= 0 then error(("the server that left ended with %d; %s"):format(code, said(self)), 0) end
    return
  end
  if self:has_ended() then error("the server ended by itself; " .. said(self), 0) end
  local result = self:stop()
  if result.code ~= 0 then error(("the server ended with %d; %s"):format(result.code, said(self)), 0) end
end

local function remove(self)
  if not self:has_ended() then
    posix_signal.kill(self.pid, posix_signal.SIGKILL)
    posix_wait.wait(self.pid)
  end
  if self.own_folder then command.remove(self.folder) end
end

--- For after_each(): closes the clients, ends the servers, and fails when one did not end as it should.
function M.finish()
  local all, first = running, nil
  running = {}
  for _, self in ipairs(all) do
    local ok, message = pcall(finish, self)
    first = first or (not ok and message) or nil
  end
  for _, self in ipairs(all) do remove(self) end
  if first then error(first, 0) end
end

return M
