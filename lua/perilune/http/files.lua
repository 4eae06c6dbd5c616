--- Files: http.file, http.files. A file is opened once, by C (src/bind/http.c), and sent by it in pieces; what a client
--- names is opened beneath the folder and nowhere else (src/base/beneath.h).
local coding = require "perilune.http.coding"
local core = require "perilune.http_core"
local http = require "perilune.http"
local option_checks = require "perilune.http.option_checks"
local percent = require "perilune.percent"
local perilune = require "perilune"
local printable = require "perilune.printable"
local types = require "perilune.http.types"

local inner = getmetatable(http)

local M = {}

local DEFAULT_TYPE = "application/octet-stream"
local CODINGS = { { name = "br", suffix = ".br" }, { name = "gzip", suffix = ".gz" } } -- the better one first

-- ---- conditions (RFC 9110, 13) ----

-- Is the tag in a list such as `"a", W/"b"`? Weak ones are equal to strong ones where is_weak.
local function has_tag(list, tag, is_weak)
  if list:find "^%s*%*%s*$" then return true end
  for weak, other in list:gmatch '(W?/?)("[^"]*")' do
    if other == tag and (is_weak or weak == "") then return true end
  end
  return false
end

-- Has the file changed since that date? nil: it is no date.
local function is_newer(about, date)
  local second = core.second(date)
  return second and about.second > second
end

-- The status that a condition of the request asks for: 412, 304; nil: none.
local function status_of(headers, about)
  local match, none_match = headers["if-match"], headers["if-none-match"]
  local unmodified, modified = headers["if-unmodified-since"], headers["if-modified-since"]
  if match then
    if not has_tag(match, about.tag, false) then return 412 end
  elseif unmodified and is_newer(about, unmodified) then
    return 412
  end
  if none_match then return has_tag(none_match, about.tag, true) and 304 or nil end
  if modified and is_newer(about, modified) == false then return 304 end
end

-- ---- ranges (RFC 9110, 14) ----

-- The first byte of a range and how many; false: it cannot be had; nil: all of the file is to be sent.
local function range_of(headers, about)
  local range, condition = headers.range, headers["if-range"]
  if not range then return nil end
  if condition and condition ~= about.tag and condition ~= about.date then return nil end
  local first, last = range:match "^[bB][yY][tT][eE][sS]=[ \t]*(%d*)-(%d*)[ \t]*$"
  if not first or (first == "" and last == "") or #first > 15 or #last > 15 then return nil end
  if first == "" then
    local n = math.min(tonumber(last), about.bytes)
    return n > 0 and about.bytes - n, n
  end
  first, last = tonumber(first), tonumber(last) or about.bytes - 1
  if last < first and range:find "%d%s*$" then return nil end
  if first >= about.bytes then return false end
  return first, math.min(last, about.bytes - 1) - first + 1
end

-- ---- responses ----

-- Sends a file that is open: position 5 of its response.
local function send(response, request, closes)
  local id, file, length = request[2], response[6], response[8]
  core.give(id, file, response[7])
  if not core.begin(id, response[1], response[2], response[4] or closes, length) then return nil end
  local is_sent = core.send_file(id)
  while is_sent == false do
    if not core.flush(id) then return nil end
    is_sent = core.send_file(id)
  end
  if is_sent then core.finish(id, "") end
  return nil
end

-- In the order in which they are sent.
local FIELDS = { "Content-Type", "Content-Encoding", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "Vary" }

-- The fields of a response, and those that the script has given, which replace them. All of them are known to be sound.
local function lines_of(fields, options)
  local lines, given = options.lines, options.given
  for i = 1, #FIELDS do
    local name = FIELDS[i]
    local value = fields[name]
    if value and not given[name] then lines = lines .. name .. ": " .. value .. "\r\n" end
  end
  return lines
end

local function file_response(status, about, fields, options, offset, length)
  return setmetatable({ status, lines_of(fields, options), "", options.closes, send, about.file, offset, length },
    inner.response)
end

local function plain_response(status, about, fields, options)
  core.close(about.file)
  return setmetatable({ status, lines_of(fields, options), "", options.closes }, inner.response)
end

-- What is answered with a file that is open.
local function respond(request, about, options, fixed)
  local headers = request.headers
  local fields = { ["Content-Type"] = about.kind, ETag = about.tag, ["Last-Modified"] = about.date,
    ["Accept-Ranges"] = "bytes", ["Content-Encoding"] = about.coding, Vary = about.varies and "Accept-Encoding" or nil }
  if fixed then return file_response(fixed, about, fields, options, 0, about.bytes) end
  local status = status_of(headers, about)
  if status then
    fields["Content-Type"], fields["Content-Encoding"], fields["Accept-Ranges"] = nil, nil, nil
    return plain_response(status, about, fields, options)
  end
  local first, n
  if request.method == "GET" then first, n = range_of(headers, about) end
  if first == false then
    return plain_response(416, about, { ["Content-Range"] = "bytes */" .. about.bytes }, options)
  end
  if not first then return file_response(200, about, fields, options, 0, about.bytes) end
  fields["Content-Range"] = ("bytes %d-%d/%d"):format(first, first + n - 1, about.bytes)
  return file_response(206, about, fields, options, first, n)
end

local function refuse_method() return http.error(405, nil, { Allow = "GET, HEAD" }) end

local function is_read(request) return request.method == "GET" or request.method == "HEAD" end

-- ---- opening ----

local function type_of(path, options)
  if options.type then return options.type end
  local ending = (path:match "%.([^./]+)$" or ""):lower()
  return options.types and rawget(options.types, ending) or types[ending] or DEFAULT_TYPE
end

-- Responses that nobody has sent hold their files until the collector finds them, which counts bytes of memory, and no
-- descriptors. A whole collection takes the longer the more there is: there is one a second at most.
local COLLECT_S = 1
local collected_at = -COLLECT_S

local function may_have_room()
  local now = perilune.now()
  if now - collected_at < COLLECT_S then return false end
  collected_at = now
  collectgarbage()
  return true
end

-- is_known: it was a file when it was sent the last time.
local function open(folder, path, is_known)
  local file, bytes, second, nanosecond = core.open(folder, path, is_known)
  if bytes == "busy" and may_have_room() then file, bytes, second, nanosecond = core.open(folder, path, is_known) end
  return file, bytes, second, nanosecond
end

-- A file as it lies there; nil, and what stands in the way.
local function open_one(folder, path)
  local file, bytes, second, nanosecond = open(folder, path)
  if not file then return nil, bytes end
  return { file = file, bytes = bytes, second = second, nanosecond = nanosecond, date = core.date(second),
    tag = ('"%x-%x-%x"'):format(second % 2 ^ 32, nanosecond, bytes % 2 ^ 32) }
end

-- The same, or what was compressed of it before, beside it.
local function open_file(request, folder, path, options)
  local kind = type_of(path, options)
  local varies = options.precompressed and coding.is_worth_it(kind) or false
  local about, why
  for _, each in ipairs(varies and coding.ranked(request.headers["accept-encoding"], CODINGS) or {}) do
    about = open_one(folder, path .. each.suffix)
    if about then
      about.coding, about.tag = each.name, about.tag:sub(1, -2) .. each.suffix .. '"'
      break
    end
  end
  if not about then about, why = open_one(folder, path) end
  if not about then return nil, why end
  about.kind, about.varies = kind, varies
  return about
end

local function refuse(why)
  if why == "busy" then return http.error(503) end
  return http.error(404)
end

-- ---- options ----

local FILE_OPTIONS = { type = "string", headers = "table", precompressed = "boolean" }
local FILES_OPTIONS = {
  index = true, hidden = "boolean", headers = "table", precompressed = "boolean", types = "table",
}

-- A copy, with the fields as they are sent: whatever is wrong with them is told here, and not at the first request.
local function prepare(options, level)
  local made, prepared, given = inner.make(200, options.headers, nil, nil, level + 1), {}, {}
  for name in next, options.headers or {} do given[name:lower()] = true end
  for key, value in next, options do prepared[key] = value end
  prepared.lines, prepared.closes, prepared.given = made[2], made[4], {}
  for _, name in ipairs(FIELDS) do prepared.given[name] = given[name:lower()] end
  if options.type ~= nil then inner.make(200, { ["Content-Type"] = options.type }, nil, nil, level + 1) end
  for ending, kind in next, options.types or {} do
    if type(ending) ~= "string" then
      error("http.files: types: expects { gmi = \"text/gemini\" }, got the key " .. printable.value(ending), level + 1)
    end
    inner.make(200, { ["Content-Type"] = kind }, nil, nil, level + 1)
  end
  return prepared
end

local function below(folder, path)
  return path:sub(1, 1) == "/" and path or (folder or ".") .. "/" .. path
end

-- ---- one file ----

-- Which of the fields that are made are there already. Vary is a list, and may be there several times.
local function given_in(lines, before)
  local given, names = { Vary = before.Vary }, {}
  for name in lines:gmatch "([^:\r\n]+):[^\r\n]*\r\n" do names[name:lower()] = true end
  for _, name in ipairs(FIELDS) do
    if name ~= "Vary" then given[name] = before[name] or names[name:lower()] end
  end
  return given
end

local function answer_file(response, request, closes)
  if not is_read(request) then return refuse_method() end
  local options = response[7]
  if response[2] ~= options.lines then -- somebody has added fields since it was made
    options = setmetatable({ lines = response[2], closes = response[4], given = given_in(response[2], options.given) },
      { __index = options })
  end
  local about, why = open_file(request, nil, response[6], options)
  local made = about and respond(request, about, options, response[1] ~= 200 and response[1]) or refuse(why)
  if not rawget(made, 5) then return made end
  send(made, request, closes)
  return nil, made
end

--- The response that is one file, which is opened when it is sent.
---@param path string
---@param options { type: string?, headers: table?, precompressed: boolean? }?
---@return perilune.http.response
function M.file(path, options)
  if type(path) ~= "string" or path == "" or path:find("\0", 1, true) then
    error("http.file: expects a path, got " .. printable.value(path), 2)
  end
  if ("/" .. path .. "/"):find("/../", 1, true) then
    error("http.file: the path has `..` in it: what clients name is for http.files to find", 2)
  end
  options = prepare(option_checks.check("http.file", options, FILE_OPTIONS, 2), 2)
  local response = inner.make(200, options.headers, nil, nil, 2)
  rawset(response, 5, answer_file)
  rawset(response, 6, below(inner.folder, path))
  rawset(response, 7, options)
  return response
end

-- ---- a folder ----

-- The path below the folder that a client has named; nil: it can be none. It ends in "/" where a folder is meant.
local function inside_of(path, options)
  if not percent.is_sound(path) then return nil end
  local inside = percent.decode((path:gsub("^/", "")))
  if inside:find "[%z\1-\31\\]" or ("/" .. inside):find("//", 1, true) then return nil end
  for name in inside:gmatch "[^/]+" do
    if name == "." or name == ".." or (name:sub(1, 1) == "." and not options.hidden) then return nil end
  end
  return inside
end

--- To the same with a slash: else the links of its index would lead elsewhere. One slash at its beginning, or it would
--- be another host's.
---@param request perilune.http.request
---@return perilune.http.response
function M.redirect(request)
  local query, stripped = request.query, rawget(request, 6) or "" -- that of a namespace
  return http.redirect((stripped .. request.path):gsub("^/+", "/") .. "/" .. (query and "?" .. query or ""), 301)
end

-- How many paths of a folder are remembered, with the fields of their responses: half of what a file costs is to make
-- those. The file is opened and looked at each time; where it has changed they are made anew.
local KNOWN_MAX, PATH_MAX = 1000, 256

local CONDITIONS = { "if-none-match", "if-modified-since", "range", "if-match", "if-unmodified-since", "if-range" }

local function is_plain(request)
  local headers = request.headers
  for i = 1, #CONDITIONS do
    if rawget(headers, CONDITIONS[i]) then return false end
  end
  return true
end

-- The response with a file of which all is known; nil: it is not as it was, or there is more to be thought of.
local function find_known(request, folder, known, options)
  if not known or not is_plain(request) then return nil end
  local file, bytes, second, nanosecond = open(folder, known.inside, true)
  if not file then return nil end
  if bytes ~= known.bytes or second ~= known.second or nanosecond ~= known.nanosecond then
    core.close(file)
    return nil
  end
  return setmetatable({ 200, known.lines, "", options.closes, send, file, 0, bytes }, inner.response)
end

-- Where a response is the same for all who ask without conditions.
local function remember(memory, path, inside, about, response)
  if about.varies or response[1] ~= 200 or #path > PATH_MAX then return end
  if memory.count >= KNOWN_MAX and not memory.known[path] then memory.count, memory.known = 0, {} end
  memory.count = memory.count + (memory.known[path] and 0 or 1)
  memory.known[path] = { inside = inside, bytes = about.bytes, second = about.second, nanosecond = about.nanosecond,
    lines = response[2] }
end

local function find(request, folder, path, options, memory)
  local made = find_known(request, folder, memory.known[path], options)
  if made then return made end
  local inside = inside_of(path, options)
  if not inside then return refuse() end
  local is_folder = inside == "" or inside:sub(-1) == "/"
  if is_folder then
    if not options.index then return refuse() end
    inside = inside .. options.index
  end
  local about, why = open_file(request, folder, inside, options)
  if about then
    made = respond(request, about, options)
    remember(memory, path, inside, about, made)
    return made
  end
  if why ~= "folder" or is_folder or not options.index then return refuse(why) end
  return M.redirect(request)
end

--- What answers requests with the files of a folder.
---@param folder string
---@param options table?
---@return fun(request: perilune.http.request, path: string?): perilune.http.response
function M.files(folder, options)
  if type(folder) ~= "string" or folder == "" or folder:find("\0", 1, true) then
    error("http.files: expects a folder, got " .. printable.value(folder), 2)
  end
  options = prepare(option_checks.check("http.files", options, FILES_OPTIONS, 2), 2)
  if options.index == nil then options.index = "index.html" end
  if options.index and type(options.index) ~= "string" then
    option_checks.wrong("http.files", "index", "expects a string", options.index, 2)
  end
  folder = below(inner.folder, folder)
  if not core.is_folder(folder) then error(("http.files: there is no folder %s"):format(folder), 2) end
  local memory = { count = 0, known = {} }
  return function(request, path)
    if getmetatable(request) ~= "http.request" then
      error("http.files: what it returns expects a request, got " .. printable.value(request), 2)
    end
    if path ~= nil and type(path) ~= "string" then
      error("http.files: what it returns expects a path, got " .. printable.value(path), 2)
    end
    if not is_read(request) then return refuse_method() end
    return find(request, folder, path or request.path, options, memory)
  end
end

return M
