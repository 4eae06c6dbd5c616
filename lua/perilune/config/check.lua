--- Checks that go across keys and listeners, once each value by itself is right.
local agent = require "perilune.config.agent"
local datagrams = require "perilune.config.datagrams"
local http = require "perilune.config.http"
local read = require "perilune.config.read"
local units = require "perilune.units"

local M = {}

local report = read.report

local function check_agents(state, entries)
  if state.top.given.agent then return end
  local some_have = false
  for _, entry in ipairs(entries) do some_have = some_have or entry.layer.given.agent end
  if not some_have then return report(state, "agent", agent.MISSING) end
  for _, entry in ipairs(entries) do
    if not entry.layer.given.agent then report(state, entry.place .. ".agent", agent.MISSING) end
  end
end

local function check_names(state, entries, listeners)
  local shared = state.forced.name or state.top.values.name
  if shared and #entries > 1 then
    report(state, "name", "several listeners cannot share a name: give each its own in its entry of listen",
      state.forced.name and shared.origin)
  end
  local taken = {}
  for i, listener in ipairs(listeners) do
    local own = entries[i].layer.values.name
    local first = own and taken[own]
    if first then report(state, entries[i].place .. ".name", ("%s already has the name %q"):format(first, own)) end
    if own then taken[own] = taken[own] or entries[i].place end
    if not listener.name then
      listener.name = listener.address
      state.origins[("listen[%d].name"):format(i)] = "default"
    end
  end
end

local function check_addresses(state, entries, listeners)
  local taken = {}
  for i, listener in ipairs(listeners) do
    local has_port = listener.port and listener.port > 0
    local id = listener.path or has_port and (listener.kind .. "://" .. listener.host .. ":" .. listener.port)
    if id and taken[id] then
      report(state, entries[i].place, "has the same address as " .. taken[id], entries[i].origin)
    end
    if id then taken[id] = taken[id] or entries[i].place end
  end
end

-- An inherited mode is for the Unix sockets among several listeners.
local function check_modes(state, entries, listeners)
  local has_unix = false
  for i, listener in ipairs(listeners) do
    has_unix = has_unix or listener.kind == "unix"
    if listener.kind ~= "unix" then
      if entries[i].layer.given.mode then
        report(state, entries[i].place .. ".mode", "only a Unix socket has permissions")
      end
      listener.mode = nil
      state.origins[("listen[%d].mode"):format(i)] = "default"
    end
  end
  local forced = state.forced.mode
  if (forced or state.top.given.mode) and #listeners > 0 and not has_unix then
    report(state, "mode", "only a Unix socket has permissions", forced and forced.origin)
  end
end

local ONLY_TLS = "only a tls:// address has TLS: write the address as tls://…"
local ONLY_HTTPS = "only an https:// address has TLS: write the address as https://…"
local NO_DTLS = "DTLS, which is TLS over udp://, is not available in this version"

-- An inherited `tls` is for the tls:// among several listeners.
local function check_tls(state, entries, listeners)
  local has_secure, all_udp = false, true
  for i, listener in ipairs(listeners) do
    local own = entries[i].layer.given.tls
    has_secure, all_udp = has_secure or listener.secure, all_udp and listener.kind == "udp"
    if listener.secure and not listener.tls then
      report(state, entries[i].place .. ".tls",
        listener.address:match "^%a+" .. ':// needs a certificate: tls = { certificate = "cert.pem", key = "key.pem" }')
    elseif listener.kind and not listener.secure and own and listener.tls then
      report(state, entries[i].place .. ".tls", listener.kind == "udp" and NO_DTLS
        or listener.protocol and ONLY_HTTPS or ONLY_TLS)
    end
    if not listener.secure then listener.tls = false end
  end
  if state.top.given.tls and state.top.values.tls and #listeners > 0 and not has_secure then
    report(state, "tls", all_udp and NO_DTLS or ONLY_TLS)
  end
end

local NO_TRUST = 'proxy needs it: the addresses of the proxies, such as trust = { "10.0.0.0/8" }, or "unix"'
local NO_UNIX = 'nobody could connect: the clients of a Unix socket are "unix", as in trust = { "unix" }'
local NO_ADDRESS = 'nobody could connect: "unix" is for Unix sockets; name the addresses of the proxies'
local NO_PROXY = 'has no effect without proxy = true, or "optional"'

-- What is wrong with whom a listener with a proxy in front trusts, or nil.
local function check_trust(listener)
  local has_unix, has_address = false, false
  for _, item in ipairs(listener.trust) do
    has_unix, has_address = has_unix or item == "unix", has_address or item ~= "unix"
  end
  if not has_unix and not has_address then return NO_TRUST end
  if listener.kind == "unix" and not has_unix then return NO_UNIX end
  if listener.kind ~= "unix" and not has_address then return NO_ADDRESS end
end

-- Its value was refused: what is wrong with it is told already.
local function is_refused(layer) return layer.given.trust and layer.values.trust == nil end

local function check_proxy(state, entry, listener)
  local top, own, forced = state.top, entry.layer, state.forced.trust
  local message = check_trust(listener)
  if not message or is_refused(own) or is_refused(top) then return end
  local is_own = own.given.trust or own.given.proxy and not top.given.trust
  report(state, not forced and is_own and entry.place .. ".trust" or "trust", message, forced and forced.origin)
end

local function check_proxies(state, entries, listeners)
  local top, forced = state.top.given, state.forced
  local is_used = top.proxy or forced.proxy
  for i, listener in ipairs(listeners) do
    local own = entries[i].layer.given
    if listener.proxy then check_proxy(state, entries[i], listener) end
    if own.trust and not (own.proxy or top.proxy or forced.proxy) then
      report(state, entries[i].place .. ".trust", NO_PROXY)
    end
    is_used = is_used or own.proxy
  end
  if (top.trust or forced.trust) and not is_used then
    report(state, "trust", NO_PROXY, forced.trust and forced.trust.origin)
  end
end

local TOO_SMALL = "%s in all cannot hold one frame of %s (up to %s): raise it, or lower limits.frame"

local function check_buffers(state, entries, listeners, buffers)
  for i, listener in ipairs(listeners) do
    local max = listener.frame.kind ~= "raw" and listener.frame.max or 0
    if max > buffers then
      local text = TOO_SMALL:format(units.format_size(buffers), entries[i].place, units.format_size(max))
      report(state, "limits.buffers", text)
    end
  end
end

local function check_canary(state, conf)
  if conf.reload.canary > 0 and conf.reload.window == 0 then
    local forced = state.forced["reload.window"]
    report(state, "reload.window", "reload.canary needs a duration to be watched for", forced and forced.origin)
  end
end

--- Reports what does not go together, and completes what depends on the neighbours (default names).
---@param state perilune.config_state
---@param entries perilune.config_entry[] one for each listener
---@param conf perilune.conf
function M.run(state, entries, conf)
  check_agents(state, entries)
  check_names(state, entries, conf.listeners)
  check_addresses(state, entries, conf.listeners)
  check_modes(state, entries, conf.listeners)
  check_tls(state, entries, conf.listeners)
  datagrams.check(state, entries, conf.listeners)
  check_proxies(state, entries, conf.listeners)
  http.check(state, entries, conf.listeners, conf.buffers)
  check_buffers(state, entries, conf.listeners, conf.buffers)
  check_canary(state, conf)
end

return M
