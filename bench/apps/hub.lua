-- A topic: "join" makes a connection a member, frames that begin with "send" go to all members, others are sent back.
local Member = {}

function Member:proceed(frame)
  local word = frame:sub(1, 4)
  if word == "send" then
    self.conn:publish("t", frame)
  elseif frame == "join" then
    assert(self.conn:join "t")
    return "here"
  else
    return frame
  end
end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "u32be",
  limits = { connections = 20000 },
  hub = { inbox = 1024 },
  agent = Member,
}
