--- WebSockets that a script opens by perilune.connect(): their addresses, their options, and what is asked. Internal.
--- What is wrong raises, without a position. What comes of the answer is in C: src/http/handshake.h.
local require = require -- while handlers run, the global one is the script's
local address = require "perilune.config.address"
local handshake = require "perilune.config.handshake"
local printable = require "perilune.printable"

local M = {}

local HEAD_MAX = 16384 -- bytes of the answer: src/http/handshake.h
local NAME_MAX, LIST_MAX = 255, 65535

--- Options that only WebSockets have, and what they are by default. All but these two are settings of listeners, too.
M.OPTIONS = { "subprotocols", "compress", "ping", "pong", "limits.message" }
M.OTHERS = { "origin", "headers" }
M.DEFAULTS = { compress = false }

--- ... and what does not go with them.
M.UNFIT = {
  frame = "a WebSocket has messages, and no framing",
  ["limits.frame"] = "a WebSocket has messages: limits.message bounds them",
  ["limits.inbox"] = "messages of a WebSocket wait as bytes: limits.message bounds those",
  ["timeout.idle"] = "of a WebSocket `pong` says when a silent peer is gone",
  ["timeout.first_frame"] = "of a WebSocket timeout.connect is for the handshake, and `pong` for what is silent",
}

-- ---- addresses ----

local CREDENTIALS = 'a name and a password in an address end up in logs: leave them out, and write headers = { '
  .. 'Authorization = … }'

--- Is it an address of WebSockets?
---@param text any
---@return boolean
function M.is_address(text)
  return type(text) == "string" and (text:find "^wss?://" or text:find "^wss?%+unix:") ~= nil
end

local UNIX_EXPECTED = 'expects the path of a socket, and behind a colon what is asked there, as in '
  .. '"ws+unix:///run/app.sock:/chat", got '

-- "ws+unix:///run/app.sock:/path?query", as npm's ws has it: no path of a socket has a colon in it.
local function parse_unix(text, rest)
  local shown = printable.quote(text)
  if text:find "^wss" then return nil, shown .. ": there is no TLS over a Unix socket: write ws+unix:…" end
  local socket, target = rest:gsub("^//", ""):match "^([^:]+):?(.*)$"
  if not socket or (target ~= "" and target:sub(1, 1) ~= "/") then return nil, UNIX_EXPECTED .. shown end
  local parsed, message = address.parse("unix://" .. socket)
  if not parsed then return nil, message end
  local url, wrong = require("perilune.http.url").parse("http://localhost" .. target)
  if not url then return nil, (wrong:gsub("http://localhost", "ws+unix://" .. socket:gsub("%%", "%%%%") .. ":")) end
  return { kind = "unix", path = parsed.path, protocol = "ws", address = text, url = url }
end

--- "ws://host:port/path?query", where the port may be left out; "ws+unix:///path/of/socket:/path?query".
---@param text string
---@return table? parsed as of perilune.config.address, and its `url`; nil: it is none
---@return string? message
function M.parse(text)
  if text:find("#", 1, true) then
    return nil, printable.quote(text) .. ": the address of a WebSocket has no fragment (#…)"
  end
  local unix = text:match "^wss?%+unix:(.*)$"
  if unix then return parse_unix(text, unix) end
  local scheme, rest = text:match "^(wss?)://(.*)$"
  if rest:match "^[^/?]*":find("@", 1, true) then return nil, ("%s://…: %s"):format(scheme, CREDENTIALS) end
  local url, message = require("perilune.http.url").parse((scheme == "wss" and "https://" or "http://") .. rest)
  if not url then
    message = message:gsub("https?://", scheme .. "://"):gsub("tcp://", scheme .. "://")
    return nil, (message:gsub(", or give the query as query = .*$", "")) -- which is an option of requests alone
  end
  return { kind = "tcp", host = url.host, port = url.port, secure = scheme == "wss" or nil, protocol = "ws",
    address = text, url = url }
end

-- ---- the request ----

-- What the handshake has of its own.
local OWN = {
  connection = "it is the handshake's", ["sec-websocket-accept"] = "it is the server's",
  ["sec-websocket-extensions"] = "compress = true offers what there is",
  ["sec-websocket-key"] = "it is made anew for each handshake",
  ["sec-websocket-protocol"] = "write it as subprotocols = { … }",
  ["sec-websocket-version"] = "there is only one", origin = "write it as origin = …",
  upgrade = "it is the handshake's",
}

local function check_origin(origin)
  if origin == nil or handshake.is_origin(origin) then return origin end
  error('origin: expects an origin such as "https://example.org", in lower case, without a path or the usual port, got '
    .. printable.value(origin), 0)
end

local function check_subprotocols(names)
  local seen = {}
  for _, name in ipairs(names) do
    if seen[name] then error("subprotocols: it has " .. printable.quote(name) .. " twice", 0) end
    if #name > NAME_MAX then error(("subprotocols: a name has at most %d bytes"):format(NAME_MAX), 0) end
    seen[name] = true
  end
  if #table.concat(names, ",") > LIST_MAX then
    error(("subprotocols: all names together have at most %d bytes"):format(LIST_MAX), 0)
  end
  return names
end

local function check_headers(headers)
  if type(headers) ~= "table" then return headers end -- who reads them says what is expected
  for name in next, headers do
    local why = type(name) == "string" and OWN[name:lower()]
    if why then error(("headers: %s: %s"):format(name, why), 0) end
  end
  return headers
end

-- All but what is not the same twice, the key and what is offered of compression, and the empty line.
local function request_of(url, options)
  local outgoing = require "perilune.http.outgoing"
  local fields = outgoing.fields(check_headers(options.headers), { ["user-agent"] = "User-Agent: perilune\r\n" })
  fields.upgrade, fields.connection = "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"
  fields["sec-websocket-version"] = "Sec-WebSocket-Version: 13\r\n"
  if options.origin then fields.origin = ("Origin: %s\r\n"):format(options.origin) end
  if #options.subprotocols > 0 then
    fields["sec-websocket-protocol"] = ("Sec-WebSocket-Protocol: %s\r\n"):format(
      table.concat(options.subprotocols, ", "))
  end
  return (outgoing.head({ method = "GET", url = url, fields = fields }):gsub("\r\n$", ""))
end

--- What a specification of connecting.lua has beside the usual.
---@param url perilune.http.url
---@param options table by name: the options above, with their defaults
---@return table
function M.specify(url, options)
  check_origin(options.origin)
  check_subprotocols(options.subprotocols)
  return {
    request = request_of(url, options), subprotocols = table.concat(options.subprotocols, ","),
    compress = options.compress, keeps = options.compress == true, ping = options.ping, pong = options.pong,
  }
end

--- The framing of the answer: its head is a frame.
M.FRAME, M.FRAME_MAX = { "delimiter", "\r\n\r\n" }, HEAD_MAX

return M
