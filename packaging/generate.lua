-- Makes the manual page and the completions of shells from what the binary says of itself, and the API in
-- docs/reference.md from the types in lua/perilune/library and the counters in src/base/counters.h:
--
--   build/perilune exec packaging/generate.lua            writes them, after a change of either
--   build/perilune exec packaging/generate.lua --check    says which are not as they would be written, and fails
--
-- A test does the latter. PERILUNE names another binary.
local PERILUNE = os.getenv "PERILUNE" or "build/perilune"
local FOLDER = (arg[0]:match "^(.*)/" or ".") .. "/"

-- ---- what the binary says ----------------------------------------------------

---@class Option
---@field name string after the "--"
---@field short string? one letter
---@field argument string? what the help calls it
---@field help string

---@class Command
---@field name string
---@field summary string
---@field arguments string "[app.lua] [options]"
---@field about string[] lines
---@field options Option[]
---@field all (Option|{ text: string })[] the same, and what stands between them
---@field sections table<string, string[]> "Exit codes" → lines, indented by two as in the help

local function ask(...)
  local pipe = assert(io.popen(table.concat({ PERILUNE, ... }, " ")))
  local text = pipe:read "*a"
  pipe:close()
  if text == "" then error(PERILUNE .. " does not say anything: is it built? PERILUNE=path/to/perilune names it", 0) end
  return text
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

-- "  --name ARGUMENT   help" or "  -n, --name ARGUMENT  help"; anything else is text between options.
local function read_option(line)
  local short, rest = line:match "^  %-(%a), (%-%-.*)$"
  local name, argument, help = (rest or line:match "^  (%-%-.*)$" or ""):match "^%-%-([%w-]+) ?(%S*) +(.*)$"
  if not name then return { text = line:gsub("^ +", "") } end
  short = short or help:match "%-(%a) is short for it"
  return { name = name, short = short, argument = argument ~= "" and argument or nil, help = help }
end

-- A help text is the usage, a blank line, what the command is about, and sections with a title.
local function read_command(name, summary)
  local text = ask(name, "--help")
  local usage, rest = text:match "^usage: ([^\n]+)\n\n(.*)$"
  local command = {
    name = name, summary = summary, about = {}, options = {}, all = {}, sections = {},
    arguments = usage:match "^%S+ %S+ ?(.*)$",
  }
  local section = command.about
  for _, line in ipairs(lines_of(rest)) do
    local title = line:match "^(%u[%l ]+):$"
    if title then
      section = {}
      command.sections[title] = section
    elseif line ~= "" then
      section[#section + 1] = line
    end
  end
  for _, line in ipairs(command.sections.Options or {}) do
    local option = read_option(line)
    command.all[#command.all + 1] = option
    if option.name then command.options[#command.options + 1] = option end
  end
  return command
end

---@return Command[]
local function read_commands()
  local commands = {}
  for name, summary in ask("--help"):gmatch "\n  (%l+) +([^\n]+)" do
    if name ~= "help" then commands[#commands + 1] = read_command(name, summary) end
  end
  return commands
end

local commands = read_commands()

-- ---- what the values of options may be, by what the help calls them --------------

-- The keys of --set, in the order of the manual.
local function read_keys()
  local keys = {}
  for _, path in ipairs(require("perilune.config.read").paths()) do keys[#keys + 1] = path end
  return keys
end

local VALUES = {
  FORMAT = { "auto", "text", "json" },
  LEVEL = { "debug", "info", "warn", "error" },
  POLICY = { "pin", "migrate", "drain" },
  TEMPLATE = { "echo", "chat", "rpc", "binary", "game", "proxy", "worker-pool", "http" },
}
local FILES = { PATH = true }
local KEYS = { ["KEY=VALUE"] = true }
local keys = read_keys()

local function takes_script(command)
  return command.arguments:find("app.lua", 1, true) or command.arguments:find "FILE"
end

local out

local function add(form, ...) out[#out + 1] = select("#", ...) > 0 and form:format(...) or form end

local function sorted_keys(t)
  local found = {}
  for key in pairs(t) do found[#found + 1] = key end
  table.sort(found)
  return found
end

local function names_of(list)
  local names = {}
  for i, item in ipairs(list) do names[i] = item.name end
  return names
end

-- All options that take an argument of this kind, of whatever command: "--log-file|--control".
local function options_with(is_kind)
  local found, seen = {}, {}
  for _, command in ipairs(commands) do
    for _, option in ipairs(command.options) do
      if option.argument and is_kind(option.argument) and not seen[option.name] then
        seen[option.name] = true
        found[#found + 1] = "--" .. option.name
        if option.short then found[#found + 1] = "-" .. option.short end
      end
    end
  end
  return table.concat(found, "|")
end

-- ---- bash ---------------------------------------------------------------------

local BASH_HEAD = [=[
# Completion of perilune for bash. Made by packaging/generate.lua.
_perilune() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local commands="%s" keys="%s" options="" scripts=""
	# --name=value comes as three words.
	if [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
	if [[ $cur == "=" ]]; then cur=""; fi
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$commands help --help --version" -- "$cur")
		return
	fi
	case $command in]=]

local BASH_FILES = [=[
	%s)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;]=]

local BASH_KEYS = [=[
	%s)
		compopt -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -S = -W "$keys" -- "$cur")
		return
		;;]=]

local BASH_TAIL = [=[
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	elif [[ $command == help ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
	elif [[ $scripts ]]; then
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$cur"; compgen -d -- "$cur")
	fi
}
complete -F _perilune perilune]=]

local function bash()
  out = {}
  add(BASH_HEAD, table.concat(names_of(commands), " "), table.concat(keys, " "))
  for _, command in ipairs(commands) do
    local options = {}
    for _, option in ipairs(command.options) do
      options[#options + 1] = "--" .. option.name
      if option.short then options[#options + 1] = "-" .. option.short end
    end
    local scripts = takes_script(command) and " scripts=1" or ""
    add("\t%s) options=\"%s\"%s ;;", command.name, table.concat(options, " "), scripts)
  end
  add "\tesac"
  add "\tcase $prev in"
  for _, argument in ipairs(sorted_keys(VALUES)) do
    add("\t%s)", options_with(function(other) return other == argument end))
    add("\t\tmapfile -t COMPREPLY < <(compgen -W \"%s\" -- \"$cur\")", table.concat(VALUES[argument], " "))
    add "\t\treturn"
    add "\t\t;;"
  end
  add(BASH_FILES, options_with(function(argument) return FILES[argument] end))
  add(BASH_KEYS, options_with(function(argument) return KEYS[argument] end))
  add("\t%s) return ;;", options_with(function(argument)
    return not (VALUES[argument] or FILES[argument] or KEYS[argument])
  end))
  add(BASH_TAIL)
  return table.concat(out, "\n") .. "\n"
end

-- ---- zsh ----------------------------------------------------------------------

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function zsh_action(argument)
  if VALUES[argument] then return "(" .. table.concat(VALUES[argument], " ") .. ")" end
  if FILES[argument] then return "_files" end
  return KEYS[argument] and "_perilune_keys" or " "
end

local function zsh_option(option)
  local help = option.help:gsub("[%[%]\\]", "\\%0")
  local name = "--" .. option.name
  if not option.argument then return quote(("%s[%s]"):format(name, help)) end
  local value = (":%s:%s"):format(option.argument, zsh_action(option.argument))
  local mark = option.argument:find "=" and "*" or "" -- may be given again
  local spec = quote(("%s%s=[%s]%s"):format(mark, name, help, value))
  if not option.short then return spec end
  return spec .. " " .. quote(("-%s[%s]%s"):format(option.short, help, value))
end

local function zsh()
  out = {}
  add "#compdef perilune"
  add "# Completion of perilune for zsh. Made by packaging/generate.lua."
  add ""
  add "_perilune_keys() {"
  add("\tlocal -a keys=(%s)", table.concat(keys, " "))
  add "\tcompadd -S = -- $keys"
  add "}"
  add ""
  add "_perilune() {"
  add "\tlocal -a commands=("
  for _, command in ipairs(commands) do
    add("\t\t%s", quote(command.name .. ":" .. command.summary:gsub(":", "\\:")))
  end
  add "\t\t'help:explain a command'"
  add "\t)"
  add "\tlocal curcontext=$curcontext state line"
  add "\t_arguments -C '--help[explain perilune]' '--version[tell the version]' '1: :->command' '*:: :->arguments'"
  add "\tcase $state in"
  add "\tcommand) _describe -t commands 'perilune command' commands ;;"
  add "\targuments)"
  add "\t\tcase $words[1] in"
  for _, command in ipairs(commands) do
    add("\t\t%s)", command.name)
    add "\t\t\t_arguments \\"
    for _, option in ipairs(command.options) do add("\t\t\t\t%s \\", zsh_option(option)) end
    add("\t\t\t\t%s", takes_script(command) and quote '*:script:_files -g "*.lua(-.)"' or quote "*: : ")
    add "\t\t\t;;"
  end
  add "\t\thelp) _describe -t commands 'perilune command' commands ;;"
  add "\t\tesac"
  add "\t\t;;"
  add "\tesac"
  add "}"
  add ""
  add '_perilune "$@"'
  return table.concat(out, "\n") .. "\n"
end

-- ---- fish ---------------------------------------------------------------------

local function fish_quote(text) return "'" .. text:gsub("[\\']", "\\%0") .. "'" end

local function fish_value(argument)
  if not argument then return "" end
  if VALUES[argument] then return " -xa " .. fish_quote(table.concat(VALUES[argument], " ")) end
  if FILES[argument] then return " -rF" end
  if KEYS[argument] then return " -xa " .. fish_quote(table.concat(keys, "= ") .. "=") end
  return " -x"
end

local function fish()
  out = {}
  add "# Completion of perilune for fish. Made by packaging/generate.lua."
  add "complete -c perilune -f"
  add "complete -c perilune -n __fish_use_subcommand -l help -d 'explain perilune'"
  add "complete -c perilune -n __fish_use_subcommand -l version -d 'tell the version'"
  for _, command in ipairs(commands) do
    add("complete -c perilune -n __fish_use_subcommand -a %s -d %s", command.name, fish_quote(command.summary))
  end
  add "complete -c perilune -n __fish_use_subcommand -a help -d 'explain a command'"
  local names = table.concat(names_of(commands), " ")
  add("complete -c perilune -n '__fish_seen_subcommand_from help' -a %s", fish_quote(names))
  for _, command in ipairs(commands) do
    local seen = ("complete -c perilune -n '__fish_seen_subcommand_from %s'"):format(command.name)
    if takes_script(command) then add("%s -k -xa '(__fish_complete_suffix .lua)'", seen) end
    for _, option in ipairs(command.options) do
      local short = option.short and " -s " .. option.short or ""
      add("%s%s -l %s%s -d %s", seen, short, option.name, fish_value(option.argument), fish_quote(option.help))
    end
  end
  return table.concat(out, "\n") .. "\n"
end

-- ---- the manual page ------------------------------------------------------------

local function roff(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("'", "\\(aq"):gsub("`", "\\(ga")
  return (text:gsub("^%.", "\\&."))
end

local function add_text(lines)
  for _, line in ipairs(lines) do add("%s", roff(line)) end
end

-- What is aligned in the help stays so.
local function add_aligned(lines)
  add ".nf"
  for _, line in ipairs(lines) do add("%s", roff(line:gsub("^  ", ""))) end
  add ".fi"
end

local function add_option(option)
  if option.text then
    add ".PP"
    add("%s", roff(option.text))
    return
  end
  add ".TP"
  local form = "\\-\\-" .. roff(option.name)
  if option.short then form = "\\-" .. option.short .. ", " .. form end
  add(option.argument and ".BI \"%s \" %s" or ".B %s", form, option.argument and roff(option.argument))
  add("%s", roff((option.help:gsub("; %-%a is short for it", ""))))
end

local MAN_HEAD = [[
.\" Made by packaging/generate.lua.
.TH PERILUNE 1 "" "perilune %s" "User Commands"
.SH NAME
perilune \- a socket server that is scripted in Lua
.SH SYNOPSIS]]

local MAN_DESCRIPTION = [[
.SH DESCRIPTION
A C core accepts connections, cuts their bytes into frames, keeps time\-outs and limits, and spreads connections over
worker threads. Each connection gets an agent, a Lua object from your script, whose method
.I proceed
is called once for each frame. What it returns goes back to the peer:
.PP
.in +4n
.nf
local Hello = {}
function Hello:proceed(line) return "hello " .. line end
return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Hello }
.fi
.in
.PP
The file is loaded once to be checked and once in each worker. A reload lets new connections have the new file, and
disconnects nobody.
.SH COMMANDS]]

local MAN_TAIL = [[
.SH FILES
.TP
.I app.lua
what run and check take where no file is named
.TP
.I $XDG_RUNTIME_DIR/perilune/NAME\-PID.sock, /run/perilune/NAME\-PID.sock
the control socket of a server
.TP
.I PREFIX/share/perilune/lua
Perilune's own Lua modules; in
.I perilune/library
the types of its API for language servers, in
.I perilune/templates
what new copies
.TP
.I PREFIX/share/doc/perilune
the guide and the reference
.SH SEE ALSO
.BR luajit (1),
.BR luacheck (1),
.BR systemd.service (5)]]

local function add_command(command)
  add(".SS perilune %s %s", command.name, roff(command.arguments))
  add_text(command.about)
  for _, option in ipairs(command.all) do add_option(option) end
  for _, title in ipairs { "Templates", "Exit codes" } do
    if command.sections[title] then
      add ".PP"
      add("%s:", title)
      add ".PP"
      add ".in +4n"
      add_aligned(command.sections[title])
      add ".in"
    end
  end
end

local function section_of(name, title)
  for _, command in ipairs(commands) do
    if command.name == name then return command.sections[title] end
  end
end

local function man()
  out = {}
  add(MAN_HEAD, ask("--version"):match "^perilune (%S+)")
  for i, command in ipairs(commands) do
    if i > 1 then add ".br" end
    add(".B perilune %s", command.name)
    add("%s", roff(command.arguments))
  end
  add(MAN_DESCRIPTION)
  for _, command in ipairs(commands) do add_command(command) end
  add ".SH ENVIRONMENT"
  add_aligned(section_of("run", "Environment"))
  add ".PP"
  add "For the commands that ask a running server:"
  add ".PP"
  add_aligned(section_of("status", "Environment"))
  add ".SH SIGNALS"
  add_aligned(section_of("run", "Signals"))
  add ".SH EXAMPLES"
  add ".nf"
  for _, command in ipairs(commands) do
    for _, line in ipairs(command.sections.Example or {}) do add("%s", roff(line:gsub("^  ", ""))) end
  end
  add ".fi"
  add(MAN_TAIL)
  return table.concat(out, "\n") .. "\n"
end

-- ---- files ----------------------------------------------------------------------

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

local function reference()
  return require("reference").make(read(FOLDER .. "../docs/reference.md"), FOLDER .. "../lua/perilune/library",
    read(FOLDER .. "../src/base/counters.h"))
end

local MADE = {
  { "perilune.1", man }, { "completions/perilune.bash", bash }, { "completions/_perilune", zsh },
  { "completions/perilune.fish", fish }, { "../docs/reference.md", reference },
}

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local is_stale = false
for _, made in ipairs(MADE) do
  local path, text = FOLDER .. made[1], made[2]()
  if read(path) ~= text then
    print(path)
    is_stale = true
    if arg[1] ~= "--check" then write(path, text) end
  end
end
os.exit(arg[1] ~= "--check" or not is_stale)
