#!/usr/bin/env python3
"""Measures the memory of agents that wait, of timers, of tasks and of connections out. See bench/README.md."""

import argparse
import resource
import selectors
import socket
import threading
import time
from pathlib import Path

from serving import serving

CONNECTIONS = 1000

# What each connection begins, and how many of those. The next connection begins once this one has said "begun", or at
# once.
CASES = {
    "an agent that sleeps": (1, "perilune.sleep(3600)"),
    "an agent that reads": (1, 'self.conn:read()'),
    "an agent that waits in a channel": (1, "channel:receive()"),
    "a timer": (20, 'for _ = 1, 20 do perilune.after(3600, idle) end'),
    "a timer that repeats": (20, 'for _ = 1, 20 do perilune.every(3600, idle) end'),
    "a task that sleeps": (10, 'for _ = 1, 10 do perilune.spawn(perilune.sleep, 3600) end'),
    "a task in a channel": (10, "for _ = 1, 10 do perilune.spawn(channel.receive, channel) end"),
    "a connection out": (10, 'for i = 1, 10 do self.kept[i] = ask({ frame = "line" }) end return "begun"'),
    "a connection out with an agent": (10, 'for i = 1, 10 do self.kept[i] = ask(OWN) end return "begun"'),
}

SCRIPT = """
local perilune = require "perilune"
local channel = perilune.channel()
local function idle() end
local OWN = { frame = "line", agent = { proceed = idle } }
local function ask(options)
  local out = assert(perilune.connect("tcp://127.0.0.1:%d", options))
  out:send("hello")
  if options ~= OWN then assert(out:read() == "hello") end
  return out
end
local Agent = {}
function Agent:opened() self.kept = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } end -- room for them
function Agent:proceed(line) if line == "ready" then return line end %s end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 1, timeout = { idle = false },
  limits = { connections = 5000 }, log = { format = "json" }, control = "off" }
"""


def rss(pid):
    """Bytes of its own: what files lend it comes and goes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("waiting: no RssAnon in /proc")


def ask(connection, line, reply):
    connection.sendall(line + b"\n")
    if connection.recv(64) != reply + b"\n":
        raise SystemExit("waiting: the server does not answer")


class Echo(threading.Thread):
    """Whom connections out go to: sends back what comes, and keeps them."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        poller = selectors.DefaultSelector()
        poller.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in poller.select():
                if key.fileobj is self.listener:
                    poller.register(self.listener.accept()[0], selectors.EVENT_READ)
                else:
                    self.answer(poller, key.fileobj)

    @staticmethod
    def answer(poller, connection):
        try:
            data = connection.recv(4096)
            connection.sendall(data)
        except OSError:
            data = b""
        if not data:
            poller.unregister(connection)
            connection.close()


def measure(statement, count, backend):
    """Bytes for one, beside those of the idle connection that has it."""
    with serving(SCRIPT % (backend.port, statement)) as server:
        port, pid = server.port, server.process.pid
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        last = socket.create_connection(("127.0.0.1", port))
        for connection in connections:
            ask(connection, b"ready", b"ready")
        before = rss(pid)
        for connection in connections:
            if '"begun"' in statement:
                ask(connection, b"begin", b"begun")
            else:
                connection.sendall(b"begin\n")
        for _ in range(3):
            ask(last, b"ready", b"ready")
            time.sleep(0.2)
        return (rss(pid) - before) / CONNECTIONS / count


def main():
    parser = argparse.ArgumentParser(prog="waiting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default 3; the median is shown")
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases with this in their name")
    args = parser.parse_args()
    # Both ends of every connection out are this process's or the server's.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    backend = Echo()
    for name, (count, statement) in CASES.items():
        if args.only not in name:
            continue
        found = sorted(measure(statement, count, backend) for _ in range(args.rounds))
        print(f"{name:<36}{found[len(found) // 2]:8.0f} bytes")


if __name__ == "__main__":
    main()
