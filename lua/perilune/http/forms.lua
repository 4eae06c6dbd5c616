--- request:form(): what a browser sends of a form, application/x-www-form-urlencoded.
local percent = require "perilune.percent"
local printable = require "perilune.printable"

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

local function check_options(options)
  if options == nil then return {} end
  if type(options) ~= "table" then error("request:form: expects options, got " .. printable.value(options), 3) end
  for key, value in next, options do
    if key ~= "all" and key ~= "fields" then
      error(("request:form: unknown option %s; it has all, fields"):format(printable.key(key)), 3)
    end
    if key == "all" and type(value) ~= "boolean" then
      error("request:form: all: expects true or false, got " .. printable.value(value), 3)
    end
    if key == "fields" and (type(value) ~= "number" or value < 1 or value % 1 ~= 0) then
      error("request:form: fields: expects a whole number, got " .. printable.value(value), 3)
    end
  end
  return options
end

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
  options = check_options(options)
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
