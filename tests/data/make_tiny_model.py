"""Makes ``tests/data/tiny_model``: a small published version, its champions, and the numbers it must go on giving.

``python -m tests.data.make_tiny_model``, once whenever FEATURE_VERSION or the manifest's schema is raised; the same
code and libraries make the same files. Its weights are random: it is there to be loaded, not to be right.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Klines
from model.features import FEATURE_VERSION, FEATURES, rows_needed
from model.forecaster import BiRNNForecaster, Forecasts
from model.heads import MINUTE, Kind, head_of
from model.registry.artefact import Artefact, Manifest
from model.registry.versions import Registry
from model.training.birnn import BiRNNModel, PanelNetwork
from model.training.fit import export_onnx, weights_bytes
from model.windows import Split
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.node import NO_ORIGIN

FOLDER = Path(__file__).parent / "tiny_model"
GOLDEN = FOLDER / "golden.json"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
ASKED = ((1, "ETH", Target.PRICE, 10), (14, "BTC", Target.PRICE, 5), (39, "SOL", Target.VOLATILITY, 5))
TOPICS = tuple(
    Topic(
        topic_id=topic_id,
        token=token,
        symbol=f"{token}USDT",
        target=target,
        horizon_min=horizon_min,
        network="allora-testnet-1",
    )
    for topic_id, token, target, horizon_min in ASKED
)
HEADS = tuple(sorted({head_of(topic) for topic in TOPICS}))
FACTORS = {Kind.RETURN: {"lambda": 0.5}, Kind.VOLATILITY: {"bias": 0.9}}


def klines() -> dict[str, Klines]:
    """What the golden numbers are forecast from."""
    return {symbol: random_walk_klines(rows_needed(MINUTE), seed=seed) for seed, symbol in enumerate(SYMBOLS)}


def flat(forecasts: Forecasts) -> dict[str, float | None]:
    """``"ETHUSDT return-10m"`` -> its number."""
    return {
        f"{symbol} {head.key}": forecast.log_return if head.kind is Kind.RETURN else forecast.volatility
        for (symbol, head), forecast in forecasts.items()
    }


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    torch.manual_seed(0)
    members = [BiRNNModel(len(FEATURES), 4, len(HEADS), num_layers=1, dropout=0.0) for _ in range(2)]
    model = PanelNetwork(members, 0.01 * torch.randn(len(HEADS), len(FEATURES))).eval()
    factors = {head.key: FACTORS[head.kind] for head in HEADS}
    day = [START_MS + number * DAY_MS for number in range(6)]
    manifest = Manifest(
        panel=MINUTE.name,
        interval_ms=MINUTE_MS,
        lookback=MINUTE.lookback,
        feature_version=FEATURE_VERSION,
        features=FEATURES,
        heads=tuple(head.key for head in HEADS),
        symbols=SYMBOLS,
        calibration=dict.fromkeys(SYMBOLS, factors),
        volatility="sample standard deviation of one-candle log-returns, per minute",
        split=Split(
            train_start_ms=day[0],
            train_end_ms=day[1],
            validate_start_ms=day[2],
            validate_end_ms=day[3],
            judge_start_ms=day[4],
            judge_end_ms=day[5],
        ),
        rows=1,
        seed=0,
        training={"hidden_layer_size": 4, "num_layers": 1},
        libraries={},
        origin=NO_ORIGIN,
        created_ms=day[5],
    )
    registry = Registry(FOLDER)
    onnx = export_onnx(model, MINUTE.lookback, np.empty((0, MINUTE.lookback, len(FEATURES)), np.float32))
    version = registry.publish(Artefact(onnx=onnx, weights=weights_bytes(model), manifest=manifest))
    registry.promote(TOPICS, version, now_ms=day[5])
    (FOLDER / ".registry.lock").unlink()
    forecasts, _ = BiRNNForecaster.load(registry.path(version)).forecast(klines())
    GOLDEN.write_text(json.dumps(flat(forecasts), indent=1) + "\n")


if __name__ == "__main__":
    main()
