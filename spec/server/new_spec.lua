--- perilune new: what it makes is complete, clean, and serves.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local server = require "spec.support.server"

local TEMPLATES = { "echo", "chat", "rpc", "binary", "game", "proxy", "worker-pool", "http" }
local COMMON = {
  ".busted", ".dockerignore", ".gitignore", ".luacheckrc", ".luarc.json", "Dockerfile", "README.md", "app.lua",
  "spec/app_spec.lua",
}
local MORE = {
  echo = {}, chat = {}, rpc = { "methods.lua" }, binary = { "tlv.lua" },
  game = { "spec/world_spec.lua", "world.lua" }, proxy = { "backends.lua" },
  ["worker-pool"] = { "spec/work_spec.lua", "work.lua" }, http = { "notes.lua" },
}

local folder
before_each(function() folder = command.folder() end)
after_each(function()
  server.finish()
  command.remove(folder)
end)

local function new(...)
  return command.run { "new", dir = folder, ... }
end

local function files_in(path)
  local names = {}
  for name in command.shell(("cd '%s' && find . -type f"):format(path)):gmatch "%./([^\n]+)" do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- In the app's folder; its exit code, and what it says.
local function shell(line)
  local out = command.shell(("cd '%s/app' && %s 2>&1; echo =$?"):format(folder, line))
  return tonumber(out:match "=(%d+)\n$"), out
end

local function make(template)
  local result = new("app", "--template", template)
  assert.equal(0, result.code, result.err)
  return result
end

local function serve()
  return server.start { file = folder .. "/app/app.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

describe("perilune new", function()
  for _, template in ipairs(TEMPLATES) do
    describe("--template " .. template, function()
      it("makes all that an app needs, with its name in place", function()
        local result = make(template)
        local expected = { "app.service" }
        for _, name in ipairs(COMMON) do expected[#expected + 1] = name end
        for _, name in ipairs(MORE[template]) do expected[#expected + 1] = name end
        table.sort(expected)
        local files = files_in(folder .. "/app")
        assert.same(expected, files)
        assert.is_truthy(result.out:find "\nNow: cd app && %S+ test && %S+ run %-%-watch\n$", result.out)
        for _, name in ipairs(files) do
          has("  " .. name .. "\n", result.out)
          assert.is_nil(command.read(folder .. "/app/" .. name):match "@%u+@")
        end
        has("# app\n", command.read(folder .. "/app/README.md"))
        has('perilune" run /srv/app/app.lua', command.read(folder .. "/app/app.service"))
      end)

      it("makes what 'perilune check' accepts", function()
        make(template)
        local result = command.run { "check", dir = folder .. "/app" }
        assert.equal(0, result.code, result.err)
        assert.equal("", result.err)
      end)

      it("makes what luacheck finds nothing in", function()
        if not command.has "luacheck" then return pending "luacheck is not there" end
        make(template)
        local code, out = shell "luacheck --no-color ."
        assert.equal(0, code, out)
      end)
    end)
  end

  it("takes echo where no template is named", function()
    assert.equal(0, new("app").code)
    has("Echo", command.read(folder .. "/app/app.lua"))
  end)

  it("makes a folder within another, and names the app after the last part", function()
    os.execute("mkdir " .. folder .. "/services")
    assert.equal(0, new("services/bell").code)
    has("-- bell: ", command.read(folder .. "/services/bell/app.lua"))
  end)

  it("tells the language server where the types of the API are", function()
    make "echo"
    local settings = json_decode((command.read(folder .. "/app/.luarc.json"):gsub("%s+", " ")))
    local library = settings["workspace.library"][1]
    has("@class perilune.conn", command.read(library .. "/conn.lua"))
  end)

  describe("makes a unit file that", function()
    local function analyze(line) return select(2, shell("systemd-analyze " .. line)) end

    before_each(function()
      if not command.has "systemd-analyze" then pending "systemd-analyze is not there" end
    end)

    it("systemd understands", function()
      make "echo"
      local out = analyze "verify ./app.service"
      assert.is_nil(out:find("app.service:%d"), out)
    end)

    it("leads to a binary whose path needs quoting", function()
      local place = folder .. "/a b; 100%n"
      os.execute(("mkdir '%s' && cp '%s' '%s/perilune'"):format(place, command.binary, place))
      local lua_path = os.getenv "PERILUNE_LUA_PATH" or command.shell("pwd"):gsub("\n", "") .. "/lua"
      local code = command.shell(("cd '%s' && PERILUNE_LUA_PATH='%s' '%s/perilune' new app >/dev/null; echo $?")
        :format(folder, lua_path, place))
      assert.equal("0\n", code)
      has('ExecStart="' .. place:gsub("%%", "%%%%") .. '/perilune" run /srv/app/app.lua',
        command.read(folder .. "/app/app.service"))
      local out = analyze "verify ./app.service"
      assert.is_nil(out:find("app.service", 1, true), out)
    end)

    it("gives the service no right that it does not need", function()
      make "echo"
      local _, out = shell "systemd-analyze security --offline=true --no-pager ./app.service"
      local exposure = tonumber(out:match "Overall exposure level for app.service: ([%d.]+)")
      assert.is_true(exposure <= 2, out)
    end)
  end)

  for template, address in pairs { echo = "tcp://0.0.0.0:9000", http = "http://0.0.0.0:8080" } do
    it("makes an image whose server is told what fits its container: " .. template, function()
      make(template)
      local list = command.read(folder .. "/app/Dockerfile"):match "ENTRYPOINT (%b[])"
      local words = json_decode((list:gsub("\\\n%s*", "")))
      assert.same({ "tini", "--", "perilune", "run", "/srv/app/app.lua" }, { unpack(words, 1, 5) })
      local result = command.run { "check", folder .. "/app/app.lua", "--print", unpack(words, 6) }
      assert.equal(0, result.code, result.err)
      has(address, result.out)
      -- docker kills 10 s after its TERM, and the workers have 2 s beyond the drain.
      assert.is_true(tonumber(result.out:match "drain%s*= ?\"?(%d+)s") <= 7, result.out)
    end)
  end

  describe("refuses", function()
    it("a folder that is there, and changes nothing in it", function()
      os.execute("mkdir " .. folder .. "/app")
      command.write(folder .. "/app/app.lua", "mine")
      local result = new("app", "--template", "chat")
      assert.same({ 1, "" }, { result.code, result.out })
      has("app is there already, and nothing was changed: choose another name, or remove it\n", result.err)
      assert.same({ "app.lua" }, files_in(folder .. "/app"))
      assert.equal("mine", command.read(folder .. "/app/app.lua"))
    end)

    it("a folder in one that is not there", function()
      local result = new("nowhere/app")
      assert.equal(1, result.code)
      has("cannot make nowhere/app: no such file or directory", result.err)
    end)

    for what, case in pairs {
      ["no name"] = { {}, "expects the name of the folder to be made, as in 'perilune new chat --template chat'" },
      ["a name that is none"] = { { "my app" }, "'my app' is no name for an app: letters, digits, _ . and - only" },
      ["a hidden name"] = { { ".app" }, "is no name for an app" },
      ["a name like an option's"] = { { "--", "-x" }, "is no name for an app" },
      ["a folder without a name"] = { { "services/" }, "'' is no name for an app" },
      ["a long name"] = { { ("x"):rep(65) }, "at most 64" },
      ["two names"] = { { "a", "b" }, "takes one name, got 'a' and 'b'" },
      ["a template that is none"] = { { "a", "--template", "chta" },
        "there is no template 'chta' (did you mean 'chat'?)" },
      ["a template without a name"] = { { "a", "--template" }, "--template needs a value" },
    } do
      it(what, function()
        local result = new(unpack(case[1]))
        assert.same({ 2, "" }, { result.code, result.out })
        has(case[2], result.err)
        has("see 'perilune new --help'", result.err)
        assert.same({}, files_in(folder))
      end)
    end

    it("what it cannot write, and leaves nothing behind", function()
      -- The tree of modules, with one template that is not whole.
      local tree = folder .. "/lua"
      local gap = tree .. "/perilune/templates/echo/spec"
      os.execute(("cp -r lua '%s' && rm -r '%s' && ln -s /nowhere '%s'"):format(tree, gap, gap))
      local result = command.run { "new", "app", dir = folder, env = { PERILUNE_LUA_PATH = tree } }
      assert.equal(1, result.code)
      has("cannot make", result.err)
      has("templates/echo/spec: no such file or directory", result.err)
      assert.equal("lua\n", command.shell("ls " .. folder))
    end)
  end)
end)

describe("what perilune new makes serves:", function()
  it("echo", function()
    make "echo"
    local client = serve():connect():echo_line("hello")
    client:echo_line("quit", "bye, after 1 lines")
    client:expect_closed()
  end)

  it("chat", function()
    make "chat"
    local app = serve()
    local ann = app:connect():echo_line("ann", "your name?")
    assert.equal("you are in lobby with 0 others", ann:recv_line())
    local bob = app:connect():echo_line("bob", "your name?")
    assert.equal("you are in lobby with 1 others", bob:recv_line())
    assert.equal("* bob is here", ann:recv_line())
    bob:send "hello\n/join attic\n/room\n/nothing\n/tell ann psst\n"
    for _, line in ipairs { "you are in attic with 0 others", "you are in attic with 0 others",
      "there are: /join ROOM, /room, /tell NAME TEXT, /quit" } do
      assert.equal(line, bob:recv_line())
    end
    assert.equal("bob: hello", ann:recv_line())
    assert.equal("* bob has left", ann:recv_line())
    assert.equal("bob, to you: psst", ann:recv_line())
    bob:send "/join lobby\n"
    assert.equal("you are in lobby with 1 others", bob:recv_line())
    assert.equal("* bob is here", ann:recv_line())
    bob:reset()
    assert.equal("* bob has left", ann:recv_line())
  end)

  it("http", function()
    make "http"
    local app = server.start { file = folder .. "/app/app.lua", args = { "--listen=http://127.0.0.1:0" } }
    local client = app:connect():send "GET /notes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    has("200 OK", client:recv_line())
    local rest = {}
    repeat rest[#rest + 1] = client:recv_line() until rest[#rest] == "\r" or rest[#rest] == ""
    assert.equal("[]", client:recv_exact(2))
  end)

  it("rpc", function()
    make "rpc"
    local client = serve():connect()
    local function call(text)
      client:send("\0\0" .. string.char(math.floor(#text / 256), #text % 256) .. text)
      local a, b, c, d = client:recv_exact(4):byte(1, 4)
      return client:recv_exact(((a * 256 + b) * 256 + c) * 256 + d)
    end
    assert.equal('{"id":1,"jsonrpc":"2.0","result":5}', call '{"id": 1, "method": "add", "params": [2, 3]}')
    assert.equal('{"id":2,"jsonrpc":"2.0","result":["\\u0001é😀",true,null,{"a":[]},-1.5]}',
      call '{"id":2,"method":"echo","params":["\\u0001\\u00e9\\ud83d\\ude00",true,null,{"a":[]},-15e-1]}')
    assert.equal('{"id":3,"jsonrpc":"2.0","result":0.01}', call '{"id":3,"method":"sleep","params":[0.01]}')
    for text, expected in pairs {
      ["{"] = "-32700", ['{"a":1}x'] = "-32700", ['"\\ud800"'] = "-32700", ["[01]"] = "-32700", ["null"] = "-32600",
      ["[" .. ("["):rep(130)] = "nested too deep", ['{"id":1,"method":"x"}'] = "-32601",
      ['{"id":1,"method":"add","params":["2"]}'] = "params[0] must be a number",
    } do
      has(expected, call(text))
    end
  end)

  it("binary", function()
    make "binary"
    local app = serve()
    local client = app:connect():send "\0\7\1\0\4door\0\7\2\0\4\0\0\0\42"
    assert.equal("\0\11\129\0\8\0\0\0\1\0\0\0\42", client:recv_exact(13))
    client:send "\0\14\2\0\4\0\0\0\44\2\0\4\255\255\255\255"
    assert.equal("\0\11\129\0\8\0\0\0\3\85\85\85\114", client:recv_exact(13))
    client:send "\0\3\2\0\9"
    assert.equal("\0\17\255\0\14a field is cut", client:recv_exact(19))
    client:expect_closed()
  end)

  it("proxy", function()
    make "proxy"
    local backend = server.start {
      script = [[return { listen = "tcp://127.0.0.1:0", frame = "line",
        agent = { proceed = function(_, line) return "<" .. line .. ">" end } }]],
    }
    local path, address = folder .. "/app/backends.lua", backend:wait_log("listening").address
    command.write(path, (command.read(path):gsub("tcp://127%.0%.0%.1:9001", address)))
    local app = serve()
    for _ = 1, 4 do -- the other one refuses
      local client = app:connect():echo_line("hello", "<hello>")
      client:shutdown "send"
      client:expect_closed()
    end
    app:wait_log "backend is down"
  end)

  describe("game:", function()
    local function join(app, name)
      local client = app:connect():echo_line(name, "your name?")
      has("welcome, " .. name, client:recv_line())
      return client
    end

    local function next_state(client, name)
      local tick, x = client:recv_line():match("^tick (%d+) .* " .. name .. " (%d+),")
      return tonumber(tick), tonumber(x)
    end

    it("it ticks, for everybody", function()
      make "game"
      local app = serve()
      local ann = join(app, "ann"):send "e\n"
      local tick, x = next_state(ann, "ann")
      for _ = 1, 3 do
        -- Where the machine is busy several ticks come at once, and a step for each.
        local later, there = next_state(ann, "ann")
        assert.is_true(later > tick)
        assert.equal((x + later - tick) % 16, there)
        tick, x = later, there
      end
      local bob = join(app, "bob")
      assert.is_truthy(next_state(bob, "ann"))
    end)

    it("a reload takes players along, with their places and points", function()
      make "game"
      local app = serve()
      local ann = join(app, "ann"):send "e\n"
      local tick = next_state(ann, "ann")
      local path = folder .. "/app/world.lua"
      command.write(path, (command.read(path):gsub('"tick %%d', '"time %%d')))
      app:signal "HUP"
      app:wait_log "reloaded"
      local line
      repeat line = ann:recv_line() until line:find "^time"
      assert.is_true(tonumber(line:match "^time (%d+)") > tick)
      assert.truthy(line:find " ann %d+,0 ", line)
      ann:send "quit\n"
      repeat line = ann:recv_line() until not line:find "^time"
      has("points", line)
    end)

    it("its rules hold", function()
      if not command.has "busted" then return pending "busted is not there" end
      make "game"
      local code, out = shell "luajit $(command -v busted) --ignore-lua --lpath='./?.lua' spec/world_spec.lua"
      assert.equal(0, code, out)
    end)
  end)
end)

-- With what a user runs them with.
describe("what perilune new makes promises", function()
  for _, template in ipairs(TEMPLATES) do
    it("and keeps: " .. template, function()
      make(template)
      local result = command.run { "test", dir = folder .. "/app" }
      assert.equal(0, result.code, result.out .. result.err)
    end)
  end

  it("and the first specification that the page on testing shows", function()
    make "chat"
    local file = assert(io.open "docs/testing.md")
    command.write(folder .. "/app/spec/silence_spec.lua", (file:read("*a"):match "```lua\n(.-)```"))
    file:close()
    local result = command.run { "test", "spec/silence_spec.lua", dir = folder .. "/app" }
    assert.equal(0, result.code, result.out .. result.err)
    has("1 success", result.out)
  end)
end)
