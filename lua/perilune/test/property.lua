--- What holds for all inputs, or for many: splits and fuzz. Internal; perilune.test is the door.
local clients = require "perilune.test.client"
local deep = require "perilune.test.deep"
local failing = require "perilune.test.fail"
local host = require "perilune.test.host"
local random = require "perilune.test.random"
local transcript = require "perilune.test.transcript"

local M = {}

local function open_client(what, open)
  local client = open()
  local app = type(client) == "table" and client.wire and client.wire.app
  if not app then failing.misuse(what .. ": the function must return a client of an app in memory") end
  return client, app
end

-- ---- splits ----------------------------------------------------------------

local RANDOM_CASES, CUTS_MAX = 20, 500

local function result_of(client, app, time)
  if time then app:advance(time) end
  local frames = client:frames()
  if client.wire.is_stream then frames = { table.concat(frames) } end
  return { frames = frames, reason = client:closed() or "open" }
end

local function cases_of(n)
  local cases = { { name = "each byte alone", cuts = clients.every_cut(n) } }
  local step = math.max(1, math.ceil((n - 1) / CUTS_MAX))
  for at = 1, n - 1, step do cases[#cases + 1] = { name = "cut after byte " .. at, cuts = { at, n } } end
  for seed = 1, RANDOM_CASES do
    cases[#cases + 1] = { name = "cut at random, seed " .. seed, cuts = clients.random_cuts(n, seed) }
  end
  return cases
end

local function show_result(result)
  local frames = {}
  for i, frame in ipairs(result.frames) do frames[i] = "  " .. transcript.show(frame) end
  frames[#frames + 1] = "  and the connection: " .. result.reason
  return table.concat(frames, "\n")
end

local function run_split(open, frames, cuts, time)
  local client, app = open_client("splits", open)
  if client.wire.is_datagram then failing.misuse "splits: a datagram comes whole, or not at all" end
  local bytes = {}
  for i, frame in ipairs(frames) do bytes[i] = client.wire:encode(frame) end
  bytes = table.concat(bytes)
  local from = 1
  for _, to in ipairs(cuts or { #bytes }) do
    client.wire:put(bytes:sub(from, to))
    from = to + 1
  end
  local result = result_of(client, app, time)
  app:dispose()
  return result, #bytes
end

function M.splits(frames, open, time)
  if type(frames) ~= "table" or #frames == 0 then failing.misuse("splits: a list of frames is expected") end
  local whole, n = run_split(open, frames, nil, time)
  for _, case in ipairs(cases_of(n)) do
    local result = run_split(open, frames, case.cuts, time)
    if not deep.equal(whole, result) then
      failing.fail(("the handler cares how what it is sent is split. All at once:\n%s\n%s:\n%s")
        :format(show_result(whole), case.name, show_result(result)))
    end
  end
end

-- ---- fuzz: what to send -----------------------------------------------------

local STRANGE = {
  "", "\0", "-1", "0", "1", "99999999999999999999", "1e309", "nan", "%s", "\255\254", "\r\n", ("A"):rep(300),
}

local function position(numbers, text) return numbers:next(#text + 1) end

local MUTATIONS = {
  function(numbers, text) -- a byte is another
    local at = position(numbers, text)
    return text:sub(1, at - 1) .. string.char(numbers:next(256) - 1) .. text:sub(at + 1)
  end,
  function(numbers, text) -- a part is missing
    local from = position(numbers, text)
    return text:sub(1, from - 1) .. text:sub(from + numbers:next(8))
  end,
  function(numbers, text) return text:sub(1, position(numbers, text) - 1) end,
  function(numbers, text) -- a part is there twice
    local from = position(numbers, text)
    return text:sub(1, from - 1) .. text:sub(from, from + 8) .. text:sub(from)
  end,
  function(numbers, text) -- something strange in the midst
    local at = position(numbers, text)
    return text:sub(1, at - 1) .. numbers:pick(STRANGE) .. text:sub(at)
  end,
  function(numbers) return numbers:pick(STRANGE) end,
  function(numbers, text) -- a number is another
    return (text:gsub("%-?%d+", function() return numbers:pick(STRANGE) end, 1))
  end,
}

---@class perilune.test.item
---@field value any a frame, or bytes
---@field is_raw boolean? bytes that are sent as they are

local function make_item(numbers, frames)
  local value = numbers:pick(frames)
  if type(value) ~= "string" then return { value = value } end
  for _ = 2, numbers:next(3) do value = numbers:pick(MUTATIONS)(numbers, value) end
  return { value = value, is_raw = numbers:next(12) == 1 }
end

local function make_script(numbers, frames)
  local script = {}
  for i = 1, numbers:next(2 * #frames + 2) do script[i] = make_item(numbers, frames) end
  return script
end

-- ---- fuzz: what becomes of it ------------------------------------------------

local BROKEN = { error = true, proceed_timeout = true, memory = true }

local function send_item(client, item)
  local bytes = item.value
  if not item.is_raw then
    local ok, encoded = pcall(client.wire.encode, client.wire, item.value)
    if not ok then return end -- the framing cannot carry it
    bytes = encoded
  end
  client.wire:put(bytes)
end

---@class perilune.test.problem
---@field key string what is the same for the same mistake
---@field text string

local function look(client, app, check)
  local fault = app:faults()[1]
  if fault then
    local text = ("a handler failed: %s\n%s"):format(fault.error, fault.excerpt or "")
    return { key = fault.place or fault.error, text = text }
  end
  local reason = client:closed()
  if BROKEN[reason] then return { key = reason, text = "the connection ended with " .. reason } end
  if not check then return nil end
  local ok, verdict = pcall(check, client)
  if not ok then
    return { key = "check", text = type(verdict) == "table" and tostring(verdict.message) or tostring(verdict) }
  end
  return verdict == false and { key = "check", text = "check() says false" } or nil
end

---@return perilune.test.problem?
local function try(open, script, check)
  local client, app = open_client("fuzz", open)
  local ok, problem = pcall(function()
    for _, item in ipairs(script) do send_item(client, item) end
    return look(client, app, check)
  end)
  app:dispose()
  if ok then return problem end
  return { key = "restless", text = type(problem) == "table" and tostring(problem.message) or tostring(problem) }
end

-- ---- fuzz: the smallest -------------------------------------------------------

local TRIES_MAX = 1000

local function without(script, from, n)
  local shorter = {}
  for i, item in ipairs(script) do
    if i < from or i >= from + n then shorter[#shorter + 1] = item end
  end
  return shorter
end

local function with(script, at, value)
  local changed = without(script, 0, 0)
  changed[at] = { value = value, is_raw = script[at].is_raw }
  return changed
end

-- Parts are left out, of half the size each time.
local function shrink_list(script, fails)
  local n = math.ceil(#script / 2)
  while n >= 1 do
    local from = 1
    while from <= #script do
      local shorter = without(script, from, n)
      if #shorter > 0 and fails(shorter) then script = shorter else from = from + n end
    end
    n = n > 1 and math.floor(n / 2) or 0
  end
  return script
end

local function shrink_text(script, at, fails)
  local text = script[at].value
  if type(text) ~= "string" then return script end
  local n = math.ceil(#text / 2)
  while n >= 1 do
    local from = 1
    while from <= #text do
      local shorter = text:sub(1, from - 1) .. text:sub(from + n)
      local changed = with(script, at, shorter)
      if fails(changed) then script, text = changed, shorter else from = from + n end
    end
    n = n > 1 and math.floor(n / 2) or 0
  end
  return script
end

local function shrink(script, fails)
  script = shrink_list(script, fails)
  for at = 1, #script do script = shrink_text(script, at, fails) end
  return script
end

local function show_script(script)
  local lines = {}
  for i, item in ipairs(script) do
    lines[i] = ("%3d  %s%s"):format(i, transcript.show(item.value), item.is_raw and " as it is" or "")
  end
  return table.concat(lines, "\n")
end

local function report(open, script, problem, check, about)
  local tries, n = 0, #script
  local function fails(candidate)
    tries = tries + 1
    local again = tries <= TRIES_MAX and try(open, candidate, check)
    if not again or again.key ~= problem.key then return false end
    problem = again
    return true
  end
  script = shrink(script, fails)
  local text = problem.text:gsub("\n$", "")
  failing.fail(("%s\nthe smallest transcript that shows it (%s, of %d frames)\n%s"):format(text, about, n,
    show_script(script)))
end

local function check_options(options)
  if type(options) ~= "table" or type(options.frames) ~= "table" or #options.frames == 0 then
    failing.misuse("fuzz: a table is expected: { frames = { … }, seconds = 1, seed = 1 }")
  end
  local cases = options.cases
  if cases ~= nil and not (type(cases) == "number" and cases >= 1 and cases % 1 == 0) then
    failing.misuse(("fuzz: cases is to be a whole number from 1 on, got %s"):format(tostring(cases)))
  end
end

function M.fuzz(open, options)
  check_options(options)
  local seed = options.seed or random.seed()
  local seconds, most = options.seconds or not options.cases and 1, options.cases or math.huge
  local numbers, until_s, cases = random.new(seed), seconds and host.now() + seconds or math.huge, 0
  repeat
    cases = cases + 1
    local script = make_script(numbers, options.frames)
    local problem = try(open, script, options.check)
    if problem then report(open, script, problem, options.check, ("seed %d, case %d"):format(seed, cases)) end
  until cases >= most or host.now() >= until_s
  return cases
end

return M
