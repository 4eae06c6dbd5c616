"""A server with a script of the caller's, for the programs beside. See bench/README.md."""

import contextlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PERILUNE = ROOT / "build" / "perilune"
PATIENCE_S = 60


class Server:
    """Its log is JSON, which the script has to say."""

    def __init__(self, process, log):
        self.process, self.log = process, log

    def entry(self, message, count=1):
        """The count-th entry of the log with that message, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.entries(message)
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.01)
        raise SystemExit(f"no {message!r} in the log:\n" + self.log.read_text()[-2000:])

    def entries(self, message):
        lines = self.log.read_text().splitlines(keepends=True)
        entries = map(json.loads, (line for line in lines if line.endswith("\n")))  # the last may be half written
        return [entry for entry in entries if entry["message"] == message]

    @property
    def port(self):
        return int(self.entry("listening")["address"].rsplit(":", 1)[1])


@contextlib.contextmanager
def serving(script, modules=None):
    """Serves the text of a script, and of modules by their names, until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        app, log = Path(folder) / "app.lua", Path(folder) / "log"
        app.write_text(script)
        for name, text in (modules or {}).items():
            (Path(folder) / f"{name}.lua").write_text(text)
        with log.open("w") as out:
            process = subprocess.Popen([PERILUNE, "run", app], stderr=out)
        try:
            yield Server(process, log)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
