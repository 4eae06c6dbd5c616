--- Connections that are kept for later, by whom they lead to: a worker's, whichever agents have made them.
---
--- A call may be ended between any two lines, so a connection is in the list before it belongs to the app, and leaves
--- it after it belongs to a call: what is in the list and belongs to neither is refused by core.acquire, and dropped.
local core = package.loaded["perilune.core"] or {} -- not there while a script is only being checked
local perilune = require "perilune"

local M = {}

local SWEEP = 1 -- seconds

---@class perilune.compat.kept
---@field conn table
---@field until_time number? of perilune.now(); nil: for ever
---@field reused integer how often it was taken

---@class perilune.compat.pool
---@field lists table<string, perilune.compat.kept[]> the latest last
local Pool = {}
Pool.__index = Pool

---@return perilune.compat.pool
function M.new() return setmetatable({ lists = {}, is_sweeping = false }, Pool) end

local function is_over(kept, now) return kept.until_time ~= nil and kept.until_time <= now end

local function remove(list, kept)
  for i = #list, 1, -1 do
    if list[i] == kept then return table.remove(list, i) end
  end
end

local sweep

-- False: the app's timers have ended.
local function begin_sweeping(self)
  if self.is_sweeping then return true end
  self.is_sweeping = pcall(require("perilune.waiting").app_methods.after, {}, SWEEP, sweep, self)
  return self.is_sweeping
end

function sweep(self)
  self.is_sweeping = false
  local now, is_left = perilune.now(), false
  for key, list in pairs(self.lists) do
    for i = #list, 1, -1 do
      if is_over(list[i], now) then table.remove(list, i).conn:close() end
    end
    if #list == 0 then self.lists[key] = nil else is_left = true end
  end
  if is_left then begin_sweeping(self) end
end

--- One that leads there, for the running call.
---@param key string
---@return perilune.compat.kept?
function Pool:take(key)
  local list = self.lists[key]
  local now = list and perilune.now()
  while list and #list > 0 do
    local kept = list[#list]
    local is_ours = not is_over(kept, now) and core.acquire(kept.conn, true)
    remove(list, kept)
    if is_ours then return kept end
    kept.conn:close()
  end
end

--- Keeps a connection, which is nobody's then.
---@param key string
---@param conn table
---@param reused integer how often it was taken so far
---@param idle number? seconds; nil: for ever
---@param size integer how many are kept under this key: the one that was used least lately makes room
---@return boolean? kept false: there are no such things here, and it is closed
---@return string? message why it cannot be kept: it is closed
function Pool:keep(key, conn, reused, idle, size)
  if not core.release or size < 1 or not begin_sweeping(self) then
    conn:close()
    return false
  end
  local list = self.lists[key] or {}
  self.lists[key] = list
  while #list >= size do table.remove(list, 1).conn:close() end
  local kept = { conn = conn, reused = reused, until_time = idle and perilune.now() + idle }
  list[#list + 1] = kept
  if core.release(kept) then return true end
  remove(list, kept)
  conn:close()
  return nil, "it has unread data, or has ended"
end

return M
