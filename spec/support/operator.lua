--- What an operator does with a running server: the commands, and what they are made of. It has `control =
--- "control.sock"`.
local command = require "spec.support.command"
local json_decode = require "spec.support.json_decode"

local M = {}

---@param app perilune.server
---@return string
function M.path(app) return app.folder .. "/control.sock" end

--- Runs a command, such as run(app, "reload", "--wait").
---@return { code: integer, out: string, err: string }
function M.run(app, ...)
  local call = { ... }
  call[#call + 1] = "--control=" .. M.path(app)
  call.dir = app.folder
  return command.run(call)
end

--- What `perilune status --json` says.
---@return table
function M.status(app) return json_decode(M.run(app, "status", "--json").out) end

--- A client of the control socket, which sends lines and gets lines.
---@return perilune.client
function M.client(app)
  return app:connect { path = M.path(app) }
end

return M
