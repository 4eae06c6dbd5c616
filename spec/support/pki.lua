--- Certificates, as `openssl` makes them: an authority, and who it has signed.
---
---     local pki = require("spec.support.pki").new()
---     pki:sign("server", { names = { "example.org" } })       -- pki.folder/server.pem, server.key
---
--- A folder of its own for each; pki:remove() takes it away.
local command = require "spec.support.command"

local M = {}

---@class perilune.spec.pki
---@field folder string
local pki = {}
pki.__index = pki

-- What follows -newkey. RSA takes a while, so it is for who asks for it.
local KINDS = { ec = "ec -pkeyopt ec_paramgen_curve:P-256", rsa = "rsa:2048" }

local CA_CONFIG = [[
[ca]
default_ca = main
[main]
new_certs_dir = .
database = index
serial = serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
]]

--- Runs a command of the shell in the folder; raises, with what it says, when it fails.
---@param line string
---@return string out
function pki:shell(line)
  local out = command.shell(("cd '%s' && (%s) 2>&1 && echo '[ok]'"):format(self.folder, line))
  local ok = out:find "%[ok%]\n$"
  return ok and out:sub(1, ok - 1) or error(line .. " failed: " .. out, 2)
end

local function alternatives(names)
  local texts = {}
  for i, name in ipairs(names or {}) do texts[i] = name:find ":" and name or "DNS:" .. name end
  return #texts > 0 and "-addext subjectAltName=" .. table.concat(texts, ",") or ""
end

--- An authority: NAME.pem, NAME.key.
function pki:authority(name)
  self:shell(("openssl req -x509 -newkey %s -nodes -keyout %s.key -out %s.pem -days 30 -subj '/CN=%s'"):format(KINDS.ec,
    name, name, name))
end

--- NAME.pem, NAME.key: signed by `by` ("ca"), or by itself.
---@param name string
---@param options { names: string[]?, by: string|false|nil, kind: "ec"|"rsa"|nil, days: integer?, subject: string?,
---  key: string? }? `key`: the file of one that there is
---@return { certificate: string, key: string } paths
function pki:sign(name, options)
  options = options or {}
  local by = options.by == nil and "ca" or options.by
  local key = options.key and "-key " .. options.key
    or ("-newkey %s -nodes -keyout %s.key"):format(KINDS[options.kind or "ec"], name)
  self:shell(("openssl req -x509 %s -out %s.pem -days %d -subj '%s' %s %s"):format(key, name, options.days or 30,
    options.subject or "/CN=" .. name, alternatives(options.names),
    by and ("-CA %s.pem -CAkey %s.key -addext basicConstraints=critical,CA:FALSE"):format(by, by) or ""))
  return { certificate = self:path(name .. ".pem"), key = self:path(options.key or name .. ".key") }
end

--- One whose time is over since long ago.
function pki:sign_ended(name)
  command.write(self.folder .. "/ca.cnf", CA_CONFIG)
  command.write(self.folder .. "/index", "")
  command.write(self.folder .. "/serial", "01\n")
  self:shell(("openssl req -new -newkey %s -nodes -keyout %s.key -out %s.csr -subj /CN=%s"):format(KINDS.ec, name, name,
    name))
  self:shell(("openssl ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in %s.csr -out %s.pem " ..
    "-startdate 20200101000000Z -enddate 20200201000000Z"):format(name, name))
end

--- NAME.der: the authority's word that NAME.pem is still good, as it is stapled.
function pki:respond(name)
  self:shell(([[
    serial=$(openssl x509 -in NAME.pem -noout -serial | cut -d= -f2)
    printf 'V\t401231235959Z\t\t%s\tunknown\t/CN=NAME\n' $serial >index
    openssl ocsp -issuer ca.pem -cert NAME.pem -no_nonce -reqout NAME.request
    openssl ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin NAME.request -respout NAME.der -ndays 2]])
    :gsub("NAME", name))
end

--- The path of a file of it.
---@param file string
---@return string
function pki:path(file) return self.folder .. "/" .. file end

---@param from string
---@param to string
function pki:copy(from, to) self:shell(("cp -p %s %s"):format(from, to)) end

function pki:remove() command.remove(self.folder) end

--- A new folder with the authority "ca".
---@return perilune.spec.pki
function M.new()
  local self = setmetatable({ folder = command.folder() }, pki)
  self:authority "ca"
  return self
end

return M
