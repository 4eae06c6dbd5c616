--- The types in lua/perilune/library/ say what the program accepts and what the reference tells, no more and no less.
local agent = require "perilune.config.agent"
local command = require "spec.support.command"
local frame = require "perilune.config.frame"
local sandbox = require "perilune.sandbox"
local schema = require "perilune.config.schema"
local stubs_of = require "packaging.stubs"

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/unit/[^/]+$")
local stubs = stubs_of.read(root .. "lua/perilune/library")
local reference = command.read(root .. "docs/reference.md")

-- Where the functions of specifications are, and told of.
local TESTING = { test = "lua/perilune/test.lua", app = "lua/perilune/test/memory.lua",
  client = "lua/perilune/test/client.lua", net = "lua/perilune/test/net.lua",
  response = "lua/perilune/test/web.lua", websocket = "lua/perilune/test/websocket.lua" }

local function is_for_testing(name) return TESTING[name:match "^%w+"] ~= nil end

local function exists(path)
  local file = io.open(root .. path)
  if file then file:close() end
  return file ~= nil
end

local GROUPS = {
  hub = "perilune.hub_settings", jobs = "perilune.job_settings", limits = "perilune.limits",
  timeout = "perilune.timeouts",
  log = "perilune.log_settings", record = "perilune.record", reload = "perilune.reload",
}

local function sorted(list)
  local copy = {}
  for i, item in ipairs(list) do copy[i] = item end
  table.sort(copy)
  return copy
end

local function keys(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  return sorted(names)
end

-- The field that a key of the configuration is, and its class.
local function field_of(key)
  local group, name = key.path:match "^(%w+)%.(.+)$"
  local class = group and GROUPS[group] or key.scope == "listener" and "perilune.listener_settings" or "perilune.app"
  return stubs.classes[class].fields[name or key.path], class
end

describe("the types of the API", function()
  it("describe each argument of each function", function()
    for name, stub in pairs(stubs.functions) do
      local described = {}
      for i, param in ipairs(stub.params) do described[i] = param.name end
      assert.same(stub.arguments, described, name)
    end
    assert.is_true(#keys(stubs.functions) >= 30)
  end)

  it("have the signatures of the reference", function()
    for name, stub in pairs(stubs.functions) do
      local shown = stubs_of.signature(name:gsub("^agent:", ""):gsub("^worker:", "app:"):gsub("^asker:", "client:")
        :gsub("^received:", "response:"):gsub("^made:", "response:"):gsub("^hub%.", "perilune.hub."), stub)
      local _, stop = reference:find("`" .. shown, 1, true)
      assert.truthy(is_for_testing(name) or stop and reference:find("^[` ]", stop + 1),
        "docs/reference.md does not have `" .. shown .. "`")
    end
  end)

  it("have all functions that the reference speaks of", function()
    local n = 0
    for name in reference:gmatch "`([%l]+[.:][%l_]+)%b()`" do
      if stubs.order[name:match "^%l+"] and name:find ":" then
        n = n + 1
        local own = stubs.functions[name] or stubs.functions[name:gsub("^app:", "worker:"):gsub("^client:", "asker:")]
          or stubs.functions[name:gsub("^response:", "received:")] or stubs.functions[name:gsub("^response:", "made:")]
        assert.truthy(own, "no types of " .. name)
      end
    end
    assert.is_true(n >= 20, "only " .. n .. " functions were found in the reference")
  end)

  it("have what perilune.test has, and its manual", function()
    if not exists(TESTING.test) then return pending "this tree has no perilune.test" end
    local manual = command.read(root .. "docs/testing.md")
    for name in command.read(root .. TESTING.test):gmatch "\nfunction M%.([%w_]+)" do
      assert.truthy(stubs.functions["test." .. name], "no types of perilune." .. name)
    end
    for owner, path in pairs(TESTING) do
      local source = command.read(root .. path)
      for _, name in ipairs(stubs_of.names_of(stubs, owner)) do
        local stub = stubs.functions[owner .. (owner == "test" and "." or ":") .. name]
        local real = source:match("\nfunction [%w_]+[.:]" .. name .. "(%b())")
        assert.truthy(real or source:find("\nM%." .. name .. " = "), path .. " has no " .. name)
        assert.equal(("(%s)"):format(table.concat(stub.arguments, ", ")), real or stub.arguments[1] and "(text)", name)
        assert.truthy(manual:find(name, 1, true), "docs/testing.md does not have " .. name)
      end
    end
    for name in manual:gmatch "`app:([%w_]+)%(" do
      assert.truthy(stubs.functions["app:" .. name], "no types of " .. name)
    end
    local n = 0
    for methods in (manual:match "\n## Clients\n(.-)\n##" or ""):gmatch "\n%- (`[^:]+`):" do
      for name in methods:gmatch "`([%w_]+)%(" do
        n = n + 1
        assert.truthy(stubs.functions["client:" .. name], "no types of " .. name)
      end
    end
    assert.is_true(n >= 15, "only " .. n .. " methods of clients were found in the manual")
  end)

  it("have the methods that the core calls", function()
    assert.same(sorted(agent.METHODS), stubs_of.names_of(stubs, "agent"))
  end)

  it("have the methods of views, and as many arguments", function()
    local view = require "perilune.view"
    for _, name in ipairs(stubs_of.names_of(stubs, "view")) do
      local method = view.object[name]
      assert.equal("function", type(method), name)
      local stub, info = stubs.functions["view:" .. name], debug.getinfo(method, "u")
      assert.is_true(info.nparams == 0 and #stub.params == 0 or info.nparams == #stub.params + 1, name)
    end
    for name in command.read(root .. "lua/perilune/view.lua"):gmatch "function methods%.([%w_]+)" do
      assert.truthy(stubs.functions["view:" .. name], "no types of view:" .. name)
    end
  end)

  it("have the methods of pools, and what pool:status() returns", function()
    local source = command.read(root .. "lua/perilune/pooling.lua")
    local real = {}
    for name in source:gmatch "\nfunction pool_methods%.([%l_]+)%(" do real[name] = true end
    assert.same(keys(real), stubs_of.names_of(stubs, "pool"))
    local told = {}
    for name in source:match("local status = (%b{})"):gmatch "([%l_]+) = " do told[name] = true end
    for name in source:match("own%.counts = (%b{})"):gmatch "([%l_]+) = " do told[name] = true end
    assert.same(keys(told), keys(stubs.classes["perilune.pool_status"].fields))
  end)

  it("have the options of connections out and of pools, and their defaults", function()
    local connecting, pooling = require "perilune.connecting", require "perilune.pooling"
    local CLASSES = { timeout = "perilune.connect_timeouts", limits = "perilune.connect_limits" }
    local known = {
      ["perilune.connect_options"] = { agent = true, from = true, tls = true, timeout = true, limits = true,
        origin = true, headers = true },
    }
    local of_agent = {}
    for _, path in ipairs(connecting.OF_AGENT) do of_agent[path] = true end
    local function check_default(field, key, default)
      local told = field.text:match '[Dd]efault: "?([%w_.]+)'
      if default == nil or default == 0 then
        return assert.is_true(told == nil or told == "off" or told == "none", key.path)
      end
      assert.equal(default, (schema.parse(key, schema.TYPES[key.type].from_text(told))), key.path)
    end
    for path, key in pairs(connecting.KEYS) do
      local group, name = path:match "^(%w+)%.(.+)$"
      local class = CLASSES[group] or "perilune.connect_options"
      local field = assert(stubs.classes[class].fields[name or path], path)
      known[class] = known[class] or {}
      known[class][name or path] = true
      if of_agent[path] then
        assert.truthy(field.text:find("default: the first listener's", 1, true), path)
      elseif path ~= "frame" then
        local default = connecting.DEFAULTS[path]
        if default == nil then default = key.default end
        if type(default) == "table" and next(default) == nil then default = nil end -- an empty list, told as "none"
        check_default(field, key, default)
      end
    end
    for class, names in pairs(known) do assert.same(keys(names), keys(stubs.classes[class].fields)) end
    assert.same(keys(pooling.OPTIONS), keys(stubs.classes["perilune.pool_options"].fields))
    for name, option in pairs(pooling.OPTIONS) do
      local told = stubs.classes["perilune.pool_options"].fields[name].text:match "default: ([%w]+)"
      if told == "false" then told = false elseif told == "off" then told = 0 end
      assert.same(option[2], (option[1](tonumber(told) or told)), name)
    end
  end)

  it("have the options of the HTTP client, its methods and those of responses", function()
    local options = require "perilune.http.client_options"
    assert.same(keys(options.SHARED), keys(stubs.classes["perilune.http.shared_options"].fields))
    local of_request, of_client = {}, {}
    for _, class in ipairs { "request_options", "whole_request" } do
      for name in pairs(stubs.classes["perilune.http." .. class].fields) do of_request[name] = true end
    end
    for _, group in ipairs { options.OF_CLIENT, options.OF_POOL } do
      for name in pairs(group) do of_client[name] = true end
    end
    assert.same(keys(options.OF_REQUEST), keys(of_request))
    assert.same(keys(of_client), keys(stubs.classes["perilune.http.client_options"].fields))
    local asker, received = { get = true, head = true, delete = true, options = true, post = true, put = true,
      patch = true }, {}
    for name in command.read(root .. "lua/perilune/http/client.lua"):gmatch "\nfunction methods%.([%l_]+)%(" do
      asker[name] = true
    end
    for name in command.read(root .. "lua/perilune/http/received.lua"):gmatch "\nfunction methods%.([%l_]+)%(" do
      received[name] = true
    end
    assert.same(keys(asker), stubs_of.names_of(stubs, "asker"))
    assert.same(keys(received), stubs_of.names_of(stubs, "received"))
  end)

  it("have the methods of timers, tasks, channels, semaphores, and of the app of setup()", function()
    local source = command.read(root .. "lua/perilune/waiting.lua") .. command.read(root .. "src/bind/sync.c")
    local real = { timer = {}, task = {}, semaphore = {}, channel = {}, worker = {} }
    for owner, name in source:gmatch "function (%l+)_methods%.([%l_]+)%(" do real[owner][name] = true end
    for owner, list in source:gmatch "luaL_Reg (%u+)%[%] = (%b{})" do
      for name in list:gmatch '{ "([%l_]+)"' do
        if real[owner:lower()] then real[owner:lower()][name] = true end
      end
    end
    for name in source:match("M%.app_methods = (%b{})"):gmatch "([%l]+) = " do real.worker[name] = true end
    for owner, methods in pairs(real) do assert.same(keys(methods), sorted(stubs_of.names_of(stubs, owner)), owner) end
  end)

  describe("have each key of the configuration:", function()
    for _, key in ipairs(schema.KEYS) do
      it(key.path, function()
        local field, class = field_of(key)
        assert.truthy(field, "no field in " .. class)
        assert.equal(key.path ~= "listen", field.optional)
        if key.type == "enum" and key.path ~= "log.level" then
          assert.same(sorted(key.values), sorted(stubs_of.quoted(field.text:gsub(" .*", ""))))
        end
        if key.default and key.default ~= 0 and type(key.default) ~= "table" then
          local told = field.text:match '[Dd]efault: "?([%w_.]+)' or field.text:match '"(%w+)" %(the default%)'
          assert.truthy(told, "no default in: " .. field.text)
          assert.equal(key.default, (schema.parse(key, schema.TYPES[key.type].from_text(told))))
        end
      end)
    end
  end)

  it("have no other keys", function()
    local function check(class, prefix, other)
      for name in pairs(stubs.classes[class].fields) do
        assert.truthy(schema.BY_PATH[prefix .. name] or other and other[name], class .. " has " .. name)
      end
    end
    check("perilune.listener_settings", "", schema.GROUPS)
    check("perilune.app", "", schema.GROUPS)
    check("perilune.listen_entry", "", { ["1"] = true, address = true })
    for group, class in pairs(GROUPS) do check(class, group .. ".") end
    for group in pairs(schema.GROUPS) do assert.truthy(GROUPS[group], "no class for " .. group) end
  end)

  it("have the names and options of framings", function()
    local names = sorted(stubs.aliases["perilune.framing_name"])
    for _, name in ipairs(stubs_of.quoted(stubs.classes["perilune.framing_table"].fields["1"].text)) do
      names[#names + 1] = name
    end
    assert.same(sorted(frame.NAMES), sorted(names))
    local options = { delimiter = true, fixed = true } -- those at [2]
    for _, class in ipairs { "perilune.framing_table", "perilune.codec" } do
      for name in pairs(stubs.classes[class].fields) do
        if not tonumber(name) then options[name] = true end
      end
    end
    assert.same(keys(frame.OPTIONS), keys(options))
  end)

  it("have the names that unsafe opens, those of compat, the levels and the close reasons", function()
    assert.same(sorted(sandbox.UNSAFE), sorted(stubs.aliases["perilune.door"]))
    assert.same(sorted(schema.COMPAT), sorted(stubs.aliases["perilune.compat"]))
    assert.same(sorted(schema.BY_PATH["log.level"].values), sorted(stubs.aliases["perilune.level"]))
    local reasons = {}
    for name in command.read(root .. "src/base/reason.c"):gmatch '%[REASON_%u-_?%u-_?%u+%] = "([%w_]+)"' do
      if name ~= "none" then reasons[#reasons + 1] = name end
    end
    assert.is_true(#reasons >= 16)
    assert.same(sorted(reasons), sorted(stubs.aliases["perilune.reason"]))
  end)

  it("are types and no code", function()
    for path in command.shell(("ls '%slua/perilune/library'/*.lua"):format(root)):gmatch "[^\n]+" do
      local text = command.read(path)
      assert.matches("^%-%-%-@meta", text)
      assert.truthy(load(text, "=" .. path))
    end
  end)
end)
