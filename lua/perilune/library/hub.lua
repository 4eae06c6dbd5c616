---@meta perilune

-- Types of perilune.hub: see perilune.lua beside.

--- Topics, on all workers: docs/hub.md. What a connection does with them is conn:join(), conn:leave(), conn:publish()
--- and conn:topics().
---@class perilune.hub
local hub = {}

--- Publishes to a topic on behalf of the running handler: conn:publish() without a connection, for tasks of the app's.
---@param topic string
---@param data string|number|table a table is sent as JSON; 1 MiB at most
---@param options? perilune.publish_options
---@return true? ok it is on its way to all workers that have members
---@return string? message
---@return string? code "EINVAL": this is no topic; "EBUSY": a worker's inbox is full; "EMSGSIZE"; "ENOMEM"
function hub.publish(topic, data, options) end

--- How many members a message to the topic would be for. Whose pattern fits counts, once for each.
---@param topic string
---@return integer? members
---@return string? message
---@return string? code "EINVAL"
function hub.count(topic) end

--- What was published and what has become of it: a copy. With a topic, or a pattern, only of those that have joined
--- just that, as long as it has members.
---@param topic? string
---@return perilune.hub_stats? stats
---@return string? message
---@return string? code "ENOENT": it has no members; "EINVAL"
function hub.stats(topic) end

--- `addressed` is `delivered` and all that was dropped, evicted, or waits.
---@class perilune.hub_stats
---@field members integer memberships
---@field topics? integer topics and patterns that have members
---@field published? integer messages
---@field missed? integer times that a message found no room in a worker's inbox
---@field addressed integer messages times members
---@field delivered integer sent to a member, or given to its `message`
---@field waiting integer for members that have yet to take what was sent before
---@field dropped { oldest: integer, newest: integer, replaced: integer, unfit: integer } by the policies; no frame
---@field evicted { slow: integer, left: integer } the member was disconnected for that; it has left, or ended
---@field inbox? integer[] messages that wait in each worker

---@class perilune.publish_options
---@field key? string what a later message with the same key replaces, where a member wants the latest
---@field binary? boolean a WebSocket gets a binary message; default: false
---@field others? boolean not to the connection itself; default: false

--- What is left out is as the setting `hub` has it.
---@class perilune.join_options
---@field policy? "disconnect"|"drop_newest"|"drop_oldest"|"latest" when more than that waits
---@field messages? integer that may wait for it
---@field bytes? perilune.size that may wait for it
---@field deliver? "conn"|"agent" agent: its message(topic, data, from) is called; default: "conn", it is sent

return hub
