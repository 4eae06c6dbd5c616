--- Pages in a browser that we did not write. Each tells its server what it has seen, and the log has it.
local browser = require "spec.support.browser"
local command = require "spec.support.command"
local pki = require "spec.support.pki"
local server = require "spec.support.server"

local EXAMPLE = command.read "examples/browser.lua"

-- The example, listening where the system says.
local function start_example(listen, settings)
  return server.start { script = EXAMPLE:gsub("return { listen = [^\n]*", function()
    return ("return { listen = %q, agent = Site, %s }"):format(listen, settings or "")
  end) }
end

local function needs_browser()
  if not browser.is_there() then pending "chromium-headless-shell is not installed" end
end

-- What the page at this URL has reported to the app; `meanwhile` is called once the page is there.
local function seen_by(app, url, meanwhile)
  local chromium = browser.open(url)
  local ok, entry = pcall(function()
    if meanwhile then meanwhile() end
    return app:wait_log("a page has seen this", browser.SECONDS)
  end)
  local said = chromium:text()
  chromium:close()
  if not ok then error(entry .. "\nthe browser said:\n" .. said, 0) end
  return (entry.seen:gsub("; ", "\n"))
end

local THREE_WAYS = [[
fetch: {"sum":6}
event 1: step 1, asked for after 0
event 2: step 2, asked for after 0
event 3: step 3, asked for after 2
event 4: step 4, asked for after 2
event 5: step 5, asked for after 4
WebSocket: permessage-deflate
client_max_window_bits=12
WebSocket: text 5
WebSocket: bytes 0,255 of 2
WebSocket: text 20000
WebSocket: closed 4000 bye]]

-- What a page of another origin may do, and what it may not.
local API = [[
local http = require "perilune.http"
local perilune = require "perilune"
local PAGES = "%s"
local api = http.router()
local Echo = { proceed = function(_, message) return message end }
api:use(http.cors { origins = { PAGES }, headers = { "Content-Type", "X-Mine" }, credentials = true })
api:put("/put", function(request) return http.text("put " .. request.body .. " " .. request.headers["X-Mine"]) end)
api:get("/open", function() return http.websocket(Echo, { origins = { PAGES } }) end)
api:get("/closed", function() return http.websocket(Echo, { origins = { "https://example.org" } }) end)
api:get("/login", function()
  return http.text "in":with { headers = { ["Set-Cookie"] = http.cookie("user", "ann", { path = "/" }) } }
end)
api:post("/form", function(request)
  local form = request:form()
  return http.text(form.a .. " " .. form["ü &"])
end)
api:post("/files", function(request)
  local said = {}
  for i, part in ipairs(assert(request:multipart())) do
    said[i] = ("%%s %%s %%s %%d"):format(part.name, part.filename or "-", part.type or "-", #part.body)
  end
  return http.text(table.concat(said, ", "))
end)
api:get("/me", function(request) return http.text(request.cookies.user or "nobody") end)
api:get("/pieces", function()
  return http.stream(function(out)
    for i = 1, 40 do out:write(("x"):rep(50000 + i)) end
  end)
end)
api:get("/endless", function(request)
  request.conn:defer(function() perilune.log("info", "the page has gone") end)
  return http.stream(function(out)
    while out:write(("x"):rep(10000)) do end
  end)
end)
return { listen = "http://127.0.0.1:0", agent = api }
]]

local PAGE = [==[
local http = require "perilune.http"
local perilune = require "perilune"
local PAGE = http.html [[
<!doctype html>
<script type="module">
const api = new URLSearchParams(location.search).get("api"), seen = [];
const show = async (name, action) => {
  try { seen.push(name + ": " + await action()); } catch (error) { seen.push(name + ": " + error.name); }
};
const text = async (path, options) => (await fetch(api + path, options)).text();
const open = path => new Promise(resolve => {
  const socket = new WebSocket(api.replace("http", "ws") + path);
  socket.onopen = () => socket.close(3001, "mine");
  socket.onclose = event => resolve(event.code);
});
await show("preflight", () => text("/put", { method: "PUT", headers: { "X-Mine": "1" }, body: "a" }));
await show("refused field", () => text("/put", { method: "PUT", headers: { "X-Other": "1" }, body: "a" }));
await show("no route", async () => (await fetch(api + "/put", { method: "DELETE" })).status);
await show("form", () => text("/form", { method: "POST", body: new URLSearchParams({ a: "1=2", "ü &": "+ é" }) }));
await show("files", () => {
  const form = new FormData();
  form.append("text", "é");
  form.append("file", new File([new Uint8Array(300000)], "a 'b' é.bin", { type: "application/x-a" }));
  form.append("empty", new File([], ""));
  return text("/files", { method: "POST", body: form });
});
await show("no cookie", () => text("/me", { credentials: "include" }));
await show("cookie", async () => {
  await text("/login", { credentials: "include" });
  return text("/me", { credentials: "include" });
});
await show("pieces", async () => (await text("/pieces")).length);
await show("given up", async () => {
  const given = new AbortController();
  const reader = (await fetch(api + "/endless", { signal: given.signal })).body.getReader();
  await reader.read();
  given.abort();
  for (;;) if ((await reader.read()).done) return "whole";
});
await show("WebSocket", () => open("/open"));
await show("refused WebSocket", () => open("/closed"));
await fetch("/report", { method: "POST", body: seen.join("; ") });
</script>
]]
local Site = {}
function Site:proceed(request)
  if request.path == "/" then return PAGE end
  if request.path ~= "/report" then return http.error(404) end
  perilune.log("info", "a page has seen this", { seen = request.body })
end
return { listen = "http://127.0.0.1:0", agent = Site }
]==]

-- The page listens to /news and at /talk, and reports once the process has been replaced.
local NEWS = [==[
local http = require "perilune.http"
local perilune = require "perilune"
local PAGE = http.html [[
<!doctype html>
<script type="module">
const seen = [];
const talk = new Promise(resolve => {
  const socket = new WebSocket(location.href.replace("http", "ws") + "talk");
  socket.onclose = event => resolve(`WebSocket: ${event.code}`);
  socket.onopen = () => {
    const source = new EventSource("/news");
    source.onmessage = async event => {
      seen.push(`event ${event.lastEventId}: ${event.data}`);
      if (seen.length < 2) return fetch("/listens", { method: "POST" });
      source.close();
      seen.push(await talk);
      await fetch("/report", { method: "POST", body: seen.join("; ") });
    };
  };
});
</script>
]]
local Site, pages = {}, {}
pages["/"] = function() return PAGE end
pages["/talk"] = function() return http.websocket { proceed = function() end } end
pages["/news"] = function(request)
  local last = tonumber(request.headers["Last-Event-ID"]) or 0
  return http.events(function(events)
    events:send("after " .. last, { id = last + 1, retry = "50ms" })
    perilune.sleep(3600)
  end)
end
pages["/listens"] = function() perilune.log("info", "a page listens") end
pages["/report"] = function(request) perilune.log("info", "a page has seen this", { seen = request.body }) end
function Site:proceed(request)
  local page = pages[request.path]
  if not page then return http.error(404) end
  return page(request)
end
return { listen = "http://127.0.0.1:0", agent = Site, timeout = { drain = "1s" } }
]==]

describe("a page in Chromium", function()
  after_each(server.finish)

  it("talks by fetch, by events that go on where they were, and over a compressed WebSocket", function()
    needs_browser()
    local app = start_example "http://127.0.0.1:0"
    assert.equal(THREE_WAYS, seen_by(app, ("http://127.0.0.1:%d/"):format(app.port)))
    local summary = app:stop().summary
    assert.equal(0, summary.faults)
    assert.equal(1, summary.websockets)
  end)

  it("does the same over TLS", function()
    needs_browser()
    local PKI = pki.new()
    finally(function() PKI:remove() end)
    local mine = PKI:sign("server", { names = { "localhost" } })
    local app = start_example("https://localhost:0", ("tls = { certificate = %q, key = %q }"):format(mine.certificate,
      mine.key))
    assert.equal(THREE_WAYS, seen_by(app, ("https://localhost:%d/"):format(app.port)))
  end)

  it("may do from another origin what that is allowed", function()
    needs_browser()
    local pages = server.start { script = PAGE }
    local origin = "http://127.0.0.1:" .. pages.port
    local api = server.start { script = API:format(origin) }
    assert.equal([[
preflight: put a 1
refused field: TypeError
no route: 405
form: 1=2 + é
files: text - - 2, file a 'b' é.bin application/x-a 300000, empty  application/octet-stream 0
no cookie: nobody
cookie: ann
pieces: 2000820
given up: AbortError
WebSocket: 3001
refused WebSocket: 1006]], seen_by(pages, ("%s/?api=http://127.0.0.1:%d"):format(origin, api.port)))
    api:wait_log "the page has gone"
    assert.equal(0, api:stop().summary.faults)
  end)

  it("comes back to the process that an upgrade has started, and asks for what is behind the last event", function()
    needs_browser()
    local app = server.start { script = NEWS }
    local seen = seen_by(app, ("http://127.0.0.1:%d/"):format(app.port), function()
      app:wait_log("a page listens", browser.SECONDS)
      app:upgrade()
    end)
    assert.equal("event 1: after 0\nevent 2: after 1\nWebSocket: 1001", seen)
    app:wait_end()
  end)
end)
