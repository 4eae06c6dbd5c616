--- Recordings, as specifications make and read them.
local command = require "spec.support.command"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local posix_signal = require "posix.signal"
local wait = require "spec.support.wait"

local M = {}

---@class perilune.spec.recording
---@field app perilune.server
---@field path string of the trace
local recording = {}
recording.__index = recording

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local count = 0

--- `perilune record` of a server that has `control = "control.sock"`, in the background; it records when this returns.
---@param app perilune.server
---@param options string? of the command
---@return perilune.spec.recording
function M.record(app, options)
  count = count + 1
  local self = setmetatable({ app = app, path = ("%s/trace%d.jsonl"):format(app.folder, count) }, recording)
  self.base = self.path .. "."
  local form = [[cd '%s'; (sh -c 'echo $$ >%spid; exec "%s" record --control control.sock --out "%s" %s' >%sout 2>%serr
    echo $? >%scode.new; mv %scode.new %scode) >/dev/null 2>&1 </dev/null &]]
  os.execute(form:format(app.folder, self.base, command.binary, self.path, options or "", self.base, self.base,
    self.base, self.base, self.base))
  wait.until_true("the recording to begin: " .. self.base, function() return exists(self.path) or self:has_ended() end)
  return self
end

function recording:has_ended() return exists(self.base .. "code") end

--- Sends it a signal: "INT".
function recording:signal(name)
  assert(posix_signal.kill(tonumber(command.read(self.base .. "pid")), posix_signal["SIG" .. name]))
end

--- Waits until it has ended.
---@return { code: integer, out: string, err: string }
function recording:result()
  wait.until_true("the end of the recording", function() return self:has_ended() end)
  return { code = tonumber(command.read(self.base .. "code")), out = command.read(self.base .. "out"),
    err = command.read(self.base .. "err") }
end

--- Ends it as a user does.
function recording:stop()
  self:signal "INT"
  return self:result()
end

--- The lines of a trace, decoded.
---@param path string
---@return table[]
function M.lines(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = json_decode(line) end
  return lines
end

--- The events of one kind.
function M.events(lines, kind)
  local found = {}
  for _, line in ipairs(lines) do
    if line.event == kind then found[#found + 1] = line end
  end
  return found
end

--- `perilune replay` of a trace against a script's text. What it plays is what layers have made of it: it has none.
---@param app perilune.server
---@return { code: integer, out: string, err: string }
function M.replay(app, path, text, ...)
  local script = command.write(app.folder .. "/candidate.lua", text)
  return command.run { env = { NASTY = "" }, "replay", path, script, ... }
end

M.run = operator.run

return M
