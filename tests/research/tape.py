"""Invented klines whose volatility comes in clusters, in files as a backtest reads them."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Klines
from research.backtest.command import Asked
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines, write_klines

TINY = '{"epochs": 1, "stride": 53, "hidden_layer_size": 4, "num_layers": 1}'
DAYS = 3  # of a training
HISTORY_DAYS = 5  # before the first training: its days, and what their first window remembers

ETH = Topic(topic_id=9001, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
BTC = Topic(topic_id=9002, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15)
SOL = replace(BTC, topic_id=9003, token="SOL", symbol="SOLUSDT")


def clustered(days: float, seed: int, *, skill: bool = True) -> Klines:
    """Minutes of a walk whose volatility is remembered for an hour; with no ``skill`` it is always the same."""
    rows = round(days * 1440)
    walk = random_walk_klines(rows, seed=seed)
    if not skill:
        return walk
    noise = np.random.default_rng(seed + 1000).standard_normal(rows)
    level, memory = np.zeros(rows), 0.5 ** (1 / 60)
    for row in range(1, rows):
        level[row] = memory * level[row - 1] + 0.05 * noise[row]
    returns = np.diff(np.log(walk.close), prepend=np.log(walk.open[0])) * np.exp(level)
    close = walk.open[0] * np.exp(np.cumsum(returns))
    opened = np.concatenate([walk.open[:1], close[:-1]])
    return replace(
        walk, open=opened, close=close, high=np.maximum(opened, close) * 1.0001, low=np.minimum(opened, close) / 1.0001
    )


def tape(folder: Path, *symbols: str, days: float, skill: bool = True) -> Path:
    """A folder of such klines that begin at START_MS."""
    for seed, symbol in enumerate(symbols, 1):
        write_klines(folder, symbol, clustered(days, seed, skill=skill))
    return folder


def asked(folder: Path, *topics: Topic, **others: object) -> Asked:
    """The smallest backtest of these topics: the klines in ``folder/tape``, a training a day."""
    training = folder / "training.json"
    training.write_text(TINY)
    usual: dict[str, object] = {
        "data_dir": folder / "data",
        "data": folder / "tape",
        "venues": ("binance",),
        "training_days": DAYS,
        "every_days": 1,
        "stride": 30,
        "start": datetime.fromtimestamp((START_MS + HISTORY_DAYS * DAY_MS) / 1000, UTC).isoformat(),
        "training_file": training,
        "baselines": (),
        "quick": True,
    }
    return Asked(topics=topics, **(usual | others))  # type: ignore[arg-type]


def after(days: float) -> int:
    """Milliseconds since the epoch so many days after the klines begin."""
    return START_MS + round(days * DAY_MS) // MINUTE_MS * MINUTE_MS
