--- Compiles texts for load() and require, piece by piece (src/bind/compile.c): LuaJIT does it in one call of C, which
--- takes seconds for a large text, and which nothing could end.
local has_core, core = pcall(require, "perilune.compile_core")
if has_core then return core.compile end

--- In a plain LuaJIT, as in unit specs.
---@param text string
---@param name string
---@param env table the globals of what is compiled
---@return function? chunk
---@return string? message
return function(text, name, env) return load(text, name, "t", env) end
