--- request:form(): what a browser sends of a form, application/x-www-form-urlencoded.
local option_checks = require "perilune.http.option_checks"
local percent = require "perilune.percent"

local M = {}

local FIELDS_MAX = 1000

--- The kind of a body, "multipart/form-data", and what follows it.
---@param request perilune.http.request
---@return string
---@return string
function M.kind_of(request)
  local kind, rest = (request.headers["content-type"] or ""):match "^%s*([^;%s]*)%s*(.*)$"
  return kind:lower(), rest
end

local OPTIONS = { all = "boolean", fields = "count" }

-- Of a name that is there several times: all of them, or the first.
local function add(form, name, value, is_all)
  if is_all then
    form[name] = form[name] or {}
    table.insert(form[name], value)
  elseif form[name] == nil then
    form[name] = value
  end
end

--- Names and values. nil and a message: the body is no form, or has too many fields.
---@param request perilune.http.request
---@param options { all: boolean?, fields: integer? }?
---@return table<string, string|string[]>?
---@return string?
function M.form(request, options)
  options = option_checks.check("request:form", options, OPTIONS, 2)
  local kind = M.kind_of(request)
  if kind ~= "application/x-www-form-urlencoded" then
    return nil, "the body is to be application/x-www-form-urlencoded"
      .. (kind == "multipart/form-data" and ": this one is for request:multipart()" or "")
  end
  local form, n, most = {}, 0, options.fields or FIELDS_MAX
  for name, value in percent.pairs(request.body) do
    n = n + 1
    if n > most then return nil, ("the form has more than %d fields"):format(most) end
    add(form, name, value, options.all)
  end
  return form
end

return M
