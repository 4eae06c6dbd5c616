#!/usr/bin/env python3
"""Measures Perilune's TLS beside nginx's stream module and Go's crypto/tls. See bench/README.md."""

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
GO_ECHO = "build/bench/go_tls_echo"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")  # elsewhere it may be built in
# All else is as nginx has it. One ticket for a connection, where the default is two, is what the others send.
NGINX_CONFIG = """
{module}
{user}
daemon off;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 16384; }}
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
OTHERS = {"nginx_tls": "nginx", "go_tls": "Go"}
# Load → what the table calls it, and its metric. What the client is told is in scripts/bench.
MEASURED = {
    "tls.p1": ("32 B × 1, frames/s", "frames_per_s"),
    "tls.p16": ("32 B × 16, frames/s", "frames_per_s"),
    "tls.4k": ("4 KiB × 4, frames/s", "frames_per_s"),
    "tls.handshakes": ("full handshakes/s", "cycles_per_s"),
    "tls.resumed": ("resumed handshakes/s", "cycles_per_s"),
    "tls.idle": ("RSS of an idle connection, B", "bytes_per_connection"),
}
# What has been measured of a server → the same of its backend. The sum is recorded under `whole_`.
BACKEND = {"server_ns_per_frame": "backend_ns_per_frame", "server_ns_per_cycle": "backend_ns_per_cycle",
           "bytes_per_connection": "backend_bytes_per_connection"}


# ---- servers -----------------------------------------------------------------------------------------------------


class Nginx(bench.Server):
    """The stream module before an echo, which has the client's core."""

    def __init__(self, pem, logs):
        port = bench.free_port(socket.SOCK_STREAM)
        path = Path(logs) / f"backend-{port}"
        config = Path(logs) / f"nginx-{port}.conf"
        config.write_text(NGINX_CONFIG.format(
            module=f"load_module {STREAM_MODULE};" if STREAM_MODULE.exists() else "",
            # A worker of root's is nobody's, and nobody may not use the backend's socket.
            user="user root;" if os.geteuid() == 0 else "",
            folder=logs, port=port, certificate=pem["CERTIFICATE"], key=pem["KEY"], backend=path), encoding="utf-8")
        backend = bench.Server("backend", "build/bench/epoll_echo --unix {app}", path, logs, core=bench.LOAD_CORE)
        backend.wait(path.exists, "did not listen")
        super().__init__("nginx_tls", f"{NGINX} -e stderr -p {{app}} -c {config}", logs, logs, pem=pem, port=port,
                         backend=backend)

    @property
    def pid(self):
        """The worker: the only child of the master."""
        master = self.process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()[0])

    def stop(self):
        troubles = [super().stop(), self.backend.stop()]
        return "\n".join(filter(None, troubles)) or None


def install():
    try:
        subprocess.run([ROOT / "scripts" / "setup", "--others"], check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as err:
        bench.say(f"others: not everything is installed: {err}")


def build_go():
    """Returns why there is no echo in Go, or None. Asks no network, and writes to build/ only."""
    if not shutil.which("go"):
        return "there is no go"
    environment = {**os.environ, "GOCACHE": str(ROOT / "build" / "bench" / "go"), "GOPROXY": "off",
                   "GO111MODULE": "off", "CGO_ENABLED": "0"}
    built = subprocess.run(["go", "build", "-o", GO_ECHO, "bench/yardstick/go_tls_echo.go"], cwd=ROOT,
                           env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return f"go build: {built.stderr.strip()}" if built.returncode else None


def try_nginx():
    """Returns why nginx cannot be measured, or None."""
    if not NGINX:
        return "there is no nginx"
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as logs:
        try:
            server = Nginx(bench.make_certificate(logs), logs)
        except bench.BenchError as err:
            return str(err)
        try:
            server.wait_answering()
            return None
        except bench.BenchError as err:
            return str(err)
        finally:
            server.stop()


def available():
    """The others that can be measured. Says of the rest why they cannot."""
    reasons = {"nginx_tls": try_nginx(), "go_tls": build_go()}
    for name, reason in reasons.items():
        if reason:
            bench.say(f"others: {OTHERS[name]} is left out: {reason}")
    return [name for name, reason in reasons.items() if not reason]


# ---- running -----------------------------------------------------------------------------------------------------


class Others(bench.Bench):
    def __init__(self, args, others, logs):
        cells = [bench.Cell(load, title, load, metric, subject=args.subject, ratio_to=other)
                 for load, (title, metric) in MEASURED.items() for other in others]
        super().__init__(args, cells, logs)
        self.servers = [args.subject, *others]
        listen = "--listen 127.0.0.1:{port} --certificate {certificate} --key {key}"
        self.templates["go_tls"] = (f"{GO_ECHO} {listen}", None)

    def start(self, name):
        if name != "nginx_tls":
            return super().start(name)
        server = Nginx(self.pem, self.logs)
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
        for name in self.servers:
            self.idle("tls.idle", [name], self.args.idle_tls_connections, "--tls")

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


def version(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (done.stdout or done.stderr).strip()


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    p.add_argument("--duration", type=float, default=1.0, metavar="S", help="measured seconds of each run, default 1")
    p.add_argument("--warmup", type=float, default=0.3, metavar="S", help="seconds before them, default 0.3")
    p.add_argument("--view", dest="subject", action="store_const", const="tls_view", default="tls",
                   help="lend Perilune's handler the bytes (apps/echo_tls_view.lua) instead of giving it a string")
    p.add_argument("--json", metavar="FILE", help="results and every run as JSON")
    p.add_argument("--no-install", action="store_true", help="measure what is there, without asking apt for the rest")
    p.add_argument("--no-build", action="store_true", help="do not call scripts/build")
    p.set_defaults(server=None, server_view=None, server_tls=None, server_udp=None, server_proxy=None,
                   idle_connections=None, idle_tls_connections=2000)
    args = p.parse_args()
    if args.rounds < 1 or args.duration <= 0 or args.warmup < 0:
        p.error("--rounds, --duration and --warmup must be positive")
    return args


def main():
    args = parse()
    bench.check_machine()
    # SIGTERM takes the road of Ctrl-C, through the finally below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.no_install:
        install()
    bench.build(perilune_too=not args.no_build)
    others = available()
    if not others:
        raise bench.BenchError("there is nothing to compare with")
    bench.LOADS = {load: (arguments, [args.subject, *others]) for load, (arguments, _) in bench.LOADS.items()
                   if load in MEASURED}
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as logs:
        measured = Others(args, others, logs)
        try:
            measured.run()
        finally:
            measured.stop_all()
    measured.check_conditions()
    rows = [measured.row(cell) for cell in measured.cells]
    print(table(rows))
    if args.json:
        conditions = {**bench.conditions(measured), "nginx": NGINX and version(NGINX, "-v"),
                      "go": version("go", "version")}
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
