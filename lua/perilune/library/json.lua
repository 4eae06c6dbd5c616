---@meta

-- Types of perilune.json: see perilune.lua.

---@class perilune.json_options
---@field depth? integer so many tables within each other, 1 to 1000; default: 128
---@field max? perilune.size bytes of the text; default: "16m"

---@class perilune.json_encode_options: perilune.json_options
---@field depth? integer so many tables within each other, 1 to 1000; default: 128
---@field max? perilune.size bytes of the text; default: "16m"
---@field sorted? boolean the keys of objects in order, so that equal values give equal text; default: false

--- JSON as RFC 8259 has it, and nothing else.
---@class perilune.json
---@field null lightuserdata what `null` is: a value of its own, as nil is none. It counts as true
local json = {}

--- The value that a text is. Arrays are marked, see json.array(). A whole number of 2^53 and more, either way, is an
--- `int64_t`, or an `uint64_t` beyond that; of more than 64 bits, the nearest double.
---@param text string
---@param options? perilune.json_options
---@return any value nil: the text is at fault
---@return string? message "a comma or ] is expected at byte 5"
function json.decode(text, options) end

--- The text of a value: nil, json.null, booleans, numbers, strings in UTF-8, and tables, whose metatables are not
--- asked. A table is an array when it is marked as one, or has items, and an object otherwise. Raises for what JSON
--- cannot say, with the way to it: "users[3].name: a function has no JSON form".
---@param value any
---@param options? perilune.json_encode_options
---@return string text
function json.encode(value, options) end

--- Marks a table as an array, by a metatable, so that it is one also when it is empty. json.decode() marks those that
--- it makes.
---@param list? any[] default: a new one
---@return any[] list the same
function json.array(list) end

--- Is the value a table that is marked as an array?
---@param value any
---@return boolean
function json.is_array(value) end
