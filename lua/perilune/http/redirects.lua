--- Where a response sends its client, and what is asked there. Internal.
local received = require "perilune.http.received"
local urls = require "perilune.http.url"

local M = {}

local FOLLOWED = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- What is meant for one server, and not for another.
local SECRET = { "authorization", "cookie", "proxy-authorization", "host" }

-- What is said of a body that is sent no more.
local OF_BODY = { "content-type", "content-encoding", "content-language", "content-location" }

--- Is it one that is followed?
---@param head string
---@param status integer
---@return boolean
function M.is_one(head, status) return FOLLOWED[status] == true and received.field(head, "location") ~= nil end

local function copy(values, left_out)
  local copied = {}
  for key, value in next, values do copied[key] = value end
  for _, key in ipairs(left_out or {}) do copied[key] = nil end
  return copied
end

-- 303 asks for something else; 301 and 302 do so after a POST, as browsers have it.
local function becomes_get(status, method)
  if method == "GET" or method == "HEAD" then return false end
  return status == 303 or (status < 303 and method == "POST")
end

--- The request that follows it; nil: none can be made, as the body is gone; or nil, message, code.
---@param request perilune.http.outgoing
---@param response perilune.http.received
---@return perilune.http.outgoing? following
---@return string? message
---@return string? code
function M.follow(request, response)
  local location = received.field(response[1], "location")
  local url, why = urls.resolve(request.url, location)
  if not url then return nil, ("the redirect of %s leads nowhere: %s"):format(request.shown, why), "EPROTO" end
  if request.url.scheme == "https" and url.scheme == "http" then
    return nil, ("the redirect of %s leads from https to http: %s"):format(request.shown, urls.text(url)), "EPROTO"
  end
  local following = copy(request)
  following.url, following.shown, following.head = url, urls.text(url), nil
  if becomes_get(response.status, request.method) then
    following.method, following.body, following.idempotent = "GET", nil, true
    following.fields = copy(following.fields, OF_BODY)
  elseif request.body and request.body.pieces then
    return nil
  end
  if not urls.same_origin(request.url, url) then following.fields = copy(following.fields, SECRET) end
  return following
end

return M
