"""The servers that are measured: started on a core, waited for, ended. For scripts/bench and what is beside it."""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1


def program(name):
    """Where it is, or None. Debian has servers where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


NGINX = program("nginx")
NGINX_CONFIG = """
{modules}
{user}
daemon off;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 16384; }}
{block}
"""


class BenchError(Exception):
    """Something that keeps the benchmark from running, as opposed to a cell that fails."""


def die_with_parent():
    """In the child: a killed benchmark leaves no server behind (PR_SET_PDEATHSIG). An interrupted one ends its children
    itself, which is why they are in sessions of their own, out of reach of the terminal's Ctrl-C."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_port(kind):
    with socket.socket(type=kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_listening(port):
    """Asks the kernel, so that a server whose memory is to be measured has not seen a connection yet."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        return any(int(f[1].split(":")[1], 16) == port and f[3] == "0A" for f in map(str.split, table))


class Server:
    def __init__(self, name, template, app, logs, *, pem=None, udp=False, request=None, port=None, backend=None,
                 core=SERVER_CORE, environment=None):
        """`pem`: the files of one that speaks TLS, as its environment has them. `request`: what to ask one that speaks
        HTTP. `backend`: the server that it asks."""
        self.name, self.pem, self.udp, self.request, self.backend = name, pem, udp, request, backend
        self.port = port or free_port(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        told = {variable.lower(): path for variable, path in (pem or {}).items()}
        environment = {**os.environ, **(pem or {}), **(environment or {})}
        if backend:
            told["backend"] = backend.port
            environment["BACKEND"] = f"tcp://127.0.0.1:{backend.port}"
        self.command = shlex.split(template.format(app=app, port=self.port, **told))
        self.log_path = Path(logs) / f"{name}-{self.port}.log"
        with open(self.log_path, "wb") as log:
            try:
                self.process = subprocess.Popen(["taskset", "-c", str(core), *self.command], cwd=ROOT,
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                                start_new_session=True, preexec_fn=die_with_parent)
            except OSError as err:
                raise BenchError(f"cannot start {name}: {err}") from err

    @property
    def pid(self):
        """The process that serves, whose CPU time and memory are measured."""
        return self.process.pid

    def wait(self, ready, what, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with status {self.process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} {what} within {seconds:g} s\n{self.log_tail()}")
            time.sleep(0.02)

    def wait_listening(self):
        self.wait(lambda: is_listening(self.port), "did not listen")

    def wait_answering(self):
        self.wait(self.answers, "did not answer")

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        if not self.pem:
            return s
        with s:
            return ssl.create_default_context(cafile=self.pem["CERTIFICATE"]).wrap_socket(
                s, server_hostname="localhost")

    def answers_datagram(self):
        payload = os.urandom(32)
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as s:
                s.settimeout(1)
                s.connect(("127.0.0.1", self.port))
                s.send(payload)
                return s.recv(len(payload) + 1) == payload
        except OSError:
            return False

    def answers_http(self):
        try:
            with self.connect() as s:
                s.sendall(self.request)
                return s.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 101")
        except OSError:
            return False

    def answers(self):
        if self.udp:
            return self.answers_datagram()
        if self.request:
            return self.answers_http()
        payload = os.urandom(32)
        frame = struct.pack(">I", len(payload)) + payload
        try:
            with self.connect() as s:
                s.sendall(frame)
                reply = b""
                while len(reply) < len(frame):
                    piece = s.recv(len(frame) - len(reply))
                    if not piece:
                        return False
                    reply += piece
        except OSError:
            return False
        return reply == frame

    def log_tail(self, lines=15):
        tail = self.log_path.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  | {line}" for line in [shlex.join(self.command), *tail])

    def stop(self):
        """Returns what was wrong about its end, or None."""
        process = self.process
        died = process.poll()
        if died is not None:
            return f"{self.name} ended by itself with status {died}\n{self.log_tail()}"
        process.terminate()
        try:
            status = process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"{self.name} did not end within 15 s of SIGTERM and was killed\n{self.log_tail()}"
        if status not in (0, -signal.SIGTERM):
            return f"{self.name} ended with status {status} after SIGTERM\n{self.log_tail()}"
        return None


class Nginx(Server):
    """One worker. `block`: what it serves; of its configuration all else is as nginx has it."""

    def __init__(self, name, logs, port, block, *, modules=(), **more):
        config = Path(logs) / f"{name}-{port}.conf"
        config.write_text(NGINX_CONFIG.format(
            modules="".join(f"load_module {module};\n" for module in modules),
            # A worker of root's is nobody's, and nobody may not use what is in the benchmark's folder.
            user="user root;" if os.geteuid() == 0 else "",
            folder=logs, port=port, block=block), encoding="utf-8")
        super().__init__(name, f"{NGINX} -e stderr -p {{app}} -c {config}", logs, logs, port=port, **more)

    @property
    def pid(self):
        """The worker: the only child of the master."""
        master = self.process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()[0])
