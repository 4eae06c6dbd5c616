--- request:multipart(): forms with files, multipart/form-data (RFC 7578), of a body that is whole, or as it comes.
---
--- Strict, since two readers that understand a body differently are how a check is walked around: the body begins with
--- the boundary and ends behind the last one, lines end in CRLF, and what begins a line as a boundary is one.
local field_table = require "perilune.headers"
local forms = require "perilune.http.forms"
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"
local text_pieces = require "perilune.pieces"
local units = require "perilune.units"

local M = {}

local PARAMETER, VALUE = "^;[ \t]*(" .. field_table.TOKEN .. ")=()", "^(" .. field_table.TOKEN .. ")()"
local FIELD = "^" .. field_table.TOKEN .. ":"
local MEMORY = 1024 * 1024
local PARTS_MAX, HEAD_MAX, FIELDS_MAX, BOUNDARY_MAX = 100, 8192, 16, 70

local OPTIONS = { parts = "count", into = "function", memory = true }

-- What may be kept, and where the rest goes. Without `into` the body is there whole, and nothing more is kept.
local function check_options(options)
  options = option_checks.check("request:multipart", options, OPTIONS, 3)
  local memory = options.memory
  if memory ~= nil then
    memory = units.size(memory)
    if not memory then
      option_checks.wrong("request:multipart", "memory", 'expects a size such as "1m"', options.memory, 3)
    end
    if not options.into then
      error("request:multipart: memory: it goes with into; without that, limits.body is the bound", 3)
    end
  end
  return { parts = options.parts or PARTS_MAX, into = options.into,
    left = options.into and (memory or MEMORY) or math.huge }
end

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

-- A part without its content.
local function part_of(head)
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
  return { name = parameters.name, filename = parameters.filename, type = headers["content-type"], headers = headers }
end

local NO_END = "the body ends before its last boundary"
local NO_HEAD = "a part has no head, or one that is too long"

-- ---- the body, as it comes ----

-- source: gives the next piece, nil at the end, or nil, message, code. buffer: what has come, used up to `at`.
local function new_reader(source, boundary)
  return { source = source, buffer = "", at = 1, delimiter = "\r\n--" .. boundary }
end

-- More of it. nil: there is none; or with a message and a code.
local function read_more(reader)
  local piece, message, code = reader.source()
  if not piece then return nil, message, code end
  reader.buffer, reader.at = reader.buffer:sub(reader.at) .. piece, 1
  return true
end

-- The next n bytes, which stay there; fewer at the end.
local function look(reader, n)
  while #reader.buffer - reader.at + 1 < n do
    local ok, message, code = read_more(reader)
    if message then return nil, message, code end
    if not ok then break end
  end
  return reader.buffer:sub(reader.at, reader.at + n - 1)
end

-- The head of a part, as fields are read. What is left begins with the CRLF that ends it: where the content is empty,
-- that is the one of the boundary behind it.
local function read_head(reader)
  local start, message, code = look(reader, 2)
  if not start then return nil, message, code end
  if start == "\r\n" then return "" end
  while true do
    local stop = reader.buffer:find("\r\n\r\n", reader.at, true)
    if (stop or #reader.buffer) - reader.at > HEAD_MAX then return nil, NO_HEAD end
    if stop then
      local head = "\r\n" .. reader.buffer:sub(reader.at, stop - 1)
      reader.at = stop + 2
      return head
    end
    local ok
    ok, message, code = read_more(reader)
    if not ok then return nil, message or NO_HEAD, code end
  end
end

-- The content of a part, which `take` is given as it comes. It is behind a CRLF, and up to the next boundary.
local function read_content(reader, take)
  local skip, keep = 2, #reader.delimiter - 1
  while true do
    local stop, last = reader.buffer:find(reader.delimiter, reader.at, true)
    local behind = stop or #reader.buffer + 1 - keep -- the rest may be the beginning of a boundary
    if behind > reader.at + skip then
      local ok, message, code = take(reader.buffer:sub(reader.at + skip, behind - 1))
      if not ok then return nil, message, code end
    end
    if stop then
      reader.at = last + 1
      return true
    end
    if behind > reader.at then reader.at, skip = behind, math.max(0, skip - (behind - reader.at)) end
    local ok, message, code = read_more(reader)
    if not ok then return nil, message or NO_END, code end
  end
end

-- Nothing but a CRLF may follow the last boundary.
local function read_end(reader)
  local rest, message, code = look(reader, 3)
  if not rest then return nil, message, code end
  if rest ~= "" and rest ~= "\r\n" then return nil, "something follows the last boundary" end
  return true
end

-- ---- parts ----

-- Keeps what it is given.
local function keeper(part, bounds)
  local pieces = text_pieces.new()
  return function(piece)
    if not piece then
      part.body = text_pieces.joined(pieces)
      return true
    end
    bounds.left = bounds.left - #piece
    if bounds.left < 0 then return nil, "the parts that are kept are too large", "EMSGSIZE" end
    text_pieces.add(pieces, piece)
    return true
  end
end

-- Hands it on to what a function of the script's has returned for this part.
local function taker(part, bounds)
  local sink = bounds.into and bounds.into(part)
  if not sink then return keeper(part, bounds) end
  if type(sink) ~= "function" then
    error("request:multipart: into: it is to return a function(piece), or nil, got " .. printable.value(sink), 0)
  end
  return function(piece, message)
    sink(piece, message)
    return true
  end
end

local function read_part(reader, bounds)
  local head, message, code = read_head(reader)
  if not head then return nil, message, code end
  local part
  part, message = part_of(head)
  if not part then return nil, message end
  local take, size = taker(part, bounds), 0
  local ok
  ok, message, code = read_content(reader, function(piece)
    size = size + #piece
    return take(piece)
  end)
  if not ok then
    take(nil, message) -- what it has opened is not the collector's to close, where the call goes on
    return nil, message, code
  end
  part.size = size
  take(nil)
  return part
end

local function read(reader, bounds)
  local parts = {}
  while true do
    local behind, message, code = look(reader, 2)
    if not behind then return nil, message, code end
    reader.at = reader.at + #behind
    if behind == "--" then
      local ok
      ok, message, code = read_end(reader)
      if not ok then return nil, message, code end
      return parts
    end
    if behind ~= "\r\n" then return nil, #behind < 2 and NO_END or "a boundary goes on where its line should end" end
    if #parts == bounds.parts then return nil, ("there are more than %d parts"):format(bounds.parts) end
    local part
    part, message, code = read_part(reader, bounds)
    if not part then return nil, message, code end
    parts[#parts + 1] = part
  end
end

-- What gives a body that is whole.
local function whole(request)
  local body = request.body
  return function()
    local piece = body
    body = nil
    return piece
  end
end

--- The parts, in order: name, filename, type, headers, size, body. nil and a message: the body is none, or has too
--- many. With `into` they are read as they come.
---@param request perilune.http.request
---@param options { parts: integer?, into: function?, memory: integer|string|nil }?
---@return table[]?
---@return string?
---@return string? code
function M.parts(request, options)
  local bounds = check_options(options)
  local boundary, message = boundary_of(request)
  if not boundary then return nil, message end
  local source = bounds.into and function() return request:read() end or whole(request)
  local reader, first = new_reader(source, boundary), "--" .. boundary
  local start, why, code = look(reader, #first)
  if not start then return nil, why, code end
  if start ~= first then return nil, "the body does not begin with its boundary" end
  reader.at = reader.at + #first
  return read(reader, bounds)
end

return M
