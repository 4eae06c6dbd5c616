--- Checks of what goes with udp://, and what does not.
local frame = require "perilune.config.frame"
local read = require "perilune.config.read"

local M = {}

local report = read.report

-- What concerns connections alone, and why it is of no use where datagrams come.
local NOT_OF_UDP = {
  backlog = "a udp:// address has no backlog: flows begin with their first datagram",
  keepalive = "a udp:// address has no TCP keep-alive: timeout.idle ends a flow that is silent",
  nodelay = "a udp:// address has no TCP_NODELAY: datagrams are sent at the end of each turn",
  proxy = "a udp:// address has no PROXY header: that is for connections",
  trust = "a udp:// address has no PROXY header: that is for connections",
  ["limits.reject"] = "a peer of udp:// that is refused is told nothing: its address may be forged",
  ["timeout.read"] = "a datagram comes whole: of udp:// timeout.idle is what ends a silent flow",
  ["timeout.first_frame"] = "a flow of udp:// begins with its first datagram: nothing is to be waited for",
}
local ONLY_OF_UDP = { amplification = "only a udp:// address has datagrams that it could concern" }

local function is_udp(listener) return listener.kind == "udp" end
local function is_no_udp(listener) return listener.kind ~= nil and listener.kind ~= "udp" end

-- A key at the top level is for those listeners that it concerns, if there are any.
local function refuse_keys(state, entries, listeners, keys, is_wrong)
  local all_wrong = #listeners > 0
  for _, listener in ipairs(listeners) do all_wrong = all_wrong and is_wrong(listener) end
  for path, text in pairs(keys) do
    for i, listener in ipairs(listeners) do
      if is_wrong(listener) and entries[i].layer.given[path] then
        report(state, entries[i].place .. "." .. path, text)
      end
    end
    local forced = state.forced[path]
    if all_wrong and (forced or state.top.given[path]) then report(state, path, text, forced and forced.origin) end
  end
end

M.refuse_keys = refuse_keys

local function refuse_frame(state, entry, text)
  local forced = state.forced.frame
  local is_own = not forced and entry.layer.given.frame
  -- Where the address comes from outside, that is what made the framing wrong.
  local way_out = entry.origin and ", or change the address" or ""
  local place = is_own and entry.place .. ".frame" or "frame"
  report(state, place, text .. way_out, forced and forced.origin or entry.origin)
end

-- A framing at the top level is that of the others, where there are any: a datagram has none.
local function is_inherited_by_others(state, entry, listeners)
  if state.forced.frame or entry.layer.given.frame then return false end
  for _, listener in ipairs(listeners) do
    if is_no_udp(listener) then return true end
  end
  return false
end

local function check_frame(state, entry, listener, listeners, index)
  local is_datagram = listener.frame.kind == "datagram"
  if is_no_udp(listener) and is_datagram then refuse_frame(state, entry, frame.NO_DATAGRAMS) end
  if not is_udp(listener) or is_datagram then return end
  if not is_inherited_by_others(state, entry, listeners) then
    return refuse_frame(state, entry, frame.ONLY_DATAGRAMS)
  end
  listener.frame = frame.parse("datagram", listener.limits.frame)
  state.origins[("listen[%d].frame"):format(index)] = "default"
end

---@param state perilune.config_state
---@param entries perilune.config_entry[] one for each listener
---@param listeners perilune.listener[]
function M.check(state, entries, listeners)
  for i, listener in ipairs(listeners) do
    check_frame(state, entries[i], listener, listeners, i)
    if is_udp(listener) then listener.trust, listener.proxy = {}, false end
  end
  refuse_keys(state, entries, listeners, NOT_OF_UDP, is_udp)
  refuse_keys(state, entries, listeners, ONLY_OF_UDP, is_no_udp)
end

--- Has the key a meaning for the listener? Those of TCP have none for datagrams, and the other way round.
---@param path string
---@param listener perilune.listener
---@return boolean
function M.concerns(path, listener)
  if is_udp(listener) then return not NOT_OF_UDP[path] and path ~= "tls" and path ~= "timeout.handshake" end
  return not ONLY_OF_UDP[path]
end

return M
