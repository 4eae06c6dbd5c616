#!/usr/bin/env python3
"""Measures Perilune's TLS beside nginx's stream module and Go's crypto/tls, or its HTTP beside nginx, h2o, Node and Go.
See bench/README.md."""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GO = {"go_tls": "go_tls_echo", "go_http": "go_http"}  # participant → its program
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")  # elsewhere it may be built in
# One ticket for a connection, where the default is two, is what the others send.
NGINX_STREAM = """
stream {{
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_conf_command NumTickets 1;
    proxy_pass unix:{backend};
  }}
}}
"""


def load_bench():
    """scripts/bench as a module: its servers, loads and medians."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("bench", str(ROOT / "scripts" / "bench"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
    loader.exec_module(module)
    return module


bench = load_bench()
web = bench.web
OTHERS = {"nginx_tls": "nginx", "go_tls": "Go", "nginx": "nginx", "nginx_lua": "nginx + Lua", "h2o": "h2o",
          "node_http": "Node", "go_http": "Go"}
# Load → what the table calls it, its metric, which of Perilune's programs is measured, and beside whom. What the client
# is told is in scripts/bench.
TLS_OTHERS = ["nginx_tls", "go_tls"]
HTTP_OTHERS = ["nginx", "nginx_lua", "h2o", "node_http", "go_http"]
FILE_OTHERS = ["nginx", "h2o", "go_http"]
MEASURED = {
    "tls": {
        "tls.p1": ("32 B × 1, frames/s", "frames_per_s", "tls", TLS_OTHERS),
        "tls.p16": ("32 B × 16, frames/s", "frames_per_s", "tls", TLS_OTHERS),
        "tls.4k": ("4 KiB × 4, frames/s", "frames_per_s", "tls", TLS_OTHERS),
        "tls.handshakes": ("full handshakes/s", "cycles_per_s", "tls", TLS_OTHERS),
        "tls.resumed": ("resumed handshakes/s", "cycles_per_s", "tls", TLS_OTHERS),
        "tls.idle": ("RSS of an idle connection, B", "bytes_per_connection", "tls", TLS_OTHERS),
    },
    "http": {
        "http.get": ("GET, 13 B × 1, requests/s", "frames_per_s", "http", HTTP_OTHERS),
        "http.p16": ("GET, 13 B × 16, requests/s", "frames_per_s", "http", HTTP_OTHERS),
        "http.json": ("POST, 4 KiB of JSON, requests/s", "frames_per_s", "http_json",
                      ["nginx_lua", "node_http", "go_http"]),
        "http.4k": ("a file of 4 KiB, requests/s", "frames_per_s", "http_files", FILE_OTHERS),
        "http.1m": ("a file of 1 MiB, requests/s", "frames_per_s", "http_files", FILE_OTHERS),
        "http.idle": ("RSS of an idle connection, B", "bytes_per_connection", "http", HTTP_OTHERS),
    },
}
NEEDS = {"nginx_tls": {"nginx": web.NGINX}, **web.NEEDS, "h2o": {"h2o": web.H2O},
         "node_http": {"node": shutil.which("node")}}
# What has been measured of a server → the same of its backend. The sum is recorded under `whole_`.
BACKEND = {"server_ns_per_frame": "backend_ns_per_frame", "server_ns_per_cycle": "backend_ns_per_cycle",
           "bytes_per_connection": "backend_bytes_per_connection"}


# ---- servers -----------------------------------------------------------------------------------------------------


class NginxStream(web.Nginx):
    """The stream module before an echo, which has the client's core."""

    def __init__(self, pem, logs):
        port = bench.free_port(socket.SOCK_STREAM)
        path = Path(logs) / f"backend-{port}"
        block = NGINX_STREAM.format(port=port, certificate=pem["CERTIFICATE"], key=pem["KEY"], backend=path)
        backend = bench.Server("backend", "build/bench/epoll_echo --unix {app}", path, logs, core=bench.LOAD_CORE)
        backend.wait(path.exists, "did not listen")
        super().__init__("nginx_tls", logs, port, block, modules=[STREAM_MODULE] if STREAM_MODULE.exists() else [],
                         pem=pem, backend=backend)

    def stop(self):
        troubles = [super().stop(), self.backend.stop()]
        return "\n".join(filter(None, troubles)) or None


def install():
    try:
        subprocess.run([ROOT / "scripts" / "setup", "--others"], check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as err:
        bench.say(f"others: not everything is installed: {err}")


def build_go(name):
    """Returns why there is no such program in Go, or None. Asks no network, and writes to build/ only."""
    if not shutil.which("go"):
        return "there is no go"
    environment = {**os.environ, "GOCACHE": str(ROOT / "build" / "bench" / "go"), "GOPROXY": "off",
                   "GO111MODULE": "off", "CGO_ENABLED": "0"}
    built = subprocess.run(["go", "build", "-o", f"build/bench/{name}", f"bench/yardstick/{name}.go"], cwd=ROOT,
                           env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return f"go build: {built.stderr.strip()}" if built.returncode else None


def try_out(start):
    """Starts a server in a folder of its own. Returns why it does not answer, or None."""
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as logs:
        web.prepare(logs)
        try:
            server = start(logs)
        except bench.BenchError as err:
            return str(err)
        try:
            server.wait_answering()
            return None
        except bench.BenchError as err:
            return str(err)
        finally:
            server.stop()


def reason_against(name):
    """Why a server cannot be measured, or None."""
    missing = [what for what, there in NEEDS.get(name, {}).items() if not there]
    if missing:
        return f"there is no {', no '.join(missing)}"
    if name in GO:
        return build_go(GO[name])
    starts = {"nginx_tls": lambda logs: NginxStream(bench.make_certificate(logs), logs),
              "nginx": lambda logs: web.nginx("nginx", logs), "nginx_lua": lambda logs: web.nginx("nginx_lua", logs),
              "h2o": web.h2o}
    return try_out(starts[name]) if name in starts else None


def available(what):
    """The others that can be measured. Says of the rest why they cannot."""
    names = dict.fromkeys(name for *_, others in MEASURED[what].values() for name in others)
    reasons = {name: reason_against(name) for name in names}
    for name, reason in reasons.items():
        if reason:
            bench.say(f"others: {OTHERS[name]} is left out: {reason}")
    return [name for name, reason in reasons.items() if not reason]


# ---- running -----------------------------------------------------------------------------------------------------


class Others(bench.Bench):
    def __init__(self, args, measured, logs):
        cells = [bench.Cell(load, title, load, metric, subject=subject, ratio_to=other)
                 for load, (title, metric, subject, others) in measured.items() for other in others]
        super().__init__(args, cells, logs)
        self.measured = measured
        listen = "--listen 127.0.0.1:{port}"
        self.templates["go_tls"] = (
            f"build/bench/go_tls_echo {listen} --certificate {{certificate}} --key {{key}}", None)
        self.templates["go_http"] = (f"build/bench/go_http {listen} --folder {{app}}", logs)
        self.templates["node_http"] = ("node {app} {port}", "bench/yardstick/node_http.js")

    def start(self, name):
        if name == "nginx_tls":
            server = NginxStream(self.pem, self.logs)
        elif name == "h2o":
            server = web.h2o(self.logs)
        else:
            return super().start(name)
        self.started.append(server)
        return server

    def client(self, server, arguments, seconds=0.0):
        result = super().client(server, arguments, seconds)
        if result and server.backend:
            for what, behind in BACKEND.items():
                if behind in result:
                    result[f"whole_{what}"] = result[what] + result[behind]
        return result

    def run(self):
        self.loads()
        for load, (_, metric, subject, others) in self.measured.items():
            for name in [subject, *others] if metric == "bytes_per_connection" else []:
                self.idle(load, [name])

    def row(self, cell):
        row = super().row(cell)
        row["other"] = cell.ratio_to
        row["whole_ratio"] = self.whole_ratio(cell)
        row["busy"] = [bench.median(self.values(cell.load, name, "server_busy").values())
                       for name in (cell.subject, cell.ratio_to)]
        return row

    def whole_ratio(self, cell):
        """What `by CPU` is, or that of memory, to the other server and its backend together."""
        metric = bench.CPU_METRIC.get(cell.metric, cell.metric)
        ours, whole = (self.values(cell.load, name, what)
                       for name, what in ((cell.subject, metric), (cell.ratio_to, f"whole_{metric}")))
        ratios = [whole[r] / ours[r] for r in ours.keys() & whole.keys() if ours[r]]
        if metric == cell.metric:
            ratios = [1 / ratio for ratio in ratios]
        return bench.median(ratios)

    def check_conditions(self):
        timed = [r for r in self.runs if "server_waited" in r]
        shared = sum(map(bench.is_disturbed, timed))
        if shared:
            self.warn(f"{shared} of {len(timed)} runs shared a core with something else for more than "
                      f"{bench.DISTURBED:.0%} of the time. Trust the column 'by CPU' more than rates")


# ---- output ------------------------------------------------------------------------------------------------------


def percent(share):
    return "" if share is None else f"{share:.0%}"


def optional(value):
    return "" if value is None else bench.number(value)


def table(rows):
    head = ("", "Perilune to", "ratio", "rounds", "by CPU", "with backend", "Perilune", "other", "busy", "other busy")
    lines = [head]
    for row in rows:
        spread = f"{bench.number(min(row['rounds']))} – {bench.number(max(row['rounds']))}" if row["rounds"] else "–"
        lines.append((row["title"], OTHERS[row["other"]], bench.number(row["value"]), spread,
                      optional(row.get("cpu_ratio")), optional(row["whole_ratio"]), bench.number(row["subject"]),
                      bench.number(row["reference"]), *map(percent, row["busy"])))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(f"{c:<{w}}" if i < 2 else f"{c:>{w}}"
                               for i, (c, w) in enumerate(zip(line, widths))).rstrip() for line in lines)


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", nargs="?", choices=list(MEASURED), default="tls", help="default tls")
    p.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    p.add_argument("--duration", type=float, default=1.0, metavar="S", help="measured seconds of each run, default 1")
    p.add_argument("--warmup", type=float, default=0.3, metavar="S", help="seconds before them, default 0.3")
    p.add_argument("--view", action="store_true",
                   help="of tls: lend Perilune's handler the bytes (apps/echo_tls_view.lua), which is given a string else")
    p.add_argument("--json", metavar="FILE", help="results and every run as JSON")
    p.add_argument("--no-install", action="store_true", help="measure what is there, without asking apt for the rest")
    p.add_argument("--no-build", action="store_true", help="do not call scripts/build")
    p.set_defaults(server=None, server_view=None, server_tls=None, server_udp=None, server_proxy=None,
                   idle_connections=10000, idle_tls_connections=2000)
    args = p.parse_args()
    if args.rounds < 1 or args.duration <= 0 or args.warmup < 0:
        p.error("--rounds, --duration and --warmup must be positive")
    if args.view and args.what != "tls":
        p.error("--view is of tls")
    return args


def to_measure(args, available_others):
    """The loads, with those who are there."""
    return {load: (title, metric, "tls_view" if args.view else subject, [o for o in others if o in available_others])
            for load, (title, metric, subject, others) in MEASURED[args.what].items()}


def main():
    args = parse()
    bench.check_machine()
    # SIGTERM takes the road of Ctrl-C, through the finally below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.no_install:
        install()
    bench.build(perilune_too=not args.no_build)
    others = available(args.what)
    if not others:
        raise bench.BenchError("there is nothing to compare with")
    loads = to_measure(args, others)
    bench.LOADS = {load: (arguments, [loads[load][2], *loads[load][3]])
                   for load, (arguments, _) in bench.LOADS.items() if load in loads}
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as logs:
        measured = Others(args, loads, logs)
        try:
            measured.run()
        finally:
            measured.stop_all()
    measured.check_conditions()
    rows = [measured.row(cell) for cell in measured.cells]
    print(table(rows))
    if args.json:
        conditions = {**bench.conditions(measured), "go": bench.first_line(["go", "version"]),
                      "node": bench.first_line(["node", "--version"]),
                      "h2o": web.H2O and bench.first_line([web.H2O, "--version"])}
        report = {"conditions": conditions, "rows": rows, "warnings": measured.warnings, "runs": measured.runs}
        Path(args.json).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except bench.BenchError as err:
        bench.say(f"others: {err}")
        sys.exit(2)
    except KeyboardInterrupt:
        bench.say("others: interrupted")
        sys.exit(130)
