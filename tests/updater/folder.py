"""What the updater's tests share: topics, the smallest training, and a data folder with a published version."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.clock import DAY_MS, MINUTE_MS, Clock, SystemClock
from core.files import replace_json
from core.settings import load_settings
from core.topic import Target, Topic
from klines.klines import Klines
from market.listings import Listings
from market.quarantine import Quarantine
from market.store.home_store import HomeStore
from market.store.home_sync import HomeSync
from market.store.kline_store import KlineStore
from market.venues.binance.rest import Binance
from model.panels import MINUTE, panels_for, training_start_ms
from model.registry.versions import Registry
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.net import free_port
from updater.admission.records import AdmissionRecords
from updater.keeper import Keeper
from updater.live import LiveJudge
from updater.round import refresh_panel
from updater.service import Updater
from updater.state import StateFile
from updater.training_process import Job
from updater.training_settings import FILE

TINY: dict[str, Any] = {"epochs": 1, "stride": 53, "hidden_layer_size": 4, "num_layers": 1}
# Trained in seconds, and enough for every topic of config.example.json to be promoted.
SMALL: dict[str, Any] = {
    "lookback": 16,
    "stride": 14,
    "hidden_layer_size": 8,
    "num_layers": 1,
    "seeds": 1,
    "batch_size": 64,
    "learning_rate": 0.01,
}
DAYS = 3
NO_TIME_S = 0.01  # to see that a training was begun, without waiting for it

ETH = Topic(topic_id=9001, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
BTC = Topic(topic_id=9002, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15)
ETH_8H = replace(ETH, topic_id=9003, horizon_min=480)


def walk(symbol: str, now_ms: int, days: float = DAYS + 1) -> Klines:
    """Minutes up to the one that closed last."""
    end_ms = now_ms // MINUTE_MS * MINUTE_MS
    rows = round(days * DAY_MS) // MINUTE_MS
    return random_walk_klines(rows, seed=len(symbol) + ord(symbol[0]), start_ms=end_ms - rows * MINUTE_MS)


def job_on(data_dir: Path, *topics: Topic, oldest_champion_ms: int = 0, **training: Any) -> Job:
    """A training of a few seconds; ``training`` are settings beside the smallest."""
    settings = data_dir / FILE
    replace_json(settings, TINY | training)
    return Job(
        data_dir=data_dir,
        venues=("binance",),
        panel="minute",
        topics=topics,
        start_ms=training_start_ms(MINUTE, DAYS, SystemClock().now_ms()),
        seed=0,
        oldest_champion_ms=oldest_champion_ms,
        simulated=True,
        training_file=settings,
        fallback=None,
    )


def publish_in(data_dir: Path) -> None:
    """Fill a data folder: four days of BTCUSDT and ETHUSDT up to now, and one version with its champions."""
    clock, store, registry = SystemClock(), KlineStore(data_dir / "klines" / "binance"), Registry(data_dir)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        store.append(symbol, walk(symbol, clock.now_ms()))
    assert refresh_panel(job_on(data_dir, ETH, BTC), registry, clock, lambda *_: None).ok


def write_config(path: Path, *topics: Topic) -> None:
    """The node's config.json with these topics."""
    url = "http://127.0.0.1:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"
    entries = [
        {
            "topicId": topic.topic_id,
            "inferenceEntrypointName": "apiAdapter",
            "parameters": {
                "InferenceEndpoint": url,
                "Token": topic.token,
                "Target": topic.target.value,
                "Horizon": topic.horizon,
            },
        }
        for topic in topics
    ]
    path.write_text(json.dumps({"worker": entries}))


def updater_on(data_dir: Path, *topics: Topic, clock: Clock | None = None, time_limit_s: float = NO_TIME_S) -> Updater:
    """An updater whose venue is away."""
    clock = clock or SystemClock()
    nowhere = f"http://127.0.0.1:{free_port()}"
    plans = {panel.name: plan for panel, plan in panels_for(topics).items()}
    listings = Listings((), topics, threading.Event())
    listings.start()
    store, away = HomeStore(data_dir / "klines"), Binance([nowhere], nowhere, FakeClock(clock.now_ms()), patience_s=1.0)
    settings, stop = load_settings(data_dir=data_dir, training_days=DAYS), threading.Event()
    registry, state = Registry(data_dir), StateFile(data_dir, clock, plans)
    common: dict[str, Any] = {"settings": settings, "plans": plans, "store": store, "clock": clock, "stop": stop}
    return Updater(
        **common,
        live=LiveJudge(settings=settings, plans=plans, store=store, registry=registry, clock=clock),
        keeper=Keeper(**common, homes=HomeSync(store, [away], Quarantine(), clock), state=state),
        records=AdmissionRecords(**common, registry=registry),
        registry=registry,
        state=state,
        listings=listings,
        time_limit_s=time_limit_s,
    )
