-- The files of the folder FILES.
local http = require "perilune.http"

local site = http.files(os.getenv "FILES")
local Site = {}

function Site:proceed(request) return site(request) end

return {
  listen = "http://127.0.0.1:0",
  limits = { connections = 20000 },
  agent = Site,
}
