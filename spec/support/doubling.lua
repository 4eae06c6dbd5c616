--- What jobs of random programs call: spec/support/messages.lua.
local M = {}

function M.doubles(number) return 2 * number end

function M.fails() error "as asked" end

return M
