--- What runs in the VM of a job (src/bind/job_vm.c): finds the function, calls it, describes its fault. Internal.
local core = package.loaded["perilune.core"]
local plain = require "perilune.plain"

local M = {}

local function list_of(text)
  local list = {}
  for name in text:gmatch "[^,]+" do list[#list + 1] = name end
  return list
end

local MISSING = "perilune.job: there is no module '%s' for %s(): %s"
local NO_TABLE = "perilune.job: module '%s' returns %s, and not a table with a function %s()"
local NO_FUNCTION = "perilune.job: module '%s' has no function '%s'%s"

local function functions_of(module)
  local names = {}
  for name, value in pairs(module) do
    if type(name) == "string" and type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- The function that is called last; for a fault whose stack has no line of it.
local called, called_name

local function finder(app)
  local modules = {}
  return function(module, name)
    local value = modules[module]
    if value == nil then
      local why = app.why_not(module)
      if why then return nil, MISSING:format(module, name, why) end
      value = app.require(module)
      modules[module] = value
    end
    if type(value) ~= "table" then
      return nil, NO_TABLE:format(module, require("perilune.printable").value(value), name)
    end
    local fn = value[name]
    if type(fn) == "function" then return fn end
    return nil, NO_FUNCTION:format(module, name, require("perilune.suggest").hint(name, functions_of(value)))
  end
end

local function runner(find)
  return function()
    local module, name = core.job_names()
    called, called_name = nil, name
    local fn, message = find(module, name)
    if not fn then return core.job_refuse(message) end
    called = fn
    return core.job_results(fn(plain.open(core.job_arguments())))
  end
end

-- ---- faults ----

local function source_of(file, max)
  return file and require("perilune.sources").text(file:gsub("#g%d+$", ""), max) or nil
end

-- As runtime.describe_fault() has it, in the order of JOB_FAILED: message, report, traceback, place, kind.
local function describe(err, co, about)
  about.callback = called_name
  return require("perilune.blame").describe(err, co,
    { called = called, called_name = called_name, source_of = source_of }, about)
end

local function pack(value, most)
  return plain.pack(value, most, "perilune.job: a result", "returned by a job", 4)
end

--- What a VM of jobs needs.
---@param script string
---@param options { modules: string, unsafe: string, compat: string, generation: integer }
---@return { run: function, describe: function, pack: function }
function M.open(script, options)
  local app = require("perilune.app").bare(script, {
    modules = list_of(options.modules), unsafe = list_of(options.unsafe), compat = list_of(options.compat),
    generation = options.generation,
  })
  return { run = runner(finder(app)), describe = describe, pack = pack }
end

return M
