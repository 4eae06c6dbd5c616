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
---@field body string decoded, if it was chunked; "": there is none. With limits.upload it is waited for
---@field trailers table<string, string> those behind a chunked body that has been read, by name, in any case
---@field version "1.1"|"1.0"
---@field peer? string as conn.peer
---@field tls? perilune.tls_facts as conn.tls
---@field conn? perilune.conn of an agent that has it as self.conn, as a prototype's and a router's do
---@field agent table the connection's agent: what is kept there lives as long as the connection
---@field params table<string, string> of the route that a router has found, decoded
---@field route? string its pattern: "/users/{id}"
---@field context table of yours, for this request
---@field cookies table<string, string> without quotes; of a name that is there twice, the first
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

--- The next piece of the body. With limits.upload a body comes in pieces, and the client sends no more than is read;
--- otherwise, and where it was there already, all of it is one piece. Waits.
---@return string? piece never ""; nil: that was all of it
---@return string? message it does not come whole, and is of no use
---@return string? code "EMSGSIZE": it is over limits.upload; "EPROTO": it is wrong; "EOF": the client has ended it
function request:read() end

--- The body of a form without files (application/x-www-form-urlencoded).
---@param options? { all?: boolean, fields?: integer } `all`: a list for each name; `fields`: default 1000
---@return table<string, string|string[]>? form nil: the body is none
---@return string? message
function request:form(options) end

---@class perilune.http.part
---@field name string
---@field filename? string as the client has it: no path to be used
---@field type? string Content-Type
---@field headers table<string, string>
---@field size integer bytes
---@field body? string nil: `into` has taken it

---@class perilune.http.multipart_options
---@field parts? integer at most so many; default: 100
---@field into? fun(part: perilune.http.part): fun(piece: string?, message: string?)? what gets its pieces, and then nil
---@field memory? integer|string with `into`: bytes of all bodies that are kept; default: 1m

--- The parts of a form with files (multipart/form-data). With `into` they are read as they come, as by request:read().
---@param options? perilune.http.multipart_options
---@return perilune.http.part[]? parts nil: the body is none
---@return string? message
---@return string? code of request:read()
function request:multipart(options) end

--- What `proceed` of an HTTP agent may return, beside a string, a table (which is sent as JSON) and nil. It cannot be
--- changed, and may be returned again and again, unless it is from a function of http.files.
---@class perilune.http.response
---@field status integer
---@field body string
---@field headers table<string, string> by name, in any case, without what is added when it is sent
local made = {}

--- A copy with another status, or other header fields: each takes the place of those of its name; false takes one away.
---@param changes { status?: integer, headers?: table<string, string|number|string[]|false> }
---@return perilune.http.response
function made:with(changes) end

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

--- JSON of any value. Of a schema: what stands before a handler, which gets the value of the body that was checked.
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

-- The client: http_client.lua has its types.

--- Asks another server for what is at an address.
---@param url string
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function http.get(url, options) end

--- Sends a body to another server.
---@param url string
---@param body? string|number|table|fun(): string?
---@param options? perilune.http.request_options
---@return perilune.http.received? response
---@return string? message
---@return string? code
function http.post(url, body, options) end

--- Any request to another server.
---@param options perilune.http.whole_request
---@return perilune.http.received? response
---@return string? message
---@return string? code
function http.request(options) end

--- A client: what requests have in common, and the connections that they use.
---@param options? perilune.http.client_options
---@return perilune.http.client
function http.client(options) end
--- What a producer of http.stream writes to.
---@class perilune.http.stream
local stream = {}

--- Sends data, or has it wait to be sent. Waits while the client has yet to take what was written before. The first
--- call sends the head.
---@param ... string|number
---@return boolean? ok
---@return string? why "closed": the connection has ended
function stream:write(...) end

--- Waits until all that was written is handed to the system. Sends the head, if nothing else has.
---@return boolean? ok
---@return string? why "closed"
function stream:flush() end

--- A header field behind the body, of a response without `length`. For HTTP/1.0 it is left out.
---@param name string
---@param value string|number
function stream:trailer(name, value) end

---@class perilune.http.stream_options
---@field status? integer default: 200
---@field headers? table<string, string|number|string[]>
---@field length? integer so many bytes are written, neither more nor less; default: the body is chunked

--- A response that a function writes in pieces, once proceed has returned it. Its call goes on until the function
--- returns: the next request of the connection waits.
---@param producer fun(out: perilune.http.stream) not called for HEAD
---@param options? perilune.http.stream_options
---@return perilune.http.response
function http.stream(producer, options) end

--- What a producer of http.events sends with.
---@class perilune.http.events_stream
local events = {}

---@class perilune.http.event_options
---@field event? string its type; default: "message", to the client
---@field id? string|number what the client sends as Last-Event-ID when it comes back
---@field retry? number|string after how long it comes back

--- Sends an event, as stream:write() does.
---@param data string|number|table of any number of lines; a table is sent as JSON
---@param options? perilune.http.event_options
---@return boolean? ok
---@return string? why "closed"
function events:send(data, options) end

--- Sends a comment, which clients leave out.
---@param text? string
---@return boolean? ok
---@return string? why "closed"
function events:comment(text) end

--- Makes the client a member of a topic, as conn:join() does: what is published to it comes as an event, until the
--- response ends. Raises where the response is compressed.
---@param topic string
---@param options? perilune.join_options
---@return true? ok
---@return string? message
---@return string? code
function events:join(topic, options) end

--- It is no member any more.
---@param topic string
---@return boolean? was
---@return string? message
---@return string? code
function events:leave(topic) end

--- Waits as long as the client is there: for a producer that has nothing to send by itself.
function events:wait() end

---@class perilune.http.events_options
---@field status? integer default: 200
---@field headers? table<string, string|number|string[]>
---@field heartbeat? number|string|false a comment so often; default: 15s

--- A response of server-sent events, for EventSource in browsers.
---@param producer fun(events: perilune.http.events_stream) not called for HEAD
---@param options? perilune.http.events_options
---@return perilune.http.response
function http.events(producer, options) end

---@class perilune.http.file_options
---@field type? string Content-Type; default: by the name's ending
---@field headers? table<string, string|number|string[]>
---@field precompressed? boolean sends path.br or path.gz to who takes it; default: false

--- A file, which is opened when it is sent: with its type, length, date and tag, conditions and ranges. 404 where there
--- is none. A path that clients name is for http.files.
---@param path string a relative one leads from the script's folder
---@param options? perilune.http.file_options
---@return perilune.http.response
function http.file(path, options) end

---@class perilune.http.files_options
---@field index? string|false what of a folder is sent; default: "index.html"
---@field hidden? boolean also what begins with a dot; default: false
---@field types? table<string, string> Content-Types by the ending, beside the known ones: { gmi = "text/gemini" }
---@field headers? table<string, string|number|string[]>
---@field precompressed? boolean as of http.file; default: false

--- The files of a folder, and nothing outside of it. Raises where there is no such folder.
---@param folder string a relative one leads from the script's folder
---@param options? perilune.http.files_options
---@return fun(request: perilune.http.request, path?: string): perilune.http.response answer a path as request.path is
function http.files(folder, options) end

--- What `proceed` of an HTTP agent returns to accept a WebSocket. It may be returned again and again.
---@class perilune.http.websocket

---@class perilune.http.websocket_options
---@field origins? string[] pages that may open it, "https://example.org"; default: any
---@field subprotocols? string[] names, the one that is liked best first; default: none
---@field compress? boolean|"alone" where the client can; "alone": each message by itself; default: true

--- The connection becomes a WebSocket, with an agent of its own from here on: docs/websocket.md. A request that asks
--- for none, or wrongly, is refused.
---@param agent table|fun(conn: perilune.conn, request: perilune.http.request): table a prototype, or a factory
---@param options? perilune.http.websocket_options
---@return perilune.http.websocket
function http.websocket(agent, options) end

return http
