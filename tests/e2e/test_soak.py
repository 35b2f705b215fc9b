"""Load, swaps and faults on a real inference process: no answer wrong, mixed, stale, or missing without a reason.

    scripts/test tests/e2e/test_soak.py --soak-minutes 120 -s

Every answer is made again afterwards from what the simulated exchange has on its tape: from the candles that had
closed by ``X-As-Of``, through the version in ``X-Model-Version``, with the anchor that the ledger says; and that anchor
must be a price that was on the tape when it is said to be. Which fault comes when is decided by a seed, which a failure
tells.
"""

import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import psutil
import pytest
import requests
import sqlalchemy as sa

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, SystemClock
from core.sources import PERSISTENCE
from core.topic import Topic
from exchange.server import SimulatedExchange
from inference.forecast_cache import rows_to_keep
from klines.klines import Klines
from ledger.schema import answers as kept
from model.answer import carried, value
from model.forecaster import BiRNNForecaster, HeadForecast, Naive
from model.heads import head_of
from model.panels import HOUR, MINUTE, panel_of
from model.registry.versions import Registry
from node.config_file import topics_from_config
from node.decimals import decimal_text, parse_decimal
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.inference.stand import publish

MAX_ANCHOR_AGE_S = 6  # shorter than the outages below, so that there are refusals
ASKERS, PAUSE_S = 4, 0.02  # two hundred questions a second at most
OUTPUTS = (-0.4, 0.0, 0.3, 0.7)  # of networks that always say the same: each answer tells whose it is
# Within so long all is as before: the stream after a back-off of four seconds on each of its hosts, and REST after a
# request that hangs for three seconds and a back-off of two.
RECONNECTED_S, ASKED_AGAIN_S = 10.0, 6.0


QUESTIONS = (
    ("ETH", "price", "10m"),
    ("BTC", "price", "10m"),
    ("SOL", "price", "10m"),
    ("BTC", "log_return", "10m"),
    ("ETH", "volatility", "15m"),
    ("SOL", "volatility", "15m"),
    ("BTC", "log_return", "8h"),
    ("ETH", "price", "24h"),
)
"""Topics of no catalogue, answered by the heads that the networks of ``publish`` have."""


def write_config(path: Path) -> Path:
    """The node's file with ``QUESTIONS``."""
    workers = [
        {
            "topicId": 9000 + number,
            "inferenceEntrypointName": "apiAdapter",
            "parameters": {
                "InferenceEndpoint": "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}",
                **dict(zip(("Token", "Target", "Horizon", "Loss"), (*question, "mse"), strict=True)),
            },
        }
        for number, question in enumerate(QUESTIONS)
    ]
    path.write_text(json.dumps({"wallet": {"chainId": "allora-testnet-1"}, "worker": workers}))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One answer, as it came over HTTP."""

    topic: Topic
    height: int
    at_s: float  # time.monotonic, when it was asked for
    status: int
    text: str
    version: str  # as its header says


class Inference:
    """``python -m inference`` on the exchange."""

    def __init__(self, folder: Path, exchange: SimulatedExchange, config: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        limits = {"MAX_ANCHOR_AGE_S": str(MAX_ANCHOR_AGE_S), "CONFIG_FILE": str(config), "LOG_LEVEL": "warning"}
        limits["BASE_RULE"] = "asked"  # heights are counted from 1 here, and tell no time
        environment = simulated_environment(exchange, folder, port, **limits)
        self.log = folder / "inference.log"
        with self.log.open("wb") as output:
            command = [sys.executable, "-m", "inference"]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Load:
    """Askers, each with a connection of its own, until stopped."""

    def __init__(self, url: str, topics: tuple[Topic, ...], seed: int) -> None:
        self._url, self._topics = url, topics
        self._heights = count(1000)
        self._stopping = threading.Event()
        self.given: list[Given] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(seed + n,), daemon=True) for n in range(ASKERS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)

    def _ask(self, seed: int) -> None:
        rng = random.Random(seed)
        mine: list[tuple[Topic, int]] = []
        with requests.Session() as session:
            while not self._stopping.wait(PAUSE_S):
                if mine and rng.random() < 0.1:
                    topic, height = rng.choice(mine[-50:])  # once more: the node does so after a failure of its own
                else:
                    topic, height = rng.choice(self._topics), next(self._heights)
                    mine.append((topic, height))
                question = {"topic": str(topic.topic_id), "network": topic.network or "", "height": str(height)}
                at_s = time.monotonic()
                try:
                    got = session.get(f"{self._url}/inference/{topic.token}", params=question, timeout=30)
                except requests.RequestException as error:
                    self.failures.append(f"topic {topic.key} height {height}: {error!r}")
                    continue
                self.given.append(
                    Given(
                        topic=topic,
                        height=height,
                        at_s=at_s,
                        status=got.status_code,
                        text=got.text,
                        version=got.headers.get("X-Model-Version", ""),
                    )
                )


class Troubles:
    """Faults of the exchange and swaps of champions, one after the other, decided by a seed."""

    def __init__(self, exchange: SimulatedExchange, registry: Registry, topics: tuple[Topic, ...], seed: int) -> None:
        self._exchange, self._registry, self._topics = exchange, registry, topics
        self._rng = random.Random(seed)
        now_ms = SystemClock().now_ms()
        panels = {panel.name: panel for panel in (MINUTE, HOUR)}
        self._versions = {
            name: [publish(registry, output, now_ms, panel) for output in OUTPUTS] for name, panel in panels.items()
        }
        self._gone: dict[str, list[tuple[float, float]]] = {"stream": [], "rest": []}  # from, until
        self.done: Counter[str] = Counter()
        self.swap()
        self.done.clear()

    def swap(self) -> None:
        """Give each panel's topics another champion."""
        for name, versions in self._versions.items():
            topics = [topic for topic in self._topics if panel_of(topic.horizon_min).name == name]
            self._registry.promote(topics, self._rng.choice(versions), SystemClock().now_ms())
        self.done["swap"] += 1

    def next(self) -> float:
        """Do something; seconds until the next."""
        rng, exchange = self._rng, self._exchange
        seconds = rng.uniform(1, 15)
        streams: dict[str, tuple[float, Callable[[], None]]] = {  # how long the stream may be gone, and how
            "drop": (0, lambda: exchange.fail_stream("drop")),
            "close": (0, lambda: exchange.fail_stream("close")),
            "half_open": (7, lambda: exchange.fail_stream("half_open")),
            "silence": (seconds, lambda: exchange.fail_stream("silence", seconds=seconds)),
            "garbage": (5, lambda: exchange.fail_stream("garbage", count=rng.randint(1, 60))),
            "duplicate": (0, lambda: exchange.fail_stream("duplicate", count=rng.randint(1, 60))),
            "reorder": (5, lambda: exchange.fail_stream("reorder", count=rng.randint(2, 30))),
            "lag": (2 * seconds, lambda: exchange.fail_stream("lag", seconds=seconds, delay_s=seconds)),
            "outlier": (3, lambda: exchange.fail_stream("outlier", count=3, factor=rng.choice((0.5, 0.9, 1.1, 10)))),
            "mute": (seconds, lambda: exchange.fail_stream("mute", seconds=seconds, symbol="ETHUSDT")),
            "lose_candles": (0, lambda: exchange.fail_stream("lose_candles", count=rng.randint(1, 4))),
            "refuse": (seconds, lambda: exchange.fail_stream("refuse", seconds=seconds, status=rng.choice((403, 451)))),
        }
        many = 1_000_000
        rests: dict[str, Callable[[], None]] = {
            "rest refuses": lambda: exchange.fail_next("/api", many, status=rng.choice((403, 500)), seconds=seconds),
            "rest garbage": lambda: exchange.fail_next("/api", many, body=b"<html>busy</html>", seconds=seconds),
            "rest cut": lambda: exchange.fail_next("/api", many, cut_after=20, seconds=seconds),
            "rest hangs": lambda: exchange.fail_next("/api", many, delay_s=5.0, seconds=seconds),
        }
        now_s, name = time.monotonic(), rng.choice([*streams, *rests, "outage"])
        if name in streams:
            lasts_s, spoil = streams[name]
            self._gone["stream"].append((now_s, now_s + lasts_s + RECONNECTED_S))
            spoil()
        elif name in rests:
            self._gone["rest"].append((now_s, now_s + seconds + ASKED_AGAIN_S))
            rests[name]()
        else:
            for kind, again_s in (("stream", RECONNECTED_S), ("rest", ASKED_AGAIN_S)):
                self._gone[kind].append((now_s, now_s + seconds + again_s))
            exchange.outage(seconds)
        self.done[name] += 1
        if rng.random() < 0.7:
            self.swap()
        return rng.uniform(0.5, 5.0)

    def excuses(self, at_s: float) -> bool:
        """Whether an answer asked for then may be refused: only where stream and REST were gone together."""
        return any(
            max(stream[0], rest[0]) <= at_s <= min(stream[1], rest[1])
            for stream in self._gone["stream"]
            for rest in self._gone["rest"]
        )


@contextmanager
def inference(folder: Path, exchange: SimulatedExchange, config: Path) -> Iterator[Inference]:
    node = Inference(folder, exchange, config)
    try:
        yield node
    finally:
        node.stop()


class Truth:
    """What an answer must be, from the tape."""

    def __init__(self, exchange: SimulatedExchange, registry: Registry, topics: tuple[Topic, ...]) -> None:
        self._tape = exchange.source
        self._price_at = cache(exchange.source.price_at)
        self._registry = registry
        self._rows = rows_to_keep(topics)
        self._forecasters: dict[str, BiRNNForecaster] = {}
        self._said: dict[tuple[str, int, str], HeadForecast] = {}

    def _klines(self, symbol: str, interval_ms: int, end_ms: int) -> Klines:
        return self._tape.klines(symbol, interval_ms, end_ms - self._rows[symbol, interval_ms] * interval_ms, end_ms)

    def forecast(self, topic: Topic, version: str, asof_ms: int) -> HeadForecast:
        """What a version says of a topic at a candle's close."""
        key = (version, asof_ms, topic.key)
        if key not in self._said:
            interval_ms, head = panel_of(topic.horizon_min).interval_ms, head_of(topic)
            if version == PERSISTENCE:
                self._said[key] = Naive.forecast(self._klines(topic.symbol, interval_ms, asof_ms), topic.symbol, head)
            else:
                if version not in self._forecasters:
                    self._forecasters[version] = BiRNNForecaster.load(self._registry.path(version))
                of_interval = {symbol for symbol, interval in self._rows if interval == interval_ms}
                klines = {symbol: self._klines(symbol, interval_ms, asof_ms) for symbol in of_interval}
                said, reasons = self._forecasters[version].forecast(klines)
                assert (topic.symbol, head) in said, reasons
                self._said[key] = said[topic.symbol, head]
        return self._said[key]

    def answer(self, topic: Topic, version: str, asof_ms: int, anchor: float, anchor_asof_ms: int) -> str:
        """The decimal that is due."""
        forecast = self.forecast(topic, version, asof_ms)
        interval_ms = panel_of(topic.horizon_min).interval_ms
        close = float(self._klines(topic.symbol, interval_ms, asof_ms).close[-1])
        return decimal_text(value(topic, carried(forecast, close, anchor, anchor_asof_ms - asof_ms), anchor))

    def had_price(self, symbol: str, price: float, asof_ms: int, answered_ms: int) -> bool:
        """Whether a price was on the tape at its moment, or later but before it was answered with: what is polled is
        as new as the question for it, or newer; or, where candles alone are wanted, the close of one."""
        seconds = range((asof_ms - SECOND_MS) // SECOND_MS, answered_ms // SECOND_MS + 1)  # the tape moves with each
        return any(self._price_at(symbol, second * SECOND_MS) == price for second in seconds) or any(
            price == self._klines(symbol, i, asof_ms // i * i).close[-1] for s, i in self._rows if s == symbol
        )


def slope_mb_per_hour(samples: list[tuple[float, float]]) -> float:
    """Growth of memory by least squares over the later two thirds of ``(seconds, MB)``."""
    later = samples[len(samples) // 3 :]
    mean_s = sum(at for at, _ in later) / len(later)
    mean_mb = sum(mb for _, mb in later) / len(later)
    spread = sum((at - mean_s) ** 2 for at, _ in later)
    return 3600 * sum((at - mean_s) * (mb - mean_mb) for at, mb in later) / spread


@pytest.mark.timeout(0)  # how long it takes is said on the command line
def test_under_load_and_faults_no_answer_is_wrong_mixed_stale_or_missing_without_a_reason(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    minutes = float(pytestconfig.getoption("--soak-minutes"))
    seed = int(pytestconfig.getoption("--soak-seed"))
    config = write_config(tmp_path / "config.json")
    topics = topics_from_config(config)
    registry = Registry(tmp_path)
    memory: list[tuple[float, float]] = []
    with SimulatedExchange(seed=seed) as exchange:
        troubles = Troubles(exchange, registry, topics, seed)
        with inference(tmp_path, exchange, config) as node:
            eventually(node.ready, 60, "/readyz")
            process, began_s = psutil.Process(node.process.pid), time.monotonic()
            with Load(node.url, topics, seed) as load:
                next_s = began_s
                while (now_s := time.monotonic()) < began_s + 60 * minutes:
                    if now_s >= next_s:
                        next_s = now_s + troubles.next()
                    memory.append((now_s - began_s, process.memory_info().rss / 1e6))
                    assert node.process.poll() is None, node.log.read_text()[-3000:]
                    time.sleep(0.25)
                exchange.clear_faults()
                over_s = time.monotonic()
                eventually(node.ready, 30, "/readyz when all is over")
                recovered_s = time.monotonic() - over_s
        truth = Truth(exchange, registry, topics)
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
        with engine.connect() as connection:
            ledger = {(r.network, r.topic_id, r.height): r for r in connection.execute(sa.select(kept))}
        engine.dispose()
        assert load.failures == [], f"seed {seed}"
        first: dict[tuple[str, int], str] = {}
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for given in load.given:
            about = f"seed {seed}: topic {given.topic.key} height {given.height}: {given.status} {given.text!r}"
            if given.status != 200:
                assert given.status == 503, about
                assert len(given.text) > 20, about
                assert "\n" not in given.text, about
                assert troubles.excuses(given.at_s), f"{about}, refused without cause"
                counts["refused"] += 1
                reasons[re.sub(r"[\d.:TZ-]+", "#", given.text)] += 1
                continue
            parse_decimal(given.text.encode())
            assert given.text == first.setdefault((given.topic.key, given.height), given.text), (
                f"{about}, before otherwise"
            )
            row = ledger[given.topic.network or "", given.topic.topic_id, given.height]
            assert (row.value, row.version) == (given.text, given.version), about
            version = row.version
            due = truth.answer(given.topic, version, row.asof_ms, row.anchor, row.anchor_asof_ms)
            assert given.text == due, f"{about}, due was {due} of {version} at {row.asof_ms} from {row.anchor}"
            if given.topic.target == "price":
                assert row.answered_ms - row.anchor_asof_ms <= MAX_ANCHOR_AGE_S * SECOND_MS, f"{about}, stale"
            limit_ms = 180 * SECOND_MS + (HOUR_MS - MINUTE_MS if panel_of(given.topic.horizon_min) is HOUR else 0)
            assert row.answered_ms - row.asof_ms <= limit_ms, f"{about}, stale candles"
            assert truth.had_price(given.topic.symbol, row.anchor, row.anchor_asof_ms, row.answered_ms), (
                f"{about}, from {row.anchor}, which was never the price"
            )
            counts[version] += 1
    answered = sum(counts.values()) - counts["refused"]
    assert answered > 20 * 60 * minutes, counts
    assert len(counts) > 2, counts
    growth = f"{slope_mb_per_hour(memory):+.1f} MB/h over the later two thirds" if len(memory) > 30 else ""
    print(
        f"soak of {minutes:g} min, seed {seed}: {answered} answers of {len(counts) - 1} versions, "
        f"{counts['refused']} refused; troubles {dict(troubles.done)}; "
        f"memory {memory[0][1]:.0f} -> {memory[-1][1]:.0f} MB {growth}; "
        f"ready {recovered_s:.1f} s after the last fault; refused because {dict(reasons.most_common(8))}"
    )
