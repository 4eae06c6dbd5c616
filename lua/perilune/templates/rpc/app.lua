-- @NAME@: remote calls in JSON, each message behind its length in four bytes.
--
--   → {"id": 1, "method": "add", "params": [2, 3]}
--   ← {"id": 1, "jsonrpc": "2.0", "result": 5}
local perilune = require "perilune"
local methods = require "methods"

local json = perilune.json

local PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INTERNAL = -32700, -32600, -32601, -32603

---@class Rpc: perilune.agent
local Rpc = {}

local function encode(response) return json.encode(response, { sorted = true }) end

local function answer(id, result) return encode { jsonrpc = "2.0", id = id, result = result } end

local function refuse(id, code, message)
  return encode { jsonrpc = "2.0", id = id, error = { code = code, message = message } }
end

-- The caller's own mistakes are raised as tables; anything else is ours, and is for the log.
local function call(method, request)
  local ok, result = pcall(method, request.params or {}, request)
  if ok then return answer(request.id, result) end
  if type(result) == "table" and result.code then return refuse(request.id, result.code, result.message) end
  perilune.log("error", ("%s failed: %s"):format(request.method, tostring(result)))
  return refuse(request.id, INTERNAL, "internal error")
end

function Rpc:proceed(frame)
  local request, message = json.decode(frame)
  if request == nil then return refuse(json.null, PARSE_ERROR, message) end
  if type(request) ~= "table" or type(request.method) ~= "string" then
    return refuse(json.null, INVALID_REQUEST, "a request is an object with a method")
  end
  local method = methods[request.method]
  if not method then return refuse(request.id or json.null, NO_METHOD, "there is no such method") end
  local reply = call(method, request)
  if request.id ~= nil then return reply end -- without an id nobody waits for an answer
end

-- A peer that ends its side has asked its last question; it still gets the answers.
function Rpc:eof() return nil, "close" end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "u32be", max = "256k" },
  agent = Rpc,
  limits = { connections = 5000, inbox = 64, proceed = "500ms" },
  timeout = { read = "5s", idle = "10m" },
}
