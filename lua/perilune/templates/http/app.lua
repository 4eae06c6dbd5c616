-- @NAME@: notes over HTTP.
--
--     curl -i http://127.0.0.1:8080/notes -H 'Content-Type: application/json' -d '{"text":"buy milk"}'
--     curl -i http://127.0.0.1:8080/notes
local http = require "perilune.http"
local notes = require "notes"

local Note = http.schema { text = "string(1..500)", ["tags?"] = { "string(1..20)", max = 8 } }

local api = http.router()

api:use(http.request_id(), http.logged { format = "combined" })

api:get("/notes", function() return notes.all() end)

api:post("/notes", http.json(Note), function(_, note)
  local id = notes.add(note)
  return http.created("/notes/" .. id, note)
end)

api:get("/notes/{id:%d+}", function(request)
  return notes.get(request.params.id) or http.error(404, "there is no such note")
end)

api:delete("/notes/{id:%d+}", function(request)
  if not notes.remove(request.params.id) then return http.error(404, "there is no such note") end
end)

---@type perilune.app
return {
  listen = "http://127.0.0.1:8080",
  agent = api,
  shared = { notes = "16m" },
  limits = { body = "64k", proceed = "500ms" },
  timeout = { idle = "60s" },
}
