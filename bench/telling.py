#!/usr/bin/env python3
"""Measures what it costs to tell 9,500 agents that the backend they all wait for has died. See bench/README.md."""

import argparse
import resource
import socket

from serving import serving

AGENTS = 9500  # with the server's own a process may have 10,000 descriptors where nobody has raised that

# Each agent asks, and is told why there is no reply. os.clock() is the CPU time of the process.
SCRIPT = """
local perilune = require "perilune"
local pool = perilune.pool("tcp://127.0.0.1:%d", { frame = "line", size = 1, pipeline = true, depth = 20000,
  queue = 20000, wait = "5m", timeout = { read = "5m" } })
local told, asked, first, turn, turn_began, longest = 0, 0, nil, nil, 0, 0
local Agent = {}
function Agent:proceed(line)
  asked = asked + 1
  local _, message = pool:request(line)
  local clock, now = os.clock(), perilune.now()
  told, first = told + 1, first or clock
  if now ~= turn then turn, turn_began = now, clock end
  longest = math.max(longest, clock - turn_began)
  if told == asked then
    perilune.log("info", "told", { agents = told, ms = (clock - first) * 1000, longest_ms = longest * 1000 })
    told, asked, first, longest = 0, 0, nil, 0
  end
  if %s then return message end
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 1, timeout = { idle = false },
  limits = { connections = 20000, proceed = "10m" }, control = "off", log = { format = "json" } }
"""


def take(connection, lines):
    while lines > 0:
        lines -= connection.recv(65536).count(b"\n")


def measure(rounds, answers):
    """(milliseconds of CPU time for all, the longest turn) of each round."""
    backend = socket.create_server(("127.0.0.1", 0), backlog=16)
    with serving(SCRIPT % (backend.getsockname()[1], "true" if answers else "false")) as server:
        port = server.port
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(AGENTS)]
        for count in range(1, rounds + 1):
            for client in clients:
                client.sendall(b"x\n")
            connection, _ = backend.accept()
            take(connection, AGENTS)
            connection.close()
            server.entry("told", count)
            if answers:
                for client in clients:
                    take(client, 1)
        return [(entry["ms"], entry["longest_ms"]) for entry in server.entries("told")]


def main():
    parser = argparse.ArgumentParser(prog="telling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default 5; the median is shown")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for answers in (False, True):
        found = measure(args.rounds, answers)
        ms, longest = (sorted(column)[len(found) // 2] for column in zip(*found))
        what = "told, and each answers its client" if answers else "told"
        print(f"{AGENTS} agents {what:<34}{ms:7.1f} ms of CPU, longest turn {longest:.1f} ms")


if __name__ == "__main__":
    main()
