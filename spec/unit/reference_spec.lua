--- The reference has every log entry that the source can write.
local command = require "spec.support.command"

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/unit/[^/]+$")

local function sources()
  local paths, pipe = {}, assert(io.popen("find '" .. root .. "src' -name '*.c'"))
  for path in pipe:lines() do paths[#paths + 1] = path end
  pipe:close()
  return paths
end

-- The literals of an argument that is a message: one in pieces, or two to choose from.
local function add_messages(messages, argument)
  for piece in argument:gsub('"%s+"', ""):gmatch('"([^"]+)"') do messages[#messages + 1] = piece end
end

-- A message follows its level; the fields come after it. A condition may stand before it.
local function messages_of(source)
  local messages = {}
  for call in source:gmatch("LOG_%u+%s*,(.-);") do
    add_messages(messages, (call:gsub("&?F_%u+%(.*", "")))
  end
  for message in source:gmatch('server_cannot%([^,]*,%s*"([^"]+)"') do messages[#messages + 1] = message end
  return messages
end

describe("docs/reference.md", function()
  it("has every log entry", function()
    local reference, missing, n = command.read(root .. "docs/reference.md"), {}, 0
    for _, path in ipairs(sources()) do
      for _, message in ipairs(messages_of(command.read(path))) do
        n = n + 1
        local whole = message:match("%s$") and "" or "`" -- a macro follows the blank
        if not reference:find("`" .. message .. whole, 1, true) then missing[#missing + 1] = path .. ": " .. message end
      end
    end
    assert.same({}, missing)
    assert.is_true(n >= 30, "only " .. n .. " entries were found in the source")
  end)
end)
