#!/usr/bin/env python3
"""Measures messages between two agents: of two workers, and of one. See bench/README.md."""

import argparse
import json
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from serving import serving

HERE = Path(__file__).resolve().parent
ROUNDS = 100_000

# "take" gives an agent the name of its connection. "send NAME 64 100000 32": 64 messages of 32 bytes go to that one and
# back, until so many have come back. "call NAME 1 …": by perilune.call, one after the other in each of so many tasks.
SCRIPT = """
local perilune = require "perilune"
local number
local Agent = {}
function Agent:proceed(line)
  if line == "worker" then return tostring(number) end
  if line == "take" then
    local name = "n" .. self.conn.id
    perilune.register(name)
    perilune.register("call " .. name)
    return name
  end
  local what, name, flight, rounds, bytes = line:match "^(%a+) (%S+) (%d+) (%d+) (%d+)$"
  local data = ("x"):rep(tonumber(bytes))
  self.left, self.coming, self.to = tonumber(rounds), tonumber(flight), name
  for _ = 1, self.coming do
    if what == "send" then perilune.send(name, data) else perilune.spawn(self.call, self, name, data) end
  end
end
function Agent:call(name, data)
  while self.left > 0 do
    self.left = self.left - 1
    perilune.call("call " .. name, data)
  end
  self:done()
end
function Agent:done()
  self.coming = self.coming - 1
  if self.coming > 0 then return end
  self.left = nil
  self.conn:send "done"
end
function Agent:message(topic, data, from)
  if topic:find "^call" then return data end
  if not self.left then
    perilune.send(from, data)
    return
  end
  self.left = self.left - 1
  if self.left < self.coming then return self:done() end
  perilune.send(self.to, data)
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 2, limits = { proceed = "10m" },
  setup = function(app) number = app.worker end, control = "off", log = { format = "json" } }
"""

CASES = [
    ("there and back, alone", "send", 1, 32, "trip"),
    ("64 in flight", "send", 64, 32, "message"),
    ("64 in flight, 1 KiB", "send", 64, 1024, "message"),
    ("a call, alone", "call", 1, 32, "call"),
    ("16 calls in flight", "call", 16, 32, "call"),
]


def ask(connection, line):
    connection.sendall(line.encode() + b"\n")
    text = b""
    while not text.endswith(b"\n"):
        text += connection.recv(65536)
    return text.decode().strip()


def connect_to(worker, port):
    while True:
        connection = socket.create_connection(("127.0.0.1", port))
        if ask(connection, "worker") == str(worker):
            return connection
        connection.close()


def bare(binary):
    """Microseconds a round trip of two threads that do nothing else."""
    return int(subprocess.run([binary, str(ROUNDS)], stdout=subprocess.PIPE, check=True).stdout) / 1000


def measure(connection, name, case):
    """Microseconds for each trip, message or call."""
    _, what, flight, size, of = case
    began = time.perf_counter()
    ask(connection, f"{what} {name} {flight} {ROUNDS} {size}")
    return (time.perf_counter() - began) / ROUNDS * 1e6 / (2 if of == "message" else 1)


def medians(one, name, case, count, binary):
    """Microseconds for each, and that to a round trip of bare threads, of so many rounds."""
    rounds = []
    for _ in range(count):
        us = measure(one, name, case)
        rounds.append((us, us / bare(binary)))
    return [sorted(column)[count // 2] for column in zip(*rounds)]


def pair(port, workers):
    """A connection to the one worker, and the name of an agent of the other."""
    one, other = (connect_to(worker, port) for worker in workers)
    ask(one, "take")
    return one, ask(other, "take"), other


def show(server, binary, count):
    for where, workers in (("two workers", (0, 1)), ("one worker", (0, 0))):
        one, name, _other = pair(server.port, workers)
        for case in CASES:
            us, ratio = medians(one, name, case, count, binary)
            beside = f", {ratio:.2f} of two bare threads" if workers[1] and case[2] == 1 else ""
            print(f"{where}, {case[0]:<24}{us:7.2f} us a {case[4]}{beside}")


def main():
    parser = argparse.ArgumentParser(prog="sending", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default 7; the median is shown")
    parser.add_argument("--json", action="store_true", help="for scripts/bench: between two workers, as an object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "pingpong"
        subprocess.run(["cc", "-O2", "-pthread", HERE / "pingpong.c", "-o", binary], check=True)
        with serving(SCRIPT) as server:
            if not args.json:
                show(server, binary, args.rounds)
                return
            one, name, _other = pair(server.port, (0, 1))
            (_, ratio), (us, _) = (medians(one, name, case, args.rounds, binary) for case in CASES[:2])
            print(json.dumps({"trip_ratio": ratio, "message_us": us}))


if __name__ == "__main__":
    main()
