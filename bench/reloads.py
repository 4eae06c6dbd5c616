#!/usr/bin/env python3
"""Reloads a server again and again under a steady load of pipelined frames, every tenth time with a script that is
broken. Is every frame answered once and in order, by a generation that was accepted? What does it cost in latency, and
does memory grow? Exit status 0: nothing was lost, and both are within bounds."""

import argparse
import array
import gc
import heapq
import json
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURST = 4  # frames that a connection sends at once
P99_RATIO_MAX = 2.0
SLOPE_MAX_KIB = 1.0  # RSS a reload

GOOD = """
-- %(filler)s
local NAME, Agent = "g%(number)d", {}
local function reply(self, line)
  self.served = self.served + 1
  return NAME .. " " .. line
end
function Agent:opened() self.served = 0 end
function Agent:proceed(line) return reply(self, line) end
function Agent:snapshot() return { served = self.served } end
function Agent:upgrade(data) self.served = data.served end
local function filler(a) %(code)s return a end
function Agent:unused() return filler(1) end
%(end)s
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = %(agent)s, limits = { proceed = "100ms" %(limits)s },
  reload = { policy = "%(policy)s", keep = %(keep)d }, timeout = { idle = 0 } }
"""
LOOP = "an endless loop"  # ends when its 10 s of processor time are used up
BROKEN = [
    ("a syntax error", {"end": "local x = = 1"}),
    ("a throw", {"end": "error 'thrown'"}),
    (LOOP, {"end": "while true do end"}),
    ("an agent that is none", {"agent": "42"}),
    ("a wrong setting", {"limits": ", conections = 3"}),
]


def script(number, policy, keep, broken=None):
    parts = {"number": number, "filler": f"{number} " * 20, "end": "", "agent": "Agent", "limits": "",
             "policy": policy, "keep": keep,
             "code": " ".join(f"a = a + {number * i % 997}" for i in range(60))}
    text = GOOD
    if broken:
        parts.update(broken)
        text = text.replace('"g%(number)d"', '"broken%(number)d"')
    return text % parts


# ---- the load: a process of its own, which sends whatever the server does -------------------------------------------


class Connection:
    """Frames are numbered. `owed` are the bursts that are not answered: (when it was sent, its last number)."""

    def __init__(self, number, port):
        self.number, self.sent, self.answered = number, 0, 0
        self.owed, self.partial, self.generation = [], b"", None
        self.leaving = False
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self):
        first = self.sent + 1
        self.sent += BURST
        self.owed.append((time.monotonic(), self.sent))
        self.socket.sendall(b"".join(b"%d %d\n" % (self.number, n) for n in range(first, self.sent + 1)))


class Load:
    def __init__(self, args, port, orders):
        self.args, self.port, self.orders = args, port, orders
        self.selector = selectors.DefaultSelector()
        self.selector.register(orders, selectors.EVENT_READ)
        self.times, self.latencies = array.array("d"), array.array("d")
        self.names, self.failures = {}, []
        self.serial = self.lost = self.closed = 0
        self.due, self.to_leave = [], []

    def fail(self, text):
        self.failures.append(text)

    def open(self, when):
        self.serial += 1
        conn = Connection(self.serial, self.port)
        self.selector.register(conn.socket, selectors.EVENT_READ, conn)
        heapq.heappush(self.due, (when, conn.number, conn))
        self.to_leave.append(conn)

    def close(self, conn):
        self.selector.unregister(conn.socket)
        conn.socket.close()
        self.closed += 1

    def take(self, conn, line, now):
        name, _, rest = line.partition(b" ")
        conn.answered += 1
        if rest != b"%d %d" % (conn.number, conn.answered):
            self.fail(f"connection {conn.number}: expected frame {conn.answered}, got {line!r}")
        self.names[name] = self.names.get(name, 0) + 1
        if name != conn.generation:
            self.check_change(conn, name)
        if conn.owed and conn.answered == conn.owed[0][1]:
            sent, _ = conn.owed.pop(0)
            self.times.append(now)
            self.latencies.append(now - sent)

    def check_change(self, conn, name):
        before, conn.generation = conn.generation, name
        if before is None:
            return
        if self.args.policy == "pin" or not name[1:].isdigit() or int(name[1:]) < int(before[1:]):
            self.fail(f"connection {conn.number} went from {before!r} to {name!r}")

    def read(self, conn):
        try:
            data = conn.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as err:
            data = b""
            self.fail(f"connection {conn.number}: {err}")
        now = time.monotonic()
        if not data:
            self.lost += 1
            conn.leaving = True
            self.close(conn)
            return
        lines = (conn.partial + data).split(b"\n")
        conn.partial = lines.pop()
        for line in lines:
            self.take(conn, line, now)
        if conn.leaving and not conn.owed:
            self.close(conn)

    def send_due(self, now):
        every = BURST / self.args.rate
        while self.due and self.due[0][0] <= now:
            when, number, conn = heapq.heappop(self.due)
            if conn.leaving:
                continue
            try:
                conn.send()
            except OSError as err:
                self.fail(f"connection {number}: {err}")
                continue
            heapq.heappush(self.due, (when + every, number, conn))

    def renew(self, count):
        """The oldest send no more and leave once they are answered; as many come."""
        for conn in self.to_leave[:count]:
            conn.leaving = True
            if not conn.owed:
                self.close(conn)
        del self.to_leave[:count]
        for i in range(count):
            self.open(time.monotonic() + 0.001 * i)

    def run(self):
        start = time.monotonic()
        for i in range(self.args.connections):
            self.open(start + i * BURST / self.args.rate / self.args.connections)
        while True:
            now = time.monotonic()
            self.send_due(now)
            wait = self.due[0][0] - time.monotonic() if self.due else 1
            for key, _ in self.selector.select(max(0, wait)):
                if key.data:
                    self.read(key.data)
                    continue
                order = self.orders.recv()
                if order == "stop":
                    return self.finish()
                self.renew(order)

    def finish(self):
        self.due.clear()
        deadline = time.monotonic() + 10
        while any(k.data and k.data.owed for k in self.selector.get_map().values()) and time.monotonic() < deadline:
            for key, _ in self.selector.select(0.1):
                if key.data:
                    self.read(key.data)
        unanswered = 0
        for key in list(self.selector.get_map().values()):
            if key.data:
                unanswered += key.data.sent - key.data.answered
                self.close(key.data)
        return {"times": self.times, "latencies": self.latencies, "names": self.names, "failures": self.failures,
                "lost": self.lost, "connections": self.serial, "unanswered": unanswered,
                "cpu": time.process_time()}


def run_load(args, port, orders):
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders.send(Load(args, port, orders).run())


# ---- the server --------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, args, folder):
        self.app, self.log, self.control = folder / "app.lua", args.log or folder / "log", folder / "control"
        self.app.write_text(script(1, args.policy, args.keep))
        self.process = subprocess.Popen([args.binary, "run", self.app, "--workers", str(args.workers), "--control",
                                         self.control, "--log-file", self.log, "--log-level", "warn"])
        self.socket = self.connect()
        self.file = self.socket.makefile("r")

    def connect(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(str(self.control))
                return s
            except OSError:
                s.close()
                time.sleep(0.01)
        raise SystemExit("no answer from the server")

    def ask(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(self.file.readline())

    def port(self):
        while True:
            status = self.ask(command="status")
            if status["stage"] == "serving":
                return int(status["listeners"][0]["address"].rsplit(":", 1)[1])
            time.sleep(0.01)

    def rss_kib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise SystemExit("the server has ended")

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- what is done with it ----------------------------------------------------------------------------------------


class Reloader:
    def __init__(self, args, server, orders):
        self.args, self.server, self.orders = args, server, orders
        self.done = self.refused = self.number = 0
        self.good, self.took, self.rss, self.counts, self.wrong = {b"g1"}, [], [], {}, []

    def step(self):
        """One reload. Who is pinned to an old generation has to be renewed, or there will be too many of them."""
        if self.args.policy == "pin":
            self.orders.send(-(-self.args.connections // (self.args.keep - 3)))
        is_broken = self.done % 10 == 9
        what, broken = BROKEN[self.done // 10 % len(BROKEN)] if is_broken else ("good", None)
        if what == LOOP and self.counts.get(LOOP, 0) >= self.args.loops:
            what, broken = BROKEN[0]
        self.number = self.done + 2
        self.server.app.write_text(script(self.number, self.args.policy, self.args.keep, broken))
        if not is_broken:
            self.good.add(b"g%d" % self.number)  # the first answers may come before the outcome
        began = time.monotonic()
        answer = self.server.ask(command="reload", wait=True)
        if answer.get("code") == "reload_refused":
            self.refused += 1
            self.good.discard(b"g%d" % self.number)
            return
        self.took.append(time.monotonic() - began)
        self.done += 1
        self.counts[what] = self.counts.get(what, 0) + 1
        if answer["ok"] == is_broken or (not is_broken and "generation" not in answer["reload"]):
            self.wrong.append(f"reload {self.done}, {what}: {answer}")
        self.rss.append(self.server.rss_kib())


def measure(args, server, orders):
    """Segments with reloads and without, in turn. They end with the reloads. Returns the reloader and the segments."""
    reloader = Reloader(args, server, orders)
    segments, is_reloading = [], False
    time.sleep(args.warm_up)
    while reloader.done < args.times:
        began, cpu = time.monotonic(), server.cpu_s()
        next_at = began
        while time.monotonic() < began + args.segment and reloader.done < args.times:
            if is_reloading:
                reloader.step()
            elif args.policy == "pin":
                orders.send(-(-args.connections // (args.keep - 3)))
            next_at += args.every
            time.sleep(max(0, next_at - time.monotonic()))
        ended = time.monotonic()
        segments.append((is_reloading, began, ended, (server.cpu_s() - cpu) / (ended - began)))
        # Reloads take most of the time; as few segments without as a median needs.
        is_reloading = not is_reloading or (reloader.done < args.times and len(segments) % 4 != 0)
    return reloader, segments


def percentile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))]


def slope(values):
    """KiB a reload by least squares, and its standard error."""
    n = len(values)
    mean_x, mean_y = (n - 1) / 2, sum(values) / n
    var_x = sum((i - mean_x) ** 2 for i in range(n))
    b = sum((i - mean_x) * (y - mean_y) for i, y in enumerate(values)) / var_x
    rest = sum((y - mean_y - b * (i - mean_x)) ** 2 for i, y in enumerate(values))
    return b, (rest / max(1, n - 2) / var_x) ** 0.5


def latencies_of(seen, segments):
    """The 50th and 99th percentile of each segment's bursts in ms, with reloads and without."""
    all_of = {True: [], False: []}
    for is_reloading, began, ended, cpu in segments:
        values = sorted(v for t, v in zip(seen["times"], seen["latencies"]) if began <= t < ended)
        if len(values) >= 1000:
            all_of[is_reloading].append((percentile(values, 0.5) * 1e3, percentile(values, 0.99) * 1e3,
                                         values[-1] * 1e3, cpu))
    return all_of


def medians(rows):
    return [statistics.median(column) for column in zip(*rows)]


def report(args, reloader, segments, seen, status):
    problems = [*reloader.wrong, *seen["failures"][:10]]
    by_broken = sum(n for name, n in seen["names"].items() if name not in reloader.good)
    answered = sum(seen["names"].values())
    kinds = ", ".join(f"{n} {what}" for what, n in sorted(reloader.counts.items(), key=lambda c: -c[1]))
    took = sorted(reloader.took)
    print(f"{args.policy}: {reloader.done} reloads ({kinds}), {reloader.refused} refused and repeated; "
          f"{took[len(took) // 2] * 1e3:.0f} ms each (median), at most {took[-1] * 1e3:.0f} ms")
    print(f"{answered} frames on {seen['connections']} connections: {seen['unanswered']} unanswered, "
          f"{len(seen['failures'])} wrong or out of order, {by_broken} by a generation that was never accepted, "
          f"{seen['lost']} connections lost; answered by {len(seen['names'])} generations")
    if by_broken or seen["lost"] or seen["unanswered"]:
        problems.append("frames or connections were lost, or answered by a broken generation")
    half = reloader.rss[len(reloader.rss) // 2:]
    growth, error = slope(half)
    print(f"RSS: {growth:+.2f} ± {error:.2f} KiB a reload over the last {len(half)} "
          f"(from {half[0]} to {half[-1]} KiB, at most {max(half)}); generations at the end: "
          f"{len(status['generations'])}")
    rows = latencies_of(seen, segments)
    if not rows[True] or not rows[False]:
        print("too few frames to tell a latency")
        return problems + ["nothing was measured"] * args.judge
    with_, without = medians(rows[True]), medians(rows[False])
    ratio = with_[1] / without[1]
    print(f"p99 with reloads {with_[1]:.2f} ms, without {without[1]:.2f} ms, ratio {ratio:.2f} "
          f"(medians of {len(rows[True])} and {len(rows[False])} segments of {args.segment:g} s); p50 {with_[0]:.2f} and "
          f"{without[0]:.2f} ms, worst {with_[2]:.1f} and {without[2]:.1f} ms; server CPU {with_[3]:.0%} and "
          f"{without[3]:.0%}, client {seen['cpu'] / (segments[-1][2] - segments[0][1]):.0%} of a core")
    if args.judge and ratio > P99_RATIO_MAX:
        problems.append(f"the 99th percentile with reloads is {ratio:.2f} times the one without")
    if args.judge and growth - 2 * error > SLOPE_MAX_KIB:
        problems.append("memory grows")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="reloads (default 1000)")
    parser.add_argument("--policy", choices=("pin", "migrate"), default="pin")
    parser.add_argument("--every", type=float, default=0.2, help="seconds from one to the next (default 0.2)")
    parser.add_argument("--loops", type=int, default=5, help="endless ones among them, at 10 s each (default 5)")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50, help="frames a second and connection (default 50)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=int, default=12, help="reload.keep (default 12)")
    parser.add_argument("--segment", type=float, default=5, help="seconds of measuring with or without (default 5)")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds before anything is measured (default 3)")
    parser.add_argument("--log", help="the server's log; without it, it goes with the folder it is in")
    parser.add_argument("--json", help="write what was measured to this file")
    parser.add_argument("--no-judge", dest="judge", action="store_false",
                        help="the exit status does not depend on latency and memory")
    parser.add_argument("--binary", default=str(ROOT / "build" / "perilune"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perilune-reloads-") as name:
        server = Server(args, Path(name))
        ours, theirs = multiprocessing.Pipe()
        load = multiprocessing.Process(target=run_load, args=(args, server.port(), theirs), daemon=True)
        load.start()
        theirs.close()
        try:
            reloader, segments = measure(args, server, ours)
            ours.send("stop")
            seen = ours.recv()
            load.join()
            time.sleep(1)  # the last generations are buried
            status = server.ask(command="status")
            server.ask(command="stop", wait=True)
            code = server.process.wait(30)
        finally:
            if server.process.poll() is None:
                server.process.kill()
        problems = report(args, reloader, segments, seen, status)
        if code:
            problems.append(f"the server ended with {code}")
        if args.json:
            Path(args.json).write_text(json.dumps({"rss_kib": reloader.rss, "took_s": reloader.took}))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
