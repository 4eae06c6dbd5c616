-- An HTTP service that asks another one: /users/7 is made of what two resources of a backend say. What the page cannot
-- be without is asked with retries; what it can be without has a short time-out and a fallback.
--
--     perilune run examples/http_gateway.lua          # and a backend at 127.0.0.1:8081
--     curl -i http://127.0.0.1:8080/users/7
local http = require "perilune.http"
local perilune = require "perilune"

-- Each worker has one, with up to 16 connections that are kept.
local backend = http.client {
  base = os.getenv "BACKEND" or "http://127.0.0.1:8081",
  headers = { Accept = "application/json" },
  timeout = { total = "2s", connect = "500ms" }, retries = 1, size = 16,
}

local Gateway = {}

-- What a resource is; or nil, and a response that says why there is none.
local function ask(path)
  local response, message, code = backend:get(path)
  if not response then
    perilune.log("warn", "the backend does not answer", { path = path, error = message, code = code })
    return nil, http.error(code == "ETIMEDOUT" and 504 or 502, "the backend does not answer")
  end
  if response.status == 404 then return nil, http.error(404) end
  local value = response.ok and response:json()
  if type(value) ~= "table" then return nil, http.error(502, "the backend says something else than was asked") end
  return value
end

-- Recommendations are welcome, but nobody waits for them.
local function recommended(id)
  local response = backend:get(("/users/%s/recommended"):format(id), { timeout = "200ms", retries = 0 })
  return response and response.ok and response:json() or { "bestsellers" }
end

-- Both at once: the page takes as long as the slower one.
local function page(id)
  local asked, books = perilune.all {
    function()
      local user, refusal = ask("/users/" .. id)
      return { user = user, refusal = refusal }
    end,
    function() return recommended(id) end,
  }
  return asked.refusal or { name = asked.user.name, recommended = books }
end

function Gateway:proceed(request)
  local id = request.path:match "^/users/(%d+)$"
  if not id then return http.error(404) end
  if request.method ~= "GET" then return http.error(405, nil, { Allow = "GET" }) end
  return page(id)
end

return { listen = "http://127.0.0.1:8080", agent = Gateway }
