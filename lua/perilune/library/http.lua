---@meta

-- Types of require "perilune.http", and of the requests that agents of http:// listeners get.

--- What `proceed` of an HTTP agent gets. The method, the path, the query and the body are there; all else is made when
--- it is looked at. It may have fields of yours.
---@class perilune.http.request
---@field method string "GET", as it was sent
---@field path string "/users/7": percent-encoded as it was sent, up to the "?"
---@field query? string "a=1&b=2": behind the "?", as it was sent
---@field args table<string, string> the query, decoded; of a name that is there twice, the first
---@field target string what the request line had
---@field headers table<string, string> by name, in any case; one that is there several times is joined with ", "
---@field host? string whom the client has asked
---@field body string decoded, if it was chunked; "": there is none
---@field version "1.1"|"1.0"
---@field peer? string as conn.peer
---@field tls? perilune.tls_facts as conn.tls
---@field subprotocol? string of a WebSocket: the one that was chosen
local request = {}

--- The body as JSON.
---@param options? perilune.json_options
---@return any value nil: the body is at fault
---@return string? message
function request:json(options) end

--- The header fields in order, as they came.
---@return { [1]: string, [2]: string }[] fields name and value
function request:fields() end

--- What `proceed` of an HTTP agent may return, beside a string, a table (which is sent as JSON) and nil. It cannot be
--- changed, and may be returned again and again.
---@class perilune.http.response
---@field status integer
---@field body string

---@class perilune.http.options
---@field status? integer 200 to 599; default: 200
---@field headers? table<string, string|number|string[]> a text for each name, or a list of them
---@field body? string|number|table a table is sent as JSON; default: ""

--- Responses for agents of http:// listeners. Each function raises an error for what cannot be sent: a status that is
--- none, a name that is no token, a value with a control character.
---@class perilune.http
local http = {}

--- Any response. Content-Type is made where none is given; Content-Length and Date always are.
---@param options perilune.http.options
---@return perilune.http.response
function http.response(options) end

--- Plain text.
---@param body string
---@param status? integer default: 200
---@param headers? table<string, string|number|string[]>
---@return perilune.http.response
function http.text(body, status, headers) end

--- HTML.
---@param body string
---@param status? integer default: 200
---@param headers? table<string, string|number|string[]>
---@return perilune.http.response
function http.html(body, status, headers) end

--- JSON of any value.
---@param value any
---@param status? integer default: 200
---@param headers? table<string, string|number|string[]>
---@return perilune.http.response
function http.json(value, status, headers) end

--- Sends the client elsewhere.
---@param location string a path or an address, percent-encoded where need be
---@param status? integer 301, 302, 303, 307 or 308; default: 302
---@return perilune.http.response
function http.redirect(location, status) end

--- What went wrong, as JSON: {"error":"no such user"}.
---@param status integer 400 to 599
---@param message? string default: the status in words
---@param headers? table<string, string|number|string[]>
---@return perilune.http.response
function http.error(status, message, headers) end

--- What `proceed` of an HTTP agent returns to accept a WebSocket. It may be returned again and again.
---@class perilune.http.websocket

---@class perilune.http.websocket_options
---@field origins? string[] pages that may open it, "https://example.org"; default: any
---@field subprotocols? string[] names, the one that is liked best first; default: none
---@field compress? boolean where the client can; default: true

--- The connection becomes a WebSocket, with an agent of its own from here on: docs/websocket.md. A request that asks
--- for none, or wrongly, is refused.
---@param agent table|fun(conn: perilune.conn, request: perilune.http.request): table a prototype, or a factory
---@param options? perilune.http.websocket_options
---@return perilune.http.websocket
function http.websocket(agent, options) end

return http
