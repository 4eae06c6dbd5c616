-- A page and its server talk in the three ways that browsers have: fetch, server-sent events, a WebSocket. The page
-- writes down what has come of each, and reports that in the end: the log has it.
--
--     perilune run examples/browser.lua
--     xdg-open http://127.0.0.1:8080/
local http = require "perilune.http"
local perilune = require "perilune"

local STEPS, STEPS_AT_ONCE = 5, 2

-- Sends back what comes, bytes as bytes; the page is told why the connection ends.
local Echo = {}

function Echo:proceed(message, meta)
  if message == "bye" then
    self.conn:close(4000, "bye")
  else
    self.conn:send(message, meta.binary and "binary" or "text")
  end
end

-- Ends after a few events: the browser comes back by itself, and says which it had last.
local function steps(request)
  local last = tonumber(request.headers["Last-Event-ID"]) or 0
  return http.events(function(events)
    for step = last + 1, math.min(last + STEPS_AT_ONCE, STEPS) do
      events:send({ step = step, after = last }, { event = "step", id = step, retry = "50ms" })
    end
    if last + STEPS_AT_ONCE >= STEPS then events:send("", { event = "end" }) end
  end)
end

local PAGE = http.html [[
<!doctype html>
<title>three ways</title>
<pre id="log"></pre>
<script type="module">
const seen = [];
const show = text => { seen.push(text); document.getElementById("log").append(text + "\n"); };

const post = (path, value) => fetch(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value),
});

const byEvents = () => new Promise(resolve => {
  const source = new EventSource("/steps");
  source.addEventListener("step", event => {
    const { step, after } = JSON.parse(event.data);
    show(`event ${event.lastEventId}: step ${step}, asked for after ${after}`);
  });
  source.addEventListener("end", () => { source.close(); resolve(); });
});

const byWebSocket = () => new Promise(resolve => {
  const socket = new WebSocket(location.href.replace("http", "ws") + "echo");
  const name = data => typeof data === "string" ? "text" : `bytes ${new Uint8Array(data)} of`;
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    show(`WebSocket: ${socket.extensions}`);
    for (const data of ["hello", new Uint8Array([0, 255]), "x".repeat(20000), "bye"]) socket.send(data);
  };
  socket.onmessage = ({ data }) => show(`WebSocket: ${name(data)} ${data.length || data.byteLength}`);
  socket.onclose = event => { show(`WebSocket: closed ${event.code} ${event.reason}`); resolve(); };
});

show("fetch: " + await (await post("/sum", [1, 2, 3])).text());
await byEvents();
await byWebSocket();
await post("/report", seen);
</script>
]]

local Site, pages = {}, {}

pages["GET /"] = function() return PAGE end
pages["GET /steps"] = steps
pages["GET /echo"] = function() return http.websocket(Echo) end

pages["POST /sum"] = function(request)
  local sum = 0
  for _, n in ipairs(request:json()) do sum = sum + n end
  return { sum = sum }
end

pages["POST /report"] = function(request)
  perilune.log("info", "a page has seen this", { seen = table.concat(request:json(), "; ") })
end

function Site:proceed(request) -- luacheck: no self
  local page = pages[request.method .. " " .. request.path]
  if not page then return http.error(404) end
  return page(request)
end

return { listen = "http://127.0.0.1:8080", agent = Site }
