#!/usr/bin/env python3
"""Measures how long single calls of C take, and how soon they end. See bench/README.md."""

import argparse
import json
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PERILUNE = ROOT / "build" / "perilune"
PATIENCE_S = 60
SETTLE_S = 0.2  # until a server that has just started does nothing any more
MODULE, MODULE_BYTES = "math.abs(1) ", 16 << 20  # what cases require; no file may be larger
END_BYTES = len(b"returned")

# Name, verdict, call and script of each.
LIST = """
package.path = "%s/?.lua;" .. package.path
local calls = require "spec.support.long_calls"
for _, case in ipairs(calls.CASES) do
  local script = calls.script(case, %d, "unix://SOCKET", "%s")
  for _, text in ipairs { case.name, case.verdict, case.call, script } do io.write(text, "\\0") end
end
"""


def cases(args):
    code = LIST % (ROOT, args.bytes, args.budget)
    told = subprocess.run([PERILUNE, "exec", "-e", code], capture_output=True, text=True, check=True).stdout
    fields = told.split("\0")[:-1]
    return [fields[i : i + 4] for i in range(0, len(fields), 4)]


def cpu(pid):
    """Seconds that all threads have run, to the nanosecond."""
    return sum(int(f.read_text().split()[0]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"long_calls: {what}: nothing for {PATIENCE_S} s")
        time.sleep(0.005)


def entries(log):
    found = []
    for line in log.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # what print() and io.write() leave
            pass
    return found


def ends(log):
    return [entry["reason"] for entry in entries(log) if entry.get("message") == "closed"]


def measure(script, args):
    """(CPU milliseconds, how it ended): from the frame until the reply has come, or the connection has ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.lua").write_text(script.replace("SOCKET", f"{folder}/s"))
        (folder / "large.lua").write_text(MODULE * (min(args.bytes, MODULE_BYTES) // len(MODULE)))
        log = folder / "log"
        command = [PERILUNE, "run", folder / "app.lua", "--log-file", log, "--log-level", "debug"]
        with open(folder / "out", "wb") as out:
            app = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            wait_for("the start", lambda: app.poll() is not None or log.exists() and b'"serving"' in log.read_bytes())
            if app.poll() is not None:
                return 0, "does not start: " + (folder / "out").read_text()[:200]
            time.sleep(SETTLE_S)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{folder}/s")
                client.setblocking(False)
                time.sleep(SETTLE_S / 4)
                began, tail = cpu(app.pid), b""
                client.sendall(b"go")

                def has_ended():
                    nonlocal tail
                    try:
                        piece = client.recv(1 << 22)
                    except BlockingIOError:
                        return False
                    tail = (tail + piece)[-END_BYTES:]
                    return not piece or tail == b"returned" or tail == b"a" * END_BYTES

                wait_for("the end of a call", has_ended)
                used = cpu(app.pid) - began
            if tail == b"returned" or tail == b"a" * END_BYTES:
                return used * 1000, "returned"
            wait_for("the end of a connection", lambda: ends(log))
            return used * 1000, ends(log)[-1]
        finally:
            app.terminate()
            app.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=lambda text: int(float(text)), default=100_000_000, help="of the data (1e8)")
    parser.add_argument("--budget", default="100ms", help="limits.proceed (100ms)")
    parser.add_argument("--only", default="", help="cases whose verdict, name or call has this in it")
    parser.add_argument("--times", type=int, default=1, help="the longest of so many")
    args = parser.parse_args()
    print(f"{'verdict':8} {'CPU ms':>7} {'ended with':16} function: call")
    for name, verdict, call, script in cases(args):
        if args.only in f"{verdict} {name}: {call}":
            took, end = max(measure(script, args) for _ in range(args.times))
            print(f"{verdict:8} {took:7.0f} {end:16} {name}: {' '.join(call.split())}", flush=True)


main()
