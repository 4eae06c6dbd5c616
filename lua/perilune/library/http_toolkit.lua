---@meta

-- Types of the toolkit of require "perilune.http": routers and what is around handlers.

---@class perilune.http
local http = {}

--- Answers a request, as proceed does.
---@alias perilune.http.handler fun(request: perilune.http.request, value: any): any, any

--- Middleware: what is around a handler.
---@class perilune.http.middleware

--- An agent that hands each request to the handler of its route. It is a prototype: functions that are put into it
--- (opened, closed) are there for each connection, and `request.agent` is its agent.
---@class perilune.http.router
local router = {}

--- A route of GET, and of HEAD where there is none. A path's segment may be `{name}`, `{name:%d+}` with a Lua pattern,
--- and the last one `{name*}`, the rest of the path. Before the handler may stand middleware, also http.json(schema).
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:get(path, ...) end

--- A route of POST.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:post(path, ...) end

--- A route of PUT.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:put(path, ...) end

--- A route of PATCH.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:patch(path, ...) end

--- A route of DELETE.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:delete(path, ...) end

--- A route of HEAD, where that of GET will not do.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:head(path, ...) end

--- A route of OPTIONS, in place of the answer that is made.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:options(path, ...) end

--- A route of all methods that have none of their own at this path.
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:any(path, ...) end

--- A route of a method by its name.
---@param method string
---@param path string
---@param ... perilune.http.middleware|perilune.http.handler
---@return perilune.http.router
function router:on(method, path, ...) end

--- Middleware for all that this router answers, the first outermost: its routes, the routers within it, its refusals.
---@param ... perilune.http.middleware
---@return perilune.http.router
function router:use(...) end

--- Hands all requests at and below a prefix to another router, or to a function. These see the path without the prefix.
--- The longest prefix wins.
---@param prefix string
---@param other perilune.http.router|perilune.http.handler
---@return perilune.http.router
function router:namespace(prefix, other) end

--- Hands the requests for a host, whatever the port, to another router, or to a function. `"*.example.org"` is all
--- hosts below; the exact name wins, then the longest.
---@param name string
---@param other perilune.http.router|perilune.http.handler
---@return perilune.http.router
function router:host(name, other) end

--- Answers where no route has the path. Default: 404 as JSON.
---@param handler perilune.http.handler
---@return perilune.http.router
function router:not_found(handler) end

--- A WebSocket at a path: from the upgrade on, the connection has an agent of `agent`.
---@param path string
---@param agent table|function
---@param options? table
---@return perilune.http.router
function router:websocket(path, agent, options) end

--- The files of a folder, below a prefix.
---@param prefix string
---@param folder string
---@param options? table
---@return perilune.http.router
function router:files(prefix, folder, options) end

--- A router, which is an agent: `agent = api`.
---@return perilune.http.router
function http.router() end

--- Runs before the handler: what it returns, unless nil, is the response.
---@param fn fun(request: perilune.http.request): any
---@return perilune.http.middleware
function http.before(fn) end

--- Runs after the handler: what it returns, unless nil, is the response in place of the handler's.
---@param fn fun(request: perilune.http.request, response: perilune.http.response): any
---@return perilune.http.middleware
function http.after(fn) end

--- Runs in the handler's place, which it calls by next(), or with another second argument by next(value).
---@param fn fun(request: perilune.http.request, next: fun(value: any): any): any
---@return perilune.http.middleware
function http.around(fn) end

--- One middleware where the condition holds, and otherwise the other, or none.
---@param condition fun(request: perilune.http.request): boolean
---@param one perilune.http.middleware
---@param other? perilune.http.middleware
---@return perilune.http.middleware
function http.when(condition, one, other) end

--- What a value is to look like.
---@class perilune.http.schema
local schema = {}

--- Is the value as it should be?
---@param value any
---@return any value nil: it is not
---@return string? message "address.street: a string is expected, got 5"
function schema:check(value) end

--- What values are to look like: `{ name = "string", age = "integer(0..)?", tags = { "string" } }`. Before a handler
--- stands http.json(schema).
---@param spec table|string|function
---@param options? { unknown?: "refuse"|"drop"|"keep" } what becomes of fields that are not in it; default: "refuse"
---@return perilune.http.schema
function http.schema(spec, options) end

--- What was made, and where it is: 201, with the value as JSON.
---@param location string
---@param value? any
---@return perilune.http.response
function http.created(location, value) end

--- A handler that tells what runs, as JSON: `api:get("/version", http.version { version = "1.2.0", commit = commit })`.
---@param what string|table a text is the `version`
---@return perilune.http.handler
function http.version(what) end

---@class perilune.http.basic_auth_options
---@field realm? string default: "restricted"
---@field users? table<string, string> passwords by names; or check
---@field check? fun(user: string, password: string, request: perilune.http.request): any what is true lets in

--- HTTP Basic: 401 for who is not known. Who is let in is `request.context.user`.
---@param options perilune.http.basic_auth_options
---@return perilune.http.middleware
function http.basic_auth(options) end

---@class perilune.http.bearer_options
---@field realm? string default: "restricted"
---@field tokens? table<string, any> whose a token is; or check
---@field check? fun(token: string, request: perilune.http.request): any whose it is; nil lets nobody in

--- Bearer tokens: 401 for others. Whose it is is `request.context.user`.
---@param options perilune.http.bearer_options
---@return perilune.http.middleware
function http.bearer(options) end

---@class perilune.http.rate_limit_options
---@field rate number|string requests a second, or "100/1m"
---@field burst? integer so many at once; default: those of a second, 1 at least
---@field shared perilune.shared where it is counted, for all workers
---@field key? fun(request: perilune.http.request): string? who is counted; nil: nobody. Default: the peer's address

--- 429 with Retry-After for who asks too often.
---@param options perilune.http.rate_limit_options
---@return perilune.http.middleware
function http.rate_limit(options) end

---@class perilune.http.cors_options
---@field origins? string|string[]|fun(origin: string, request: perilune.http.request): boolean default: "*"
---@field methods? string|string[] default: GET, HEAD, POST, PUT, PATCH, DELETE
---@field headers? string|string[] that may be sent; "*": any. Default: Content-Type
---@field expose? string|string[] of the response, that the page may see
---@field credentials? boolean cookies and the like go along; then `origins` is no "*"
---@field max_age? duration for how long the browser need not ask again

--- Lets pages of other origins use the API, and answers what their browsers ask before.
---@param options? perilune.http.cors_options
---@return perilune.http.middleware
function http.cors(options) end

---@class perilune.http.cache_options
---@field public? boolean
---@field private? boolean
---@field no_store? boolean
---@field no_cache? boolean
---@field no_transform? boolean
---@field must_revalidate? boolean
---@field proxy_revalidate? boolean
---@field must_understand? boolean
---@field immutable? boolean
---@field max_age? duration
---@field s_maxage? duration
---@field stale_while_revalidate? duration
---@field stale_if_error? duration

--- Cache-Control for responses of GET and HEAD that have not failed and have none of their own.
---@param options perilune.http.cache_options
---@return perilune.http.middleware
function http.cache_control(options) end

---@class perilune.http.compress_options
---@field min? integer|string smaller bodies are sent as they are; default: 1k
---@field level? integer 1 (fast) to 9 (small); default: 5
---@field types? string[] types that are worth it, beside the known ones: { "model/obj" }

--- Compresses bodies by gzip for clients that take it.
---@param options? perilune.http.compress_options
---@return perilune.http.middleware
function http.compress(options) end

--- An identifier for each request: `request.context.request_id`, and a field of the response.
---@param options? { header?: string, trust?: boolean } default: X-Request-Id; `trust`: that of the client is kept
---@return perilune.http.middleware
function http.request_id(options) end

--- Makes a line, or a list of them.
---@alias perilune.http.log_format fun(request: table, response: table, seconds: number): string|string[]|nil

---@class perilune.http.logged_options
---@field format? "combined"|"json"|"lines"|perilune.http.log_format default: "combined"
---@field redact? fun(line: string): string? what becomes of each line; nil: it is left out
---@field to? fun(line: string) default: perilune.log("info", line)

--- A line for each response, or several.
---@param options? perilune.http.logged_options
---@return perilune.http.middleware
function http.logged(options) end

--- Counts responses, by route and class of status.
---@param options? { shared?: perilune.shared } a dictionary in which all workers count together; default: each its own
---@return perilune.http.middleware
function http.counted(options) end

--- Adds up how long responses take, by route: what handlers wait for, as perilune.now() stands still while they
--- compute.
---@param options? { shared?: perilune.shared } as of http.counted()
---@return perilune.http.middleware
function http.timed(options) end

--- What http.counted() and http.timed() have noted in this worker, or in a dictionary, a copy: `2xx`, `4xx` …, `timed`,
--- `seconds`, `longest`.
---@param shared? perilune.shared default: what this worker has counted by itself
---@return table<string, table<string, number>> counts by "GET /users/{id}", or "no route"
function http.counts(shared) end

---@class perilune.http.cookie_options
---@field path? string|false default: "/"
---@field domain? string default: this host alone
---@field max_age? duration default: until the browser is closed
---@field secure? boolean over TLS alone; default: false
---@field http_only? boolean not for scripts of the page; default: true
---@field same_site? "strict"|"lax"|"none"|false default: "lax"
---@field partitioned? boolean

--- The text of a Set-Cookie field. Without a value the client is to forget the cookie.
---@param name string
---@param value? string|number
---@param options? perilune.http.cookie_options
---@return string
function http.cookie(name, value, options) end

--- Cookies that no client can make up or change, though it can read them.
---@class perilune.http.signed_cookies
local signed = {}

--- The text of a Set-Cookie field. With `max_age` the value is of no use after that time.
---@param name string
---@param value string
---@param options? perilune.http.cookie_options
---@return string
function signed:cookie(name, value, options) end

--- The value that a request's cookie has.
---@param request perilune.http.request
---@param name string
---@return string? value nil: there is none, or its signature is none of ours
function signed:read(request, name) end

--- Signed cookies (HMAC-SHA-256).
---@param secrets string|string[] of 16 bytes or more; the first signs, all are tried: so they can be changed
---@return perilune.http.signed_cookies
function http.signed_cookies(secrets) end
