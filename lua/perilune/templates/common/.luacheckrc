-- `luacheck .` finds misspelt names before a client does. A handler may write no globals, so none is allowed here.
std = "luajit"
max_line_length = 120
-- Lua 5.3's, which Perilune has beside LuaJIT's.
read_globals = { string = { fields = { "pack", "packsize", "unpack" } } }
self = false
files["spec"] = { std = "luajit+busted" }
