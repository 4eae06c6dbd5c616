--- Fields of the module that it does not have: found in what was compiled, called or not, before a client comes there.
--- Internal.
local culprit = require "perilune.culprit"
local hints = require "perilune.hints"
local jit_util = require "jit.util"
local protos = require "perilune.protos"

local M = {}

-- The lines that code was made of: all that is in others is comments and texts.
local function lines_of(chunk)
  local lines = {}
  protos.each(chunk, function(fn)
    local at = 1
    while jit_util.funcbc(fn, at) do
      lines[jit_util.funcinfo(fn, at).currentline] = true
      at = at + 1
    end
  end)
  return lines
end

-- Without texts and comments of several lines; each line keeps its number.
local function without_long_texts(source)
  return (source:gsub("%b[]", function(text)
    return text:find "^%[=*%[" and text:gsub("[^\n]", " ") or nil
  end))
end

local REQUIRED = "%f[%w_]local%s+([%a_][%w_]*)%s*=%s*require%s*%(?%s*[\"']perilune[\"']%s*%)?([^\n]*)"

-- What the file calls it, and by name the libraries of it that the file keeps in locals.
local function names_in(source)
  local names, own = {}, nil
  for name, behind in source:gmatch(REQUIRED) do
    local field = behind:match "^%s*%.%s*([%a_][%w_]*)%s*$"
    if field then names[name] = field elseif not behind:find "^%s*%." then own = name end
  end
  for name, owner, field in source:gmatch "%f[%w_]local%s+([%a_][%w_]*)%s*=%s*([%a_][%w_]*)%.([%a_][%w_]*)%s" do
    if owner == own then names[name] = field end
  end
  return own, names
end

-- Is there a parameter, or another local, of that name? Then it may be what a line means.
local function has_namesake(source, name)
  local word = "%f[%w_]" .. name .. "%f[^%w_]"
  for names in source:gmatch "%f[%w_]function%f[^%w_][%w_.:%s]*%(([^)]*)%)" do
    if names:find(word) then return true end
  end
  for names in source:gmatch "%f[%w_]for%s+([%w_,%s]-)%s*=" do
    if names:find(word) then return true end
  end
  for names in source:gmatch "%f[%w_]for%s+([%w_,%s]-)%s+in%f[%W]" do
    if names:find(word) then return true end
  end
  local others = 0
  for names in source:gmatch "%f[%w_]local%s+([%w_]+[%w_,%s]*)" do
    if names:match("^[^\n]*"):find(word) then others = others + 1 end
  end
  return others > 1
end

-- Who looks whether it is there knows that it may not be.
local function is_looked_for(rest)
  return rest:find "^%s*[~=]=" or rest:find "^%s+or%f[%W]" or rest:find "^%s+and%f[%W]" or rest:find "^%s+then%f[%W]"
end

local function text_of(path, number, name, field, line, source)
  local context = { line = line, number = number, source = source }
  local hint = hints.find(("attempt to call field '%s' (a nil value)"):format(field), context)
  return ("%s:%d: %s.%s does not exist%s"):format(path, number, name, field, hint and ": " .. hint or "")
end

-- What is taken from a table by its name in the file, and is not there.
local function add_faults(texts, path, source, lines, name, module)
  if has_namesake(source, name) then return end
  local known, number = {}, 0
  local pattern = "%f[%w_.:]" .. name .. "%s*%.%s*([%a_][%w_]*)()"
  for line in (without_long_texts(source) .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local masked = lines[number] and culprit.mask(line) or ""
    for field, behind in masked:gmatch(pattern) do
      if module[field] == nil and not known[field] then
        known[field] = true
        if not is_looked_for(masked:sub(behind)) then
          texts[#texts + 1] = text_of(path, number, name, field, line, source)
        end
      end
    end
  end
end

--- What a file takes from `require "perilune"` that is not there, a text for each name.
---@param path string the file's, for the texts
---@param chunk function that has been compiled from text
---@param source string? the file's text
---@return string[]
function M.faults(path, chunk, source)
  if not source then return {} end
  local module, lines, texts = require "perilune", lines_of(chunk), {}
  local own, names = names_in(source)
  if own then add_faults(texts, path, source, lines, own, module) end
  local sorted = {}
  for name in pairs(names) do sorted[#sorted + 1] = name end
  table.sort(sorted)
  for _, name in ipairs(sorted) do
    local library = module[names[name]]
    if type(library) == "table" then add_faults(texts, path, source, lines, name, library) end
  end
  return texts
end

return M
