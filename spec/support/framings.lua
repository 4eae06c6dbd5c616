--- The framings that there are, each with what a payload looks like on the wire: the one table that specifications of
--- framing, and the matrix of streams, framings and events, are made from.

local M = {}

-- n as `count` bytes, the most significant first.
local function big(n, count)
  local out = {}
  for i = count, 1, -1 do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

local function varint(n)
  local out = ""
  while n >= 128 do
    out, n = out .. string.char(128 + n % 128), math.floor(n / 128)
  end
  return out .. string.char(n)
end

local function length(count, little)
  return function(payload)
    local field = big(#payload, count)
    return (little and field:reverse() or field) .. payload
  end
end

M.big, M.varint = big, varint

--- Source of the codec in Lua: `in_lua` in M.LIST.
M.IN_LUA = [[local in_lua = {
  decode = function(text, at)
    local stop = text:find(">", at, true)
    if stop then return text:sub(at + 1, stop - 1), stop + 1 end
  end,
  encode = function(reply) return "<" .. reply .. ">" end,
}
]]

---@class perilune.spec.framing
---@field source string as a script says it, behind M.IN_LUA
---@field framing string|table the same as a value
---@field encode fun(payload: string): string
---@field max integer? bytes of a payload
---@field fixed integer? that all payloads have
---@field views boolean handlers can be given views

---@type perilune.spec.framing[]
M.LIST = {
  { source = [["u8"]], encode = length(1), max = 255 },
  { source = [["u16be"]], encode = length(2), max = 65535 },
  { source = [["u16le"]], encode = length(2, true), max = 65535 },
  { source = [["u24be"]], encode = length(3) },
  { source = [["u32be"]], encode = length(4) },
  { source = [["u32le"]], encode = length(4, true) },
  { source = [["u64be"]], encode = length(8) },
  { source = [["varint"]], encode = function(payload) return varint(#payload) .. payload end },
  { source = [["line"]], encode = function(payload) return payload .. "\n" end },
  { source = [["netstring"]], encode = function(payload) return #payload .. ":" .. payload .. "," end },
  { source = [[{ "delimiter", "\0" }]], encode = function(payload) return payload .. "\0" end },
  { source = [[{ "delimiter", "\r\n" }]], encode = function(payload) return payload .. "\r\n" end },
  { source = [[{ "fixed", 7 }]], encode = function(payload) return (payload .. "......."):sub(1, 7) end, fixed = 7 },
  -- Three bytes in front, then a length that counts those and itself.
  { source = [[{ "length", bytes = 2, endian = "little", offset = 3, adjust = -5 }]], encode = function(payload)
    local whole = "abc" .. payload
    return whole:sub(1, 3) .. big(#payload + 5, 2):reverse() .. whole:sub(4)
  end, max = 60000 },
  -- MQTT's: a byte, the length, what it announces. And one whose length counts the two bytes before it.
  { source = [[{ "varint", offset = 1 }]], encode = function(payload)
    return "\255" .. varint(#payload) .. payload
  end },
  { source = [[{ "varint", offset = 2, adjust = -2 }]], encode = function(payload)
    return "\128\128" .. varint(#payload + 2) .. payload
  end },
  { source = "in_lua", encode = function(payload) return "<" .. payload .. ">" end, max = 1000 },
}

for _, one in ipairs(M.LIST) do
  one.framing = assert(loadstring(M.IN_LUA .. "return " .. one.source))()
end

return M
