--- What a script takes from `require "perilune"` that is not there: told before a client comes to it.
local command = require "spec.support.command"
local has = require "spec.support.has"

describe("a field that perilune does not have", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function() command.remove(folder) end)

  local function check(body, head)
    command.write(folder .. "/app.lua", ([[
%s
local A = {}
function A:proceed(line)
%s
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A }
]]):format(head or [[local perilune = require "perilune"]], body))
    return command.run { "check", dir = folder }
  end

  for body, wanted in pairs {
    ["return perilune.publish('x')"] = "app.lua:4: perilune.publish does not exist: it is called perilune.hub.publish",
    ["perilune.slep(1)"] = "app.lua:4: perilune.slep does not exist: did you mean 'sleep'?",
    ["return function() perilune.timer(1, print) end"] = "app.lua:4: perilune.timer does not exist: timers are",
    ["local f = perilune.qwzx\nreturn f"] = "app.lua:4: perilune.qwzx does not exist",
    ["if line then\n  perilune . slep(1)\nend"] = "app.lua:5: perilune.slep does not exist",
  } do
    it("is warned of: " .. body:gsub("\n", " "), function()
      local result = check(body)
      assert.equal(0, result.code, result.err)
      has("perilune: warning: " .. wanted, result.err)
    end)
  end

  it("is warned of whatever the module is called, once for each name of a file", function()
    local result = check("p.slep(1) p.slep(2)\np.slep(3) p.nwo()", [[local p = require("perilune")]])
    has("app.lua:4: p.slep does not exist", result.err)
    has("app.lua:5: p.nwo does not exist: did you mean 'now'?", result.err)
    assert.equal(2, select(2, result.err:gsub("warning", "")))
  end)

  it("is warned of where a library of it is kept in a local", function()
    for _, head in ipairs {
      [[local json = require("perilune").json]], [[local perilune = require "perilune"; local json = perilune.json]],
    } do
      has("app.lua:4: json.decod does not exist: did you mean 'decode'?", check("return json.decod(line)", head).err)
      has("app.lua:4: json.parse does not exist: it is called", check("return json.parse(line)", head).err)
      assert.equal("", check("return json.encode(json.decode(line))", head).err)
    end
    has("perilune.jsn does not exist: did you mean 'json'?", check("return perilune.jsn(line)").err)
    has("perilune.base64 does not exist: perilune.encoding.encode_base64(bytes)", check("perilune.base64(line)").err)
  end)

  for _, body in ipairs {
    "local function f(p) return p.x end return f { x = line }", "for p in pairs(self) do print(p.x) end",
    "for p = 1, 2 do print(p.x) end", "local p = { x = line } return p.x", "local a, p = 1, { x = 2 } return p.x",
  } do
    it("is not warned of where something else has the name: " .. body, function()
      local result = check(body, [[local p = require "perilune"]])
      assert.same({ 0, "" }, { result.code, result.err })
    end)
  end

  for _, body in ipairs {
    "perilune.sleep(1) perilune.log('info', line) return perilune.now()", "-- perilune.nothing\nreturn line",
    "return 'perilune.nothing'", "return [[\nperilune.nothing ]]", "return self.perilune.nothing",
    "if perilune.publish then return 1 end", "local shared = perilune.shared or {} return shared[line]",
    "if perilune.publish ~= nil then return perilune.publish('x') end", "return line.perilune",
  } do
    it("is not warned of where it is none, or is looked for: " .. body:gsub("\n", " "), function()
      local result = check(body)
      assert.same({ 0, "" }, { result.code, result.err })
    end)
  end
end)
