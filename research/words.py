"""How tables and pictures write things."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIMULATED_FOLDER, REPLAY = "simulated", "replay-"  # where the simulated exchange's klines lie, and how a replay's begin
NAIVE_WORDS = "naive: the network adds nothing"  # of a forecast that is equal to the naive one
LOSSES = {"mse": "squared error", "mae": "absolute error"}
LABELS = {"newest": "newest network", "har": "HAR", "lightgbm": "LightGBM"}
AT_THE_BASE = (  # beside a backtest's verdict of admission
    "answered at the base, with nothing known of the interval and no stretch; what is live, birnn ready says"
)


def simulated_words(folder: Path) -> str:
    """Where the klines of a folder below the simulated exchange's come from; empty for a real market's.

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
    """A topic of a report, as a sentence begins with it.

    >>> topic_words({"topic": "allora-testnet-1/80", "unseen": False})
    'topic 80'
    >>> topic_words({"topic": "9009", "unseen": True, "symbol": "ARBUSDT", "target": "volatility", "horizon": "15m"})
    'unseen ARBUSDT volatility 15m'
    """
    if one["unseen"]:
        return f"unseen {one['symbol']} {one['target']} {one['horizon']}"
    return f"topic {one['topic'].rpartition('/')[2]}"


def criteria_met(one: Mapping[str, Any], ours: str) -> int:
    """How many criteria a contender meets on a topic of a report; against the stricter baseline where there are two."""
    found = one["admission"]["criteria"].values()
    return min(sum(bool(criterion["passed"]) for criterion in of_baseline[ours].values()) for of_baseline in found)


def loss_words(loss: str) -> str:
    """A topic's loss in a sentence.

    >>> loss_words("mse"), loss_words("czar")
    ('squared error', 'its loss, czar')
    """
    return LOSSES.get(loss, f"its loss, {loss}")


def ratio_text(ratio: float | None, *, is_naive: bool = False) -> str:
    """A ratio to the naive loss, as tables write it; what is the naive forecast itself is called so.

    >>> ratio_text(0.67128), ratio_text(0.99996), ratio_text(18.2), ratio_text(None), ratio_text(1.0, is_naive=True)
    ('0.6713', '1.0000', '18.2', '', 'naive')
    """
    if is_naive:
        return "naive"
    if ratio is None:
        return ""
    return f"{ratio:.4f}" if ratio < 10 else f"{ratio:.1f}"
