"""HTTP and WebSockets in the benchmark: what is asked, and nginx. For scripts/bench and others.py."""

import json
import os
import socket
from pathlib import Path

from servers import NGINX, ROOT, Nginx, Server, free_port, program

H2O = program("h2o")
SERIAL = "0" * 16  # in whose place the client puts a number that differs each time
HELLO = "Hello, world!"
FILES = {"4k": 4 << 10, "1m": 1 << 20}
ORDER_BYTES = 4096


def order():
    """4 KiB of JSON: texts, numbers, booleans and lists, as what is ordered in a shop has them."""
    items = [{"article": f"A-{1000 + 37 * i}", "name": f"a thing of the {i}th kind", "pieces": 1 + i % 7,
              "price": 19.95 + i, "gift": i % 3 == 0, "tags": ["new", "heavy"]} for i in range(34)]
    text = json.dumps({"order": SERIAL, "customer": 4711, "items": items, "note": ""}, separators=(",", ":"))
    return text.replace('"note":""', f'"note":"{"x" * (ORDER_BYTES - len(text))}"')


def request(line, *fields, body=""):
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *fields, "", body]).encode()


REQUESTS = {
    "get": request(f"GET /{SERIAL}"),
    "routes": request(
        f"GET /things123/{SERIAL}/items/7?fields=all", "User-Agent: bench/1.0 (an API's client)",
        "Accept: application/json", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate",
        "Authorization: Bearer 8c2d5f3b1a904e67b0d2", "Cookie: session=f3a9c1; theme=dark",
        "X-Request-Id: 01HF7S0V9T3M8Z", "X-Forwarded-For: 192.0.2.7", "Referer: http://localhost/things"),
    "json": request("POST /orders", "Content-Type: application/json", f"Content-Length: {ORDER_BYTES}", body=order()),
    **{name: request(f"GET /files/{name}.bin?v={SERIAL}") for name in FILES},
    "websocket": request("GET /", "Upgrade: websocket", "Connection: Upgrade",
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
}
# Who speaks HTTP, and what is asked of them; and under which load something else is asked of all of them.
ASKED = {"http": "get", "http_routes": "routes", "http_json": "json", "http_files": "4k", "websocket": "websocket",
         "nginx": "get", "nginx_lua": "get", "h2o": "get", "node_http": "get", "go_http": "get"}
ASKED_UNDER = {"http.json": "json", "http.4k": "4k", "http.1m": "1m"}

# `tcp_nopush`, the head of a response and the file in one packet, is what Debian has beside `sendfile`.
NGINX_HTTP = """
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {more}
  server {{
    listen 127.0.0.1:{port};
    default_type text/plain;
    {locations}
  }}
}}
"""
NGINX_LOCATIONS = """
    location / {{ return 200 "{hello}"; }}
    location /files/ {{ root {folder}; }}
"""
# nginx's Lua and what it needs, unpacked by scripts/drivers --nginx: installed, it would replace LuaJIT.
LUA = ROOT / "build" / "nginx"
LUA_MODULES = [LUA / f"libnginx-mod-http-{name}" / "usr/lib/nginx/modules" / f"{module}.so"
               for name, module in (("ndk", "ndk_http_module"), ("lua", "ngx_http_lua_module"))]
LUA_PATH = ";".join(f"{LUA}/{package}/usr/share/lua/5.1/?.lua" for package in ("lua-resty-core", "lua-resty-lrucache"))
LUA_MORE = f'lua_package_path "{LUA_PATH};;";'
# With ngx.print alone the body would be chunked.
LUA_LOCATIONS = """
    location / {{
      content_by_lua_block {{
        ngx.header.content_length = {hello_bytes}
        ngx.print("{hello}")
      }}
    }}
    location /orders {{
      content_by_lua_block {{
        local cjson = require "cjson"
        ngx.req.read_body()
        local order, pieces = cjson.decode(ngx.req.get_body_data()), 0
        for _, item in ipairs(order.items) do pieces = pieces + item.pieces end
        local reply = cjson.encode {{ order = order.order, items = #order.items, pieces = pieces }}
        ngx.header.content_type = "application/json"
        ngx.header.content_length = #reply
        ngx.print(reply)
      }}
    }}
"""


def lua_library():
    """The folder of its LuaJIT, or None."""
    return next((path.parent for path in LUA.glob("libluajit2-5.1-2/usr/lib/*/libluajit-5.1.so.2")), None)


def has_lua():
    return bool(lua_library()) and all(module.exists() for module in LUA_MODULES)


# One file for all paths. An idle connection may stay for as long as in nginx.
H2O_CONFIG = """
{user}
num-threads: 1
max-connections: 16384
http1-request-timeout: 75
listen: {{ host: 127.0.0.1, port: {port} }}
hosts:
  default:
    paths:
      /files: {{ file.dir: {folder}/files }}
      /: {{ file.file: {folder}/hello }}
"""


# Participant → what it needs: the program or file, or what else is not None or False.
NEEDS = {"nginx": {"nginx": NGINX}, "nginx_lua": {"nginx": NGINX, "Lua of nginx": has_lua()}}


def prepare(folder):
    """Writes the requests and the files that are asked for below a folder."""
    for name, text in REQUESTS.items():
        request_path(folder, name).write_bytes(text)
    files = Path(folder) / "files"
    files.mkdir()
    for name, size in FILES.items():
        (files / f"{name}.bin").write_bytes(os.urandom(size))
    (Path(folder) / "hello").write_text(HELLO)


def request_path(folder, name):
    return Path(folder) / f"{name}.http"


def client_arguments(folder, load, name):
    """What the client is told to say to a participant: nothing of this, if that speaks frames."""
    if name not in ASKED:
        return []
    if name == "websocket":
        return ["--websocket", "/"]
    return ["--http", request_path(folder, ASKED_UNDER.get(load, ASKED[name]))]


def first_request(name):
    """What a server is asked to see that it answers, or None."""
    return REQUESTS[ASKED[name]] if name in ASKED else None


def nginx(name, folder):
    """With Lua, or without."""
    port, asked = free_port(socket.SOCK_STREAM), first_request(name)
    told = {"folder": folder, "port": port, "hello": HELLO, "hello_bytes": len(HELLO)}
    if name == "nginx":
        block = NGINX_HTTP.format(more="", locations=NGINX_LOCATIONS.format(**told), **told)
        return Nginx(name, folder, port, block, request=asked)
    block = NGINX_HTTP.format(more=LUA_MORE, locations=LUA_LOCATIONS.format(**told), **told)
    return Nginx(name, folder, port, block, modules=LUA_MODULES, request=asked,
                 environment={"LD_LIBRARY_PATH": str(lua_library())})


def h2o(folder):
    port = free_port(socket.SOCK_STREAM)
    config = Path(folder) / f"h2o-{port}.conf"
    config.write_text(H2O_CONFIG.format(user="user: root" if os.geteuid() == 0 else "", port=port, folder=folder),
                      encoding="utf-8")
    return Server("h2o", f"{H2O} -c {{app}}", config, folder, port=port, request=first_request("h2o"))
