--- The tables of docs/http.md: what each row sends, and what comes of it.
local M = {}

local ESCAPES = { r = "\r", n = "\n", t = "\t", ["0"] = "\0" }

local function unescape(text)
  return (text:gsub("\\(.)(%x?%x?)", function(c, digits)
    if c == "x" then return string.char(tonumber(digits, 16)) end
    return assert(ESCAPES[c], c) .. digits
  end))
end

-- "{a*9}" is nine of it.
local function bytes_of(cell)
  return unescape((cell:gsub("{([^{}*]+)%*(%d+)}", function(text, n) return unescape(text):rep(tonumber(n)) end)))
end

---@return { what: string, bytes: string, answer: string }[]
function M.read()
  local rows = {}
  for line in io.lines "docs/http.md" do
    local what, cell, answer = line:match "^| (.-) | `(.*)` | (%d.-) |$"
    if what then rows[#rows + 1] = { what = what, bytes = bytes_of(cell), answer = answer } end
  end
  return rows
end

return M
