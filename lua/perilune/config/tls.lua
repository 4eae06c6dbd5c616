--- Reads `tls`, of listeners and of connections out: what its files are, and whom it talks with. The files themselves
--- are read elsewhere (src/config/tls.c).
local address = require "perilune.config.address"
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"

local M = {}

local KEYS = { "certificate", "key", "ocsp", "names", "client", "alpn", "min", "ciphers" }
local OUTGOING_KEYS = { "server_name", "verify", "authority", "certificate", "key", "alpn", "min", "ciphers" }
local NAME_KEYS = { "certificate", "key", "ocsp" }
local VERSIONS = { ["1.2"] = 0x0303, ["1.3"] = 0x0304 }
local PAIRS_MAX, NAMES_MAX, PATH_MAX, PROTOCOL_MAX, ALPN_MAX = 4, 1000, 4095, 255, 1000

local EXAMPLE = 'tls = { certificate = "cert.pem", key = "key.pem" }'

---@class perilune.tls_conf_identity
---@field name string? "example.org" or "*.example.org"; nil: the default
---@field pairs { certificate: string, key: string }[] paths
---@field ocsp string? path

---@class perilune.tls_conf
---@field identities perilune.tls_conf_identity[] the default first
---@field client "any"|"request"|"require"
---@field authority string? the path of what clients' certificates must be signed by
---@field alpn string[] the best first
---@field min string "1.2" or "1.3"
---@field min_version integer
---@field ciphers string?

--- Of connections out.
---@class perilune.tls_outgoing_conf
---@field server_name string whom the certificate must be for: a name without a dot at its end, or an address
---@field verify boolean
---@field authority string? path; nil: whom the system trusts
---@field certificate string? path
---@field key string? path; there is one if there is the other
---@field alpn string[] the best first
---@field min string "1.2" or "1.3"
---@field min_version integer
---@field ciphers string?

local function got(expected, value) return nil, expected .. ", got " .. printable.value(value) end

local function is_path(value)
  return type(value) == "string" and #value > 0 and #value <= PATH_MAX and not value:find("%z")
end

local function check_keys(spec, known, where)
  for key in next, spec do
    local is_known = false
    for _, name in ipairs(known) do is_known = is_known or name == key end
    if not is_known then
      local near = type(key) == "string" and suggest.suggest(key, known)
      return nil, ("%sknows no %s%s"):format(where, printable.value(key),
        near and (" (did you mean %s?)"):format(near) or "; it knows " .. table.concat(known, ", "))
    end
  end
  return true
end

-- Has it nothing but items from 1 on?
local function is_list(value)
  if type(value) ~= "table" then return false end
  local n = 0
  for _ in next, value do n = n + 1 end
  for i = 1, n do
    if rawget(value, i) == nil then return false end
  end
  return true
end

-- One path or several, as a list.
local function paths_of(value, name)
  if is_path(value) then return { value } end
  if is_list(value) and #value >= 1 and #value <= PAIRS_MAX then
    local list = {}
    for i = 1, #value do
      if not is_path(rawget(value, i)) then return got(name .. " expects the path of a PEM file", rawget(value, i)) end
      list[i] = rawget(value, i)
    end
    return list
  end
  if value == nil then return nil, name .. " is missing: write " .. EXAMPLE end
  return got(("%s expects the path of a PEM file, or a list of up to %d"):format(name, PAIRS_MAX), value)
end

local function parse_pairs(spec, where)
  local certificates, message = paths_of(rawget(spec, "certificate"), where .. "certificate")
  if not certificates then return nil, message end
  local keys
  keys, message = paths_of(rawget(spec, "key"), where .. "key")
  if not keys then return nil, message end
  if #keys ~= #certificates then
    return nil, ("%skey has %d files and certificate %d: they belong together, one by one"):format(
      where, #keys, #certificates)
  end
  local list = {}
  for i, certificate in ipairs(certificates) do list[i] = { certificate = certificate, key = keys[i] } end
  return list
end

local function parse_identity(spec, where, name)
  local list, message = parse_pairs(spec, where)
  if not list then return nil, message end
  local ocsp = rawget(spec, "ocsp")
  if ocsp ~= nil and not is_path(ocsp) then return got(where .. "ocsp expects the path of a DER file", ocsp) end
  return { name = name, pairs = list, ocsp = ocsp }
end

local function is_name(name)
  if type(name) ~= "string" or #name > 253 then return false end
  local bare = name:match("^%*%.(.+)$") or name
  return bare:find("^[%w_-][%w_.-]*$") ~= nil and not bare:find("..", 1, true)
end

local function parse_names(spec, identities)
  local names = rawget(spec, "names")
  if names == nil then return true end
  if type(names) ~= "table" then
    return got('names expects a table such as { ["*.example.org"] = { certificate = …, key = … } }', names)
  end
  local sorted = {}
  for name, entry in next, names do
    if not is_name(name) then
      return got('names expects names such as "example.org" or "*.example.org"', name)
    end
    if type(entry) ~= "table" then
      return got(("names[%q] expects a table with certificate and key"):format(name), entry)
    end
    sorted[#sorted + 1] = name
  end
  if #sorted > NAMES_MAX then return nil, ("names has more than %d entries"):format(NAMES_MAX) end
  table.sort(sorted)
  for _, name in ipairs(sorted) do
    local where = ("names[%q]."):format(name)
    local ok, message = check_keys(names[name], NAME_KEYS, ("names[%q] "):format(name))
    if not ok then return nil, message end
    local identity
    identity, message = parse_identity(names[name], where, name)
    if not identity then return nil, message end
    identities[#identities + 1] = identity
  end
  return true
end

-- Who the clients are to be.
local function parse_client(value)
  if value == nil or value == false then return "any" end
  if value == "request" then return "request" end
  if is_path(value) then return "require", value end
  return got('client expects the path of an authority\'s PEM file, "request" or false', value)
end

local function parse_alpn(value)
  if value == nil then return {} end
  if type(value) == "string" then value = { value } end
  if not is_list(value) then return got('alpn expects a list of protocols such as { "h2", "http/1.1" }', value) end
  local list, bytes = {}, 0
  for i = 1, #value do
    local name = rawget(value, i)
    if type(name) ~= "string" or #name == 0 or #name > PROTOCOL_MAX then
      return got('alpn expects names of 1 to 255 bytes such as "h2"', name)
    end
    list[i], bytes = name, bytes + 1 + #name
  end
  if bytes > ALPN_MAX then return nil, "alpn is too long" end
  return list
end

local function parse_min(spec)
  local min = rawget(spec, "min") or "1.2"
  if not VERSIONS[min] then return got('min expects "1.2" or "1.3"', min) end
  return min
end

-- nil and a message, or nil: OpenSSL's own choice.
local function parse_ciphers(spec)
  local ciphers = rawget(spec, "ciphers")
  if ciphers ~= nil and not (type(ciphers) == "string" and #ciphers < 1000 and ciphers:find "^[%w_:-]+$") then
    return got("ciphers expects names of OpenSSL's with \":\" between", ciphers)
  end
  return ciphers
end

--- A canonical `tls`, or nil and what is wrong.
---@param spec any
---@return perilune.tls_conf|false|nil
---@return string? message
function M.parse(spec)
  if spec == false then return false end
  if type(spec) ~= "table" then return got("expects a table such as " .. EXAMPLE, spec) end
  local ok, message = check_keys(spec, KEYS, "")
  if not ok then return nil, message end
  local first
  first, message = parse_identity(spec, "", nil)
  if not first then return nil, message end
  local identities = { first }
  ok, message = parse_names(spec, identities)
  if not ok then return nil, message end
  local client, authority = parse_client(rawget(spec, "client"))
  if not client then return nil, authority end
  local alpn
  alpn, message = parse_alpn(rawget(spec, "alpn"))
  if not alpn then return nil, message end
  local min, ciphers
  min, message = parse_min(spec)
  if not min then return nil, message end
  ciphers, message = parse_ciphers(spec)
  if message then return nil, message end
  return { identities = identities, client = client, authority = authority, alpn = alpn, min = min,
    min_version = VERSIONS[min], ciphers = ciphers }
end

-- As a certificate has it: without the dot that ends a name of the DNS, and without the interface of an address.
local function parse_server_name(value)
  local name = type(value) == "string" and value:gsub("%%.*$", ""):gsub("([^.])%.$", "%1")
  if not name or name:find "^%*" or not (is_name(name) or address.is_ipv6(name)) then
    return got('server_name expects a host\'s name or address, such as "db.example"', value)
  end
  return name
end

local function parse_verify(spec)
  local verify = rawget(spec, "verify")
  if verify == nil then verify = true end
  if type(verify) ~= "boolean" then return got("verify expects true or false", verify) end
  local authority = rawget(spec, "authority")
  if authority == nil then return verify end
  if not is_path(authority) then return got("authority expects the path of a PEM file", authority) end
  if not verify then return nil, "authority has no effect with verify = false" end
  return verify
end

-- Our own certificate: both files or neither.
local function check_own(spec)
  for _, name in ipairs { "certificate", "key" } do
    local path, other = rawget(spec, name), name == "key" and "certificate" or "key"
    if path ~= nil and not is_path(path) then return got(name .. " expects the path of a PEM file", path) end
    if path == nil and rawget(spec, other) ~= nil then
      return nil, ("%s is missing: it goes with %s"):format(name, other)
    end
  end
  return true
end

--- The canonical `tls` of a connection to a host, or nil and what is wrong; that begins with the name of the field.
---@param spec any nil: all as it is by default
---@param host string a name or an address, as the address to connect to has it
---@return perilune.tls_outgoing_conf?
---@return string? message
function M.outgoing(spec, host)
  if spec == nil then spec = {} end
  if type(spec) ~= "table" then return got('expects a table such as tls = { authority = "ca.pem" }', spec) end
  local ok, message = check_keys(spec, OUTGOING_KEYS, "")
  if not ok then return nil, message end
  local server_name = rawget(spec, "server_name")
  if server_name == nil then server_name = host end
  server_name, message = parse_server_name(server_name)
  if not server_name then return nil, message end
  local verify, alpn, min, ciphers
  verify, message = parse_verify(spec)
  if verify == nil then return nil, message end
  ok, message = check_own(spec)
  if not ok then return nil, message end
  alpn, message = parse_alpn(rawget(spec, "alpn"))
  if not alpn then return nil, message end
  min, message = parse_min(spec)
  if not min then return nil, message end
  ciphers, message = parse_ciphers(spec)
  if message then return nil, message end
  return { server_name = server_name, verify = verify, authority = rawget(spec, "authority"),
    certificate = rawget(spec, "certificate"), key = rawget(spec, "key"), alpn = alpn, min = min,
    min_version = VERSIONS[min], ciphers = ciphers }
end

--- In a line, for `check --print`: the certificates, and what is not as it is by default.
---@param tls perilune.tls_conf|false
---@return string
function M.describe(tls)
  if not tls then return "none" end
  local parts = {}
  for _, identity in ipairs(tls.identities) do
    local files = {}
    for i, pair in ipairs(identity.pairs) do files[i] = pair.certificate end
    parts[#parts + 1] = (identity.name and identity.name .. ": " or "") .. table.concat(files, " + ")
  end
  if tls.client == "request" then parts[#parts + 1] = "asks clients for certificates" end
  if tls.client == "require" then parts[#parts + 1] = "clients of " .. tls.authority end
  if #tls.alpn > 0 then parts[#parts + 1] = "alpn " .. table.concat(tls.alpn, " ") end
  parts[#parts + 1] = "from " .. tls.min
  return printable.escape(table.concat(parts, ", "), 512)
end

return M
