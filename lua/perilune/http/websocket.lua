--- WebSockets on the server's side: what a handler of an http:// listener returns to accept one, and the handshake.
---
---     local http = require "perilune.http"
---     return http.websocket(Chat, { origins = { "https://example.org" } })
---
--- What goes over the connection afterwards is the core's: src/websocket/websocket.h.
local core = require "perilune.http_core" -- in C: src/bind/http.c
local field_table = require "perilune.headers"
local handshake = require "perilune.config.handshake"
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"

local M = {}

local VERSION = "13"

-- ---- what a handler returns ----

-- Positions: the agent, the options.
local accepting = { __metatable = "http.websocket" }

function accepting.__index() return nil end

function accepting.__newindex()
  error("what http.websocket(…) returns is not changed: options are its second argument", 2)
end

function accepting.__tostring() return "HTTP response 101 (WebSocket)" end

local function check_list(name, value, is_item, expected, level)
  if value == nil then return nil end
  local list, wrong = handshake.list(value, is_item)
  if not list then option_checks.wrong("http.websocket", name, "expects " .. expected, wrong, level + 1) end
  return list
end

local OPTIONS = { origins = true, subprotocols = true, compress = true }

local function check_compress(value, level)
  if value == nil or type(value) == "boolean" or value == "alone" then return value ~= false and (value or true) end
  option_checks.wrong("http.websocket", "compress", 'expects true, false or "alone"', value, level + 1)
end

local function check_options(options, level)
  options = option_checks.check("http.websocket", options, OPTIONS, level + 1)
  return {
    origins = check_list("origins", options.origins, handshake.is_origin, handshake.ORIGINS, level + 1),
    subprotocols = check_list("subprotocols", options.subprotocols, handshake.is_subprotocol, handshake.SUBPROTOCOLS,
      level + 1),
    compress = check_compress(options.compress, level + 1),
  }
end

--- The connection becomes a WebSocket, with an agent of its own from here on.
---@param agent table|function as the `agent` of a listener
---@param options { origins: string[]?, subprotocols: string[]?, compress: boolean|"alone"? }?
---@return perilune.http.websocket
function M.websocket(agent, options)
  local kind = type(agent)
  if kind ~= "function" and kind ~= "table" then
    error("http.websocket: an agent or its factory is expected, got " .. printable.value(agent), 2)
  end
  if kind == "table" and agent.proceed == nil then error("http.websocket: the agent has no method proceed", 2) end
  return setmetatable({ agent, check_options(options, 2) }, accepting)
end

-- ---- the handshake: RFC 6455, 4.2 ----

-- One pattern for both ends would look at each blank again and again.
local function trim(text) return field_table.trim_end(text:match "^[ \t]*(.*)$") end

local function has_token(list, token)
  for item in (list or ""):gmatch "[^,]+" do
    if trim(item):lower() == token then return true end
  end
  return false
end

-- As http.response{ … } has it; of some fields it would say that they are not for scripts.
local function refusal(status, text, fields)
  return { status, (fields or "") .. "Content-Type: text/plain; charset=utf-8\r\n", text .. "\n", false }
end

local UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n"

local function upgrade_required(text)
  return refusal(426, text, UPGRADE .. "Sec-WebSocket-Version: " .. VERSION .. "\r\n")
end

-- A response that refuses, or nil.
local function refuse(request, options)
  local headers = request.headers
  if request.method ~= "GET" then return refusal(405, "A WebSocket begins with GET.", "Allow: GET\r\n") end
  if request.version ~= "1.1" or not has_token(headers.upgrade, "websocket")
    or not has_token(headers.connection, "upgrade") then
    return upgrade_required "This is for WebSockets."
  end
  if headers["sec-websocket-version"] ~= VERSION then
    return upgrade_required("The only version of WebSocket that is spoken is " .. VERSION .. ".")
  end
  local key = headers["sec-websocket-key"] or ""
  if not key:find("^" .. ("[%w+/]"):rep(22) .. "==$") then
    return refusal(400, "Sec-WebSocket-Key is not 16 bytes in Base64.")
  end
  local origin = headers.origin
  if options.origins and origin and not handshake.is_listed(options.origins, origin) then
    return refusal(403, "WebSockets are not for pages of this origin.")
  end
end

--- What a request is refused with, for who tells of it; nil: it is accepted.
---@param value perilune.http.websocket
---@param request perilune.http.request
---@return perilune.http.response?
function M.refusal(value, request)
  local refused = refuse(request, rawget(value, 2) or {})
  return refused and setmetatable(refused, getmetatable(require "perilune.http").response) or nil
end

local function choose_subprotocol(options, offered)
  for _, name in ipairs(offered and options.subprotocols or {}) do
    for item in offered:gmatch "[^,]+" do
      if trim(item) == name then return name end
    end
  end
end

-- ---- both ----

--- What the core makes of a request for a WebSocket: a response that refuses it; or what src/agent/websocket.c takes.
---@param value perilune.http.websocket
---@param request perilune.http.request
---@return table
function M.answer(value, request)
  local agent, options = rawget(value, 1), rawget(value, 2)
  local refused = refuse(request, options)
  if refused then return refused end
  local headers = request.headers
  local fields = UPGRADE .. "Sec-WebSocket-Accept: " .. core.websocket_accept(headers["sec-websocket-key"]) .. "\r\n"
  local chosen = choose_subprotocol(options, headers["sec-websocket-protocol"])
  if chosen then
    fields = fields .. "Sec-WebSocket-Protocol: " .. chosen .. "\r\n"
    request.subprotocol = chosen
  end
  local offers, extension, terms = options.compress and headers["sec-websocket-extensions"], nil, nil
  if offers then extension, terms = core.websocket_deflate(offers, options.compress ~= "alone") end
  return { 101, fields .. (extension or ""), terms or 0, agent, request }
end

--- The agent of HTTP that a ws:// listener has until it knows who wants a WebSocket.
---@param agent table|function of the WebSockets
---@param options { path: string? } as of http.websocket; path: that they are at, nil: any
---@return table
function M.gate(agent, options)
  local value = setmetatable({ agent, options }, accepting)
  local path, gate = options.path, {}
  function gate.proceed(_, request)
    if path and request.path ~= path then return require("perilune.http").text("There is nothing here.\n", 404) end
    return value
  end
  return gate
end

local function refuse_change() error("the meta of a message is not changed: it is that of others, too", 2) end

--- What `proceed` gets with each text, and with each binary message.
function M.metas()
  local function meta(is_binary)
    return setmetatable({}, {
      __index = { binary = is_binary }, __newindex = refuse_change, __metatable = "websocket.meta",
    })
  end
  return meta(false), meta(true)
end

return M
