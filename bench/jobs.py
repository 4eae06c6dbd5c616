#!/usr/bin/env python3
"""Measures an empty job there and back, alone and with others in flight, against two bare threads. See README.md."""

import argparse
import json
import socket
import subprocess
import tempfile
from pathlib import Path

from serving import serving

HERE = Path(__file__).resolve().parent
ROUNDS = 30000

WORK = "return { empty = function() end, echo = function(...) return ... end }"

# Each task gives jobs one after the other; the microseconds that all of them took are the reply.
SCRIPT = """
local perilune = require "perilune"
local Agent = {}
function Agent:proceed(line)
  local tasks, count, name, argument = line:match "^(%%d+) (%%d+) (%%S+) ?(.*)$"
  local functions = {}
  for i = 1, tonumber(tasks) do
    functions[i] = function()
      for _ = 1, tonumber(count) / tonumber(tasks) do perilune.job("work", name, argument) end
    end
  end
  perilune.job("work", name)
  local began = perilune.time()
  perilune.all(functions)
  return ("%%.0f"):format((perilune.time() - began) * 1e6)
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, workers = 1, jobs = { workers = %d },
  timeout = { idle = false }, limits = { proceed = "10m", frame = "1m" }, control = "off", log = { format = "json" } }
"""

EMPTY = [  # tasks, function, argument
    ("empty, alone", 1, "empty", ""),
    ("empty, 16 in flight", 16, "empty", ""),
]
CASES = EMPTY + [
    ("1 KiB there and back, alone", 1, "echo", "x" * 1024),
    ("1 KiB there and back, 16 in flight", 16, "echo", "x" * 1024),
]


def ask(connection, line):
    connection.sendall(line.encode() + b"\n")
    text = b""
    while not text.endswith(b"\n"):
        text += connection.recv(65536)
    return int(text)


def bare(binary):
    """Microseconds a round trip of two threads that do nothing else."""
    return int(subprocess.run([binary, str(ROUNDS)], stdout=subprocess.PIPE, check=True).stdout) / 1000


def measure(server, binary, cases, count):
    """Of each case: microseconds a job, and that to a round trip of bare threads; medians of so many rounds."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        ask(connection, f"1 {ROUNDS // 10} empty")
        for _, tasks, function, argument in cases:
            rounds = []
            for _ in range(count):
                us = ask(connection, f"{tasks} {ROUNDS} {function} {argument}".rstrip()) / ROUNDS
                rounds.append((us, us / bare(binary)))
            yield [sorted(column)[count // 2] for column in zip(*rounds)]


def main():
    parser = argparse.ArgumentParser(prog="jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default 7; the median is shown")
    parser.add_argument("--threads", type=int, default=1, help="that jobs run in; default 1")
    parser.add_argument("--json", action="store_true", help="for scripts/bench: the empty job alone, as an object")
    args = parser.parse_args()
    cases = EMPTY if args.json else CASES
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "pingpong"
        subprocess.run(["cc", "-O2", "-pthread", HERE / "pingpong.c", "-o", binary], check=True)
        with serving(SCRIPT % args.threads, {"work": WORK}) as server:
            found = list(measure(server, binary, cases, args.rounds))
    if args.json:
        print(json.dumps({"trip_ratio": found[0][1], "flight_us": found[1][0]}))
        return
    for (name, *_), (us, ratio) in zip(cases, found):
        print(f"{name:<36}{us:7.2f} us, {ratio:.2f} of two bare threads")


if __name__ == "__main__":
    main()
