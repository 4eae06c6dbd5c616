--- The API in docs/reference.md, from what the types in lua/perilune/library/ say: functions with their arguments and
--- results, fields, the names of types. Each part stands between two marks, `<!-- made of the types: conn -->` and
--- `<!-- made -->`; what is between others is left alone.
local stubs_of = require "stubs"

local M = {}

---@type perilune.stubs
local stubs

-- As a script writes the owner of a function; nothing for an agent's methods, which are its own.
local OWNERS = {
  agent = "", asker = "client:", hub = "perilune.hub.", made = "response:", received = "response:", test = "perilune.",
  worker = "app:",
}
local SEPARATORS = {
  perilune = ".", test = ".", string = ".", http = ".", crc = ".", crypto = ".", encoding = ".", hub = ".", json = ".",
}

-- "perilune.test.client?" → "test.client?"
local function type_text(text) return "`" .. text:gsub("perilune%.", "") .. "`" end

local function sentence(text)
  if text == "" or text:find "[.…]$" then return text end
  return text .. "."
end

local function add_argument(lines, param)
  local optional = param.optional and ", optional" or ""
  local explained = param.text ~= "" and ": " .. param.text or ""
  lines[#lines + 1] = ("- `%s` (%s%s)%s"):format(param.name, type_text(param.type), optional, explained)
end

local function result_text(result)
  local name = result.name and "`" .. result.name .. "` " or ""
  local text = result.name and ("%s(%s)"):format(name, type_text(result.type)) or type_text(result.type)
  return result.text ~= "" and text .. ": " .. result.text or text
end

local function add_results(lines, returns)
  local texts = {}
  for i, result in ipairs(returns) do texts[i] = result_text(result) end
  if #texts > 0 then lines[#lines + 1] = "- returns " .. table.concat(texts, "; ") end
end

local function add_function(lines, owner, name)
  local full = owner .. (SEPARATORS[owner] or ":") .. name
  local stub = stubs.functions[full]
  local shown = (OWNERS[owner] or owner .. (SEPARATORS[owner] or ":")) .. name
  lines[#lines + 1] = ("**`%s`** %s"):format(stubs_of.signature(shown, stub), sentence(stub.text))
  lines[#lines + 1] = ""
  local before = #lines
  for _, param in ipairs(stub.params) do add_argument(lines, param) end
  add_results(lines, stub.returns)
  if #lines > before then lines[#lines + 1] = "" end
end

local function add_fields(lines, class, prefix)
  for _, field in ipairs(stubs.classes[class].order) do
    local is_optional = stubs.classes[class].fields[field.name].optional and not field.type:find "%?$"
    local optional = is_optional and ", optional" or ""
    local explained = field.text ~= "" and ": " .. field.text or ""
    lines[#lines + 1] = ("- `%s%s` (%s%s)%s"):format(prefix, field.name, type_text(field.type), optional, explained)
  end
  lines[#lines + 1] = ""
end

-- What a call returns, as a table of fields.
local function add_returned(lines, call, class)
  lines[#lines + 1] = ("What `%s` returns:"):format(call)
  lines[#lines + 1] = ""
  add_fields(lines, class, "")
end

local function add_class(lines, class)
  lines[#lines + 1] = sentence(stubs.classes[class].text)
  lines[#lines + 1] = ""
end

local function add_functions(lines, owner)
  for _, name in ipairs(stubs.order[owner]) do add_function(lines, owner, name) end
end

local function add_values(lines, alias)
  for _, one in ipairs(stubs.kinds[alias].values) do
    lines[#lines + 1] = ("| `%s` | %s |"):format(one.value, one.text)
  end
  lines[#lines + 1] = ""
end

-- ---- the parts ------------------------------------------------------------------

local PARTS = {}

function PARTS.agent(lines)
  add_class(lines, "perilune.agent")
  add_functions(lines, "agent")
end

function PARTS.conn(lines)
  add_class(lines, "perilune.conn")
  add_fields(lines, "perilune.conn", "conn.")
  add_class(lines, "perilune.usage")
  add_fields(lines, "perilune.usage", "conn.usage.")
  add_class(lines, "perilune.tls")
  add_fields(lines, "perilune.tls", "conn.tls.")
  add_class(lines, "perilune.certificate")
  add_fields(lines, "perilune.certificate", "conn.tls.peer_certificate.")
  add_functions(lines, "conn")
  add_class(lines, "perilune.message")
  add_functions(lines, "message")
end

function PARTS.perilune(lines)
  add_class(lines, "perilune")
  add_functions(lines, "perilune")
end

-- What perilune.connect() and perilune.pool() take and return.
function PARTS.connect(lines)
  add_class(lines, "perilune.connect_options")
  add_fields(lines, "perilune.connect_options", "")
  add_fields(lines, "perilune.connect_timeouts", "timeout.")
  add_fields(lines, "perilune.connect_limits", "limits.")
  add_class(lines, "perilune.connect_tls")
  add_fields(lines, "perilune.connect_tls", "tls.")
  add_class(lines, "perilune.pool_options")
  add_fields(lines, "perilune.pool_options", "")
  add_class(lines, "perilune.pool")
  add_functions(lines, "pool")
  lines[#lines + 1] = "The options of `pool:request()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.request_options", "")
  add_returned(lines, "pool:status()", "perilune.pool_status")
end

-- perilune.hub, and what conn:join() and conn:publish() take.
function PARTS.hub(lines)
  add_class(lines, "perilune.hub")
  add_functions(lines, "hub")
  lines[#lines + 1] = "The options of `conn:join()`, and those of `conn:publish()` and `perilune.hub.publish()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.join_options", "")
  add_fields(lines, "perilune.publish_options", "")
  lines[#lines + 1] = "What `perilune.hub.stats()` returns:"
  lines[#lines + 1] = ""
  add_class(lines, "perilune.hub_stats")
  add_fields(lines, "perilune.hub_stats", "")
end

-- What perilune.shared() returns.
function PARTS.shared(lines)
  add_class(lines, "perilune.shared")
  add_functions(lines, "shared")
  add_returned(lines, "shared:status()", "perilune.shared_status")
end

-- What perilune.spawn() and its like return; and what setup() is given, which begins the same.
function PARTS.tasks(lines)
  for _, name in ipairs { "timer", "task", "channel", "semaphore" } do
    add_class(lines, "perilune." .. name)
    add_functions(lines, name)
  end
end

function PARTS.setup(lines)
  add_class(lines, "perilune.worker")
  add_fields(lines, "perilune.worker", "app.")
  add_functions(lines, "worker")
end

-- What protocols need at hand.
for _, name in ipairs { "encoding", "crypto" } do
  PARTS[name] = function(lines)
    add_class(lines, "perilune." .. name)
    add_functions(lines, name)
  end
end

function PARTS.crc(lines)
  add_class(lines, "perilune.crc")
  add_functions(lines, "crc")
  lines[#lines + 1] = "| name | check value |"
  lines[#lines + 1] = "|---|---|"
  add_values(lines, "perilune.crc16_name")
end

function PARTS.deflate(lines)
  lines[#lines + 1] = "The options of `perilune.deflate()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.deflate_options", "")
  lines[#lines + 1] = "The options of `perilune.inflate()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.inflate_options", "")
end

function PARTS.json(lines)
  add_class(lines, "perilune.json")
  add_fields(lines, "perilune.json", "json.")
  add_functions(lines, "json")
  lines[#lines + 1] = "The options of `json.decode()`, and of `json.encode()`, which has `sorted` besides:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.json_encode_options", "")
end

function PARTS.string(lines)
  add_functions(lines, "string")
end

function PARTS.http(lines)
  add_class(lines, "perilune.http.request")
  add_fields(lines, "perilune.http.request", "request.")
  add_functions(lines, "request")
  add_class(lines, "perilune.http")
  add_functions(lines, "http")
  lines[#lines + 1] = "The options of `http.response()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.http.options", "")
  lines[#lines + 1] = "Those of `http.stream()`, whose producer writes to a `stream`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.http.stream_options", "")
  add_functions(lines, "stream")
  lines[#lines + 1] = "Those of `http.events()`, whose producer sends `events`, and those of an event:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.http.events_options", "")
  add_fields(lines, "perilune.http.event_options", "")
  add_functions(lines, "events")
  lines[#lines + 1] = "Those of `http.file()`, and of `http.files()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.http.file_options", "")
  add_fields(lines, "perilune.http.files_options", "")
end

-- What http.get() and so on take and return.
function PARTS.asking(lines)
  for _, name in ipairs { "request_options", "shared_options", "timeouts", "client_options" } do
    add_class(lines, "perilune.http." .. name)
    add_fields(lines, "perilune.http." .. name, name == "timeouts" and "timeout." or "")
  end
  add_class(lines, "perilune.http.received")
  add_fields(lines, "perilune.http.received", "response.")
  add_functions(lines, "received")
  add_class(lines, "perilune.http.client")
  add_functions(lines, "asker")
end

function PARTS.router(lines)
  add_class(lines, "perilune.http.router")
  add_functions(lines, "router")
  add_class(lines, "perilune.http.response")
  add_fields(lines, "perilune.http.response", "response.")
  add_functions(lines, "made")
  add_functions(lines, "schema")
  add_functions(lines, "signed")
  for _, name in ipairs { "basic_auth", "bearer", "rate_limit", "cors", "cache", "logged", "cookie" } do
    lines[#lines + 1] = ("The options of `http.%s()`:"):format(name == "cache" and "cache_control" or name)
    lines[#lines + 1] = ""
    add_fields(lines, ("perilune.http.%s_options"):format(name), "")
  end
  lines[#lines + 1] = "What `request:multipart()` returns a list of:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.http.part", "part.")
end

function PARTS.view(lines)
  add_class(lines, "perilune.view")
  add_functions(lines, "view")
end

function PARTS.reason(lines)
  lines[#lines + 1] = "| reason | cause |"
  lines[#lines + 1] = "|---|---|"
  add_values(lines, "perilune.reason")
end

function PARTS.test(lines)
  add_class(lines, "perilune.test")
  add_functions(lines, "test")
  lines[#lines + 1] = "The options of `perilune.app()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.test.app_options", "")
  lines[#lines + 1] = "The options of `perilune.fuzz()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.test.fuzz_options", "")
  lines[#lines + 1] = "The options of `app:connect()`:"
  lines[#lines + 1] = ""
  add_fields(lines, "perilune.test.connect_options", "")
  add_functions(lines, "app")
  add_class(lines, "perilune.test.net")
  add_functions(lines, "net")
  add_class(lines, "perilune.test.client")
  add_functions(lines, "client")
end

-- Those that are a name for something, not a list of names with a table of their own.
local function is_short(kind) return #kind.values == 0 and not kind.type:find "^fun" end

function PARTS.types(lines)
  local names = {}
  for name, kind in pairs(stubs.kinds) do
    if is_short(kind) then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local kind = stubs.kinds[name]
    local explained = kind.text ~= "" and ": " .. kind.text or ""
    lines[#lines + 1] = ("- %s (%s)%s"):format(type_text(name), type_text(kind.type):gsub("|", " | "), explained)
  end
  lines[#lines + 1] = ""
end

local WIDTH = 120

-- Words, of which code with blanks in it is one.
local function words_of(text)
  local words, open = {}, false
  for word in text:gmatch "%S+" do
    if open then words[#words] = words[#words] .. " " .. word else words[#words + 1] = word end
    local _, ticks = word:gsub("`", "")
    if ticks % 2 == 1 then open = not open end
  end
  return words
end

-- A paragraph or an item of a list, in lines of WIDTH. What would begin another list stays where it is.
local function wrapped(line)
  if #line <= WIDTH or line:find "^|" then return line end
  local indent, lines = line:match "^%s*[-*]%s+" or "", {}
  local now = indent
  for i, word in ipairs(words_of(line:sub(#indent + 1))) do
    if i > 1 and #now + 1 + #word > WIDTH and not word:find "^[-*+#>|%d]" then
      lines[#lines + 1] = now
      now = (" "):rep(#indent) .. word
    else
      now = now .. (i > 1 and " " or "") .. word
    end
  end
  lines[#lines + 1] = now
  return table.concat(lines, "\n")
end

-- The rows of the table of counters: what COUNTERS in src/base/counters.h says.
local function rows_of(header)
  local rows, text = {}, header:gsub("%s*\\\n%s*", " "):gsub('" "', "") -- lines and literals that go on
  for name, help in text:gmatch 'X%(([%w_]+), "(.-)"%)' do
    rows[#rows + 1] = ("| `%s` | %s |\n"):format(name, (help:gsub('\\"', '"')))
  end
  return table.concat(rows)
end

local COUNTERS = "(<!%-%- made of src/base/counters.h %-%->\n).-(<!%-%- made %-%->)"

local function with_counters(text, header)
  local made, count = text:gsub(COUNTERS, function(head, tail)
    return head .. "| counter | counts |\n|---|---|\n" .. rows_of(header) .. tail
  end)
  if count ~= 1 then error("docs/reference.md: there is no '<!-- made of src/base/counters.h -->'", 0) end
  return made
end

--- The reference with its parts made anew. Raises where it has no part that there has to be, or a mark that means none.
---@param text string
---@param library string the folder of the types
---@param header string src/base/counters.h
---@return string
function M.make(text, library, header)
  stubs = stubs_of.read(library)
  local made = {}
  text = text:gsub("(<!%-%- made of the types: (%w+) %-%->\n).-(<!%-%- made %-%->)", function(head, name, tail)
    if not PARTS[name] then error(("docs/reference.md: '%s' is no part that is made of the types"):format(name), 0) end
    local lines = {}
    PARTS[name](lines)
    for i, line in ipairs(lines) do lines[i] = wrapped(line) end
    made[name] = true
    return head .. table.concat(lines, "\n") .. tail
  end)
  for name in pairs(PARTS) do
    if not made[name] then
      local marks = ("'<!-- made of the types: %s -->' with a '<!-- made -->' after it"):format(name)
      error("docs/reference.md: there is no " .. marks, 0)
    end
  end
  return with_counters(text, header)
end

return M
