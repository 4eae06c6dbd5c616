--- request:multipart(): forms with files, multipart/form-data (RFC 7578), of a body that is there whole.
---
--- Strict, since two readers that understand a body differently are how a check is walked around: the body begins with
--- the boundary and ends behind the last one, lines end in CRLF, and what begins a line as a boundary is one.
local field_table = require "perilune.headers"
local forms = require "perilune.http.forms"
local option_checks = require "perilune.http.option_checks"

local M = {}

local PARAMETER, VALUE = "^;[ \t]*(" .. field_table.TOKEN .. ")=()", "^(" .. field_table.TOKEN .. ")()"
local FIELD = "^" .. field_table.TOKEN .. ":"
local PARTS_MAX, HEAD_MAX, FIELDS_MAX, BOUNDARY_MAX = 100, 8192, 16, 70

-- The text in quotes that begins at `at`, and where it ends. nil: it does not.
local function quoted_at(text, at)
  if text:sub(at, at) ~= '"' then return nil end
  local pieces, from = {}, at + 1
  while true do
    local stop = text:find('["\\]', from)
    if not stop then return nil end
    pieces[#pieces + 1] = text:sub(from, stop - 1)
    if text:sub(stop, stop) == '"' then return table.concat(pieces), stop + 1 end
    -- Browsers send backslashes as they are, and no quotes: another pair stands for itself.
    local pair = text:sub(stop, stop + 1)
    pieces[#pieces + 1] = pair == '\\"' and '"' or pair
    from = stop + 2
  end
end

-- `; name="a"; b=c` as a table, of names in small letters. nil: it is none.
local function parameters_of(text)
  local found, at = {}, 1
  while true do
    at = text:match("^[ \t]*()", at)
    if at > #text then return found end
    local name, from = text:match(PARAMETER, at)
    if not name then return nil end
    local value, stop = quoted_at(text, from)
    if not value then value, stop = text:match(VALUE, from) end
    if not value or found[name:lower()] then return nil end
    found[name:lower()], at = value, stop
  end
end

local function boundary_of(request)
  local kind, rest = forms.kind_of(request)
  if kind ~= "multipart/form-data" then
    return nil, "the body is to be multipart/form-data"
      .. (kind == "application/x-www-form-urlencoded" and ": this one is for request:form()" or "")
  end
  local boundary = (parameters_of(rest) or {}).boundary
  if not boundary then return nil, "Content-Type has no boundary" end
  if #boundary > BOUNDARY_MAX or not boundary:find "^[%w'()+_,./:=? -]*[%w'()+_,./:=?-]$" then
    return nil, "the boundary has other characters than one may have, or more than 70"
  end
  return boundary
end

local function count_lines(head)
  local n = 0
  for _ in head:gmatch "\r\n" do n = n + 1 end
  return n
end

-- Each line is a field, with nothing between its name and the colon.
local function check_head(head)
  if head:find "[%z\1-\8\11\12\14-\31\127]" or head:gsub("\r\n", ""):find "[\r\n]" then
    return nil, "a header of a part has a control character"
  end
  for line in head:gmatch "\r\n([^\r\n]*)" do
    if not line:find(FIELD) then return nil, "a part has a line that is no header field" end
  end
  if count_lines(head) > FIELDS_MAX then return nil, ("a part has more than %d header fields"):format(FIELDS_MAX) end
  return true
end

local ENCODINGS = { ["7bit"] = true, ["8bit"] = true, binary = true }

local function part_of(head, body)
  local ok, message = check_head(head)
  if not ok then return nil, message end
  local headers = field_table.read(head)
  local kind, rest = (headers["content-disposition"] or ""):match "^([%w-]+)[ \t]*(.*)$"
  if not kind or kind:lower() ~= "form-data" then return nil, "a part has no Content-Disposition: form-data" end
  local parameters = parameters_of(rest)
  if not parameters or not parameters.name then return nil, "a part has no name" end
  local encoding = headers["content-transfer-encoding"]
  if encoding and not ENCODINGS[encoding:lower()] then
    return nil, "a part has a Content-Transfer-Encoding: bytes are to come as they are"
  end
  return { name = parameters.name, filename = parameters.filename, type = headers["content-type"], headers = headers,
    body = body }
end

-- Where the head of the part that begins at `at` ends: the first byte of its body, and the head as fields are read.
local function head_at(body, at)
  if body:sub(at, at + 1) == "\r\n" then return at + 2, "" end
  local stop = body:find("\r\n\r\n", at, true)
  if not stop or stop - at > HEAD_MAX then return nil end
  return stop + 4, "\r\n" .. body:sub(at, stop - 1)
end

local NO_END = "the body ends before its last boundary"

-- Parts from `at` on, which is behind the first boundary.
local function read(body, at, delimiter, most)
  local parts = {}
  while true do
    local behind = body:sub(at, at + 1)
    if behind == "--" then
      local rest = body:sub(at + 2)
      if rest ~= "" and rest ~= "\r\n" then return nil, "something follows the last boundary" end
      return parts
    end
    if behind ~= "\r\n" then return nil, #body < at + 1 and NO_END or "a boundary goes on where its line should end" end
    if #parts == most then return nil, ("there are more than %d parts"):format(most) end
    local from, head = head_at(body, at + 2)
    if not from then return nil, "a part has no head, or one that is too long" end
    -- The CRLF before a boundary is the boundary's: that behind the head will do for a body that is empty.
    local stop, last = body:find(delimiter, from - 2, true)
    if not stop then return nil, NO_END end
    local part, message = part_of(head, stop < from and "" or body:sub(from, stop - 1))
    if not part then return nil, message end
    parts[#parts + 1], at = part, last + 1
  end
end

--- The parts, in order: name, filename, type, headers, body. nil and a message: the body is none, or has too many.
---@param request perilune.http.request
---@param options { parts: integer? }?
---@return table[]?
---@return string?
function M.parts(request, options)
  local most = option_checks.check("request:multipart", options, { parts = "count" }, 2).parts or PARTS_MAX
  local boundary, message = boundary_of(request)
  if not boundary then return nil, message end
  local first = "--" .. boundary
  if request.body:sub(1, #first) ~= first then return nil, "the body does not begin with its boundary" end
  return read(request.body, #first + 1, "\r\n" .. first, most)
end

return M
