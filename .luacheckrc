-- Handlers are checked like our own modules: reading or writing a global is a mistake.
std = "luajit"
max_line_length = 120
exclude_files = { "build" }

-- Tables of cases read best with a case a line.
files["spec"] = { std = "luajit+busted", max_line_length = 132 }
files["examples/**/*_spec.lua"] = { std = "luajit+busted" }
-- Types: functions without a body.
files["lua/perilune/library"] = { unused = false }
-- What broken handlers do makes no sense.
files["spec/corpus"] = { ignore = { "241", "512" } }
