--- Runs the real binary and catches what it says: command.run { "check", "app.lua" } → { code, out, err }.
--- A fresh folder takes the scripts and the output; none of the caller's own PERILUNE_* settings leak in.
local M = {}

local SECONDS_MAX = 120
-- What a specification may pass on to the binary by itself; the runner's own settings stay out.
local KEPT = { PERILUNE_LUA_PATH = true }

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

--- What the shell prints for this line.
---@param line string
---@return string
local function shell(line)
  local pipe = assert(io.popen(line))
  local out = pipe:read("*a")
  pipe:close()
  return out
end

M.shell = shell

--- All of a file.
---@param path string
---@return string
local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

M.read = read

--- Is there a file of this name?
---@param path string
---@return boolean
function M.exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  return shell("pwd"):gsub("\n", "") .. "/" .. path
end

M.binary = absolute(os.getenv("PERILUNE") or "build/perilune")

--- Is there a program of this name?
---@param name string
---@return boolean
function M.has(name) return shell("command -v " .. quote(name)) ~= "" end

--- The test at hand is pending where there is no program of this name.
---@param program string
function M.needs(program)
  if not M.has(program) then pending(program .. " is not installed") end
end

--- Debian's, which has Debian's packages.
M.PYTHON = "/usr/bin/python3"

--- The test at hand is pending where Python has no such module.
---@param module string as it is imported
---@param package string what has it
function M.needs_python(module, package)
  if M.shell(("%s -c 'import %s' 2>&1"):format(M.PYTHON, module)):find "^%s*$" then return end
  pending(package .. " is not installed")
end

--- A new folder, to be given to M.remove().
---@return string
function M.folder() return (shell("mktemp -d /tmp/perilune-spec-XXXXXX"):gsub("\n", "")) end

---@param folder string
function M.remove(folder)
  assert(folder:find("^/tmp/perilune%-spec%-"))
  os.execute("rm -rf " .. quote(folder))
end

---@param path string
---@param text string
---@return string path
function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function inherited()
  local unset = {}
  for name in shell("env"):gmatch("(PERILUNE_[%w_]+)=") do
    if not KEPT[name] then unset[#unset + 1] = "-u " .. name end
  end
  return table.concat(unset, " ")
end

local UNSET = inherited()

local function environment(env)
  local words = {}
  for name, value in pairs(env or {}) do words[#words + 1] = name .. "=" .. quote(value) end
  table.sort(words)
  return table.concat(words, " ")
end

--- Runs the binary with the arguments in the list part. `env` adds variables, `dir` is the working folder,
--- `stdout` redirects to a file of one's own ("/dev/full"), `redirect` adds to the shell's line ("<&-").
--- A run that takes longer than two minutes ends with code 124.
---@param call { env: table<string, string>?, dir: string?, stdout: string?, redirect: string?, [integer]: string }
---@return { code: integer, out: string, err: string }
function M.run(call)
  local folder = M.folder()
  local words = {}
  for i, word in ipairs(call) do words[i] = quote(word) end
  local line = ("cd %s && env %s %s timeout %d %s %s </dev/null >%s 2>%s %s; echo $?"):format(
    quote(call.dir or folder), UNSET, environment(call.env), SECONDS_MAX, quote(M.binary), table.concat(words, " "),
    quote(call.stdout or folder .. "/out"), quote(folder .. "/err"), call.redirect or "")
  local code = tonumber(shell(line))
  local result = { code = code, out = call.stdout and "" or read(folder .. "/out"), err = read(folder .. "/err") }
  M.remove(folder)
  return result
end

return M
