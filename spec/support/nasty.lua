--- The peer's half of nasty streams (nasty.h), for specifications of a program that has so many of them below each
--- connection as $NASTY says: perilune_nasty. Of one that has none, what is sent is what is on the wire.
local bit = require "bit"

local M = {}

--- How many there are.
M.LAYERS = tonumber((os.getenv "NASTY" or ""):match "^%d+") or 0

--- The environment of a program whose layers must open within so many milliseconds.
---@param ms integer
---@return table<string, string>
function M.opening(ms) return { NASTY = ("%d,1,%d"):format(M.LAYERS, ms) } end

-- The lower one's first.
local KEYS = { 0x5a, 0xc3 }
local FILLER, END, ASK, HELLO_BYTES = "\0", "\1", "\2", 3

-- What each byte becomes.
local SENT, GOT = {}, {}
for layer, key in ipairs(KEYS) do
  SENT[layer], GOT[layer] = {}, {}
  for byte = 0, 255 do
    local char, other = string.char(byte), string.char(bit.bxor(byte, key))
    SENT[layer][char], GOT[layer][char] = other, other
  end
  for _, control in ipairs { FILLER, END, ASK } do GOT[layer][control] = "" end
end

local function count(bytes, char)
  local _, n = bytes:gsub(char == FILLER and "%z" or char, "")
  return n
end

---@class perilune.spec.nasty_peer
---@field put fun(bytes: string)
local peer = {}
peer.__index = peer

--- Of a new connection.
---@param put fun(bytes: string) sends what is on the wire
---@return perilune.spec.nasty_peer
function M.peer(put) return setmetatable({ put = put, heard = { 0, 0 }, ends = 0 }, peer) end

-- What is given to a layer, as it is on the wire.
local function through(layer, bytes)
  for below = layer, 1, -1 do bytes = bytes:gsub(".", SENT[below]) end
  return bytes
end

---@param bytes string
---@return string
function peer.encode(_, bytes) return through(M.LAYERS, bytes) end

--- What was sent, of what is on the wire. Whoever asks for something gets it.
---@param bytes string
---@return string
function peer:decode(bytes)
  for layer = 1, M.LAYERS do
    local asked = count(bytes, ASK)
    self.heard[layer] = self.heard[layer] + count(bytes, FILLER)
    self.ends = self.ends + count(bytes, END)
    bytes = bytes:gsub(".", GOT[layer])
    if asked > 0 then self.put(through(layer - 1, FILLER)) end
  end
  return bytes
end

--- The beginnings of all layers: a byte, and then the other side's.
---@param pull fun(): string what has come on the wire
function peer:open(pull)
  for layer = 1, M.LAYERS do
    for n = 1, HELLO_BYTES do
      self.put(through(layer - 1, FILLER))
      while self.heard[layer] < n do assert(self:decode(pull()) == "") end
    end
  end
end

--- Has every layer said its last word?
function peer:has_ended() return self.ends == M.LAYERS end

--- A beginning that is none.
function peer:misbegin() self.put(END) end

return M
