--- In place of perilune.test.inside, where of an app only the framings are wanted: setup() and teardown() are for the
--- server. Internal.
local app = require "perilune.app"

local load = app.load

function app.load(...)
  local loaded, message, errors = load(...)
  if loaded then loaded.conf.setup, loaded.conf.teardown = nil, nil end
  return loaded, message, errors
end

return require "perilune.test.inside"
