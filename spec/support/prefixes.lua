--- A program: what limits.per_ip = 2 makes of clients from these addresses, one after the other.
local server = require "spec.support.server"

local app = server.start { script = [[
  return { listen = "tcp://[::]:0", frame = "line", limits = { per_ip = 2, reject = "refused\n" },
    agent = { opened = function(self) self.conn:send "served" end, proceed = function() end } }]] }

local said = {}
for i, source in ipairs(arg) do said[i] = app:connect({ host = arg[1], source = source }):recv_line() end
server.finish()
print(table.concat(said, ", "))
