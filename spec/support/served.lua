--- A folder to be served, and what lies beside it, for the specifications of http.files: links, a FIFO, compressed
--- files.
local lfs = require "lfs"

local M = {}

local function write(path, text)
  local file = assert(io.open(path, "w"))
  assert(file:write(text) and file:close())
end

--- A folder with app.lua and `public`; remove() takes it away.
---@return { folder: string, write: fun(self: table, name: string, text: string), remove: fun(self: table) }
function M.new()
  local folder = os.tmpname()
  os.remove(folder)
  assert(lfs.mkdir(folder))
  local self = { folder = folder }
  function self.write(_, name, text) write(folder .. "/" .. name, text) end
  function self.remove() os.execute(("rm -r '%s'"):format(folder)) end
  for _, name in ipairs { "public", "public/docs", "public/.git" } do assert(lfs.mkdir(folder .. "/" .. name)) end
  self:write("secret", "secret")
  self:write("public/index.html", "<p>index")
  self:write("public/docs/index.html", "<p>docs")
  self:write("public/docs/a b%.txt", "odd name")
  self:write("public/.git/config", "hidden")
  self:write("public/digits.txt", "0123456789")
  self:write("public/empty.css", "")
  self:write("public/odd.zzz", "?")
  self:write("public/page.js", "plain text of a script")
  self:write("public/page.js.gz", "gzipped")
  self:write("public/page.js.br", "brotli")
  self:write("public/picture.png", "png")
  self:write("public/picture.png.gz", "png, gzipped")
  assert(os.execute(("cd '%s/public' && mkfifo fifo && ln -s ../secret out && ln -s '%s/secret' absolute && "
    .. "ln -s digits.txt inside && ln -s .. up && ln -s /dev/zero device"):format(folder, folder)) == 0)
  return self
end

return M
