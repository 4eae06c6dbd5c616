-- The echo beside live state, as a store or a game's world has it: OBJECTS tables, each with a string of its own, in
-- tables of SHARD entries, and STRINGS strings more.
local OBJECTS = tonumber(os.getenv("OBJECTS") or 100000)
local STRINGS = tonumber(os.getenv("STRINGS") or 0)
local SHARD = tonumber(os.getenv("SHARD") or 1000)

local function fill(n, make)
  local shards = {}
  for first = 1, n, SHARD do
    local shard = {}
    for i = first, math.min(first + SHARD - 1, n) do shard[#shard + 1] = make(i) end
    shards[#shards + 1] = shard
  end
  return shards
end

local Echo = {
  objects = fill(OBJECTS, function(i) return { id = i, name = "object " .. i } end),
  strings = fill(STRINGS, function(i) return "string " .. i end),
}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "u32be",
  agent = Echo,
}
