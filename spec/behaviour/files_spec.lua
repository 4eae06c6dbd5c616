--- What handlers can open: files. What is none is refused before it is opened, and nobody waits for it.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local function shell(line)
  local pipe = assert(io.popen(line))
  local out = pipe:read "*a"
  pipe:close()
  return out
end

-- A folder with a FIFO, a socket, a folder and a file of one line in it.
local function folder()
  local path = shell("mktemp -d"):gsub("\n", "")
  finally(function() os.execute("rm -rf " .. path) end)
  shell(("mkfifo %s/fifo; mkdir %s/folder; echo text > %s/file; ln -s fifo %s/link"):format(path, path, path, path))
  shell(("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"%s/socket\")'"):format(path))
  return path
end

-- Its handler opens what it is told, "MODE PATH", "lines PATH" or "count PATH", and says what came of it.
local BODY = [[function Agent:proceed(line)
  local mode, path = line:match "^(%S+) (.*)$"
  if mode == "lines" then return tostring(select(2, pcall(io.lines, path))) end
  if mode == "count" then return tostring(#io.open(path, "rb"):read(4)) end -- random bytes may end a line
  local file, message, code = io.open(path, mode)
  if not file then return tostring(code) .. " " .. message end
  local text = "opened"
  if mode:find "r" then text = file:read(4) end
  file:close()
  return tostring(text)
end]]

local function ask(client, line)
  client:send(line)
  return client:receive()
end

describe("a handler", function()
  after_each(memory.finish)

  local KINDS = {
    fifo = "is a FIFO", link = "is a FIFO", socket = "is a socket", ["/dev/tty"] = "is a device",
    ["/proc/self/mem"] = "is a file of the kernel's", ["/proc/self/status"] = "is a file of the kernel's",
    ["/sys/kernel/mm/transparent_hugepage/enabled"] = "is a file of the kernel's",
  }

  for name, kind in pairs(KINDS) do
    if kind then
      it("cannot open what is no file: " .. name, function()
        local path = name:sub(1, 1) == "/" and name or folder() .. "/" .. name
        local file = name:sub(1, 5) == "/sys/" and io.open(name)
        if name:sub(1, 5) == "/sys/" and not file then return pending(name .. " is not there") end
        local client = memory.script_lines(BODY):connect()
        for _, mode in ipairs { "r", "r+", "w", "a", "w+", "a+", "rb" } do
          has(("13 %s: %s: only files can be opened, unless unsafe has \"io.special\""):format(path, kind),
            ask(client, mode .. " " .. path))
        end
        has(path .. ": " .. kind, ask(client, "lines " .. path))
      end)
    end
  end

  it("can open files, as ever", function()
    local at = folder()
    local client = memory.script_lines(BODY):connect()
    assert.equal("text", ask(client, ("r %s/file"):format(at)))
    assert.equal("opened", ask(client, ("a %s/file"):format(at)))
    assert.equal("text", ask(client, ("r+ %s/file"):format(at)))
    assert.equal("opened", ask(client, ("wx %s/new"):format(at)))
    assert.equal(("17 %s/new: File exists"):format(at), ask(client, ("wx %s/new"):format(at)))
    assert.equal("opened", ask(client, ("w %s/file"):format(at)))
    assert.equal("nil", ask(client, ("r %s/file"):format(at))) -- it was cut to nothing
    assert.equal(("2 %s/none: No such file or directory"):format(at), ask(client, ("r %s/none"):format(at)))
    assert.equal(("21 %s/folder: Is a directory"):format(at), ask(client, ("r %s/folder"):format(at)))
    for _, mode in ipairs { "x", "rw", "r,ccs=UTF-8", "q" } do
      assert.equal(("22 %s/file: Invalid argument"):format(at), ask(client, ("%s %s/file"):format(mode, at)))
    end
    has("No such file or directory", ask(client, ("lines %s/none"):format(at)))
  end)

  it("can open the devices that never wait", function()
    local client = memory.script_lines(BODY):connect()
    assert.equal(("\0"):rep(4), ask(client, "rb /dev/zero"))
    assert.equal("opened", ask(client, "w /dev/null"))
    assert.equal("4", ask(client, "count /dev/urandom"))
  end)

  it("opens what is no file where unsafe has io.special", function()
    local client = memory.script_lines(BODY, [[unsafe = { "io.special" }]]):connect()
    assert.equal("Name", ask(client, "r /proc/self/status"))
    assert.equal(("21 %s: Is a directory"):format("/"), ask(client, "r /"))
  end)

  it("leaves no descriptor behind", function()
    local at = folder()
    local client = memory.script_lines(BODY):connect()
    -- Without pipes: whether both ends of the shell's are still open depends on who is faster.
    local function count() return tonumber(shell("ls -l /proc/$PPID/fd | grep -vc pipe:")) end
    ask(client, ("r %s/file"):format(at))
    local before = count()
    for _ = 1, 300 do
      for _, name in ipairs { "fifo", "file", "folder", "none" } do ask(client, ("r %s/%s"):format(at, name)) end
    end
    assert.is_true(count() <= before)
  end)

  -- The excerpt is looked for in the file that the message names.
  it("cannot have its error's excerpt read from what is no file", function()
    local at = folder()
    local app = memory.script_lines [[function Agent:proceed(line) error(line .. ":1: oh", 0) end]]
    for _, name in ipairs { at .. "/fifo", "/dev/tty", "/proc/self/environ" } do
      app:connect():send(name):expect_closed "error"
    end
    assert.equal(3, #app:faults())
  end)
end)

describe("a script that is loaded", function()
  after_each(memory.finish)

  local RETURN = " return { listen = 'tcp://127.0.0.1:0', frame = 'line', agent = { proceed = function() end }, %s }"

  it("cannot open what is no file, unless a file says so", function()
    local app, message = memory.script([[io.open "/proc/self/status"]] .. RETURN:format "")
    assert.is_nil(app)
    has("io.special leads out of the VM: to open it, add unsafe = { \"io.special\" }", message)
    assert(memory.script([[assert(io.open "/proc/self/status")]] .. RETURN:format [[unsafe = { "io.special" }]]))
  end)
end)
