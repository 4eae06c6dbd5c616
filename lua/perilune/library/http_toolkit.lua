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
--- and the last one `{name*}`, the rest of the path. Before the handler may stand middleware.
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
