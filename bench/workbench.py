#!/usr/bin/env python3
"""How long a suite of handler tests takes: 500 of them, each with an app in memory, two connections and a time-out.

  bench/workbench.py [--binary build/perilune] [--tests 500] [--limit SECONDS] [--repeat 3]

Prints the best of several runs on one core, as JSON. With --limit: exit code 1 when it took longer.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

SPEC = """
local perilune = require "perilune.test"
describe("a suite", function()
  for i = 1, %d do
    it("has test " .. i, function()
      local app = perilune.app("%s")
      local ann, bob = app:connect(), app:connect()
      ann:expect("your name?"):send("ann"):expect("welcome, ann")
      bob:expect("your name?"):send("bob"):expect("welcome, bob")
      ann:expect("* bob joined"):send("hello")
      bob:expect("ann: hello")
      app:advance("5m")
      assert.equal("idle_timeout", ann:closed())
      assert.equal("idle_timeout", bob:closed())
    end)
  end
end)
"""


def run(binary, spec):
    began = time.monotonic()
    done = subprocess.run([binary, "test", "--output=json", spec], capture_output=True, text=True)
    seconds = time.monotonic() - began
    results = json.loads(done.stdout)
    if done.returncode or results["failures"] or results["errors"]:
        sys.exit(f"the suite failed:\n{done.stdout}{done.stderr}")
    return seconds, len(results["successes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "build/perilune"))
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        spec = os.path.join(folder, "suite_spec.lua")
        with open(spec, "w", encoding="utf-8") as file:
            file.write(SPEC % (options.tests, ROOT / "examples/chat.lua"))
        runs = [run(options.binary, spec) for _ in range(options.repeat)]
    if any(tests != options.tests for _, tests in runs):
        sys.exit(f"not all of the {options.tests} tests ran")
    best = min(seconds for seconds, _ in runs)
    print(json.dumps({"tests": options.tests, "seconds": round(best, 2), "ms_per_test": round(best * 1000 / options.tests, 2)}))
    if options.limit and best > options.limit:
        sys.exit(f"that is more than {options.limit} seconds")


if __name__ == "__main__":
    main()
