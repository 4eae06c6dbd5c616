#!/usr/bin/env python3
"""Measures what broken handlers cost their neighbour. See bench/README.md."""

import argparse
import json
import os
import re
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
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
EVERY_S = 0.050
ALLOWED_MS = 20
PATIENCE_S = 60  # then it has failed
WORST = 12
SCRIPT = """
local Agent = {}
function Agent:proceed(frame)
  if frame == "spin" then while true do end end
  return frame
end
return { listen = "tcp://127.0.0.1:0", frame = "u32be", limits = { proceed = "%dms" }, agent = Agent, jit = %s }
"""


CORPUS = ROOT / "spec" / "corpus"
CORPUS_MEMORY = "48m"  # as in spec/support/corpus.lua
CORPUS_SCRIPT = """
local Canary = {}
function Canary:proceed(frame) return frame end
local listeners = { { "tcp://127.0.0.1:0", frame = "u32be", agent = Canary, limits = { proceed = "5s" } } }
for name in ("%s"):gmatch("%%S+") do
  local entry = require(name)
  entry[1], entry.listen = "unix://%s/" .. name, nil
  entry.limits = entry.limits or {}
  entry.limits.proceed = "%dms"
  listeners[#listeners + 1] = entry
end
return { listen = listeners, limits = { memory = "%s" }, jit = %s, log = { format = "json" } }
"""


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def waited(*pids):
    """Seconds that their threads have been ready and got no core, longest thread each. (Where the kernel counts it.)"""
    total = 0.0
    for pid in pids:
        try:
            total += max(int(f.read_text().split()[1]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
        except (OSError, ValueError):
            pass
    return total


def connect(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


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
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"the canary got no reply within {PATIENCE_S} s")
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


class Server:
    """The real binary with one worker, on a core of its own."""

    def __init__(self, binary, script):
        self.log = open(script.parent / "log", "wb")
        self.process = subprocess.Popen([binary, "run", str(script), "--workers", "1"], cwd=ROOT, stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL,
                                        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
        self.pids, self.status = (self.process.pid, os.getpid()), None

    def port(self):
        """Of its TCP listener, once it serves."""
        deadline, text = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < deadline and self.process.poll() is None:
            text = Path(self.log.name).read_text(encoding="utf-8")
            if '"serving"' in text:
                return int(re.search(r'"address":"tcp://127\.0\.0\.1:(\d+)"', text).group(1))
            time.sleep(0.01)
        raise RuntimeError("the server does not serve:\n" + text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.status = self.process.wait(PATIENCE_S)
        self.log.close()


def judge(result, proceed_ms, status, args):
    result.update(proceed_ms=proceed_ms, bound_ms=proceed_ms + ALLOWED_MS, server_status=status)
    result["passed"] = result["hit"]["n"] > 0 and status == 0 and (not args.judge or result["hit_net"]["p99_ms"] <= result["bound_ms"])
    return result


def measure(proceed_ms, args):
    with tempfile.TemporaryDirectory(prefix="perilune-containment-") as folder:
        script = Path(folder) / "app.lua"
        script.write_text(SCRIPT % (proceed_ms, args.jit), encoding="utf-8")
        with Server(args.binary, script) as server:
            port = server.port()
            canary, offender = connect(port), Offender(port, server.pids)
            hit, net, free, serial, end = [], [], [], 0, time.monotonic() + args.seconds
            while time.monotonic() < end:
                serial += 1
                took, others = ask(canary, offender, serial)
                (free if others is None else hit).append(took)
                if others is not None:
                    net.append(max(0.0, took - others))
    return judge({"what": "a loop", "kills": offender.kills, "all": figures(hit + free), "hit": figures(hit),
                  "hit_net": figures(net)}, proceed_ms, server.status, args)


# ---- the corpus ----


class Case:
    """A broken handler of spec/corpus; what its first lines say is explained in spec/support/corpus.lua."""

    def __init__(self, path):
        head = dict(re.findall(r"^-- (\w+): (.*)$", path.read_text(encoding="utf-8"), re.M)[::-1])
        self.name, self.drive = path.stem, head.get("drive", "send")
        self.sent = head.get("send", "go\\n").replace("\\n", "\n").encode()
        self.runs = self.drive != "drain"

    def begin(self, folder):
        offender = socket.socket(socket.AF_UNIX)
        offender.connect(str(folder / self.name))
        if self.drive != "none":
            offender.sendall(self.sent)
        if self.drive == "finish":
            offender.shutdown(socket.SHUT_WR)
        if self.drive == "leave":
            offender.close()
            return None
        offender.setblocking(False)
        return offender


def is_over(offender):
    try:
        while offender.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def ping(canary, serial):
    sent, got = frame(struct.pack(">Q", serial)), b""
    canary.sendall(sent)
    while len(got) < len(sent):
        piece = canary.recv(len(sent) - len(got))
        if not piece:
            raise RuntimeError("the canary's connection was closed")
        got += piece
    if got != sent:
        raise RuntimeError("the canary got a wrong reply")


def longest_wait(canary, case, folder, pids, proceed_ms):
    """The canary's longest round trip until the case's connection has ended (or a while has passed), all and net, seconds."""
    offender, longest, net, serial = case.begin(folder), 0.0, 0.0, 0
    end = time.monotonic() + (0.5 if offender else 0.1 + 3 * proceed_ms / 1e3)
    while time.monotonic() < end:
        serial += 1
        others, began = waited(*pids), time.monotonic()
        ping(canary, serial)
        took = time.monotonic() - began
        if took > longest:
            longest, net = took, max(0.0, took - max(0.0, waited(*pids) - others))
        if offender and is_over(offender):
            break
    if offender:
        offender.close()
    return longest, net


def measure_corpus(proceed_ms, args):
    cases = [c for c in map(Case, sorted(CORPUS.glob("*.lua"))) if c.runs]
    hit, net, by_name = [], [], {}
    with tempfile.TemporaryDirectory(prefix="perilune-corpus-") as name:
        folder = Path(name)
        for case in cases:
            (folder / f"{case.name}.lua").write_bytes((CORPUS / f"{case.name}.lua").read_bytes())
        script = folder / "app.lua"
        script.write_text(CORPUS_SCRIPT % (" ".join(c.name for c in cases), folder, proceed_ms, CORPUS_MEMORY,
                                           args.jit), encoding="utf-8")
        with Server(args.binary, script) as server:
            canary = connect(server.port())
            for case in cases * args.corpus:
                took, less = longest_wait(canary, case, folder, server.pids, proceed_ms)
                hit.append(took)
                net.append(less)
                by_name[case.name] = max(by_name.get(case.name, 0.0), less)
    worst = sorted(by_name.items(), key=lambda item: -item[1])[:WORST]
    return judge({"what": "corpus", "kills": len(hit), "all": figures(hit), "hit": figures(hit), "hit_net": figures(net),
                  "worst_ms": {name: round(s * 1e3, 1) for name, s in worst}}, proceed_ms, server.status, args)


def table(results):
    lines = [f"{'proceed':8}{'kills':>6}  {'round trips':12}{'n':>8}{'p50':>10}{'p99':>10}{'max':>10}   bound"]
    for r in results:
        for name, key in (("all", "all"), ("hit", "hit"), ("hit, net", "hit_net")):
            if r["what"] == "corpus" and key == "all":
                continue
            line = f"{r['proceed_ms']:>5} ms{r['kills']:>6}" if name == ("hit" if r["what"] == "corpus" else "all") else " " * 14
            name = name.replace("hit", r["what"]) if r["what"] == "corpus" else name
            line += f"  {name:12}{r[key]['n']:>8}" + "".join(f"{r[key][k]:10.2f}" for k in ("p50_ms", "p99_ms", "max_ms"))
            lines.append(line + (f"   ≤ {r['bound_ms']} {'pass' if r['passed'] else 'FAIL'}" if key == "hit_net" else ""))
        if "worst_ms" in r:
            lines.append("  the worst, net: " + ", ".join(f"{name} {ms:.0f}" for name, ms in r["worst_ms"].items()))
    return "\n".join(lines)


def main(argv):
    p = argparse.ArgumentParser(description="One worker, a broken handler and a canary that asks without pause: the "
                                            "canary's round trips, in ms.",
                                epilog="Exit status: 1 when the 99th percentile of a 'net' row is past limits.proceed + 20 ms.")
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement of a loop every 50 ms (10; 0: none)")
    p.add_argument("--corpus", type=int, default=2, metavar="N", help="all of spec/corpus, so often (2; 0: not)")
    p.add_argument("--proceed", default="5,100", metavar="MS,…", help="values of limits.proceed (5,100)")
    p.add_argument("--no-judge", dest="judge", action="store_false",
                   help="the exit status does not depend on time: for a machine that does other things")
    p.add_argument("--no-jit", dest="jit", action="store_const", const="false", default="true")
    p.add_argument("--binary", default=str(ROOT / "build" / "perilune"))
    p.add_argument("--json", metavar="FILE", help="- is standard output, in place of the table")
    args = p.parse_args(argv)
    os.sched_setaffinity(0, {CLIENT_CORE})
    budgets = [int(ms) for ms in args.proceed.split(",")]
    results = [measure(ms, args) for ms in budgets if args.seconds > 0]
    results += [measure_corpus(ms, args) for ms in budgets if args.corpus > 0]
    text = json.dumps(results, indent=1)
    if args.json and args.json != "-":
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    print(text if args.json == "-" else table(results))
    return 0 if all(r["passed"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
