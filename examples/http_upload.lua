-- Checksums of uploads of any size, in the memory of a few pieces; and their answers, compressed. Who has no key is
-- refused before the body is sent.
--
--     perilune run examples/http_upload.lua
--     curl -H 'X-Key: secret' -T /bin/bash http://127.0.0.1:8080/sums/bash
--     curl --compressed http://127.0.0.1:8080/sums
local http = require "perilune.http"
local perilune = require "perilune"

local crc, shared = perilune.crc, perilune.shared "sums"

local api = http.router()

local has_key = http.before(function(request)
  if request.headers["X-Key"] ~= "secret" then return http.error(401, "a key is needed") end
end)

-- A client may say behind a chunked body what it has sent.
local function agrees(request, sum)
  local said = request.trailers["X-Crc32"]
  return not said or said:lower() == ("%08x"):format(sum)
end

api:put("/sums/{name:%w+}", has_key, function(request)
  local bytes, sum = 0, 0
  while true do
    local piece, message, code = request:read()
    if message then return http.error(code == "EMSGSIZE" and 413 or 400, message) end
    if not piece then break end
    bytes, sum = bytes + #piece, crc.crc32(piece, sum)
  end
  if not agrees(request, sum) then return http.error(422, "it has another sum than X-Crc32 says") end
  shared:set(request.params.name, ("%08x %d"):format(sum, bytes))
  return http.created(request.path, { bytes = bytes, crc32 = ("%08x"):format(sum) })
end)

api:get("/sums", http.compress(), function()
  local lines = {}
  for _, name in ipairs(shared:keys(1000)) do lines[#lines + 1] = ("%s %s\n"):format(shared:get(name), name) end
  table.sort(lines)
  return http.text(table.concat(lines))
end)

return { listen = "http://127.0.0.1:8080", limits = { upload = "10g" }, shared = { sums = "1m" }, agent = api }
