-- JSON-RPC 2.0 (jsonrpc.org): a request, or a batch of them, in each line. Keeps counters of 64 bits.
--
--   scripts/run examples/json_rpc.lua
--   echo '{"jsonrpc":"2.0","id":1,"method":"add","params":["visits",9007199254740993]}' | nc -N 127.0.0.1 9000
local json = require("perilune").json

local counters = {} -- of this worker, name → int64_t

local methods = {}

function methods.add(name, n)
  if type(name) ~= "string" or not tonumber(n) then return nil, "expects a name and a number" end
  counters[name] = (counters[name] or 0LL) + n
  return counters[name]
end

function methods.list()
  local names = json.array() -- an array, also when there is none
  for name in pairs(counters) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function failure(id, code, message)
  return { jsonrpc = "2.0", id = id == nil and json.null or id, error = { code = code, message = message } }
end

-- The response to a request; nil: it wants none.
local function answer(request)
  if type(request) ~= "table" or request.jsonrpc ~= "2.0" or type(request.method) ~= "string" then
    return failure(nil, -32600, "Invalid Request")
  end
  local method, params = methods[request.method], request.params or json.array()
  if not method then return request.id and failure(request.id, -32601, "Method not found") end
  if not json.is_array(params) then return request.id and failure(request.id, -32602, "params must be an array") end
  local result, why = method(unpack(params, 1, 8))
  if not request.id then return nil end
  if result == nil then return failure(request.id, -32602, why) end
  return { jsonrpc = "2.0", id = request.id, result = result }
end

local function answer_batch(requests)
  if #requests == 0 then return failure(nil, -32600, "Invalid Request") end
  local answers = {}
  for _, request in ipairs(requests) do answers[#answers + 1] = answer(request) end
  return answers[1] and answers
end

local Rpc = {}

function Rpc:proceed(line)
  local request, why = json.decode(line)
  local response
  if request == nil then
    response = failure(nil, -32700, "Parse error: " .. why)
  else
    response = json.is_array(request) and answer_batch(request) or not json.is_array(request) and answer(request)
  end
  return response and json.encode(response, { sorted = true }) or nil
end

return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1, -- each worker would have its own counters
  frame = { "line", max = "64k" },
  agent = Rpc,
}
