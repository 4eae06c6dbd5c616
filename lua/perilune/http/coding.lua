--- Content codings: what a client accepts, and what is worth it.
local M = {}

-- The weight that a list such as "gzip;q=0.5, *;q=0" gives a name; nil: it says nothing of it.
local function weight_of(list, wanted)
  for item in list:gmatch "[^,]+" do
    local name, rest = item:match "^[ \t]*([^; \t]+)[ \t]*(.*)$"
    if name and name:lower() == wanted then
      local q = rest:match "[;%s][qQ]=([%d.]+)"
      return q and (tonumber(q) or 0) or 1
    end
  end
end

--- Those of the codings that a client with such an Accept-Encoding takes, the one it likes best first. Among equals the
--- order stays.
---@param list string? the header field
---@param codings { name: string }[] names in lower case
---@return { name: string }[]
function M.ranked(list, codings)
  local ranked, weights = {}, {}
  for _, each in ipairs(list and codings or {}) do
    local weight = weight_of(list, each.name) or weight_of(list, "*") or 0
    local place = #ranked + 1
    while place > 1 and weights[place - 1] < weight do place = place - 1 end
    if weight > 0 then
      table.insert(ranked, place, each)
      table.insert(weights, place, weight)
    end
  end
  return ranked
end

--- Would a client with such an Accept-Encoding have gzip, and would it refuse what is not coded?
---@param list string? the header field
---@return boolean is_wanted it takes gzip, and likes nothing that is not coded better
---@return boolean is_needed it takes nothing that is not coded
function M.wants_gzip(list)
  if not list then return false, false end
  local any = weight_of(list, "*")
  local gzip = weight_of(list, "gzip") or weight_of(list, "x-gzip") or any or 0
  local plain = weight_of(list, "identity")
  return gzip > 0 and gzip >= (plain or 0), gzip > 0 and (plain or any) == 0
end

--- What Vary is with another name in it.
---@param before string? what it is
---@param name string
---@return string
function M.vary(before, name)
  if not before then return name end
  for item in before:gmatch "[^,%s]+" do
    if item == "*" or item:lower() == name:lower() then return before end
  end
  return before .. ", " .. name
end

local COMPRESSIBLE = {
  ["application/json"] = true, ["application/javascript"] = true, ["application/xml"] = true,
  ["application/wasm"] = true, ["application/manifest+json"] = true, ["image/svg+xml"] = true,
  ["application/rtf"] = true, ["application/x-ndjson"] = true, ["font/ttf"] = true, ["font/otf"] = true,
  ["image/bmp"] = true, ["image/x-icon"] = true,
}

--- Is what has that type worth compressing? Pictures, films and archives are small already.
---@param kind string a Content-Type
---@return boolean
function M.is_worth_it(kind)
  local name = kind:lower():match "^[^;%s]*"
  return name:find "^text/" ~= nil or COMPRESSIBLE[name] or name:find "%+json$" ~= nil or name:find "%+xml$" ~= nil
end

return M
