--- Clients that come through a proxy: what that sends for them first. Internal.
local address = require "perilune.config.address"
local failing = require "perilune.test.fail"
local settings = require "perilune.test.settings"

local M = {}

local KEYS = { client = true, server = true }
local ADDRESS = 'connect: proxy.%s: an address such as "203.0.113.7:5060" is expected, got %s'

local function read(name, text)
  text = tostring(text)
  local host, port = text:match "^%[(.+)%]:(%d+)$"
  if not host then host, port = text:match "^([%d.]+):(%d+)$" end
  local is_address = host and tonumber(port) <= 65535 and host ~= "unix" and not host:find "/"
    and not address.check_network(host)
  if not is_address then failing.misuse(ADDRESS:format(name, text)) end
  return host, tonumber(port)
end

local function family_of(host) return host:find ":" and "TCP6" or "TCP4" end

--- The PROXY header that an option stands for.
---@param option string|{ client: string, server: string? }
---@return string bytes
---@return string? client who it is said to be, as logs have it
function M.header(option)
  if type(option) == "string" then return option end
  settings.check_options("connect: proxy", option, KEYS)
  local host, port = read("client", option.client)
  local family = family_of(host)
  local server = option.server or (family == "TCP6" and "[2001:db8::1]:9000" or "192.0.2.1:9000")
  local to, to_port = read("server", server)
  if family_of(to) ~= family then failing.misuse "connect: proxy: both addresses are IPv4, or both IPv6" end
  local named = (family == "TCP6" and "[%s]:%d" or "%s:%d"):format(host, port)
  return ("PROXY %s %s %s %d %d\r\n"):format(family, host, to, port, to_port), named
end

return M
