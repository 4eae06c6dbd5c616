--- Texts that leave the process: into a log, a trace, a status, onto a terminal. By the one table of cases.
local cases = require "spec.support.text_cases"
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local printable = require "perilune.printable"
local server = require "spec.support.server"

local SCRIPT = [[
local perilune = require "perilune"
local A = {}
function A:proceed(frame) perilune.log("info", "<" .. frame .. ">") return "." .. frame end
return { listen = "tcp://127.0.0.1:0", frame = "u32be", agent = A, name = "front" }
]]

-- Nothing in it reaches a terminal as a command, nor breaks a line in two.
local function assert_fit(text, what)
  for line in text:gmatch "[^\n]+" do
    local shown = printable.escape((line:gsub("\t", " ")), 8 * #line + 8)
    assert.equal(shown, (line:gsub("\t", " ")), what)
  end
end

-- All that a name can have in it, in pieces that one can hold.
local function names()
  local found, piece = {}, ""
  for _, case in ipairs(cases) do
    local bytes = case.bytes:gsub("[%z/]", "")
    if #piece + #bytes > 60 then
      found[#found + 1], piece = piece, ""
    end
    piece = piece .. bytes
  end
  found[#found + 1] = piece
  return found
end

describe("a text", function()
  after_each(server.finish)

  for _, format in ipairs { "json", "text" } do
    it("is in a log of " .. format .. " as the table has it", function()
      local app = server.start { script = SCRIPT, format = format }
      local peer = app:connect()
      for _, case in ipairs(cases) do
        peer:send_frame("a" .. case.bytes)
        assert.equal(".a" .. case.bytes, peer:recv_frame())
        local shown = format == "json" and case.json or case.line
        has(("<a%s>"):format(shown), app:text())
      end
      assert_fit(app:text(), "the log")
      if format == "text" then return end
      for i, entry in ipairs(app:find_log { conn = 1, level = "info" }) do
        local case = cases[i]
        assert.equal("<a" .. (case.is_utf8 and case.bytes or case.line) .. ">", entry.message)
      end
    end)
  end

  it("is in a trace as the table has it, or as other bytes are", function()
    local app = server.start { script = SCRIPT, args = { "--record=trace.jsonl" } }
    local peer = app:connect()
    for _, case in ipairs(cases) do
      peer:send_frame("a" .. case.bytes)
      peer:recv_frame()
    end
    app:stop()
    local text, frames = command.read(app.folder .. "/trace.jsonl"), {}
    assert_fit(text, "the trace")
    for line in text:gmatch "[^\n]+" do
      local event = json_decode(line)
      if event.event == "in" then frames[#frames + 1] = event end
    end
    assert.equal(#cases, #frames)
    for i, case in ipairs(cases) do
      assert.equal(case.is_utf8, frames[i].frame ~= nil, case.name)
      if case.is_utf8 then
        assert.equal("a" .. case.bytes, frames[i].frame)
        has('"frame":"a' .. case.json .. '"', text)
      end
    end
  end)

  it("is in a status as the table has it", function()
    for _, name in ipairs(names()) do
      local folder = command.folder()
      local file = command.write(folder .. "/" .. name .. ".lua", SCRIPT)
      local app = server.start { file = file, folder = folder, control = "control.sock" }
      local shown, json = operator.run(app, "status"), operator.run(app, "status", "--json")
      has(printable.escape(name) .. ".lua", shown.out)
      assert_fit(shown.out .. shown.err, "the status")
      assert_fit(json.out, "the status in JSON")
      local is_utf8 = printable.json(name) == printable.json(printable.escape(name))
      local script = json_decode(json.out).script
      assert.is_true(script == file or script == printable.escape(file) or is_utf8)
      app:stop()
      command.remove(folder)
    end
  end)

  local function tell(what, make)
    it("of the command line is told so by " .. what, function()
      local folder = command.folder()
      local script = command.write(folder .. "/app.lua", SCRIPT)
      for _, name in ipairs(names()) do
        local call = make(name, script)
        call.dir = folder
        local result = command.run(call)
        assert.not_equal(0, result.code)
        assert_fit(result.out, what)
        assert_fit(result.err, what)
      end
      command.remove(folder)
    end)
  end

  tell("an unknown command", function(name) return { name } end)
  tell("an unknown option", function(name) return { "run", "--" .. name } end)
  tell("run, of a script", function(name) return { "run", name .. ".lua" } end)
  tell("check, of a script", function(name) return { "check", name .. ".lua" } end)
  tell("check, as JSON", function(name) return { "check", name .. ".lua", "--json" } end)
  tell("run, of a second script", function(name, script) return { "run", script, name } end)
  tell("run, of a number", function(name, script) return { "run", script, "--workers=" .. name } end)
  tell("run, of a setting", function(name, script) return { "run", script, "--set", name } end)
  tell("run, of a key", function(name, script) return { "run", script, "--set", name:gsub("=", "") .. "=1" } end)
  tell("run, of an address", function(name, script) return { "run", script, "--listen", "tcp://" .. name .. ":1" } end)
  tell("run, of a log file", function(name, script) return { "run", script, "--log-file=/dev/null/" .. name } end)
  tell("run, of a trace", function(name, script)
    return { "run", script, "--workers=1", "--control=off", "--record=/dev/null/" .. name }
  end)
  tell("run, of a control socket", function(name, script)
    return { "run", script, "--workers=1", "--control=/dev/null/" .. name }
  end)
  tell("status, of a control socket", function(name) return { "status", "--control=/tmp/" .. name } end)
  tell("kick", function(name) return { "kick", name } end)
  tell("reload", function(name) return { "reload", "--policy=" .. name } end)
  tell("record", function(name) return { "record", "--seconds=" .. name } end)
  tell("replay, of a trace", function(name, script) return { "replay", name, script } end)
  tell("new, of a folder", function(name) return { "new", "/dev/null/" .. name } end)
  tell("new, of a template", function(name) return { "new", "x", "--template=" .. name } end)
  tell("exec, of a file", function(name) return { "exec", name .. ".lua" } end)
  tell("exec, of an error", function(name) return { "exec", "-e", "error(" .. ("%q"):format(name) .. ")" } end)
  tell("test, of a file", function(name) return { "test", name .. "_spec.lua" } end)
  tell("test, of an option", function(name) return { "test", "--timeout=" .. name } end)

  it("of the server's own is told so where one of many is to be named", function()
    local folder, apps = command.folder(), {}
    os.execute("mkdir " .. folder .. "/perilune")
    for i, name in ipairs(names()) do
      if i > 3 then break end
      apps[i] = server.start { script = SCRIPT, control = folder .. "/perilune/" .. name:sub(1, 20) .. ".sock" }
    end
    local result = command.run { "status", env = { XDG_RUNTIME_DIR = folder } }
    assert.equal(1, result.code)
    has("3 servers are running", result.err)
    assert_fit(result.err, "the list")
    for _, app in ipairs(apps) do app:stop() end
    command.remove(folder)
  end)
end)

