-- How long a router takes to find a handler, with 2 routes and with 200, in CPU time a look-up.
--
--   build/perilune exec bench/routes.lua [ROUNDS]
--
-- The whole way from proceed() to the handler's return is measured, the request being there already; compiled by
-- LuaJIT as it is in a worker, and interpreted. The median of the rounds is printed, with the smallest and the largest.
local http = require "perilune.http"
local jit = require "jit"

local ROUNDS, SECONDS = tonumber(arg and arg[1]) or 9, 0.02

local function handler(request) return request.path end
local function of_id(request) return request.params.id end

-- Half of the routes have parameters.
local function router_of(n)
  local api = http.router()
  for i = 1, n / 2 do
    api:get(("/static/part%d/end"):format(i), handler)
    api:get(("/things%d/{id}/items/{item}"):format(i), of_id)
  end
  return api
end

-- Requests as the core makes them, the table included: what a router writes goes into it.
local make = require("perilune.requests").single()

local function each_of(paths, api)
  local agent = setmetatable({}, { __index = api })
  return function(n)
    for i = 1, n do make(nil, agent, "", 1, nil, paths[i % #paths + 1], nil, nil) end
  end
end

local function paths_of(format, n)
  local paths = {}
  for i = 1, n do paths[i] = format:format(i) end
  return paths
end

local plain = { proceed = function(_, request) return request.path end }
local CASES = {
  { "without a router", plain, { "/a" } },
  { "literal, 2 routes", router_of(2), { "/static/part1/end" } },
  { "literal, 200 routes", router_of(200), paths_of("/static/part%d/end", 100) },
  { "two parameters, 2 routes", router_of(2), { "/things1/7/items/8" } },
  { "two parameters, 200 routes", router_of(200), paths_of("/things%d/7/items/8", 100) },
  { "no route, 200 routes", router_of(200), { "/nowhere/at/all" } },
}

local function time_of(run)
  local n = 1000
  while true do
    local start = os.clock()
    run(n)
    local spent = os.clock() - start
    if spent >= SECONDS then return spent / n * 1e9 end
    n = n * 2
  end
end

local function measure(run)
  local times = {}
  for i = 1, ROUNDS do times[i] = time_of(run) end
  table.sort(times)
  return times[math.ceil(ROUNDS / 2)], times[1], times[ROUNDS]
end

for _, mode in ipairs { "compiled", "interpreted" } do
  jit[mode == "compiled" and "on" or "off"]()
  jit.flush()
  for _, case in ipairs(CASES) do
    print(("%-12s %-28s %7.0f ns  (%.0f to %.0f)"):format(mode, case[1], measure(each_of(case[3], case[2]))))
  end
end
