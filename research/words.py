"""Words of reports, tables and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIMULATED_FOLDER, REPLAY = "simulated", "replay-"  # where the simulated exchange's klines lie, and how a replay's begin
NAIVE_WORDS = "naive: the network adds nothing"  # a forecast equal to the naive forecast
LOSSES = {"mse": "squared error", "mae": "absolute error"}
LABELS = {"newest": "newest network", "har": "HAR", "lightgbm": "LightGBM"}
AT_THE_BASE = (  # beside a backtest's verdict of admission
    "answered at the base, with nothing known of the interval and no stretch; what is live, birnn ready says"
)


def simulated_words(folder: Path) -> str:
    """Say where the klines of a simulated folder come from; empty for a real market.

    >>> simulated_words(Path("data/simulated/seed-0/klines"))
    'SIMULATED: these prices are invented'
    >>> simulated_words(Path("data/simulated/replay-spot/klines"))
    'SIMULATED: replayed, real klines moved to another time'
    >>> simulated_words(Path("data/klines"))
    ''
    """
    parts = folder.resolve().parts
    if SIMULATED_FOLDER not in parts:
        return ""
    below = parts[parts.index(SIMULATED_FOLDER) + 1 :]
    replayed = bool(below) and below[0].startswith(REPLAY)
    return f"SIMULATED: {'replayed, real klines moved to another time' if replayed else 'these prices are invented'}"


def label(name: str) -> str:
    """A contender's name for people."""
    return LABELS.get(name, name)


def topic_words(one: Mapping[str, Any]) -> str:
    """The name of a report's topic at the start of a sentence.

    >>> topic_words({"topic": "allora-testnet-1/80", "unseen": False})
    'topic 80'
    >>> topic_words({"topic": "9009", "unseen": True, "symbol": "ARBUSDT", "target": "volatility", "horizon": "15m"})
    'unseen ARBUSDT volatility 15m'
    """
    if one["unseen"]:
        return f"unseen {one['symbol']} {one['target']} {one['horizon']}"
    return f"topic {one['topic'].rpartition('/')[2]}"


def criteria_met(one: Mapping[str, Any], ours: str) -> int:
    """Return the number of criteria that a contender meets on a topic, by the stricter of two baselines."""
    found = one["admission"]["criteria"].values()
    return min(sum(bool(criterion["passed"]) for criterion in of_baseline[ours].values()) for of_baseline in found)


def loss_words(loss: str) -> str:
    """A topic's loss in a sentence.

    >>> loss_words("mse"), loss_words("czar")
    ('squared error', 'its loss, czar')
    """
    return LOSSES.get(loss, f"its loss, {loss}")
