--- Drivers that others have written, as Debian has them (scripts/drivers), in a server of lines; and varnishtest,
--- and autocannon.
local command = require "spec.support.command"
local luassert = require "luassert"
local server = require "spec.support.server"

local M = {}

local FOLDER = command.shell("pwd"):gsub("\n", "") .. "/build/drivers/"

--- Where these packages are unpacked, for LUA_PATH.
---@param ... string
---@return string
function M.path_of(...)
  local places = {}
  for i, name in ipairs { ... } do places[i] = FOLDER .. name .. "/usr/share/lua/5.1/?.lua" end
  return table.concat(places, ";") .. ";;"
end

--- Why a specification cannot run, as a program or a package is missing; nil: it can.
---@param name string? of a program
---@param package string
---@return string?
function M.missing(name, package)
  if name and not command.has(name) then return name .. " is not installed" end
  if not command.exists(FOLDER .. package .. "/usr/share/doc/" .. package .. "/copyright") then
    return package .. " is not there: scripts/drivers"
  end
end

--- What runs autocannon in a shell; nil, and why it cannot be run.
---@return string?
---@return string? message
function M.autocannon()
  local path = FOLDER .. "autocannon/node_modules/autocannon/autocannon.js"
  if not command.has "node" then return nil, "node is not installed" end
  if not command.exists(path) then return nil, "autocannon is not there: scripts/drivers" end
  return ("node '%s'"):format(path)
end

--- A server of lines; `body` has `Agent` with proceed(self, line).
---@param body string
---@param settings string
---@param ... string packages
---@return perilune.server
function M.start(body, settings, ...)
  return server.start {
    control = "control.sock",
    env = { LUA_PATH = M.path_of(...) },
    script = ([[local perilune = require "perilune"
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(body, settings),
  }
end

--- The beginning of a line of the shell that runs varnishtest.
---@return string
function M.varnishtest()
  local libraries = command.shell("echo '" .. FOLDER .. "'libvarnishapi3/usr/lib/*/"):gsub("%s+$", "")
  return ("LD_LIBRARY_PATH='%s' '%svarnish/usr/bin/varnishtest'"):format(libraries, FOLDER)
end

--- Sends a line, and this is the next one that comes.
function M.asks(client, line, answer)
  client:send(line .. "\n")
  luassert.equal(answer, client:recv_line())
end

return M
