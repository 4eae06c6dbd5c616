--- Reads listener addresses: "tcp://host:port", "tls://[v6]:port", "udp://host:port", "http://host:port",
--- "https://host:port", "ws://host:port/path", "wss://host:port/path", "unix:///path".
--- Only the text is checked; names are resolved and sockets bound elsewhere.
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"

local M = {}

local PORT_MAX = 65535
-- sockaddr_un.sun_path has 108 bytes on Linux, one of them for the terminator.
local UNIX_PATH_MAX = 107
local HOST_MAX = 253

---@class perilune.address
---@field kind "tcp"|"unix"|"udp"
---@field secure boolean? tls://, https://, wss://
---@field protocol "http"|"ws"|nil http://, https://; ws://, wss://
---@field target string? ws://, wss://: the path of its WebSockets
---@field host string? tcp, udp: a name, an address without brackets, or "" for all (dual-stack)
---@field port integer? tcp, udp
---@field path string? unix
---@field address string as it was written

local quote = printable.quote

local function is_ipv4(host)
  local parts = { host:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$") }
  for _, part in ipairs(parts) do
    if tonumber(part) > 255 then return false end
  end
  return #parts == 4
end

-- Groups of one to four hex digits in `part` ("" has none); an IPv4 tail counts for two. nil: malformed.
local function ipv6_groups(part, may_end_in_ipv4)
  if part == "" then return 0 end
  local count = 0
  for group, colon in (part .. ":"):gmatch("([^:]*)(:)") do
    count = count + #colon
    if not group:find("^%x%x?%x?%x?$") then
      if not (may_end_in_ipv4 and is_ipv4(group) and part:sub(-#group) == group) then return nil end
      count = count + 1
    end
  end
  return count
end

local function is_ipv6(host)
  local bare = host:match("^(.-)%%[%w._-]+$") or host
  local left, right = bare:match("^(.-)::(.*)$")
  if not left then return ipv6_groups(bare, true) == 8 end
  local before, after = ipv6_groups(left, false), ipv6_groups(right, true)
  return before ~= nil and after ~= nil and before + after <= 7
end

M.is_ipv6 = is_ipv6

-- What a list of hosts and networks may have in it.
local NETWORK_EXPECTED = 'expects addresses such as "10.0.0.7", "10.0.0.0/8", "2001:db8::/32", or "unix", got '

--- What is wrong with an item of such a list, or nil.
---@param item any
---@return string?
function M.check_network(item)
  if item == "unix" then return nil end
  local host, slash, bits = tostring(item):match "^([^/]*)(/?)(.*)$"
  local is_octal = host:find "^0%d" or host:find "%.0%d"
  local most = is_ipv4(host) and 32 or is_ipv6(host) and not host:find "%%" and 128
  local is_mapped = host:lower():find "^[0:]*:ffff:" -- whose peers are IPv4, and in no network of IPv6
  if is_octal or is_mapped then most = nil end
  if type(item) == "string" and most and slash == "" then return nil end
  if type(item) ~= "string" or not most then
    return NETWORK_EXPECTED .. printable.value(item)
  end
  if bits:find "^%d%d?%d?$" and tonumber(bits) <= most then return nil end
  return ("expects a prefix of up to %d bits, as in %q, got %s"):format(most, host .. "/" .. most / 4, quote(item))
end

local function check_host(host)
  if host == "*" then return nil, 'for all addresses leave the host out: "tcp://:9000"' end
  if #host > HOST_MAX or host:find("[^%w._-]") then
    return nil, "not a host name or address: " .. quote(host)
  end
  if host:find("^[%d.]+$") and not is_ipv4(host) then
    return nil, "not an IPv4 address: " .. quote(host)
  end
  return host
end

-- An address of one link (fe80::/10) is nothing without it. What is wrong, or nil.
local function check_zone(host)
  local address, zone = host:match("^(.-)%%(.*)$")
  local is_of_link = host:lower():find("^fe[89ab]%x:")
  if is_of_link and not zone then
    return ('a link-local address needs its network interface, as in "tcp://[%s%%eth0]:9000"'):format(host)
  end
  local plain = zone and zone:match("^25(.+)$")
  if plain then return ('the interface follows "%%" as it is: "[%s%%%s]"'):format(address, plain) end
end

-- Splits "host:port"; the port stays text. nil, message when it has another shape.
local function split_host(rest)
  if rest:sub(1, 1) == "[" then
    local host, port = rest:match("^%[([^%]]*)%](.*)$")
    if not host then return nil, 'no closing "]" in ' .. quote(rest) end
    if not is_ipv6(host) then return nil, "not an IPv6 address: " .. quote(host) end
    local message = check_zone(host)
    if message then return nil, message end
    return host, port
  end
  if rest:find(":.*:") then
    return nil, 'an IPv6 address needs brackets, as in "tcp://[::1]:9000", got ' .. quote(rest)
  end
  local name, port = rest:match("^([^:]*)(.*)$")
  local host, message = check_host(name)
  if not host then return nil, message end
  return host, port
end

local function parse_port(text, rest)
  if text == "" or text == ":" then
    return nil, ("no port in %s (write it as in \"tcp://%s:9000\"; 0 picks a free one)")
      :format(quote("tcp://" .. rest), printable.escape((rest:gsub(":$", "")), 60))
  end
  local digits = text:match("^:(%d+)$")
  local port = digits and tonumber(digits)
  if not port or port > PORT_MAX then
    return nil, ("expects a port from 0 to %d, got %s"):format(PORT_MAX, quote((text:gsub("^:", ""))))
  end
  return port
end

local function parse_tcp(rest, address)
  local host, port_or_message = split_host(rest)
  if not host then return nil, port_or_message end
  local port, message = parse_port(port_or_message, rest)
  if not port then return nil, message end
  return { kind = "tcp", host = host, port = port, address = address }
end

local function parse_unix(path, address)
  if path == "" then return nil, 'no path in "unix://" (write it as in "unix:///run/app.sock")' end
  if path:find("%z") then return nil, "a socket's path cannot contain a NUL byte" end
  if path:sub(1, 1) == "@" then return nil, "abstract Unix sockets are not available in this version" end
  if path:sub(-1) == "/" then return nil, quote(path) .. " is a directory, not a socket's path" end
  if #path > UNIX_PATH_MAX then
    return nil, ("a Unix socket's path takes at most %d bytes, this one has %d"):format(UNIX_PATH_MAX, #path)
  end
  return { kind = "unix", path = path, address = address }
end

-- TCP with TLS on it.
local function parse_tls(rest, address)
  local parsed, message = parse_tcp(rest, address)
  if not parsed then return nil, (message:gsub("tcp://", "tls://")) end
  parsed.secure = true
  return parsed
end

local function parse_udp(rest, address)
  local parsed, message = parse_tcp(rest, address)
  if not parsed then return nil, (message:gsub("tcp://", "udp://")) end
  parsed.kind = "udp"
  return parsed
end

-- TCP, with TLS on it or not, and requests in place of frames.
local function parse_http(rest, address)
  local scheme = address:match "^%a+"
  local parsed, message = parse_tcp(rest, address)
  if not parsed then return nil, (message:gsub("tcp://", scheme .. "://")) end
  parsed.secure, parsed.protocol = scheme == "https" or nil, "http"
  return parsed
end

-- The same for WebSockets alone, at one path.
local function parse_ws(rest, address)
  local scheme = address:match "^%a+"
  local authority, target = rest:match "^([^/?#]*)(.*)$"
  if target:find "[?#]" then
    return nil, ("the path of a %s:// address has no query: agents get that with each client, got %s"):format(scheme,
      quote(target))
  end
  if target:find "[^!-~]" then return nil, "a path is percent-encoded where need be, got " .. quote(target) end
  local parsed, message = parse_tcp(authority, address)
  if not parsed then return nil, (message:gsub("tcp://", scheme .. "://")) end
  parsed.secure, parsed.protocol, parsed.target = scheme == "wss" or nil, "ws", target ~= "" and target or "/"
  return parsed
end

local SCHEMES = { tcp = parse_tcp, tls = parse_tls, unix = parse_unix, udp = parse_udp, http = parse_http,
  https = parse_http, ws = parse_ws, wss = parse_ws }
local SCHEME_NAMES = { "tcp", "tls", "unix", "udp", "http", "https", "ws", "wss" }

local function no_scheme(text)
  local hint = ""
  local scheme, rest = text:match("^(%a+):/*(.*)$")
  local port = text:match("^%d+$")
  if port and tonumber(port) <= PORT_MAX then
    hint = " (did you mean " .. quote("tcp://127.0.0.1:" .. port) .. "?)"
  elseif text:find("^[%w.-]+$") and (is_ipv4(text) or text == "localhost") then
    hint = " (did you mean " .. quote("tcp://" .. text .. ":9000") .. "?)"
  elseif scheme == "unix" and rest ~= "" then
    hint = " (did you mean " .. quote("unix:///" .. rest) .. "?)"
  elseif scheme and SCHEMES[scheme] and rest ~= "" then
    hint = " (did you mean " .. quote(scheme .. "://" .. rest) .. "?)"
  elseif text:find("^[^/]*:%d+$") then
    hint = " (did you mean " .. quote("tcp://" .. text) .. "?)"
  elseif text:find("^%.?/") then
    hint = " (did you mean " .. quote("unix://" .. text) .. "?)"
  end
  return nil, ('expects an address such as "tcp://127.0.0.1:9000" or "unix:///run/app.sock", got %s%s')
    :format(quote(text), hint)
end

--- Reads one address.
---@param text string
---@return perilune.address?
---@return string? message
function M.parse(text)
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then return no_scheme(text) end
  local parse = SCHEMES[scheme]
  if not parse then
    return nil, "unknown scheme " .. quote(scheme) .. suggest.hint(scheme, SCHEME_NAMES)
  end
  return parse(rest, text)
end

return M
