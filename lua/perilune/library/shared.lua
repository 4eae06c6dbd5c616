---@meta perilune

-- Types of perilune.shared: see perilune.lua beside.

--- What is kept: plain data. Tables are copied in and out, and must have no metatables, functions, threads or cycles.
---@alias perilune.shared_value string|number|boolean|table

--- What perilune.shared() returns: a dictionary that all workers share, and all generations of the script. None of its
--- calls waits. A value belongs to nobody: what is read is a copy. `nil, message, code` say that a value could not be
--- put: "EMSGSIZE": larger than the dictionary, or a table above 16 MiB; "EBUSY": others use all of its room just now;
--- "ENOMEM": the system has no memory.
---@class perilune.shared
local shared = {}

--- The value; nil: there is none, or it has expired.
---@param key string|number a number is as its text; at most 65,535 bytes
---@return perilune.shared_value? value
function shared:get(key) end

--- Puts a value, in place of what there may be. Where there is no room, what was used longest ago goes.
---@param key string|number
---@param value perilune.shared_value
---@param ttl? perilune.duration how long it is there; default, and 0: for ever
---@return true? ok
---@return string? message
---@return string? code
function shared:set(key, value, ttl) end

--- The same, where there is no value yet. Of several at once one succeeds.
---@param key string|number
---@param value perilune.shared_value
---@param ttl? perilune.duration
---@return true? ok
---@return string? message
---@return string? code "EEXIST": there is a value
function shared:add(key, value, ttl) end

--- The same, where there is a value already.
---@param key string|number
---@param value perilune.shared_value
---@param ttl? perilune.duration
---@return true? ok
---@return string? message
---@return string? code "ENOENT": there is none
function shared:replace(key, value, ttl) end

--- Adds to a number, with nobody in between: exact up to 2^53. Where there is none it begins, and its time with it;
--- later calls leave the time as it is.
---@param key string|number
---@param by? number default: 1
---@param begin? number|false what it begins with, before `by` is added; false: there must be one; default: 0
---@param ttl? perilune.duration of one that begins; default: for ever
---@return number? sum
---@return string? message
---@return string? code "ENOENT": there is none; "EINVAL": it is no number
function shared:incr(key, by, begin, ttl) end

--- Changes a value by a function of the old one, with nobody in between: where another was quicker, the function is
--- called again, with what there is by then. It may wait. A function that returns nothing at all raises.
---@param key string|number
---@param change fun(value: perilune.shared_value?): perilune.shared_value? the new value; nil deletes it
---@param ttl? perilune.duration default: for ever
---@return perilune.shared_value? value the new one
---@return string? message
---@return string? code "EAGAIN": others were quicker a thousand times
function shared:update(key, change, ttl) end

---@param key string|number
---@return boolean was_there
function shared:delete(key) end

--- Gives a value that is there another time, from now on.
---@param key string|number
---@param ttl? perilune.duration default: for ever
---@return boolean is_there
function shared:expire(key, ttl) end

--- How long a value is there still.
---@param key string|number
---@return number? seconds math.huge: for ever; nil: there is none
function shared:ttl(key) end

--- Some of the keys, or all, in no order. It takes time in proportion: not for each frame.
---@param max? integer at most so many; default: 1000
---@return string[] keys
function shared:keys(max) end

--- Removes everything.
function shared:clear() end

--- What there is, and what has happened.
---@return perilune.shared_status
function shared:status() end

--- Counts are since the process began.
---@class perilune.shared_status
---@field entries integer those that have expired, and were not asked for since, included
---@field bytes integer what they take, keys and bookkeeping included
---@field limit integer what they may take
---@field hits integer
---@field misses integer
---@field evicted integer that had to go for want of room, before their time
---@field expired integer
