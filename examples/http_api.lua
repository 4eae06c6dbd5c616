-- A small API: users that are kept for all workers, checked bodies, a login by cookie, avatars by upload.
--
--     perilune run examples/http_api.lua
--     curl -i http://127.0.0.1:8080/users -u ops:secret -H 'Content-Type: application/json' -d '{"name":"Ann"}'
--     curl -i http://127.0.0.1:8080/users/1
local http = require "perilune.http"
local perilune = require "perilune"

local users, rates = perilune.shared "users", perilune.shared "rates"

local User = http.schema {
  name = "string(1..64)",
  age = "integer(0..150)?",
  ["tags?"] = { "string(1..20)", max = 8 },
  ["address?"] = { street = "string", kind = "enum(home, work)?" },
}

local api, admin = http.router(), http.router()

-- In earnest, passwords and secrets come from a file or the environment.
local signed = http.signed_cookies "a secret of this example"
local only_ops = http.basic_auth { realm = "users", users = { ops = "secret" } }

api:use(
  http.request_id(),
  http.logged { format = "json" },
  http.counted(),
  http.cors { origins = { "https://app.example.org" }, headers = { "Content-Type", "Authorization" } },
  http.rate_limit { rate = 100, burst = 200, shared = rates }
)

local function find(request)
  local text = users:get("user:" .. request.params.id)
  if not text then return nil, http.error(404, "no such user") end
  return perilune.json.decode(text)
end

api:get("/users/{id:%d+}", http.cache_control { private = true, max_age = "10s" }, function(request)
  local user, refusal = find(request)
  return user or refusal
end)

api:post("/users", only_ops, http.json(User), function(_, user)
  local id = users:incr("last id", 1, 0)
  users:set("user:" .. id, perilune.json.encode(user))
  return http.created("/users/" .. id, user)
end)

api:delete("/users/{id:%d+}", only_ops, function(request)
  if not users:get("user:" .. request.params.id) then return http.error(404, "no such user") end
  users:delete("user:" .. request.params.id)
end)

-- Who the browser says it is, for an hour.
api:post("/login", only_ops, function(request)
  local cookie = signed:cookie("user", request.context.user, { max_age = "1h" })
  return http.response { status = 204, headers = { ["Set-Cookie"] = cookie } }
end)

api:get("/me", function(request)
  local name = signed:read(request, "user")
  if not name then return http.error(401, "log in first") end
  return { name = name }
end)

api:post("/avatars", only_ops, function(request)
  local parts, message = request:multipart { parts = 4 }
  if not parts then return http.error(400, message) end
  local seen = {}
  for i, part in ipairs(parts) do
    seen[i] = { name = part.name, file = part.filename, type = part.type, bytes = #part.body }
  end
  return perilune.json.array(seen)
end)

admin:use(only_ops)
admin:get("/counts", function() return http.counts() end)
api:namespace("/admin", admin)

return { listen = "http://127.0.0.1:8080", agent = api, shared = { users = "16m", rates = "1m" } }
