-- Handlers are checked like our own modules: reading or writing a global is a mistake.
std = "luajit"
max_line_length = 120
-- Lua 5.3's, which LuaJIT does not have and ours does.
read_globals = { string = { fields = { "pack", "packsize", "unpack" } } }
exclude_files = { "build" }

files["spec"] = { std = "luajit+busted" }
files["examples/**/*_spec.lua"] = { std = "luajit+busted" }
-- Run by Lua 5.3.
files["spec/support/make_pack_vectors.lua"] = { std = "lua53" }
-- Types: functions without a body.
files["lua/perilune/library"] = { unused = false, ignore = { "122", "142" } }
-- What broken handlers do makes no sense.
files["spec/corpus"] = { ignore = { "241", "512" } }
