--- Follows a page of the documentation word for word: saves its listings, types its commands, and compares what comes
--- back with what the page shows.
---
---     ```lua        the first line names the file: `-- app.lua` is all of it; `-- app.lua: what is meant` are parts of
--- it,
---                   which take the place of what is there by the same name, or are added before its end
---     ```console    `$ command`, `> what is typed into nc`, `^C`, and what each of them shows
---     ```text       what the server's terminal says next
---
--- In what is shown "…" stands for anything. Times of day, durations, process ids and the ports of clients may differ.
local command = require "spec.support.command"
local fcntl = require "posix.fcntl"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local socket = require "posix.sys.socket"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

local COMMAND_SECONDS_MAX = 240

--- How long the server may take to say what the page shows, and nc.
M.patience_seconds, M.nc_patience_seconds = 60, 60

-- ---- reading a page ------------------------------------------------------------

---@class perilune.step
---@field kind "file"|"parts"|"command"|"typed"|"interrupt"|"says"
---@field line integer of the page
---@field path string? of a file
---@field text string? of a file; the command; what is typed
---@field shown string[] lines

local function read_listing(lines, line)
  local path, rest = lines[1]:match "^%-%- ([%w_./-]+)(.*)$"
  if not path then return end
  if rest == "" then return { kind = "file", line = line, path = path, text = table.concat(lines, "\n") .. "\n" } end
  return { kind = "parts", line = line, path = path, text = table.concat(lines, "\n", 2) .. "\n" }
end

local MARKS = { ["$ "] = "command", ["> "] = "typed" }

local function read_session(steps, lines, line)
  for i, text in ipairs(lines) do
    local kind = text == "^C" and "interrupt" or MARKS[text:sub(1, 2)]
    if kind then
      steps[#steps + 1] = { kind = kind, line = line + i, text = text:sub(3), shown = {} }
    else
      table.insert(steps[#steps].shown, text)
    end
  end
end

local function read_block(steps, language, lines, line)
  if language == "lua" then
    steps[#steps + 1] = read_listing(lines, line)
  elseif language == "console" then
    read_session(steps, lines, line)
  elseif language == "text" then
    steps[#steps + 1] = { kind = "says", line = line, shown = lines }
  end
end

--- The steps of a page, in order.
---@param text string
---@return perilune.step[]
function M.read(text)
  local steps, language, lines, from, n = {}, nil, nil, nil, 0
  for line in text:gmatch "([^\n]*)\n" do
    n = n + 1
    local fence = line:match "^```(%w*)$"
    if fence and language then
      read_block(steps, language, lines, from)
      language = nil
    elseif fence then
      language, lines, from = fence, {}, n
    elseif language then
      lines[#lines + 1] = line
    end
  end
  return steps
end

-- ---- listings that are parts of a file -------------------------------------------

-- What stands at the left margin until the next of its kind: a method with the comments before it, the table returned.
local function chunks_of(text)
  local chunks, comments = {}, ""
  local at = 1
  while at <= #text do
    local line_end = text:find("\n", at, true)
    local line = text:sub(at, line_end)
    if line:find "^%-%-" then
      comments = comments .. line
    elseif line ~= "\n" then
      local is_whole = line:find "^function.*end\n$" or line:find "^return.*}\n$" or line:find "^local "
      local last = is_whole and line_end or select(2, text:find("\n[%l}][^\n]*\n", line_end))
      chunks[#chunks + 1] = { head = line, text = comments .. text:sub(at, last) }
      comments, line_end = "", last
    end
    at = line_end + 1
  end
  return chunks
end

local function name_of(head)
  return head:match "^function ([%w_:.]+)" or head:match "^local ([%w_]+)" or head:match "^return"
end

-- From where to where the file has a chunk of this name.
local function find_chunk(text, name)
  local at = 1
  for _, chunk in ipairs(chunks_of(text)) do
    local from, to = text:find(chunk.text, at, true)
    if name_of(chunk.head) == name then return from, to end
    at = to + 1
  end
end

--- Puts parts into a file: methods, locals and the return in place of those that there are, new methods before the
--- return; what is indented before the last line.
---@param text string
---@param parts string
---@return string
function M.merge(text, parts)
  if parts:find "^%s" then
    return (text:gsub("\n[^\n]+\n$", function(last) return "\n\n" .. parts:gsub("\n$", "") .. last end))
  end
  for _, chunk in ipairs(chunks_of(parts)) do
    local from, to = find_chunk(text, name_of(chunk.head))
    local new = chunk.text
    if not from then
      from = find_chunk(text, "return")
      to, new = from - 1, new .. "\n"
    end
    text = text:sub(1, from - 1) .. new .. text:sub(to + 1)
  end
  return text
end

-- ---- what is shown against what there is ------------------------------------------

local DIFFERING = {
  { "%d%d:%d%d:%d%d%.%d+", "TIME" }, { "[%d.]+ seconds", "N seconds" }, { "pid([= ])%d+", "pid%1N" },
  { "127%.0%.0%.1:%d+ →", "CLIENT →" }, { "peer=127%.0%.0%.1:%d+", "peer=CLIENT" }, { "[ \t]+\n", "\n" }, { "\t", " " },
}

local function without_differing(text)
  for _, one in ipairs(DIFFERING) do text = text:gsub(one[1], one[2]) end
  return text
end

--- A Lua pattern for lines as a page shows them.
---@param lines string[]
---@return string
function M.pattern(lines)
  local text = without_differing(table.concat(lines, "\n") .. "\n"):gsub("\n$", "")
  local escaped = text:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
  return (escaped:gsub("… (%a+s)%f[%A]", ".- %1?"):gsub("…", ".-")) -- "… workers" is "1 worker" on one core
end

-- ---- following ------------------------------------------------------------------

---@class perilune.walk
---@field folder string
---@field page string
---@field server { pid: integer, out: string, at: integer }?
---@field nc { pid: integer, out: string, at: integer, to: integer }?
local walk = {}
walk.__index = walk

local function become(self, text, stdin, out)
  posix_signal.signal(posix_signal.SIGPIPE, posix_signal.SIG_DFL)
  unistd.setpid("p", 0, 0)
  for name, value in pairs(self.env) do stdlib.setenv(name, value) end
  unistd.chdir(self.folder)
  local file = fcntl.open(out, fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_TRUNC, 420)
  unistd.dup2(stdin, 0)
  unistd.dup2(file, 1)
  unistd.dup2(file, 2)
  unistd.execp("bash", { [0] = "bash", "-c", text })
  unistd._exit(127)
end

-- In the background; `to` takes what is typed.
local function start(self, text)
  local from, to = unistd.pipe()
  self.count = self.count + 1
  local process = { out = ("%s.%d"):format(self.outputs, self.count), at = 1, to = to }
  command.write(process.out, "")
  fcntl.fcntl(to, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  process.pid = assert(unistd.fork())
  if process.pid == 0 then become(self, text, from, process.out) end
  unistd.close(from)
  return process
end

local function has_ended(process)
  if process.code then return true end
  local pid, how, code = posix_wait.wait(process.pid, posix_wait.WNOHANG)
  if pid == process.pid and how ~= "running" then process.code = how == "exited" and code or -code end
  return process.code ~= nil
end

local function said(process) return command.read(process.out) end

local function fail(self, step, message)
  error(("%s:%d: %s"):format(self.page, step.line, message), 0)
end

-- What it says from where the last match ended.
local function expect(self, step, process, what, seconds)
  if #step.shown == 0 then return end
  local pattern = M.pattern(step.shown)
  local function matches()
    local text = without_differing(said(process))
    local _, to = text:find(pattern, process.at)
    if to then process.at = to + 1 end
    return to
  end
  if not pcall(wait.until_true, what, matches, seconds) then
    fail(self, step, ("%s does not say\n%s\nbut\n%s"):format(what, table.concat(step.shown, "\n"),
      without_differing(said(process)):sub(process.at)))
  end
end

local function finish(process, signal)
  if not process then return end
  if not has_ended(process) then posix_signal.kill(process.pid, signal) end
  wait.until_true("the end of a process", function() return has_ended(process) end)
  unistd.close(process.to)
end

function walk:file(step)
  os.execute(("mkdir -p '%s'"):format((self.folder .. "/" .. step.path):match "^(.*)/"))
  command.write(self.folder .. "/" .. step.path, step.text)
end

function walk:parts(step)
  local path = self.folder .. "/" .. step.path
  command.write(path, M.merge(command.read(path), step.text))
end

function walk:command(step)
  if step.text:find "^perilune run" then
    self.server = start(self, "exec " .. step.text)
    return expect(self, step, self.server, "the server", M.patience_seconds)
  end
  if step.text:find "^nc " then
    finish(self.nc, posix_signal.SIGINT)
    self.nc = start(self, "exec " .. step.text)
    return
  end
  local process = start(self, step.text)
  wait.until_true(step.text, function() return has_ended(process) end, COMMAND_SECONDS_MAX)
  unistd.close(process.to)
  local text = without_differing(said(process)):gsub("\n+$", "")
  if not text:find("^" .. M.pattern(step.shown) .. "$") then
    fail(self, step, ("`%s` does not say\n%s\nbut\n%s"):format(step.text, table.concat(step.shown, "\n"), text))
  end
end

function walk:typed(step)
  unistd.write(self.nc.to, step.text .. "\n")
  expect(self, step, self.nc, "nc", M.nc_patience_seconds)
end

-- Ctrl-C goes to nc while that is there.
function walk:interrupt(step)
  if self.nc and not has_ended(self.nc) then return finish(self.nc, posix_signal.SIGINT) end
  finish(self.server, posix_signal.SIGINT)
  expect(self, step, self.server, "the server", M.patience_seconds)
  if self.server.code ~= 0 then fail(self, step, "the server ended with " .. self.server.code) end
end

function walk:says(step) expect(self, step, self.server, "the server", M.patience_seconds) end

local function free_port()
  local fd = assert(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0))
  assert(socket.bind(fd, { family = socket.AF_INET, addr = "127.0.0.1", port = 0 }))
  local port = socket.getsockname(fd).port
  unistd.close(fd)
  return tostring(port)
end

--- Follows a page from its first step to its last; raises where it is not as the page says. Its port, 9000, may be
--- taken: a free one stands for it. `change`, if there is one, may change the page's text before.
---@param page string its path
---@param change (fun(text: string): string)?
function M.follow(page, change)
  local text = command.read(page):gsub("9000", free_port())
  if change then text = change(text) end
  local folder = command.folder()
  local self = setmetatable({ folder = folder .. "/meters", outputs = folder .. "/out", page = page, count = 0 }, walk)
  os.execute("mkdir " .. self.folder)
  self.env = {
    PATH = command.binary:match "^(.*)/" .. ":" .. os.getenv "PATH", XDG_RUNTIME_DIR = folder,
    PERILUNE_LOG_FORMAT = "text", -- as on a terminal
  }
  local ok, message = pcall(function()
    for _, step in ipairs(M.read(text)) do walk[step.kind](self, step) end
  end)
  finish(self.nc, posix_signal.SIGKILL)
  finish(self.server, posix_signal.SIGKILL)
  command.remove(folder)
  if not ok then error(message, 0) end
end

return M
