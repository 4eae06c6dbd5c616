--- Percent signs: of paths, and of queries and forms, where a blank is a plus sign. Internal.
local M = {}

-- LuaJIT's own: paths are short, and compiled code can have them.
local find, gsub, char = string.find, string.gsub, string.char

local function byte_of(digits) return char(tonumber(digits, 16)) end

--- Is each percent sign in it followed by two hexadecimal digits?
---@param text string as long as a path may be
---@return boolean
function M.is_sound(text) return not find(gsub(text, "%%%x%x", ""), "%", 1, true) end

--- What a path, or a part of one, stands for. A percent sign without two digits stands for itself.
---@param text string as long as a path may be
---@return string
function M.decode(text) return (gsub(text, "%%(%x%x)", byte_of)) end

--- The same of a part of a query or a form, which may be as long as a body.
---@param text string
---@return string
function M.decode_form(text)
  if not text:find "[+%%]" then return text end
  return (text:gsub("+", " "):gsub("%%(%x%x)", byte_of))
end

--- The names and values of a query or a form, decoded, in order. One without "=" has the value "".
---@param text string
---@return fun(): string?, string?
function M.pairs(text)
  local next_pair = text:gmatch "[^&]+"
  return function()
    local pair = next_pair()
    if not pair then return nil end
    local at = pair:find("=", 1, true)
    return M.decode_form(at and pair:sub(1, at - 1) or pair), at and M.decode_form(pair:sub(at + 1)) or ""
  end
end

return M
