#!/usr/bin/env python3
"""Measures calls of a shared dictionary, from one worker and from two at once. See bench/README.md."""

import argparse
import json
import socket
import time

from serving import serving

CALLS = 2_000_000

CASES = {
    "get, a number of 1,000": "d:get(keys[i % 1000 + 1])",
    "get, a string of 32 bytes": "d:get(names[i % 1000 + 1])",
    "set, a string of 32 bytes": "d:set(names[i % 1000 + 1], text)",
    "incr, one of 1,000": "d:incr(keys[i % 1000 + 1])",
    "incr, all the same": 'd:incr "same"',
}

SCRIPT = """
local perilune = require "perilune"
local d = perilune.shared "d"
local keys, names, text, number = {}, {}, ("x"):rep(32), nil
local Agent = {}
function Agent:proceed(line)
  if line == "worker" then return tostring(number) end
  for i = 1, 1000 do
    keys[i], names[i] = "key " .. i, "name " .. i
    if line == "fill" then d:set(keys[i], i) d:set(names[i], text) end
  end
  for i = 1, line == "go" and %d or 0 do local _ = %s end
  return "done"
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 2, shared = { d = "16m" },
  setup = function(app) number = app.worker end, limits = { proceed = "10m" }, control = "off",
  log = { format = "json" } }
"""


def ask(connection, line):
    connection.sendall(line + b"\n")
    return connection.recv(64).strip()


def client_of_each(port):
    found = {}
    while len(found) < 2:
        connection = socket.create_connection(("127.0.0.1", port))
        found.setdefault(ask(connection, b"worker"), connection)
    return list(found.values())


def rate(clients):
    """Calls a second, of all together."""
    began = time.perf_counter()
    for client in clients:
        client.sendall(b"go\n")
    for client in clients:
        client.recv(64)
    return CALLS * len(clients) / (time.perf_counter() - began)


def measure(statement, rounds):
    with serving(SCRIPT % (CALLS, statement)) as server:
        clients = client_of_each(server.port)
        for client in clients:
            ask(client, b"fill")
        found = [(rate(clients[:1]), rate(clients)) for _ in range(rounds)]
        return [sorted(column)[rounds // 2] for column in zip(*found)]


def main():
    parser = argparse.ArgumentParser(prog="shared", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default 3; the median is shown")
    parser.add_argument("--json", action="store_true", help="for scripts/bench: calls a second of two, as an object")
    args = parser.parse_args()
    if args.json:
        get, incr = (measure(CASES[name], args.rounds)[1] for name in ("get, a number of 1,000", "incr, one of 1,000"))
        print(json.dumps({"get_per_s": get, "incr_per_s": incr}))
        return
    for name, statement in CASES.items():
        one, two = measure(statement, args.rounds)
        print(f"{name:<28}{one / 1e6:7.1f} M/s by one worker{two / 1e6:7.1f} M/s by two")


if __name__ == "__main__":
    main()
