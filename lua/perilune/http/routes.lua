--- Routes by method and path: a trie of path segments. Internal: of lua/perilune/http/router.lua.
---
--- A node's depth is the place of its segment in the path, so a search looks at each node once at most, however it goes
--- back. It leaves nothing behind but the parameters.
local percent = require "perilune.percent"

local M = {}

-- LuaJIT's own: what they search for is short and plain, and compiled code can have them.
local find, sub = string.find, string.sub
local decode = percent.decode

---@class perilune.http.route
---@field method string "*": any
---@field pattern string
---@field place string where it was made, as "app.lua:12"
---@field handler function with its middleware
---@field make fun(captures: string[]): table? its parameters, of what was captured

---@class perilune.http.node
---@field literal table<string, perilune.http.node>
---@field checked table[] parameters with a Lua pattern: { pattern, node }, in the order in which they were made
---@field any perilune.http.node? a parameter of any text
---@field has_parameters boolean? any, checked or rest
---@field has_any_alone boolean? any, and neither checked nor rest
---@field rest table? a leaf: what takes the rest of the path
---@field leaf table? routes by method
---@field namespace table? what serves all that is below: { serve, prefix, place }

local function new_node() return { literal = {}, checked = {} } end

function M.new() return { root = new_node(), static = {}, routes = {} } end

-- ---- patterns ----

-- Where the parameter that begins at `at` ends: a closing brace with nothing but a slash behind it.
local function end_of_parameter(pattern, at)
  local from = at
  while true do
    local brace = find(pattern, "}", from, true)
    if not brace then return nil end
    local behind = sub(pattern, brace + 1, brace + 1)
    if behind == "" or behind == "/" then return brace end
    from = brace + 1
  end
end

local MATCH_ALL = { [".+"] = true, [".*"] = true, ["[^/]+"] = true, ["[^/]*"] = true }

local function check_lua_pattern(text)
  if text == "" then return nil, "has no Lua pattern behind the colon" end
  if text:find "^%^" or text:find "[^%%]%$$" then return nil, "has a Lua pattern that is anchored already" end
  local ok, message = pcall(function() return (""):find("^" .. text .. "$") end)
  if ok then return true end
  return nil, "has no valid Lua pattern: " .. tostring(message):gsub("^.-:%d+: ", "")
end

local function parse_parameter(text, is_last)
  local name, rest = text:match "^([%a_][%w_]*)(.*)$"
  if not name then return nil, ("has {%s}: a parameter's name has letters, digits and _"):format(text) end
  if rest == "" then return { kind = "any", name = name } end
  if rest == "*" then
    if is_last then return { kind = "rest", name = name } end
    return nil, ("has {%s} in its midst: it takes the rest of the path"):format(text)
  end
  local pattern = rest:match "^:(.*)$"
  if not pattern then return nil, ("has {%s}: expects {name}, {name:%%d+} or {name*}"):format(text) end
  local ok, message = check_lua_pattern(pattern)
  if not ok then return nil, ("has {%s}, which %s"):format(text, message) end
  if MATCH_ALL[pattern] then return { kind = "any", name = name } end
  return { kind = "checked", name = name, pattern = "^" .. pattern .. "$" }
end

local ONE_SEGMENT = "has %s: a parameter is a whole segment; for a part of one, {name:.+%%.json}"

local function parse_literal(text)
  if text:find("[{}]") then return nil, ONE_SEGMENT:format(text) end
  local name = text:match "^:([%a_][%w_]*)$"
  if name then return nil, ("has %s: a parameter is {%s}"):format(text, name) end
  if text:find "[?#%c ]" then return nil, "has a blank, ? or #: it is a path alone" end
  if not percent.is_sound(text) then return nil, "has a percent sign without two hexadecimal digits: write %25" end
  return { kind = "literal", text = decode(text) }
end

local function parse_segment(pattern, at)
  if sub(pattern, at, at) == "{" then
    local stop = end_of_parameter(pattern, at)
    if not stop then return nil, ONE_SEGMENT:format(pattern:match("[^/]*", at)) end
    local segment, message = parse_parameter(sub(pattern, at + 1, stop - 1), stop == #pattern)
    return segment, message or stop + 1
  end
  local stop = (find(pattern, "/", at, true) or #pattern + 1)
  local segment, message = parse_literal(sub(pattern, at, stop - 1))
  return segment, message or stop
end

local function check_names(segments)
  local seen = {}
  for _, segment in ipairs(segments) do
    if segment.name and seen[segment.name] then return nil, ("has {%s} twice"):format(segment.name) end
    if segment.name then seen[segment.name] = true end
  end
  return segments
end

--- The segments of a pattern, or nil and what is wrong with it: "has …".
---@param pattern string
---@return table[]|nil
---@return string?
function M.parse(pattern)
  if sub(pattern, 1, 1) ~= "/" then return nil, "does not begin with a slash" end
  local segments, at = {}, 2
  repeat
    local segment, stop = parse_segment(pattern, at)
    if not segment then return nil, stop end
    segments[#segments + 1] = segment
    at = stop + 1
  until stop > #pattern
  return check_names(segments)
end

-- What makes a table of parameters in one piece. nil: there are none.
local function maker_of(segments)
  local fields = {}
  for _, segment in ipairs(segments) do
    if segment.name then fields[#fields + 1] = ("[%q] = c[%d]"):format(segment.name, #fields + 1) end
  end
  if not fields[1] then return nil end
  return assert(loadstring(("return function(c) return { %s } end"):format(table.concat(fields, ", ")), "=(params)"))()
end

-- ---- adding ----

local function step_checked(node, pattern)
  for _, one in ipairs(node.checked) do
    if one.pattern == pattern then return one.node end
  end
  local one = { pattern = pattern, node = new_node() }
  node.checked[#node.checked + 1] = one
  return one.node
end

local function step(node, segment)
  if segment.kind == "checked" then return step_checked(node, segment.pattern) end
  if segment.kind == "any" then
    node.any = node.any or new_node()
    return node.any
  end
  node.literal[segment.text] = node.literal[segment.text] or new_node()
  return node.literal[segment.text]
end

-- The namespace that all requests of a path with these segments go to.
local function namespace_above(node, segments)
  for _, segment in ipairs(segments) do
    node = segment.kind == "literal" and node.literal[segment.text] or nil
    if not node then return nil end
    if node.namespace then return node.namespace end
  end
end

-- What the search asks of a node.
local function note_kind(node, kind)
  if kind == "literal" then return end
  node.has_parameters = true
  node.has_any_alone = kind == "any" and not node.rest and not node.checked[1]
end

local function leaf_of(routes, segments)
  local node = routes.root
  for i, segment in ipairs(segments) do
    note_kind(node, segment.kind)
    if segment.kind == "rest" then
      node.rest = node.rest or {}
      return node.rest
    end
    node = step(node, segment)
    if i == #segments then
      node.leaf = node.leaf or {}
      return node.leaf
    end
  end
end

local function is_literal(segments)
  for _, segment in ipairs(segments) do
    if segment.kind ~= "literal" then return false end
  end
  return true
end

--- Adds a route. nil and what is wrong: it is there already, or would never be reached.
---@param routes table
---@param route perilune.http.route without `make`; with `yields` any other takes its place, and it is not listed
---@return boolean|nil
---@return string?
function M.add(routes, route)
  local segments, message = M.parse(route.pattern)
  if not segments then return nil, message end
  local above = namespace_above(routes.root, segments)
  if above then
    return nil, ("is never reached: the namespace %s of %s has all that is below it"):format(above.prefix, above.place)
  end
  local leaf = leaf_of(routes, segments)
  if route.yields and (leaf[route.method] or leaf["*"]) then return true end
  if route.method == "*" and leaf.GET and leaf.GET.yields then leaf.GET = nil end
  local there = leaf[route.method]
  if there and not there.yields then
    local same = there.pattern == route.pattern and "" or (" as %s"):format(there.pattern)
    return nil, ("is there already%s: %s"):format(same, there.place)
  end
  route.make = maker_of(segments)
  leaf[route.method] = route
  if is_literal(segments) then routes.static[route.pattern] = leaf end
  if not route.yields then routes.routes[#routes.routes + 1] = route end
  return true
end

-- A route at or below the node.
local function route_below(node)
  for _, leaf in pairs { node.leaf, node.rest } do
    local _, route = next(leaf)
    if route then return route end
  end
  for _, child in pairs(node.literal) do
    local route = route_below(child)
    if route then return route end
  end
  for _, one in ipairs(node.checked) do
    local route = route_below(one.node)
    if route then return route end
  end
  return node.any and route_below(node.any)
end

--- Has all that is below a prefix served otherwise. nil and what is wrong.
---@param routes table
---@param namespace { prefix: string, serve: function, place: string, router: table? }
function M.add_namespace(routes, namespace)
  local segments, message = M.parse(namespace.prefix)
  if not segments then return nil, message end
  if not is_literal(segments) then return nil, "has parameters, and a namespace's prefix has none" end
  if segments[#segments].text == "" then return nil, 'ends in a slash: write it as "/admin"' end
  local node = routes.root
  for _, segment in ipairs(segments) do node = step(node, segment) end
  if node.namespace then return nil, "is there already: " .. node.namespace.place end
  local route = route_below(node)
  if route then
    return nil, ("takes all requests of the route %s of %s"):format(route.pattern, route.place)
  end
  node.namespace = namespace
  return true
end

-- ---- finding ----

-- What the search has passed; of use until the next one begins.
local captures = {}

local function pick(leaf, method) return leaf[method] or method == "HEAD" and leaf.GET or leaf["*"] end

local walk

-- Behind a node that agrees with the segment before `stop`.
local function behind(node, path, stop, method, is_encoded, n)
  if stop then return walk(node, path, stop + 1, method, is_encoded, n) end
  return node.leaf and pick(node.leaf, method)
end

-- Where there is more than one way: one after the other.
local function branch(node, segment, path, at, stop, method, is_encoded, n)
  local literal = node.literal[segment]
  if literal then
    local route = behind(literal, path, stop, method, is_encoded, n)
    if route then return route end
    if literal.namespace then
      captures[1] = stop and sub(path, stop) or "/"
      return literal.namespace
    end
  end
  if segment ~= "" then
    local checked = node.checked
    for i = 1, #checked do
      if segment:find(checked[i].pattern) then
        captures[n] = segment
        local route = behind(checked[i].node, path, stop, method, is_encoded, n + 1)
        if route then return route end
      end
    end
    if node.any then
      captures[n] = segment
      local route = behind(node.any, path, stop, method, is_encoded, n + 1)
      if route then return route end
    end
  end
  local rest = node.rest and pick(node.rest, method)
  if rest then
    local text = sub(path, at)
    captures[n] = is_encoded and decode(text) or text
    return rest
  end
end

-- One segment, as long as there is one way. These steps are written out, since LuaJIT compiles a loop by itself, and
-- what leads to it is interpreted.
local STEP = [[
  stop = find(path, "/", at, true)
  segment = sub(path, at, stop and stop - 1 or -1)
  if is_encoded then segment = decode(segment) end
  literal = node.literal[segment]
  if literal and not node.has_parameters and not literal.namespace then
    node = literal
  elseif not literal and node.has_any_alone and segment ~= "" then
    captures[n], n, node = segment, n + 1, node.any
  else
    return branch(node, segment, path, at, stop, method, is_encoded, n)
  end
  if not stop then return node.leaf and pick(node.leaf, method) end
  at = stop + 1
]]

local WALK = [[
local find, sub, decode, pick, branch, captures = ...
local function walk(node, path, at, method, is_encoded, n)
  local stop, segment, literal
  %s
  return walk(node, path, at, method, is_encoded, n)
end
return walk]]

local SEGMENTS = 8 -- of longer paths they are gone through again

walk = assert(loadstring(WALK:format(STEP:rep(SEGMENTS)), "=(walk)"))(find, sub, decode, pick, branch, captures)

--- The route of a path, or the namespace that serves it. Literal segments come before those with a Lua pattern, these
--- before all others, and {rest*} last.
---@param routes table
---@param method string
---@param path string whose percent signs are well
---@return table? found
---@return string[] captures for its `make`; of a namespace the rest of the path. Of use until the next call
function M.find(routes, method, path)
  return walk(routes.root, path, 2, method, find(path, "%", 1, true) ~= nil, 1), captures
end

local collect

local function collect_behind(node, path, stop, is_encoded, into)
  if stop then return collect(node, path, stop + 1, is_encoded, into) end
  for method in pairs(node.leaf or {}) do into[method] = true end
end

function collect(node, path, at, is_encoded, into)
  local stop = find(path, "/", at, true)
  local segment = sub(path, at, stop and stop - 1 or -1)
  if is_encoded then segment = decode(segment) end
  local literal = node.literal[segment]
  if literal then collect_behind(literal, path, stop, is_encoded, into) end
  if segment ~= "" then
    for _, one in ipairs(node.checked) do
      if segment:find(one.pattern) then collect_behind(one.node, path, stop, is_encoded, into) end
    end
    if node.any then collect_behind(node.any, path, stop, is_encoded, into) end
  end
  for method in pairs(node.rest or {}) do into[method] = true end
end

--- The methods that routes of a path have, and those that are answered for them, sorted. Empty: there is no route.
---@param routes table
---@param path string
---@return string[]
function M.allowed(routes, path)
  local set = {}
  collect(routes.root, path, 2, find(path, "%", 1, true) ~= nil, set)
  if next(set) == nil then return {} end
  set.HEAD, set.OPTIONS = set.HEAD or set.GET, true
  local methods = {}
  for method in pairs(set) do methods[#methods + 1] = method end
  table.sort(methods)
  return methods
end

return M
