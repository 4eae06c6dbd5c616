---@meta

-- Types of the HTTP client of require "perilune.http": http.get() and so on are in http.lua.

--- A time-out for all of a request, or one for each part.
---@class perilune.http.timeouts
---@field total? perilune.duration all of it; of a body in pieces, its head; default: 30s
---@field connect? perilune.duration of a client alone; default: 5s
---@field read? perilune.duration the response must come on, and what is sent be taken; default: 10s

--- What a request may say, and a client for all of its requests.
---@class perilune.http.shared_options
---@field headers? table<string, string|number|string[]|false> false leaves one of the client's out
---@field auth? { [1]: string, [2]: string } name and password, as basic authentication
---@field timeout? perilune.duration|perilune.http.timeouts
---@field max_body? perilune.size bytes of the response's body, decoded; default: 8m
---@field redirects? integer|false how many are followed; default: 5
---@field retries? integer how often what may be asked twice is asked again; default: 0
---@field compress? boolean ask for gzip, and decode it; default: false

--- The options of a request, beside those that a client may have for all of them. http.request() has `url` and `method`
--- besides.
---@class perilune.http.request_options: perilune.http.shared_options
---@field query? table<string, string|number|boolean|table> what is put behind the address, encoded
---@field body? string|number|table|fun(): string? a table: as JSON; a function returns pieces, then nil
---@field form? table<string, string|number|boolean|table> in place of `body`: as a form in a page sends it
---@field idempotent? boolean it may be asked twice; default: as its method says
---@field stream? boolean the response's body is read in pieces; default: false

--- A request in one table.
---@class perilune.http.whole_request: perilune.http.request_options
---@field url string of a client with a base: a path below it
---@field method? string default: "GET"

--- The options of http.client(), beside those of its requests.
---@class perilune.http.client_options: perilune.http.shared_options
---@field base? string the address below which all requests are
---@field tls? perilune.connect_tls of https://; default: the system's authorities, and the host's name
---@field proxy? string|false "http://proxy:3128", or "environment": http_proxy, all_proxy, no_proxy; default: none
---@field size? integer connections to a server at most, as of perilune.pool; default: 8
---@field total? integer
---@field queue? integer
---@field wait? perilune.duration
---@field idle? perilune.duration
---@field lifetime? perilune.duration
---@field from? string

--- What a request returns. All but the status and the body is made when it is looked at.
---@class perilune.http.received
---@field status integer 200 to 599
---@field ok boolean is that 200 to 299?
---@field body? string decoded; nil: it is read in pieces
---@field headers table<string, string> by name, in any case; one that is there several times is joined with ", "
---@field trailers table<string, string> the same of those behind a chunked body
---@field version "1.1"|"1.0"
---@field url string where it came from
local received = {}

--- The body as JSON.
---@param options? perilune.json_options
---@return any value nil: the body is at fault
---@return string? message
function received:json(options) end

--- The values of all fields of a name, in order.
---@param name string
---@return string[] values
function received:list(name) end

--- The header fields in order, as they came.
---@return { [1]: string, [2]: string }[] fields name and value
function received:fields() end

--- With `stream`: the next piece of the body.
---@param timeout? perilune.duration default: timeout.read
---@return string? piece nil: that was all of it, or it was cut short
---@return string? message
---@return string? code
function received:read(timeout) end

--- With `stream`: gives up what is left of the body, and the connection with it.
function received:close() end

--- What http.client() returns. Each request returns a response, or nil, message, code.
---@class perilune.http.client
local asker = {}

--- Asks for what is at an address.
---@param url string
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:get(url, options) end

--- The same for its head alone.
---@param url string
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:head(url, options) end

--- By DELETE.
---@param url string
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:delete(url, options) end

--- By OPTIONS.
---@param url string
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:options(url, options) end

--- Sends a body to an address.
---@param url string
---@param body? string|number|table|fun(): string?
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:post(url, body, options) end

--- By PUT.
---@param url string
---@param body? string|number|table|fun(): string?
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:put(url, body, options) end

--- By PATCH.
---@param url string
---@param body? string|number|table|fun(): string?
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:patch(url, body, options) end

--- Any request.
---@param options perilune.http.whole_request
---@return perilune.http.received? response
---@return string? message
---@return string? code
function asker:request(options) end

--- What there is, and what has happened: by address, as pool:status() has it.
---@return { requests: integer, servers: table<string, perilune.pool_status> } status
function asker:status() end

--- Its connections end, and it makes no others.
function asker:close() end

return asker
