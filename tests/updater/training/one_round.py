"""``python -m tests.updater.training.one_round FOLDER CREATED_MS``: a round on made-up candles, in an empty folder."""

import sys
from pathlib import Path

from core.topic import Target, Topic
from model.panels import MINUTE, panels_for
from model.registry.versions import Registry
from model.training.config import TrainingConfig
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from updater.round import run_round

TOPICS = (
    Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=5),
    Topic(topic_id=2, token="SOL", symbol="SOLUSDT", target=Target.LOG_RETURN, horizon_min=10, loss="czar"),
    Topic(topic_id=3, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15),
)
PLAN = panels_for(TOPICS)[MINUTE]
KLINES = {symbol: random_walk_klines(3200, seed=seed) for seed, symbol in enumerate(PLAN.symbols, 31)}
CONFIG = TrainingConfig(lookback=8, hidden_layer_size=8, epochs=2, stride=4, batch_size=128)


def main(folder: Path, created_ms: int) -> None:
    run_round(PLAN, KLINES, CONFIG, 3, Registry(folder), FakeClock(created_ms))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
