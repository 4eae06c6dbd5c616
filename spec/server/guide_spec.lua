--- The pages that teach: docs/guide.md and docs/guide-cores.md, followed word for word, and the listings of
--- docs/handlers.md and docs/coming-from.md.
local client = require "spec.support.client"
local command = require "spec.support.command"
local has = require "spec.support.has"
local posix_signal = require "posix.signal"
local server = require "spec.support.server"
local wait = require "spec.support.wait"
local walkthrough = require "spec.support.walkthrough"

describe("the guide", function()
  it("works word for word", function()
    if not command.has "nc" then return pending "nc is not there" end
    walkthrough.follow("docs/guide.md", function(text)
      if not server.sanitizer then return text end
      return (text:gsub("5000(00%d)", "2000%1")) -- a load for a build that is several times slower
    end)
  end)
end)

local PATIENCE_SECONDS = walkthrough.nc_patience_seconds

describe("the guide to many cores", function()
  it("works word for word", function()
    if not command.has "nc" then return pending "nc is not there" end
    walkthrough.follow "docs/guide-cores.md"
  end)
end)

describe("following a page", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function()
    walkthrough.nc_patience_seconds = PATIENCE_SECONDS
    command.remove(folder)
  end)

  -- What is wrong with a page of these blocks.
  local function fault_of(...)
    local page = command.write(folder .. "/page.md", "# A page\n\n" .. table.concat({ ... }, "\n\n") .. "\n")
    local ok, message = pcall(walkthrough.follow, page)
    return not ok and message or nil
  end

  local APP = [[```lua
-- app.lua
local A = {}

function A:proceed(line) return line end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = A }
```]]
  local RUN = "```console\n$ perilune run\n…listening…\n```"

  it("notices what a command does not say, and names the line", function()
    assert.is_nil(fault_of("```console\n$ echo one two\none …\n```"))
    has("page.md:4: `echo one` does not say", fault_of("```console\n$ echo one\ntwo\n```"))
    has("page.md:4: ", fault_of("```console\n$ echo one; echo two\none\n```"))
  end)

  it("notices what a server does not answer, and what it does not log", function()
    assert.is_nil(fault_of(APP, RUN, "```console\n$ nc 127.0.0.1 9000\n> one\none\n^C\n^C\n…stopped…\n```"))
    walkthrough.nc_patience_seconds = 0.3
    has("nc does not say", fault_of(APP, RUN, "```console\n$ nc 127.0.0.1 9000\n> one\ntwo\n```"))
  end)

  it("puts parts of a file in their place", function()
    local text = "local A = {}\n\nfunction A:one()\n  return 1\nend\n\nreturn { agent = A }\n"
    assert.equal("local A = {}\n\nfunction A:one() return 2 end\n\nreturn { agent = A }\n",
      walkthrough.merge(text, "function A:one() return 2 end\n"))
    assert.equal("local A = {}\n\nfunction A:one()\n  return 1\nend\n\n-- Two.\nfunction A:two()\n  return 2\nend\n\n"
      .. "return {\n  agent = A,\n}\n",
      walkthrough.merge(text, "-- Two.\nfunction A:two()\n  return 2\nend\n\nreturn {\n  agent = A,\n}\n"))
    assert.equal("describe(function()\n  it(1)\n\n  it(2)\nend)\n",
      walkthrough.merge("describe(function()\n  it(1)\nend)\n", "  it(2)\n"))
  end)
end)

describe("the listings of", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function()
    server.finish()
    command.remove(folder)
  end)

  local function listings_of(page)
    local listings = {}
    for _, step in ipairs(walkthrough.read(command.read(page))) do
      if step.kind == "file" then listings[#listings + 1] = step end
    end
    return listings
  end

  for _, page in ipairs { "docs/handlers.md", "docs/coming-from.md" } do
    it(page .. " are accepted by 'perilune check'", function()
      local listings = listings_of(page)
      for _, step in ipairs(listings) do
        local result = command.run { "check", command.write(folder .. "/" .. step.path, step.text) }
        assert.equal(0, result.code, page .. ":" .. step.line .. ": " .. result.err)
      end
      assert.is_true(#listings >= (page == "docs/handlers.md" and 8 or 2), #listings .. " listings")
    end)
  end

  -- The last listing of each is a specification of the first.
  for page, name in pairs { ["docs/http.md"] = "hello", ["docs/websocket.md"] = "echo",
    ["docs/http-client.md"] = "weather" } do
    it(page .. " are an app and a specification that passes", function()
      local text, tests = command.read(page), nil
      command.write(folder .. "/" .. name .. ".lua", text:match("```lua\n(%-%- " .. name .. "%.lua\n.-)```"))
      for sample in text:gmatch "\n```lua\n(.-)```" do tests = sample:find "perilune%.test" and sample or tests end
      command.write(folder .. "/" .. name .. "_spec.lua", tests)
      local result = command.run { "test", dir = folder }
      assert.equal(0, result.code, result.out .. result.err)
    end)
  end

  local function expect_sums(one)
    one:echo_line("20", "20"):echo_line("22.5", "42.5")
    for _, line in ipairs { "x", "5x", "" } do one:echo_line(line, "error: a number, please") end
    one:echo_line("-2", "40.5"):echo_line("quit", "bye"):expect_closed()
  end

  it("docs/coming-from.md are the same program", function()
    for _, step in ipairs(listings_of "docs/coming-from.md") do
      expect_sums(server.start({ script = step.text, args = { "--listen=tcp://127.0.0.1:0" } }):connect())
    end
  end)

  it("docs/coming-from.md are the same program in Node", function()
    if not command.has "node" then return pending "node is not installed" end
    local text = command.read("docs/coming-from.md"):match "```js\n(.-)```"
    local program, n = text:gsub('%.listen%(9000, "127%.0%.0%.1"%)',
      '.listen(0, "127.0.0.1", function () { console.log(this.address().port); })')
    assert.equal(1, n)
    local file, port_file = command.write(folder .. "/counter.js", program), command.write(folder .. "/port", "")
    local pid = tonumber(command.shell(("node '%s' >'%s' 2>&1 & echo $!"):format(file, port_file)))
    finally(function() posix_signal.kill(pid, posix_signal.SIGKILL) end)
    local port = wait.until_true("node to listen", function() return tonumber(command.read(port_file)) end)
    expect_sums(client.connect { port = port })
  end)
end)
