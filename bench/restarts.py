#!/usr/bin/env python3
"""Upgrades a server again and again while clients connect, ask, are answered and close. Every fifth upgrade is
to a broken script or a broken binary, of each kind in turn. Exit status 0: nobody was refused, and nobody went unanswered."""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
local Agent = {}
function Agent:proceed(line) return "answer to " .. line end
return { listen = { "tcp://127.0.0.1:0", "unix://%s" }, frame = "line", agent = Agent, workers = 2, timeout = { upgrade = "10s" } }
"""
SHELL = "#!/bin/sh\n"
BROKEN = {
    "a script that throws": ("script", "error 'broken'"),
    "a binary that fails": ("binary", SHELL + "exit 1\n"),
    "a script that does not compile": ("script", "return {"),
    "a binary that is no program": ("binary", "\0garbage"),
    "a script without agents": ("script", "return { listen = 'tcp://127.0.0.1:0' }"),
    "a binary that kills itself": ("binary", SHELL + "kill -SEGV $$\n"),
    "a script that loops": ("script", "while true do end"),
    "a binary that is never ready": ("binary", SHELL + "exec sleep 100\n"),
    "no binary": ("binary", None),
}
DONE, FAILED = "upgraded: the new process has taken over", "upgrade failed: this process serves on"


def ask(address, pause, number):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(60)
        s.connect(address)
        time.sleep(pause)
        s.sendall(b"%d\n" % number)
        answer = b""
        while not answer.endswith(b"\n"):
            piece = s.recv(100)
            if not piece:
                raise OSError(f"closed after {answer!r}")
            answer += piece
    if answer != b"answer to %d\n" % number:
        raise OSError(f"got {answer!r}")


def client(address, pause, stop, results):
    asked, failures = 0, []
    while not stop.is_set():
        asked += 1
        try:
            ask(address, pause, asked)
        except OSError as err:
            failures.append(f"{address}: {err}")
    results.put((asked, failures))


class Server:
    """The process that accepts now, known by what the log says."""

    def __init__(self, binary, folder):
        self.original, self.binary = binary, folder / "perilune"
        self.app, self.log = folder / "app.lua", folder / "log"
        self.script = SCRIPT % (folder / "socket")
        self.mend()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([self.binary, "run", self.app, "--log-format", "json"], stderr=log,
                                            env=os.environ | {"PERILUNE_LUA_PATH": str(ROOT / "lua")})
        self.pid = self.process.pid
        self.wait(lambda e: e["message"] == "serving", 0)

    def install(self, put):
        """As a package manager does: a file that runs cannot be written over."""
        new = self.binary.with_suffix(".new")
        put(new)
        new.chmod(0o755)
        new.rename(self.binary)

    def mend(self):
        self.app.write_text(self.script)
        self.install(lambda new: shutil.copy(self.original, new))

    def damage(self, what, content):
        if what == "script":
            self.app.write_text(content)
        elif content is None:
            self.binary.unlink()
        else:
            self.install(lambda new: new.write_text(content))

    def entries(self):
        """A script that cannot be loaded is told of in plain words."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"time"') and line.endswith("}")]

    def wait(self, wanted, count, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [e for e in self.entries() if wanted(e)]
            if len(found) > count:
                return found[count]
            time.sleep(0.005)
        raise SystemExit(f"no answer from the server\n{self.log.read_text()[-3000:]}")

    def upgrade(self, count):
        os.kill(self.pid, signal.SIGUSR2)
        entry = self.wait(lambda e: e["message"] in (DONE, FAILED), count)
        if entry["message"] == DONE:
            self.pid = entry["pid"]
        return entry["message"]


def restart(server, times):
    for i in range(times):
        broken = i % 5 == 4
        name = list(BROKEN)[i // 5 % len(BROKEN)] if broken else "a good one"
        if broken:
            server.damage(*BROKEN[name])
        began = time.monotonic()
        outcome = server.upgrade(i)
        if outcome != (FAILED if broken else DONE):
            raise SystemExit(f"upgrade {i + 1}, {name}: {outcome}\n{server.log.read_text()[-3000:]}")
        if broken:
            server.mend()
        else:
            yield time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="upgrades (default 100)")
    parser.add_argument("--clients", type=int, default=6, help="half of them over the Unix socket (default 6)")
    parser.add_argument("--binary", default=str(ROOT / "build" / "perilune"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perilune-restarts-") as name:
        folder = Path(name)
        server = Server(args.binary, folder)
        listening = next(e for e in server.entries() if e["message"] == "listening")
        addresses = [("127.0.0.1", int(listening["address"].rsplit(":", 1)[1])), str(folder / "socket")]
        stop, results = multiprocessing.Event(), multiprocessing.Queue()
        clients = [multiprocessing.Process(target=client, daemon=True,
                                           args=(addresses[i % 2], 0.005 * (i // 2), stop, results))
                   for i in range(args.clients)]
        for each in clients:
            each.start()
        took = sorted(restart(server, args.times))
        stop.set()
        seen = [results.get(timeout=300) for _ in clients]
        os.kill(server.pid, signal.SIGTERM)
        server.wait(lambda e: e["message"] == "stopped" and e["pid"] == server.pid, 0)
        stopped = [e for e in server.entries() if e["message"] == "stopped"]
    failures = [f for _, some in seen for f in some]
    print(f"{args.times} upgrades, {args.times // 5} of them broken; {sum(n for n, _ in seen)} requests asked, "
          f"{sum(e['accepted'] for e in stopped)} connections accepted by {len(stopped)} processes, "
          f"{sum(e['cut'] for e in stopped)} cut, {len(failures)} failed; a good upgrade took "
          f"{took[len(took) // 2] * 1000:.0f} ms, at most {took[-1] * 1000:.0f} ms")
    for failure in failures[:10]:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
