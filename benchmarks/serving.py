"""Compare answers with an empty FastAPI route: quiet, while training, while swapping and without the exchange.

    python -m benchmarks.serving [--seconds 4] [--rounds 3] [--training-days 10] [--quick]

Everything runs on loopback and on the same cores: the simulated exchange with its streams, ``python -m inference`` on a
published network, the empty route, a worker that does everything per request, and wrk, which asks (on Debian and
Ubuntu: ``apt-get install wrk``). The servers are asked in turn, some seconds each; figures and ratios are medians over
the rounds. Each question has a height of its own, so that each answer is made and kept, except in the line that says
otherwise. Any answer that is not 200 ends the run.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

import psutil
import requests

from core.settings import load_settings
from core.topic import CatalogueTopic
from exchange.server import SimulatedExchange
from model.panels import MINUTE, panels_for
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment

ROOT = Path(__file__).parents[1]
LUA = """
local height = tonumber(os.getenv("HEIGHT"))
local paths, number = {}, 0
for path in string.gmatch(os.getenv("PATHS"), "%S+") do table.insert(paths, path) end
request = function()
  number = number + 1
  local path = paths[number % #paths + 1]
  if height == 0 then return wrk.format("GET", path) end
  return wrk.format("GET", path .. "&height=" .. (height + math.floor(number / #paths)))
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %.1f %.1f\\n", summary.requests, summary.duration,
    e.status, e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""
HEIGHTS = count(1_000_000, 10_000_000)  # where each turn's begin
FIVE = ("BTC", "ETH", "SOL", "NEAR", "XRP")
TRAIN = (
    "from updater.service import train_once; from node.config_file import topics_from_config as t; "
    "from core.settings import load_settings as s; x = s(); train_once(x, t(*x.config_files), panels=('minute',))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The result of one turn of wrk."""

    per_s: float
    median_ms: float
    tail_ms: float  # 99th percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A server and the questions to it."""

    name: str
    url: str  # of the server
    paths: tuple[str, ...] = ("/",)  # asked in turn
    heights: bool = False


def turn(asked: Asked, connections: int, seconds: int, lua: Path) -> Turn:
    """Ask for some seconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(lua), asked.url]
    height = next(HEIGHTS) if asked.heights else 0
    environment = {**os.environ, "HEIGHT": str(height), "PATHS": " ".join(asked.paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\S+) (\S+)", done.stdout)
    assert found, done.stdout
    requests_, duration_us, refused, failed = (int(found[n]) for n in range(1, 5))
    if refused or failed:
        raise SystemExit(f"{asked.name}: {refused} answers were not 200 and {failed} did not come")
    per_s = requests_ / duration_us * 1e6
    return Turn(per_s=per_s, median_ms=float(found[5]) / 1000, tail_ms=float(found[6]) / 1000)


def compare(what: str, servers: Sequence[Asked], connections: int, seconds: int, rounds: int, lua: Path) -> None:
    """Ask the servers in turn and print the medians; the last server is the standard.

    A ratio is taken within a round, of two turns next to each other: the machine's own pace changes between rounds.
    """
    turns: dict[str, list[Turn]] = {asked.name: [] for asked in servers}
    for _ in range(rounds):
        for asked in servers:
            turns[asked.name].append(turn(asked, connections, seconds, lua))
    bases = turns[servers[-1].name]
    for asked in servers:
        own = turns[asked.name]
        middle = statistics.median(one.median_ms for one in own)
        per_s, tail = statistics.median(one.per_s for one in own), statistics.median(one.tail_ms for one in own)
        pairs = list(zip(own, bases, strict=True))
        slower = statistics.median(one.median_ms / base.median_ms for one, base in pairs)
        share = statistics.median(one.per_s / base.per_s for one, base in pairs)
        print(
            f"{what:<26}{asked.name:<16}{connections:>6}{per_s:>10.0f}{middle:>10.3f}{tail:>9.2f}{slower:>9.2f}{share:>9.2f}",
            flush=True,
        )


def wait_for(url: str, patience_s: float = 60.0) -> float:
    """Seconds until ``url`` answers 200."""
    began = time.perf_counter()
    while time.perf_counter() - began < patience_s:
        with suppress(requests.RequestException):
            if requests.get(url, timeout=2).status_code == 200:
                return time.perf_counter() - began
        time.sleep(0.02)
    raise SystemExit(f"{url} did not answer 200 within {patience_s} s")


@contextmanager
def running(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process while the block runs."""
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def repeated(work: Callable[[], object], every_s: float) -> Iterator[None]:
    """Do ``work`` again and again in a thread while the block lasts."""
    over = threading.Event()

    def go() -> None:
        while not over.wait(every_s):
            work()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_for_child(training: "subprocess.Popen[bytes]", patience_s: float = 120.0) -> None:
    """Wait until the updater's training process runs."""
    deadline = time.monotonic() + patience_s
    while not psutil.Process(training.pid).children():
        if time.monotonic() > deadline or training.poll() is not None:
            raise SystemExit("the training did not begin")
        time.sleep(0.1)


def without_exchange(exchange: SimulatedExchange, measure: Callable[[str], None]) -> None:
    """Measure while the exchange refuses every request, and while it hangs."""
    exchange.fail_next("/", 1_000_000, status=503)
    exchange.fail_stream("half_open")
    exchange.fail_stream("refuse", seconds=3600)
    measure("exchange refuses")
    exchange.clear_faults()
    time.sleep(5)  # for prices to be fresh again: what is measured next must not begin with the age of this
    exchange.fail_next("/", 1_000_000, delay_s=20.0)
    exchange.fail_stream("silence", seconds=20)
    measure("exchange hangs")
    exchange.clear_faults()


def start_and_memory(what: str, topics: Sequence[CatalogueTopic], environment: dict[str, str], folder: Path) -> None:
    """Start inference on stored data; print the time until ready and the memory."""
    folder.mkdir()
    port = str(free_port())
    configs = ",".join(map(str, write_configs(folder, topics)))
    with running(["-m", "inference"], environment | {"CONFIG_FILE": configs, "PORT": port}, folder / "log") as process:
        ready_s = wait_for(f"http://127.0.0.1:{port}/readyz")
        for topic in topics:
            question = {"topic": str(topic.topic_id), "network": topic.network}
            requests.get(f"http://127.0.0.1:{port}/inference/{topic.asset}", params=question, timeout=5)
        rss = psutil.Process(process.pid).memory_info().rss / 1e6
    symbols = len({topic.asset for topic in topics})
    print(f"{what}: {len(topics)} topics, {symbols} symbols: start to ready {ready_s:.2f} s, {rss:.0f} MB resident")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training-days", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one round of two seconds, six days of training")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    seconds, rounds = (2, 1) if options.quick else (options.seconds, options.rounds)
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder, log, port, lua = Path(name), Path(name) / "log", free_port(), Path(name) / "ask.lua"
        lua.write_text(LUA)
        days = "6" if options.quick else str(options.training_days)
        config = str(ROOT / "config.example.json")
        environment = simulated_environment(exchange, folder, port, CONFIG_FILE=config, TRAINING_DAYS=days)
        settings = load_settings(**{key.lower(): environment[key] for key in environment.keys() - os.environ.keys()})
        topics = topics_from_config(*settings.config_files)
        registry = Registry(folder)
        plan = panels_for(topics)[MINUTE]
        for _ in range(2):  # two versions, to swap
            with log.open("ab") as output:
                subprocess.run([sys.executable, "-c", TRAIN], env=environment, check=True, stdout=output, stderr=output)
        versions = registry.versions()
        registry.promote(plan.topics, versions[-1], time.time_ns() // 1_000_000)
        empty_port, other_port = free_port(), free_port()
        empty = Asked(name="empty route", url=f"http://127.0.0.1:{empty_port}")
        paths = tuple(f"/inference/{topic.token}?topic={topic.topic_id}" for topic in topics)
        ours = Asked(name="ours", url=f"http://127.0.0.1:{port}", paths=paths, heights=True)
        unkept = Asked(name="ours, no height", url=ours.url, paths=paths)
        other = Asked(name="per request", url=f"http://127.0.0.1:{other_port}", paths=("/inference/ETH",))
        with (
            running(["-m", "inference"], environment, log) as process,
            running(["-m", "benchmarks.tools.empty_route", str(empty_port)], environment, log),
            running(["-m", "benchmarks.studies.per_request", str(other_port), exchange.url], environment, log),
        ):
            for url in (f"{ours.url}/readyz", f"{empty.url}/", f"{other.url}/inference/ETH"):
                wait_for(url)
            print(f"{'':<42}{'conn.':>6}{'per s':>10}{'median ms':>10}{'99 % ms':>9}{'/ empty':>9}{'per s /':>9}")
            for connections in (1, 32, 256):
                compare("quiet", (ours, unkept, empty), connections, seconds, rounds, lua)
            for connections in (1, 32):
                compare("the example's way", (other, empty), connections, seconds, 1, lua)
            with running(["-c", TRAIN], environment | {"TRAINING_DAYS": "90", "SEED": "1"}, log) as training:
                wait_for_child(training)
                compare("while training", (ours, empty), 32, seconds, rounds, lua)
                compare("while training", (ours, empty), 1, seconds, 1, lua)
                print(f"{'':<26}the training {'goes on' if training.poll() is None else 'had ended: give more days'}")
            swapped = cycle(versions[-2:])
            with repeated(lambda: registry.promote(plan.topics, next(swapped), time.time_ns() // 1_000_000), 1.0):
                compare("swaps, one a second", (ours, empty), 32, seconds, rounds, lua)
            without_exchange(exchange, lambda what: compare(what, (ours, empty), 32, seconds, 1, lua))
            rss = psutil.Process(process.pid).memory_info().rss / 1e6
            print(f"\nresident memory of inference after all this: {rss:.0f} MB")
        everything = scalar_topics()
        start_and_memory("five symbols", [t for t in everything if t.asset in FIVE], environment, folder / "five")
        start_and_memory("whole catalogue", everything, environment, folder / "all")


if __name__ == "__main__":
    main()
