#!/usr/bin/env python3
"""Measures what a connection that loops for ever costs its neighbour. See bench/README.md."""

import argparse
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, CLIENT_CORE = 0, 1
EVERY_S = 0.050
ALLOWED_MS = 20
SCRIPT = """
local Agent = {}
function Agent:proceed(frame)
  if frame == "spin" then while true do end end
  return frame
end
return { listen = "tcp://127.0.0.1:%d", frame = "u32be", limits = { proceed = "%dms" }, agent = Agent }
"""


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def waited(*pids):
    """Seconds that their threads have been ready and got no core, longest thread each. (Where the kernel counts it.)"""
    total = 0.0
    for pid in pids:
        try:
            total += max(int(f.read_text().split()[1]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
        except (OSError, ValueError):
            pass
    return total


def connect(port, seconds=5.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            s = socket.create_connection(("127.0.0.1", port), timeout=seconds)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return s
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Offender:
    """Sends a frame that never returns, every 50 ms; one at a time, each on a connection of its own."""

    def __init__(self, port, pids):
        self.port, self.pids, self.kills, self.since, self.waited = port, pids, 0, None, 0.0
        self.socket, self.next_at = connect(port), time.monotonic() + EVERY_S

    def send_if_due(self, now):
        if self.since is None and now >= self.next_at:
            self.waited = waited(*self.pids)
            self.socket.sendall(frame(b"spin"))
            self.since = now
            self.next_at = now + EVERY_S

    def ended(self):
        """Readable: it was ended by the server."""
        try:
            if self.socket.recv(4096):
                return
        except ConnectionResetError:
            pass
        self.socket.close()
        self.socket, self.since = connect(self.port), None
        self.kills += 1


def ask(canary, offender, serial):
    """One round trip of the canary: seconds; if the offender was at work meanwhile, for how many of them others had the cores."""
    sent = frame(struct.pack(">Q", serial))
    offender.send_if_due(time.monotonic())
    began, got, hit = time.monotonic(), b"", offender.since is not None
    canary.sendall(sent)
    while len(got) < len(sent):
        if time.monotonic() - began > 10:
            raise RuntimeError("the canary got no reply within 10 s")
        wait = max(0.0, offender.next_at - time.monotonic()) if offender.since is None else 1.0
        ready, _, _ = select.select([canary, offender.socket], [], [], wait)
        if canary in ready:
            piece = canary.recv(len(sent) - len(got))
            if not piece:
                raise RuntimeError("the canary's connection was closed")
            got += piece
            took = time.monotonic() - began
        if offender.socket in ready:
            offender.ended()
        if len(got) < len(sent):
            offender.send_if_due(time.monotonic())
            hit = hit or offender.since is not None
    if got != sent:
        raise RuntimeError("the canary got a wrong reply")
    return took, max(0.0, waited(*offender.pids) - offender.waited) if hit else None


def figures(seconds):
    ms = sorted(s * 1e3 for s in seconds) or [0.0]
    pick = lambda q: ms[min(len(ms) - 1, int(len(ms) * q))]
    return {"n": len(seconds), "p50_ms": round(pick(0.5), 3), "p99_ms": round(pick(0.99), 3),
            "max_ms": round(ms[-1], 3)}


def measure(proceed_ms, seconds, binary):
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="perilune-containment-") as folder:
        script = Path(folder) / "app.lua"
        script.write_text(SCRIPT % (port, proceed_ms), encoding="utf-8")
        with open(Path(folder) / "log", "wb") as log:
            server = subprocess.Popen([binary, "run", str(script), "--workers", "1"], cwd=ROOT, stdout=log, stderr=log,
                                      stdin=subprocess.DEVNULL,
                                      preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
            try:
                canary, offender = connect(port), Offender(port, (server.pid, os.getpid()))
                hit, net, free, serial, end = [], [], [], 0, time.monotonic() + seconds
                while time.monotonic() < end:
                    serial += 1
                    took, others = ask(canary, offender, serial)
                    (free if others is None else hit).append(took)
                    if others is not None:
                        net.append(max(0.0, took - others))
            finally:
                server.send_signal(signal.SIGTERM)
                status = server.wait(20)
    bound = proceed_ms + ALLOWED_MS
    result = {"proceed_ms": proceed_ms, "kills": offender.kills, "all": figures(hit + free), "hit": figures(hit),
              "hit_net": figures(net), "bound_ms": bound, "server_status": status}
    result["passed"] = bool(hit) and status == 0 and result["hit_net"]["p99_ms"] <= bound
    return result


def table(results):
    lines = [f"{'proceed':8}{'kills':>6}  {'round trips':12}{'n':>8}{'p50':>10}{'p99':>10}{'max':>10}   bound"]
    for r in results:
        for name, key in (("all", "all"), ("hit", "hit"), ("hit, net", "hit_net")):
            line = f"{r['proceed_ms']:>5} ms{r['kills']:>6}" if key == "all" else " " * 14
            line += f"  {name:12}{r[key]['n']:>8}" + "".join(f"{r[key][k]:10.2f}" for k in ("p50_ms", "p99_ms", "max_ms"))
            lines.append(line + (f"   ≤ {r['bound_ms']} {'pass' if r['passed'] else 'FAIL'}" if key == "hit_net" else ""))
    return "\n".join(lines)


def main(argv):
    p = argparse.ArgumentParser(description="One worker, one connection whose handler loops for ever every 50 ms, and a "
                                            "canary that asks without pause: the canary's round trips, in ms.",
                                epilog="Exit status: 1 when the 99th percentile of the last row is past limits.proceed + 20 ms.")
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement (10)")
    p.add_argument("--proceed", default="5,100", metavar="MS,…", help="values of limits.proceed (5,100)")
    p.add_argument("--binary", default=str(ROOT / "build" / "perilune"))
    p.add_argument("--json", metavar="FILE", help="- is standard output, in place of the table")
    args = p.parse_args(argv)
    os.sched_setaffinity(0, {CLIENT_CORE})
    results = [measure(int(ms), args.seconds, args.binary) for ms in args.proceed.split(",")]
    text = json.dumps(results, indent=1)
    if args.json and args.json != "-":
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    print(text if args.json == "-" else table(results))
    return 0 if all(r["passed"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
