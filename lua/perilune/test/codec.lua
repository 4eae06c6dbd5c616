--- The framing of a client: the app's own codec, wherever the bytes come from. Internal.
local buffer = require "string.buffer"
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c

local failing = require "perilune.test.fail"

local M = {}

--- Bytes of a frame.
---@param app userdata
---@param number integer of the client
---@param frame any
---@return string
function M.encode(app, number, frame)
  if core.is_closed(app) then failing.misuse("the app is closed") end
  local packs = core.needs_packing(app, number)
  if not packs and type(frame) == "number" then frame = tostring(frame) end
  if not packs and type(frame) ~= "string" then
    failing.misuse("a frame is a string, got a " .. type(frame) .. " (only a codec in Lua takes others)")
  end
  local ok, bytes = pcall(core.encode, app, number, packs and buffer.encode(frame) or frame)
  if not ok then failing.misuse("the frame cannot be sent: " .. tostring(bytes)) end
  return bytes
end

--- The next frame and when it came (in ms); nil: there is none; nil, why: what came is none.
function M.next(app, number)
  local frame, packed, at_ms = core.frame(app, number)
  if frame == nil then return nil, packed end
  if packed then frame = buffer.decode(frame) end
  return frame, at_ms
end

---@return boolean is_stream frames of it are whatever has come
function M.set_frame(app, number, framing)
  local ok, message = pcall(core.set_frame, app, number, framing)
  if not ok then failing.misuse("set_frame: " .. message) end
  return core.framing(app, number) == "raw"
end

return M
