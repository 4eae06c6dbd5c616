--- What a script keeps over a reload or an upgrade: see src/script/snapshot.h.
local plain = require "perilune.plain"
local units = require "perilune.units"

local M = {}

local TOO_LARGE = "snapshot(): the data has more than %s packed (limits.snapshot)"

--- Asks the script.
---@param snapshot fun(app: perilune.worker): any
---@param app perilune.worker
---@param most integer limits.snapshot, in bytes
---@return string? bytes for plain.unpack(); nil: it keeps nothing
function M.take(snapshot, app, most)
  local data = snapshot(app)
  if data == nil then return nil end
  local bytes = plain.pack(data, most, "snapshot()", "kept", 2)
  if not bytes or #bytes > most then error(TOO_LARGE:format(units.format_size(most)), 0) end
  return bytes
end

return M
