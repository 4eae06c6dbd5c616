--- Which proxy a request goes through. Internal.
local printable = require "perilune.printable"
local urls = require "perilune.http.url"

local M = {}

-- A proxy is given as an address without a path.
local function parse(what, text)
  local url, message = urls.parse(text:find "://" and text or "http://" .. text)
  if not url then error(("%s: %s"):format(what, message), 0) end
  if url.scheme ~= "http" then
    error(what .. ": a proxy is spoken to over http://, got " .. printable.quote(text), 0)
  end
  return url
end

local function variable(name)
  local text = os.getenv(name) or os.getenv(name:upper())
  return text ~= "" and text or nil
end

-- "localhost, .example.org, 10.0.0.7, db:8080"
local function exceptions(text)
  local list = {}
  for item in (text or ""):gmatch "[^,%s]+" do
    local host, port = item:match "^%[?(.-)%]?:(%d+)$"
    if not host or host:find ":" then host, port = item:gsub("^%[(.*)%]$", "%1"), nil end
    list[#list + 1] = { host = host:lower():gsub("^%*?%.", ""), port = tonumber(port) }
  end
  return list
end

--- What the option `proxy` says: false, "environment", or an address. Raises, without a position.
---@return table? rules nil: there is none
function M.rules(option)
  if option == nil or option == false then return nil end
  if type(option) ~= "string" then
    error('proxy: expects an address such as "http://proxy:3128", "environment" or false, got '
      .. printable.value(option), 0)
  end
  if option ~= "environment" then
    local proxy = parse("proxy", option)
    return { http = proxy, https = proxy, except = {} }
  end
  local all = variable "all_proxy"
  local http, https = os.getenv "http_proxy" or all, variable "https_proxy" or all -- HTTP_PROXY may be a header of CGI
  return {
    http = http and http ~= "" and parse("http_proxy", http) or nil,
    https = https and parse("https_proxy", https) or nil,
    except = exceptions(variable "no_proxy"),
  }
end

local function is_excepted(except, url)
  for _, item in ipairs(except) do
    local is_host = item.host == "*" or url.host == item.host or url.host:sub(-#item.host - 1) == "." .. item.host
    if is_host and (not item.port or item.port == url.port) then return true end
  end
  return false
end

--- The proxy for an address, nil: none; or nil, message, code.
function M.choose(rules, url)
  local proxy = rules and rules[url.scheme]
  if not proxy or is_excepted(rules.except, url) then return nil end
  if url.scheme == "https" then
    return nil, ("https through a proxy (%s) is not available: proxy = false asks the server itself"):format(
      urls.text(proxy)), "ENOTSUP"
  end
  return proxy
end

return M
