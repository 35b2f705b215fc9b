"""Measure the memory growth of inference: two simulated hours at a hundred answers a second, in ten minutes.

    python -m benchmarks.memory [--hours 2] [--speed 12] [--answers 100] [--swap-minutes 10]

Exchange and inference share a clock that runs ``--speed`` times as fast as the wall clock. wrk asks ``--answers``
questions per second of that clock, each with a new height. The champions are swapped every ten minutes of that clock
(0: never). The topics are the topics of config.example.json for which the published networks have a head.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import psutil
import requests

from benchmarks.tools.fast_clock import FastClock
from core.clock import HOUR_MS, MINUTE_MS
from exchange.server import SimulatedExchange
from model.heads import head_of
from model.panels import HOUR, MINUTE, panel_of
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.inference.stand import HEADS, publish

EXAMPLE = Path(__file__).parents[1] / "config.example.json"
CONNECTIONS = 8
LOOK_S = 1.0
LUA = """
local height, number, paths = 1000000, 0, {}
for path in string.gmatch(os.getenv("PATHS"), "%S+") do table.insert(paths, path) end
delay = function() return tonumber(os.getenv("DELAY_MS")) end
request = function()
  number = number + 1
  return wrk.format("GET", paths[number % #paths + 1] .. "&height=" .. (height + number))
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def report(samples: list[tuple[float, float]], hours: float) -> None:
    """Print the memory over time, and the slope over the later two thirds with the standard error."""
    at_h, mb = (np.array(column) for column in zip(*samples, strict=True))
    for mark in np.linspace(0, hours, 9)[1:]:
        print(f"{mark:>6.2f} h{mb[np.searchsorted(at_h, mark) - 1]:>10.1f} MB")
    later = at_h > hours / 3
    blocks = [chunk.mean() for chunk in np.array_split(mb[later], 24)]  # neighbouring samples are not independent
    (slope, _), covariance = np.polyfit(np.linspace(hours / 3, hours, 24), blocks, 1, cov=True)
    print(f"slope over the later two thirds: {slope:+.2f} +- {covariance[0, 0] ** 0.5:.2f} MB per simulated hour")


def watch(
    hours: float,
    speed: float,
    swap_minutes: float,
    clock: FastClock,
    swap: Callable[[], None],
    process: psutil.Process,
    asked: Sequence[str],
    environment: dict[str, str],
) -> None:
    """Ask for ``hours`` of the fast clock, swap champions, measure the memory, and report."""
    wall_s = round(hours * 3600 / speed)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{wall_s}s", "--timeout", "5s", "-s", *asked]
    wrk = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    first_ms = swapped_ms = clock.now_ms()
    samples: list[tuple[float, float]] = []
    while wrk.poll() is None:
        now_ms = clock.now_ms()
        if 0 < swap_minutes * MINUTE_MS <= now_ms - swapped_ms:
            swapped_ms = now_ms
            swap()
        samples.append(((now_ms - first_ms) / HOUR_MS, process.memory_info().rss / 1e6))
        time.sleep(LOOK_S)
    assert wrk.stdout
    answers, refused, failed = wrk.stdout.read().rpartition("RESULT")[2].split()
    print(f"{answers} answers, {refused} not 200, {failed} did not come; {hours:g} h in {wall_s} s")
    report(samples, hours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="of simulated time")
    parser.add_argument("--speed", type=float, default=12.0)
    parser.add_argument("--answers", type=float, default=100.0, help="a simulated second")
    parser.add_argument("--swap-minutes", type=float, default=10.0, help="of simulated time between champions")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    base_ms, began_s = time.time_ns() // 1_000_000, time.monotonic()
    clock = FastClock(base_ms, began_s, options.speed)
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0, clock=clock) as exchange:
        folder, url, lua = Path(name), f"http://127.0.0.1:{(port := free_port())}", Path(name) / "ask.lua"
        lua.write_text(LUA)
        registry = Registry(folder)
        topics = [t for t in topics_from_config(EXAMPLE) if head_of(t).key in HEADS[panel_of(t.horizon_min).name]]
        panels = {panel: [t for t in topics if panel_of(t.horizon_min) is panel] for panel in (MINUTE, HOUR)}
        networks = {panel: [publish(registry, output, base_ms, panel) for output in (0.1, 0.2)] for panel in panels}
        turns = cycle((0, 1))

        def swap() -> None:
            turn = next(turns)
            for panel, of_panel in panels.items():
                registry.promote(of_panel, networks[panel][turn], clock.now_ms())

        swap()
        environment = simulated_environment(exchange, folder, port, CONFIG_FILE=str(EXAMPLE)) | {
            "PATHS": " ".join(f"/inference/{topic.token}?topic={topic.topic_id}" for topic in topics),
            "DELAY_MS": str(round(1000 * CONNECTIONS / (options.answers * options.speed))),
        }
        began = [str(base_ms), repr(began_s), str(options.speed)]
        command = [sys.executable, "-m", "benchmarks.tools.fast_clock", *began]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while True:
                try:
                    if requests.get(f"{url}/readyz", timeout=2).status_code == 200:
                        break
                except requests.RequestException:
                    time.sleep(0.1)
            observed = psutil.Process(process.pid)
            span = (options.hours, options.speed, options.swap_minutes)
            watch(*span, clock, swap, observed, [str(lua), url], environment)
        finally:
            process.terminate()
            process.wait(timeout=10)


if __name__ == "__main__":
    main()
