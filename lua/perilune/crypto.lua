--- perilune.crypto: what src/bind/crypto.c has, and identifiers that know the time. Internal.
local core = require "perilune.crypto_core" -- in C: src/bind/crypto.c
local perilune = require "perilune"

local M = {}
for name, fn in pairs(core) do M[name] = fn end

local uuid = core.uuid

--- A random identifier, or with version 7 one that begins with the time, so that later ones sort behind.
---@param version integer?
---@return string
function M.uuid(version)
  if version == nil or version == 4 then return uuid() end
  if version == 7 then return uuid(math.floor(perilune.time() * 1000)) end
  error("crypto.uuid: the version expects 4 or 7, got " .. tostring(version), 2)
end

return M
