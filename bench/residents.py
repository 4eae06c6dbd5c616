#!/usr/bin/env python3
"""Measures the memory of agents without a socket that are idle. See bench/README.md."""

import argparse
import json
import socket
import time
from pathlib import Path

from serving import serving

SCRIPT = """
local perilune = require "perilune"
local User = { message = function() end }
local Agent = {}
function Agent:proceed(line)
  local from, to = line:match "^(%d+) (%d+)$"
  for key = from, to do assert(perilune.send("user:" .. key, true)) end
  assert(perilune.call("user:" .. to, true, "60s") == nil)
  return line
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 1, log = { format = "json" },
  control = "off", limits = { proceed = "1m", memory = "2g" }, timeout = { idle = false },
  agents = { user = { agent = User, most = 10000000, idle = %s } } }
"""

AT_ONCE = 1000


def rss(pid):
    """Bytes of its own: what files lend it comes and goes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("residents: no RssAnon in /proc")


def settled(pid):
    """... once the worker has tidied up, which it does when it is idle."""
    before, now = 0, rss(pid)
    while before != now:
        time.sleep(3)
        before, now = now, rss(pid)
    return now


def make(connection, count):
    for first in range(0, count, AT_ONCE):
        line = f"{first} {min(first + AT_ONCE, count) - 1}\n".encode()
        connection.sendall(line)
        if connection.recv(64) != line:
            raise SystemExit("residents: the server does not answer")


def measure(count, idle):
    """Bytes for one; for none, what those have left behind that have ended."""
    with serving(SCRIPT.replace("%s", idle)) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        make(connection, 1)
        before = settled(server.process.pid)
        began = time.monotonic()
        make(connection, count)
        took = time.monotonic() - began
        return (settled(server.process.pid) - before) / count, took / count * 1e6


def main():
    parser = argparse.ArgumentParser(prog="residents", description=__doc__)
    parser.add_argument("--count", type=int, default=100000, help="default 100000")
    parser.add_argument("--json", action="store_true", help="for scripts/bench: bytes of an idle one, as an object")
    args = parser.parse_args()
    if args.json:
        print(json.dumps({"bytes": measure(args.count, "false")[0]}))
        return
    idle, took = measure(args.count, "false")
    print(f"{'idle':<24}{idle:8.0f} bytes each")
    print(f"{'ended':<24}{measure(args.count, '0.01')[0]:8.0f} bytes each are left")
    print(f"{'made':<24}{took:8.1f} us each")


if __name__ == "__main__":
    main()
