local test = require "perilune.test"
it("x", function()
  local app = test.open "app.lua"
  app:connect():get("/a")
  app:connect():get("/b")
  for _, f in ipairs(app:log()) do print(f.message, f.excerpt) end
end)
