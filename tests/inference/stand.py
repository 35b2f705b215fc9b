"""What the tests of serving share: tiny networks, and a node that can be asked."""

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import requests
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from core.clock import HOUR_MS, Clock, CorrectedClock
from core.settings import NoModelPolicy, Objective
from core.topic import Target, Topic
from exchange.server import SimulatedExchange
from inference.answering import InferenceService
from inference.base import ASKED_ONLY, Bases
from inference.forecast_cache import ForecastCache, rows_to_keep
from inference.http.app import create_app, create_server
from inference.http.holds import MOST_HELD, Holds
from inference.http.metrics import Metrics
from inference.poller import Poller
from inference.stretches import Stretches
from inference.topic_state import Limits
from inference.waits import NO_WAITS, Waits
from ledger.answer_log import Ledger
from ledger.background_writer import BackgroundWriter
from market.listings import Listings
from market.live.live_market import LiveMarket
from market.venues.binance.rest import Binance
from model.features import FEATURE_VERSION, FEATURES
from model.panels import HOUR, MINUTE, Panel
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from tests.fakes.clock import eventually
from tests.fakes.node import untrained_manifest


def topic(topic_id: int, token: str, horizon_min: int, target: Target = Target.PRICE) -> Topic:
    """A topic of the test network."""
    return Topic(
        topic_id=topic_id,
        token=token,
        symbol=f"{token}USDT",
        target=target,
        horizon_min=horizon_min,
        network="allora-testnet-1",
    )


ETH_10M = topic(1, "ETH", 10)
ETH_24H = topic(2, "ETH", 1440)
BTC_8H = topic(64, "BTC", 480, Target.LOG_RETURN)
SOL_15M = topic(82, "SOL", 15, Target.VOLATILITY)
TOPICS = (ETH_10M, ETH_24H, BTC_8H, SOL_15M)
QUESTIONS = (
    (ETH_10M, "/inference/ETH?topic=1"),
    (ETH_24H, "/inference/ETH?topic=2"),
    (BTC_8H, "/inference/BTC"),
    (SOL_15M, "/inference/SOL?topic=82"),
)
HEADS = {MINUTE.name: ("return-10m", "volatility-15m"), HOUR.name: ("return-8h", "return-24h")}


def network(panel: Panel, output: float) -> bytes:
    """A network that answers ``output`` whatever it reads."""
    heads = len(HEADS[panel.name])
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "last"], ["row"], axis=1),
            helper.make_node("MatMul", ["row", "w"], ["zero"]),
            helper.make_node("Add", ["zero", "b"], ["y"]),
        ],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", panel.lookback, len(FEATURES)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", heads])],
        [
            numpy_helper.from_array(np.array(panel.lookback - 1), "last"),
            numpy_helper.from_array(np.zeros((len(FEATURES), heads), np.float32), "w"),
            numpy_helper.from_array(np.full(heads, output, np.float32), "b"),
        ],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(content)
    return bytes(content.SerializeToString())


def publish(
    registry: Registry, output: float, now_ms: int, panel: Panel = MINUTE, feature_version: int = FEATURE_VERSION
) -> str:
    """A version whose network always answers ``output``; it is nobody's champion yet."""
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    factors = {key: {"lambda": 1.0} if key.startswith("return") else {"bias": 1.0} for key in HEADS[panel.name]}
    manifest = untrained_manifest(
        panel=panel.name,
        interval_ms=panel.interval_ms,
        lookback=panel.lookback,
        feature_version=feature_version,
        heads=HEADS[panel.name],
        symbols=symbols,
        calibration=dict.fromkeys(symbols, factors),
        created_ms=now_ms,
    )
    return registry.publish(Artefact(onnx=network(panel, output), weights=b"weights", manifest=manifest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A serving process's insides, and how to ask it."""

    url: str
    service: InferenceService
    live: LiveMarket
    ledger: Ledger
    lines: list[dict[str, Any]]  # what was logged of each question
    server: uvicorn.Server
    holds: Holds

    def get(self, path: str, agent: str = "Go-http-client/1.1") -> requests.Response:
        """Ask as the official node does, or by another User-Agent."""
        return requests.get(f"{self.url}{path}", headers={"User-Agent": agent}, timeout=5)

    def ready(self) -> bool:
        return self.get("/readyz").status_code == 200


def moment_ms(text: str) -> int:
    """The opposite of ``iso``."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def limits(policy: NoModelPolicy = NoModelPolicy.PERSISTENCE) -> Limits:
    """The defaults of the settings."""
    return Limits(anchor_ms=30_000, klines_ms=180_000, model_ms=168 * HOUR_MS, policy=policy)


@contextmanager
def node(
    folder: Path,
    exchange: SimulatedExchange,
    clock: Clock,
    *,
    topics: Iterable[Topic] = TOPICS,
    policy: NoModelPolicy = NoModelPolicy.PERSISTENCE,
    venue: type[Binance] = Binance,
    wait: bool = True,
    listings: Listings | None = None,
    bases: Bases = ASKED_ONLY,
    waits: Waits = NO_WAITS,
    patience_s: float = 0.0,
    most_held: int = MOST_HELD,
) -> Iterator[Node]:
    """The parts as ``python -m inference`` puts them together, on a port of their own, by the test's clock."""
    topics, clock = tuple(topics), CorrectedClock(clock)
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", topics, "SIMULATED", clock, folder)
    asked = venue([exchange.url], exchange.url, clock, timeout_s=2, patience_s=0)
    live = LiveMarket(asked, rows_to_keep(topics), clock)
    forecasts, stretches = ForecastCache(topics, live, Registry(folder), clock), Stretches(Objective.LOSS, folder)
    service = InferenceService(
        forecasts,
        topics,
        live,
        ledger,
        clock,
        limits=limits(policy),
        market="SIMULATED",
        stretches=stretches,
        bases=bases,
        waits=waits,
        listings=listings,
    )
    lines: list[dict[str, Any]] = []

    def write(batch: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        lines.extend(batch)
        return ()

    journal = BackgroundWriter[dict[str, Any]]("answer-lines", write)
    holds = Holds(service, patience_s, most_held)
    server = create_server(create_app(service, Metrics(service, live, holds=holds), journal, holds), "SIMULATED")
    holds.is_ending = lambda: server.should_exit
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    poller = Poller(forecasts, stretches, ledger, bases, clock)
    poller.start()
    if listings:
        listings.start()
    live.start(forecasts.candles_closed)
    thread.start()
    eventually(lambda: server.started, what="the server")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    running = Node(url=url, service=service, live=live, ledger=ledger, lines=lines, server=server, holds=holds)
    try:
        if wait:
            eventually(running.ready, what="/readyz")
        yield running
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        live.stop()
        poller.stop()
        if listings:
            listings.stop()
        ledger.close()
        journal.close()
