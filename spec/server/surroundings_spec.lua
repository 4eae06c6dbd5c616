--- Where it is installed, and what the system lets it have: it works there, or says in a line what is in its way.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local unistd = require "posix.unistd"

local SCRIPT = [[
  local Agent = {}
  function Agent:proceed(line) return line end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]

local SPEC = [[
  local perilune = require "perilune.test"
  it("echoes", function()
    for _, open in ipairs { perilune.app, perilune.start } do
      local app = open "app.lua"
      app:connect():send("x"):expect("x")
      app:close()
    end
  end)]]

local is_sanitized = (os.getenv "SANITIZE" or "") ~= ""

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- What bash does with these lines, and what it says.
local function bash(lines, prefix)
  local line = "timeout 120 %s bash -c %s </dev/null 2>&1; echo \"|$?\""
  local text, code = command.shell(line:format(prefix or "", quote(lines))):match "^(.*)|(%d+)\n$"
  return { text = text, code = tonumber(code) }
end

-- An installation of its own, which everybody may read, in such a folder.
local function install(name)
  local base = command.folder()
  local root = base .. "/" .. name
  command.shell(("mkdir -p %s/bin %s/share/perilune && cp %s %s/bin/perilune && cp -r lua %s/share/perilune/"):format(
    quote(root), quote(root), quote(command.binary), quote(root), quote(root)))
  command.write(root .. "/app.lua", SCRIPT)
  command.write(root .. "/app_spec.lua", SPEC)
  command.write(root .. "/words.lua", "return { 'words' }")
  command.write(root .. "/tool.lua", "print(require('words')[1])")
  command.shell(("chmod -R a+rX %s"):format(quote(base)))
  return root, base
end

describe("a path of an installation", function()
  local base
  after_each(function()
    server.finish()
    command.remove(base)
  end)

  for _, name in ipairs { "a;b", "what?", "?;?", "a b", "100%s", "it's" } do
    it("may have any name: " .. name, function()
      local root
      root, base = install(name)
      local perilune = quote(root .. "/bin/perilune")
      assert.same({ code = 0, text = root .. "/app.lua: ok (1 listener, 1 worker)\n" },
        bash(("%s check %s --workers 1"):format(perilune, quote(root .. "/app.lua"))))
      local tested = bash(("cd / && %s test %s"):format(perilune, quote(root .. "/app_spec.lua")))
      assert.equal(0, tested.code, tested.text)
      local tool = bash(("%s exec %s"):format(perilune, quote(root .. "/tool.lua")))
      assert.same({ code = 0, text = "words\n" }, tool)
      local made = bash(("cd %s && %s new made"):format(quote(root), perilune))
      local tests = made.text:match "Now: (.*) && .- run %-%-watch"
      tests = bash(("cd %s && %s"):format(quote(root), assert(tests, made.text)))
      assert.equal(0, tests.code, tests.text)
      local app = server.start { binary = root .. "/bin/perilune", file = root .. "/app.lua", folder = base }
      app:connect():echo_line("x", "x")
    end)
  end
end)

-- Sanitizers want /proc, room for their shadows and threads of their own.
if is_sanitized then return end

describe("without /proc", function()
  -- In namespaces of its own, for which one has to be root, or may be it there.
  local way
  for _, each in ipairs { "unshare -m", "unshare -Urm" } do
    if not way and bash("mount -t tmpfs none /proc", each).code == 0 then way = each end
  end

  local root, base
  before_each(function() root, base = install "app" end)
  after_each(function() command.remove(base) end)

  local function there(line)
    if not way then pending "no file system can be mounted here" end
    return bash(("mount -t tmpfs none /proc && cd %s && %s"):format(root, line), way)
  end

  it("it works all the same", function()
    for _, line in ipairs { "bin/perilune check app.lua", "PATH=$PWD/bin:$PATH && perilune check app.lua",
      root .. "/bin/perilune check app.lua", "bin/perilune test app_spec.lua" } do
      local result = there(line)
      assert.equal(0, result.code, line .. ": " .. result.text)
    end
    local served = there "timeout -s TERM 2 bin/perilune run app.lua --log-format json --control off"
    has('"message":"serving"', served.text)
    has('"message":"stopped"', served.text)
  end)

  it("it says that this is missing where its name does not tell where it is", function()
    local result = there "(exec -a nothing bin/perilune check app.lua)"
    assert.equal(1, result.code, result.text)
    has("/proc is not mounted", result.text)
    has("mount -t proc proc /proc", result.text)
    has("PERILUNE_LUA_PATH", result.text)
    assert.equal(0, there("PERILUNE_LUA_PATH=share/perilune/lua; export PERILUNE_LUA_PATH;"
      .. " (exec -a nothing bin/perilune check app.lua)").code)
  end)
end)

describe("a limit of the system", function()
  local root, base
  before_each(function() root, base = install "app" end)
  after_each(function() command.remove(base) end)

  -- The exec: the limit is for that process alone.
  local function limited(limits, line, prefix)
    return bash(("cd %s && ulimit %s && exec bin/perilune %s"):format(root, limits, line), prefix)
  end

  local RUN = "run app.lua --workers 2 --log-format json --control off"

  for _, kb in ipairs { 32, 64, 256, 1024 } do
    it(("of the stack is no hindrance: ulimit -s %d"):format(kb), function()
      for _, line in ipairs { "check app.lua", "test app_spec.lua", "exec tool.lua" } do
        local result = limited("-s " .. kb, line)
        assert.equal(0, result.code, line .. ": " .. result.text)
      end
      -- As deep as with any other.
      local deep = limited("-s " .. kb, [[exec -e "
        local function f(n)
          return (string.gsub([=[x]=], [=[x]=], function() return n > 0 and f(n - 1) or [=[y]=] end))
        end
        print(pcall(f, 100))"]])
      assert.same({ code = 0, text = "true\ty\n" }, deep)
    end)
  end

  it("of the stack leaves signals as they are", function()
    local result = bash(("cd %s || exit; ulimit -s 64\n%s"):format(root, [[
      bin/perilune exec -e 'print "runs" io.stdout:flush() while true do end' >out 2>&1 & pid=$!
      until grep -qs runs out; do :; done
      kill -TERM $pid; wait $pid; echo "ended with $?"]]))
    assert.equal("ended with 143\n", result.text)
    result = bash(("cd %s || exit; ulimit -s 64\n%s"):format(root,
      RUN:gsub("^", "bin/perilune ") .. [[ >out 2>&1 & pid=$!
      until grep -qs serving out; do :; done
      kill -TERM $pid; wait $pid; echo "ended with $?"]]))
    assert.equal("ended with 0\n", result.text)
  end)

  it("of the address space is named, with its value", function()
    local result = limited("-v 100000", RUN)
    assert.equal(1, result.code, result.text)
    has('"message":"cannot start a worker"', result.text)
    has("not enough memory (the address space is limited to 97 MiB: ulimit -v)", result.text)
    for _, line in ipairs { "test app_spec.lua" } do
      result = limited("-v 60000", line)
      assert.equal(1, result.code, result.text)
      has("(the address space is limited to 58 MiB: ulimit -v)", result.text)
    end
  end)

  -- Nobody has that number, so that there is one process of its. Root is not limited.
  local is_root = unistd.geteuid() == 0
  local prefix = is_root and "setpriv --reuid 54321 --regid 54321 --clear-groups" or ""

  it("of processes and threads is named, with its value", function()
    local WHY = "resource temporarily unavailable (the user's processes and threads are limited to 1: ulimit -u"
    for _, line in ipairs { RUN, "check app.lua", "test app_spec.lua", "exec tool.lua" } do
      local result = limited("-u 1", line, prefix)
      assert.equal(1, result.code, result.text)
      has(WHY, result.text)
    end
  end)

  if is_root then
    it("of processes and threads is named where it is met by a worker", function()
      local result = limited("-u 4", RUN, prefix)
      assert.equal(1, result.code, result.text)
      has('"message":"cannot start a worker"', result.text)
      has("(the user's processes and threads are limited to 4: ulimit -u", result.text)
    end)
  end
end)
