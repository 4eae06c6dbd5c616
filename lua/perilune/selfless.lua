--- Methods that were written without `self`: `function A.proceed(line)` gets the agent as its `line`.
local M = {}

-- Those that are given something beside the agent: with one parameter, it was meant for that.
M.GIVEN = { "proceed", "closed", "timeout", "failed", "oversize", "malformed", "drain", "upgrade" }

local is_given = {}
for _, name in ipairs(M.GIVEN) do is_given[name] = true end

-- What people call it, beside names that begin with "_".
local SELVES = { self = true, this = true, me = true, agent = true }

local function line_at(source, number)
  local at = 1
  for _ = 2, number do at = (source:find("\n", at, true) or #source) + 1 end
  return source:match("^[^\n]*", at)
end

-- As it would be written with it.
local function way_out(name, param, line)
  local owner = line:match("function%s+([%w_.]+)[.]" .. name .. "%s*%(")
  if owner then return ("function %s:%s(%s)"):format(owner, name, param) end
  return ("%s = function(self, %s)"):format(name, param)
end

--- nil where it has self, as far as can be seen.
---@param name string of the method
---@param fn any
---@param source string? the text of the file that it is in
---@return string? way "function A:proceed(line)"
---@return string? param "line"
function M.find(name, fn, source)
  if not is_given[name] or type(fn) ~= "function" then return nil end
  local info = debug.getinfo(fn, "Su")
  if info.what == "C" or info.nparams ~= 1 or info.isvararg then return nil end
  local param = debug.getlocal(fn, 1)
  if not param or SELVES[param] or param:find "^_" then return nil end
  local line = source and line_at(source, info.linedefined) or ""
  if line:find(":" .. name .. "%s*%(") then return nil end
  return way_out(name, param, line), param
end

return M
