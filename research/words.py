"""How tables and pictures write things."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from admission.readiness import Standing

SIMULATED_FOLDER, REPLAY = "simulated", "replay-"  # where the simulated exchange's klines lie, and how a replay's begin
NAIVE_WORDS = "naive: the network adds nothing"  # of a forecast that is equal to the naive one
LOSSES = {"mse": "squared error", "mae": "absolute error"}
LABELS = {"newest": "newest network", "har": "HAR", "lightgbm": "LightGBM"}
CRITERIA = {  # of admission to mainnet, by its name in model.admission: in words, and what its bound must be
    "n_eff": ("independent rows", "at least 20"),
    "direction": ("right directions", "above 0.5"),
    "pearson": ("correlation", "above 0"),
    "wrmse": ("gain in weighted RMSE", "above 0"),
    "wczar": ("gain in weighted CZAR", "above 0"),
    "log_aspect": ("log10 of the spreads' ratio", "-0.5 to 0.5"),
    "participation": ("epochs answered", "above 0.9"),
}
AT_THE_BASE = (  # beside a backtest's verdict of admission
    "answered at the base, with nothing known of the interval and no stretch; what is live, birnn ready says"
)
SHORT_CRITERIA = {"wrmse": "weighted RMSE", "wczar": "weighted CZAR", "log_aspect": "spread", "n_eff": "rows"}


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


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "topic"), counted(2, "topic")
    ('1 topic', '2 topics')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def criteria_words(names: Sequence[str]) -> str:
    """Criteria of admission in a sentence.

    >>> criteria_words(["n_eff", "direction", "log_aspect"]), criteria_words(["wczar"])
    ('rows, right directions and spread', 'weighted CZAR')
    """
    *others, last = [SHORT_CRITERIA.get(name, CRITERIA[name][0]) for name in names] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def criteria_met(one: Mapping[str, Any], ours: str) -> int:
    """How many criteria a contender meets on a topic of a report; against the stricter baseline where there are two."""
    found = one["admission"]["criteria"].values()
    return min(sum(bool(criterion["passed"]) for criterion in of_baseline[ours].values()) for of_baseline in found)


def standing_words(standing: Standing, failed: Sequence[str], advice: str = "") -> str:
    """Whether a topic would be admitted and when, in one sentence.

    Args:
        failed: criteria that do not hold over all days, by name.
        advice: what would help, or why nothing can be judged.
    """
    days = standing.days
    if standing.eligible:
        after = "" if days.median is None else f" after a median of {days_words(days.median)}"
        holds = standing.holds
        later = "" if holds is None else f"; the criteria hold on {percent_text(holds)} of the later days"
        return f"would be admitted{after}{later}"
    if not standing.criteria:
        return advice
    short = f"short of {criteria_words(failed)}" if failed else "one of the two baselines is not beaten"
    some = (
        f"over all days {short}, though records begun on {percent_text(1 - days.never)} of the days met all seven at "
        "some time"
    )
    return "; ".join(part for part in (f"would not be admitted: {some if days.never < 1 else short}", advice) if part)


def days_words(days: float) -> str:
    """
    >>> days_words(1), days_words(4.0), days_words(2.5)
    ('1 day', '4 days', '2.5 days')
    """
    return counted(int(days), "day") if days == int(days) else f"{days:.1f} days"


def loss_words(loss: str) -> str:
    """A topic's loss in a sentence.

    >>> loss_words("mse"), loss_words("czar")
    ('squared error', 'its loss, czar')
    """
    return LOSSES.get(loss, f"its loss, {loss}")


def percent_text(share: float) -> str:
    """A share that is not negative, in per cent, to two digits where it is small.

    >>> percent_text(0.3513), percent_text(0.0246), percent_text(0.00084), percent_text(12.5)
    ('35 %', '2.5 %', '0.084 %', '1,250 %')
    """
    return f"{100 * share:,.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


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


def p_text(p: float | None) -> str:
    """A chance, as tables write it.

    >>> p_text(0.00004), p_text(0.031), p_text(None)
    ('<0.001', '0.031', '')
    """
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def number_text(number: float | None) -> str:
    """A criterion's value or bound, as tables write it.

    >>> number_text(0.51086), number_text(-0.0279), number_text(2016.0), number_text(None)
    ('0.511', '-0.028', '2016', '')
    """
    if number is None:
        return ""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3f}"
