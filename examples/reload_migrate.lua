-- Migrating: a reload hands each connection's state over to the new code, between two lines. The state says which shape
-- it has, so that a later version of this script knows what to do with an earlier one's.
--
--   scripts/run examples/reload_migrate.lua
--   nc 127.0.0.1 9000, say a few words, change GREETING, kill -HUP, and go on talking
local GREETING = "noted"
local SHAPE = 2

local Notes = {}

function Notes:opened() self.words, self.since = {}, os.time() end

function Notes:proceed(line)
  if line == "list" then return table.concat(self.words, ", ") end
  self.words[#self.words + 1] = line
  return ("%s: %s, the %d. word"):format(GREETING, line, #self.words)
end

-- Plain data: it is copied into the new generation's VM.
function Notes:snapshot() return { shape = SHAPE, words = self.words, since = self.since } end

-- In place of opened(). Shape 1 was a text, "tea, milk"; a newer shape than ours is no business of ours: the error
-- leaves the connection with the code that it has.
function Notes:upgrade(data)
  if type(data) == "string" then
    self.words, self.since = {}, os.time()
    for word in data:gmatch "[^, ]+" do self.words[#self.words + 1] = word end
    return
  end
  assert(data.shape == SHAPE, "a state of another shape")
  self.words, self.since = data.words, data.since
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Notes, reload = "migrate" }
