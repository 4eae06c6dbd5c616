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

-- What the file calls it: the last local it is kept in, or nil.
local function name_in(source)
  local name
  for each in source:gmatch "%f[%w_]local%s+([%a_][%w_]*)%s*=%s*require%s*%(?%s*[\"']perilune[\"']" do name = each end
  return name
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

--- What a file takes from `require "perilune"` that is not there, a text for each name.
---@param path string the file's, for the texts
---@param chunk function that has been compiled from text
---@param source string? the file's text
---@return string[]
function M.faults(path, chunk, source)
  local name = source and name_in(source)
  if not name or has_namesake(source, name) then return {} end
  local module, texts, known, number = require "perilune", {}, {}, 0
  local lines, pattern = lines_of(chunk), "%f[%w_.:]" .. name .. "%s*%.%s*([%a_][%w_]*)()"
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
  return texts
end

return M
