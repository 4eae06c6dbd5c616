-- Where notes are: in a dictionary that all workers share. It is bounded, and forgets what was not looked at for
-- longest; for notes that are to stay, ask a database here.
local perilune = require "perilune"

local kept = perilune.shared "notes"
local json = perilune.json

local M = {}

---@param note table
---@return integer id
function M.add(note)
  local id = assert(kept:incr("last id", 1, 0))
  kept:set("note " .. id, json.encode(note))
  return id
end

---@return table?
function M.get(id)
  local text = kept:get("note " .. id)
  return text and json.decode(text)
end

---@return boolean was_there
function M.remove(id)
  if not kept:get("note " .. id) then return false end
  kept:delete("note " .. id)
  return true
end

local MOST = 100

--- The latest ones, the newest first.
---@return table[]
function M.all()
  local list, last = json.array {}, kept:get "last id" or 0
  for id = last, math.max(1, last - MOST + 1), -1 do
    local note = M.get(id)
    if note then
      note.id = id
      list[#list + 1] = note
    end
  end
  return list
end

return M
