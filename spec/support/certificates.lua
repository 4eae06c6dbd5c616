--- Certificates for specifications, made by openssl in a folder of their own.
local M = {}

local set = {}
set.__index = set

local function run(command)
  local pipe = assert(io.popen("(" .. command .. ") 2>&1 && echo done"))
  local output = pipe:read("*a")
  pipe:close()
  assert(output:find("done\n$"), command .. ":\n" .. output)
end

--- A folder that is empty; remove() takes it away again.
function M.new()
  local folder = os.tmpname()
  os.remove(folder)
  run(("mkdir -m 700 %s"):format(folder))
  return setmetatable({ folder = folder }, set)
end

function set:path(name) return self.folder .. "/" .. name end

local KINDS = { ec = "ec -pkeyopt ec_paramgen_curve:P-256", rsa = "rsa:2048" }

--- Makes `name`.pem and `name`.key. Options: kind "ec" | "rsa", names { "localhost", … }, days, by: the name of the
--- authority that signs it; else it signs itself.
---@return { certificate: string, key: string } paths
function set:make(name, options)
  options = options or {}
  local pem, key = self:path(name .. ".pem"), self:path(name .. ".key")
  local names = {}
  for i, each in ipairs(options.names or { name }) do names[i] = "DNS:" .. each end
  local signed = options.by and ("-CA %s -CAkey %s"):format(self:path(options.by .. ".pem"),
    self:path(options.by .. ".key")) or ""
  run(("umask 077; openssl req -x509 -newkey %s -nodes -keyout %s -out %s -days %d -subj /O=Perilune/CN=%s %s -addext %s")
    :format(KINDS[options.kind or "ec"], key, pem, options.days or 30, name, signed,
      "subjectAltName=" .. table.concat(names, ",")))
  return { certificate = pem, key = key }
end

function set:remove() run("rm -r " .. self.folder) end

return M
