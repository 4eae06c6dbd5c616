--- Checks of what goes with http:// and https://, with ws:// and wss://, and what does not.
local datagrams = require "perilune.config.datagrams"
local frame = require "perilune.config.frame"
local read = require "perilune.config.read"
local units = require "perilune.units"

local M = {}

local report = read.report

--- What is otherwise by default: requests stand alone, so another generation can answer the next one.
M.DEFAULTS = {
  http = { frame = "raw", ["reload.policy"] = "migrate", compress = false },
  ws = { frame = "raw" }, -- what a WebSocket has said before may count
}

-- What concerns frames alone, and what does the same for requests.
local NOT_OF_HTTP = {
  frame = "an http:// address has requests, and no frames: leave `frame` out",
  ["timeout.read"] = "of requests, timeout.header is for the head and timeout.body for the rest",
  ["limits.frame"] = "of requests, limits.uri, limits.headers and limits.body are for the parts",
  ["limits.inbox"] = "requests that wait are bytes: limits.buffers bounds them",
}
-- ... and for WebSockets alone.
local NOT_OF_WS = {
  frame = "a ws:// address has messages, and no framing: leave `frame` out",
  ["timeout.read"] = "of WebSockets, timeout.header is for the handshake, and for each message from its beginning on",
  ["limits.frame"] = "of WebSockets, limits.message is for messages",
  ["limits.inbox"] = "messages that wait are bytes: limits.buffers bounds them",
  ["limits.requests"] = "a WebSocket is one request",
  ["limits.upload"] = "who asks for a WebSocket sends no body",
  ["limits.body"] = "who asks for a WebSocket sends no body: limits.message is for messages",
  ["timeout.body"] = "of WebSockets, timeout.header is for the handshake, and for each message from its beginning on",
  ["timeout.idle"] = "of WebSockets, ping and pong tell whether a client is there",
}
local NO_HTTP = 'only an http:// address has requests that it could concern (or unix:// with protocol = "http")'
local NO_WEBSOCKET = "only WebSockets have it: those of a ws:// address, and of http:// where a handler accepts some"
local NO_WS = 'only a ws:// address has it (or unix:// with protocol = "ws"): a handler gives it to http.websocket(…)'
local ONLY_OF_HTTP = {
  ["limits.uri"] = NO_HTTP, ["limits.headers"] = NO_HTTP, ["limits.fields"] = NO_HTTP, ["limits.body"] = NO_HTTP,
  ["limits.upload"] = NO_HTTP, ["limits.requests"] = NO_HTTP,
  ["timeout.header"] = NO_HTTP, ["timeout.body"] = NO_HTTP,
}

local NO_COMPRESS = "only responses of HTTP and messages of WebSockets can be compressed"
local OF_WEBSOCKETS = { ["limits.message"] = NO_WEBSOCKET, ping = NO_WEBSOCKET, pong = NO_WEBSOCKET,
  compress = NO_COMPRESS }
local ONLY_OF_WS = { origins = NO_WS, subprotocols = NO_WS }

local function is_ws(listener) return listener.protocol == "ws" end
local function is_asked(listener) return listener.protocol == "http" end
local function is_http(listener) return is_asked(listener) or is_ws(listener) end
local function is_other(listener) return listener.kind ~= nil and not is_http(listener) end
local function is_no_ws(listener) return listener.kind ~= nil and not is_ws(listener) end

--- What the listener speaks: "http", "ws", or false. The scheme says so, or of a Unix socket the setting.
---@param state perilune.config_state
---@param entry perilune.config_entry
---@param listener table with the address, and the setting's value
---@param scheme "http"|"ws"|nil what the address says
---@return "http"|"ws"|false
function M.protocol(state, entry, listener, scheme)
  local value = listener.protocol
  if scheme then return scheme end
  if listener.kind == "unix" or not value then return value end
  local message = ("only for unix://: write the address as %s://…"):format(value)
  if entry.layer.given.protocol then report(state, entry.place .. ".protocol", message) end
  return false
end

-- One at the top level is for the Unix sockets among several listeners.
local function check_protocol(state, listeners)
  local is_used = #listeners == 0
  for _, listener in ipairs(listeners) do
    is_used = is_used or listener.kind == "unix" or is_http(listener) or listener.kind == nil
  end
  local forced = state.forced.protocol
  if (forced or state.top.given.protocol) and not is_used then
    report(state, "protocol", "only for unix://: write the address as http://…", forced and forced.origin)
  end
end

local function check_pong(state, entry, listener)
  if listener.pong == 0 or listener.ping < listener.pong then return end
  local place = (entry.layer.given.ping or entry.layer.given.pong) and entry.place .. "." or ""
  report(state, place .. "pong", ("must be longer than ping (%s): who is silent for so long is given up"):format(
    units.format_duration(listener.ping)))
end

local TOO_SMALL = "%s in all cannot hold one request or message of %s (up to %s): raise it, or lower their limits"

local function check_listener(state, entry, listener, index, buffers)
  listener.frame = frame.parse("raw", listener.limits.frame)
  state.origins[("listen[%d].frame"):format(index)] = "default"
  local limits = listener.limits
  if is_ws(listener) then
    listener.websocket = { path = listener.target, origins = listener.origins or nil,
      subprotocols = listener.subprotocols, compress = listener.compress }
    limits.body, limits.upload = 0, 0
  end
  check_pong(state, entry, listener)
  if limits.upload > 0 and limits.upload < limits.body then
    local place = entry.layer.given["limits.upload"] and entry.place .. "." or ""
    local text = "%s is less than limits.body (%s), which bodies may have in any case"
    text = text:format(units.format_size(limits.upload), units.format_size(limits.body))
    report(state, place .. "limits.upload", text)
  end
  local most = math.max(limits.uri + limits.headers + limits.body, limits.message)
  if most > buffers then
    local text = TOO_SMALL:format(units.format_size(buffers), entry.place, units.format_size(most))
    report(state, "limits.buffers", text)
  end
  if limits.slow_consumer == "drop" and not is_ws(listener) then
    local own = entry.layer.given["limits.slow_consumer"]
    report(state, (own and entry.place .. "." or "") .. "limits.slow_consumer",
      'a response that is left out would be that of the next request: for HTTP it is "pause" or "close"')
  end
end

---@param state perilune.config_state
---@param entries perilune.config_entry[] one for each listener
---@param listeners perilune.listener[]
---@param buffers integer
function M.check(state, entries, listeners, buffers)
  for i, listener in ipairs(listeners) do
    if is_http(listener) then check_listener(state, entries[i], listener, i, buffers) end
  end
  check_protocol(state, listeners)
  datagrams.refuse_keys(state, entries, listeners, NOT_OF_HTTP, is_asked)
  datagrams.refuse_keys(state, entries, listeners, ONLY_OF_HTTP, is_other)
  datagrams.refuse_keys(state, entries, listeners, NOT_OF_WS, is_ws)
  datagrams.refuse_keys(state, entries, listeners, OF_WEBSOCKETS, is_other)
  datagrams.refuse_keys(state, entries, listeners, ONLY_OF_WS, is_no_ws)
end

--- Has the key a meaning for the listener?
---@param path string
---@param listener perilune.listener
---@return boolean
function M.concerns(path, listener)
  if path == "protocol" then return listener.kind == "unix" or is_http(listener) end
  if ONLY_OF_WS[path] then return is_ws(listener) end
  if is_ws(listener) and NOT_OF_WS[path] then return false end
  if is_http(listener) then return not NOT_OF_HTTP[path] end
  return not ONLY_OF_HTTP[path] and not OF_WEBSOCKETS[path]
end

return M
