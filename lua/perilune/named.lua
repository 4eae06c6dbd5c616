--- Files that a command line names. A FIFO would be waited for until somebody opens its other end, so it is refused.
--- What a shell gives as a file, `<(…)` or standard input, is in /dev or /proc and has been opened already. Internal.
local has_core, paths = pcall(require, "perilune.paths") -- in C: src/bind/paths.c; there is none in unit specs

local M = {}

local has_compile, compile = pcall(require, "perilune.compile_core") -- in C: src/bind/compile.c

local open, load_file = io.open, loadfile

--- Why it cannot be opened; nil: it can, for all that is known.
---@param path string
---@return string? what "is a FIFO, not a file"
function M.refusal(path)
  if not has_core or path:find "^/dev/" or path:find "^/proc/" then return nil end
  local kind = paths.kind(path)
  return kind == "a FIFO" and ("is %s, not a file"):format(kind) or nil
end

--- As io.open.
---@param path string
---@param mode string?
---@return file*?
---@return string? message
function M.open(path, mode)
  local refusal = M.refusal(path)
  if refusal then return nil, path .. ": " .. refusal end
  return open(path, mode)
end

--- As loadfile.
---@param path string?
---@return function?
---@return string? message
function M.loadfile(path, ...)
  local refusal = path and M.refusal(path)
  if refusal then return nil, path .. ": " .. refusal end
  local chunk, message = load_file(path, ...)
  if chunk and has_compile then return compile.despecialize(chunk) end
  return chunk, message
end

return M
