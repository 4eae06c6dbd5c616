--- What happened on a connection, as a ladder for people. Internal.
local printable = require "perilune.printable"
local units = require "perilune.units"

local M = {}

local TEXT_MAX, HEX_MAX, ITEMS_MAX, LINES_MAX = 200, 64, 8, 60

-- Text has no controls but the ends of lines and tabs, and is UTF-8; what is not shown anyway is not looked at.
local function is_text(bytes)
  if bytes:sub(1, TEXT_MAX):find("[%z\1-\8\11\12\14-\31\127]") then return false end
  local i = 1
  while i <= math.min(#bytes, TEXT_MAX) do
    local n = printable.utf8_at(bytes, i)
    if not n then return false end
    i = i + n
  end
  return true
end

local function hex(bytes)
  local shown = bytes:sub(1, HEX_MAX):gsub(".", function(c) return ("%02x "):format(c:byte()) end)
  return ("%s%s(%d bytes)"):format(shown, #bytes > HEX_MAX and "… " or "", #bytes)
end

local show

local function show_table(t, depth)
  local parts, n = {}, 0
  for key, value in pairs(t) do
    n = n + 1
    if n <= ITEMS_MAX then parts[n] = printable.key(key) .. " = " .. show(value, depth + 1) end
  end
  table.sort(parts)
  if n > ITEMS_MAX then parts[#parts + 1] = "…" end
  return n == 0 and "{}" or "{ " .. table.concat(parts, ", ") .. " }"
end

--- A frame, or what one is compared with: text in quotes, other bytes as hex.
---@param value any
---@return string
function M.show(value) return show(value, 0) end

function show(value, depth)
  if type(value) == "string" then
    return is_text(value) and printable.quote(value, TEXT_MAX) or hex(value)
  end
  if type(value) ~= "table" then return tostring(value) end
  if getmetatable(value) and getmetatable(value).__tostring then return tostring(value) end
  return depth > 3 and "{…}" or show_table(value, depth)
end

--- 90000 → "90s", 0 → "0s"
---@param ms number
function M.time(ms)
  ms = math.floor(ms)
  return ms == 0 and "0s" or units.format_duration(ms)
end

-- What a replay lacks, and what it has that was not recorded.
local SIGNS = { send = "→", receive = "←", note = "──", lacking = "-", added = "+" }

---@class perilune.test.event
---@field at_ms number
---@field kind "send"|"receive"|"note"|"lacking"|"added"
---@field text string

--- One line for each event; of many, the last ones.
---@param title string
---@param events perilune.test.event[]
---@return string
function M.ladder(title, events)
  local lines, first = { title }, math.max(1, #events - LINES_MAX + 1)
  if first > 1 then lines[2] = ("%12s"):format(("… %d more"):format(first - 1)) end
  for i = first, #events do
    local event = events[i]
    lines[#lines + 1] = ("%12s  %s  %s"):format(M.time(event.at_ms), SIGNS[event.kind], event.text)
  end
  return table.concat(lines, "\n")
end

local LOG_MAX = 8
local EXPECTED = { listening = true, serving = true, draining = true, stopped = true }

--- What an app has logged, but for what everybody expects: the last entries, with their excerpts.
---@param entries table[]
---@return string? nil: nothing
function M.log(entries)
  local lines = {}
  for _, entry in ipairs(entries) do
    if entry.level ~= "debug" and not EXPECTED[entry.message] then
      local parts = { ("%12s  %s"):format(M.time(entry.at_ms), printable.escape(entry.message)) }
      for _, key in ipairs { "error", "limit", "place", "callback", "conn" } do
        if entry[key] then parts[#parts + 1] = key .. "=" .. printable.escape(tostring(entry[key])) end
      end
      lines[#lines + 1] = table.concat(parts, "  ") .. (entry.excerpt and "\n" .. entry.excerpt:gsub("\n$", "") or "")
    end
  end
  if #lines == 0 then return nil end
  local first = math.max(1, #lines - LOG_MAX + 1)
  return "the app's log\n" .. table.concat(lines, "\n", first)
end

return M
