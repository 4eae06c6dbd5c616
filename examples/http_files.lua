-- A web site: the files of a folder, and beside them a report that is written while the client reads it.
--
--     perilune run examples/http_files.lua
--     curl -i http://127.0.0.1:8080/
--     curl -r 0-9 http://127.0.0.1:8080/style.css
--     curl http://127.0.0.1:8080/report.csv
local http = require "perilune.http"

local site = http.files("http_files", { headers = { ["Cache-Control"] = "max-age=60" }, precompressed = true })

local ROWS = 10000

-- It is never in memory as a whole: where the client reads slowly, out:write waits.
local report = http.stream(function(out)
  out:write "row,square\n"
  for row = 1, ROWS do
    if not out:write(row, ",", row * row, "\n") then return end
  end
  out:trailer("X-Rows", ROWS)
end, { headers = { ["Content-Type"] = "text/csv" } })

local Site = {}

function Site:proceed(request) -- luacheck: no self
  if request.path == "/report.csv" then return report end
  return site(request)
end

return { listen = "http://127.0.0.1:8080", agent = Site }
