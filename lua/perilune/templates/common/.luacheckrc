-- `luacheck .` finds misspelt names before a client does. A handler may write no globals, so none is allowed here.
std = "luajit"
max_line_length = 120
self = false
files["spec"] = { std = "luajit+busted" }
