"""Measure the age of the price behind an answer: in normal service, after stream faults and outages, at a cold start.

    python -m benchmarks.freshness [--minutes 10] [--outage-minutes 5] [--quick]

The benchmark runs ``python -m inference`` with the topics of config.example.json on the simulated exchange, asks fifty
times a second, and reads each age from the header ``X-Anchor-Age-Ms``. "Fresh" means below 1.5 s. A run takes half an
hour, nearly all of it waiting; with --quick three minutes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from exchange.server import SimulatedExchange
from market.store.kline_store import KlineStore
from model.heads import head_of
from model.panels import HOUR, MINUTE
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.inference.stand import HEADS, publish

EXAMPLE = Path(__file__).parents[1] / "config.example.json"
FRESH_MS, EVERY_S = 1_500, 0.02
ROWS = 4_000  # klines per series in the store before the cold start


class Node:
    """A running inference process, and a client that reads the ages of its prices."""

    def __init__(self, environment: dict[str, str], url: str, log: Path) -> None:
        self._url, self._session = url, requests.Session()
        self._paths = [
            f"/inference/{topic.token}?topic={topic.topic_id}"
            for topic in topics_from_config(EXAMPLE)
            if topic.target == "price"
        ]
        self._asked = 0
        began_s = time.perf_counter()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference"], env=environment, stdout=output, stderr=output
            )
        while not self._ready():
            if time.perf_counter() - began_s > 60:
                raise SystemExit(log.read_text()[-2000:])
            time.sleep(0.02)
        self.start_s = time.perf_counter() - began_s

    def _ready(self) -> bool:
        try:
            return self._session.get(f"{self._url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def age_ms(self) -> int | None:
        """Ask once; return the age of the price behind the answer, or None for a refusal."""
        self._asked += 1
        answer = self._session.get(self._url + self._paths[self._asked % len(self._paths)], timeout=5)
        return int(answer.headers["X-Anchor-Age-Ms"]) if answer.status_code == 200 else None

    def watch(self, seconds: float) -> list[int | None]:
        """Collect ages, fifty a second."""
        ages = []
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            ages.append(self.age_ms())
            time.sleep(EVERY_S)
        return ages

    def fresh_again_s(self) -> float:
        """Wait until consecutive answers, one per price topic, are fresh; return the seconds."""
        began_s, in_a_row = time.perf_counter(), 0
        while in_a_row < len(self._paths):
            age_ms = self.age_ms()
            in_a_row = in_a_row + 1 if age_ms is not None and age_ms < FRESH_MS else 0
            time.sleep(EVERY_S)
        return time.perf_counter() - began_s


def show(situation: str, ages: list[int | None]) -> None:
    known = sorted(age for age in ages if age is not None)
    tail = statistics.quantiles(known, n=100)[98]
    print(
        f"{situation}: {len(ages)} answers, {len(ages) - len(known)} refused; "
        f"age median {statistics.median(known):.0f} ms, 99 % {tail:.0f} ms, longest {known[-1]} ms",
        flush=True,
    )


def cut(node: Node, situation: str, spoil: Callable[[], None]) -> None:
    """Break the stream with ``spoil`` and print the ages of the next twelve seconds."""
    spoil()
    show(situation, node.watch(12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of the undisturbed stream")
    parser.add_argument("--outage-minutes", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="half a minute instead of each of these times")
    options = parser.parse_args()
    minutes, outage_minutes = (0.5, 0.5) if options.quick else (options.minutes, options.outage_minutes)
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder, url = Path(name), f"http://127.0.0.1:{(port := free_port())}"
        environment = simulated_environment(exchange, folder, port, CONFIG_FILE=str(EXAMPLE), LOG_LEVEL="warning")
        now_ms = time.time_ns() // 1_000_000
        topics, registry, store = (
            topics_from_config(EXAMPLE),
            Registry(folder),
            KlineStore(folder / "klines" / "binance"),
        )
        for panel in (MINUTE, HOUR):
            version = publish(registry, 0.1, now_ms, panel)
            registry.promote([topic for topic in topics if head_of(topic).key in HEADS[panel.name]], version, now_ms)
            for symbol in {topic.symbol for topic in topics}:
                end_ms = now_ms - 10 * panel.interval_ms
                start_ms = end_ms - ROWS * panel.interval_ms
                store.append(symbol, exchange.source.klines(symbol, panel.interval_ms, start_ms, end_ms))
        node = Node(environment, url, folder / "log")
        try:
            print(f"cold start to ready, store and registry present: {node.start_s:.2f} s")
            node.watch(5)
            show(f"the stream, {minutes:g} min", node.watch(60 * minutes))
            cut(node, "stream cut", lambda: exchange.fail_stream("drop"))
            cut(node, "stream cut and refused for 10 s", lambda: refuse(exchange, 10.0))
            cut(node, "stream silent for 10 s", lambda: exchange.fail_stream("silence", seconds=10.0))
            cut(node, "stream half-open", lambda: exchange.fail_stream("half_open"))
            exchange.outage(60 * outage_minutes)
            time.sleep(60 * outage_minutes)
            print(f"outage of {outage_minutes:g} min: fresh again {node.fresh_again_s():.2f} s after its end")
            exchange.fail_stream("silence", seconds=60 * outage_minutes)
            exchange.fail_next("/", 1_000_000, delay_s=10.0, seconds=60 * outage_minutes)
            time.sleep(60 * outage_minutes)
            print(f"everything hung for {outage_minutes:g} min: fresh again {node.fresh_again_s():.2f} s after its end")
        finally:
            node.process.terminate()
            node.process.wait(timeout=10)


def refuse(exchange: SimulatedExchange, seconds: float) -> None:
    """Cut the stream and refuse new connections."""
    exchange.fail_stream("refuse", seconds=seconds)
    exchange.fail_stream("drop")


if __name__ == "__main__":
    main()
