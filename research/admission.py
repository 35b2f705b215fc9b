"""Whether what was served would have been admitted to mainnet: the network's seven criteria, on rows an epoch apart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Topic
from market.klines import Floats, Ints
from model.admission import Criterion, Record, criteria
from model.baselines import FIT_DAYS, LEAST_TARGETS, deviation, trailing_fit
from model.heads import head_of
from research.words import criteria_words, days_words, percent_text

BLOCK_MS, UNKNOWN_EPOCH_BLOCKS = 5_000, 60
NO_CHANGE, DAY_MEAN, TRAILING_FIT = "no change", "back to the day's mean", "trailing fit"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Epochs:
    """A topic's epochs over a span, evenly spaced: E of them, those without a row included."""

    row: Ints  # (E,) the first row that begins in each; -1 where none does
    length_ms: int  # no shorter than rows are apart
    ratio: int  # epochs that a horizon overlaps with

    @classmethod
    def of(cls, topic: Topic, base_ms: Ints) -> "Epochs":
        """The epochs of one or more rows, whose intervals begin at these moments, rising."""
        apart_ms = int(np.median(np.diff(base_ms))) if len(base_ms) > 1 else 0
        length_ms = max((topic.epoch_length_blocks or UNKNOWN_EPOCH_BLOCKS) * BLOCK_MS, apart_ms)
        numbers, rows = np.unique(base_ms // length_ms, return_index=True)
        row = np.full(int(numbers[-1] - numbers[0]) + 1, -1)
        row[numbers - numbers[0]] = rows
        return cls(row=row, length_ms=length_ms, ratio=max(1, round(topic.horizon_ms / length_ms)))

    def at(self, values: Floats) -> Floats:
        """``(E,)`` out of the rows' values; NaN without a row."""
        found: Floats = np.where(self.row >= 0, values[self.row], np.nan)
        return found

    def record(self, topic: Topic, truth: Floats, forecast: Floats, count: int | None = None) -> Record:
        """What was said of the first so many epochs, or of all; ``(E,)``."""
        rows = self.row[:count]
        return Record(
            truth=truth[:count],
            forecast=forecast[:count],
            gap=np.ones(len(rows), np.int64),
            horizon_min=topic.horizon_min,
            ratio=self.ratio,
            submitted=int((rows >= 0).sum()),
            expected=len(rows),
        )

    def lasting(self, span_ms: float) -> int:
        """How many epochs a span lasts, at least 1."""
        return max(1, round(span_ms / self.length_ms))


def admission(topic: Topic, base_ms: Ints, truth: Floats, naive: Floats, said: Mapping[str, Floats]) -> dict[str, Any]:
    """The criteria of what each contender said, and on which day those of the first one held; JSON.

    Args:
        base_ms: ``(N,)`` when each row's interval began, rising.
        truth, naive: ``(N,)`` in the head's unit. A price's is ln(price / price at the base).
        said: by contender, ``(N,)`` likewise.
    """
    epochs, ours = Epochs.of(topic, base_ms), next(iter(said))
    pairs = _pairs(topic, epochs, truth, naive, said)
    found = {
        baseline: {name: criteria(epochs.record(topic, *pair)) for name, pair in of_baseline.items()}
        for baseline, of_baseline in pairs.items()
    }
    looks = _daily_looks(topic, epochs, [of_baseline[ours] for of_baseline in pairs.values()])
    day = int(np.flatnonzero(looks)[0]) + 1 if looks.any() else None
    holds = float(looks[day:].mean()) if day and day < len(looks) else None
    return {
        "epoch_min": epochs.length_ms / MINUTE_MS,
        "ratio": epochs.ratio,
        "rows": int((epochs.row >= 0).sum()),
        "day": day,
        "holds": holds,
        "words": _words(len(looks), day, holds, [of_baseline[ours] for of_baseline in found.values()]),
        "criteria": {
            baseline: {
                name: {criterion: asdict(one) for criterion, one in seven.items()}
                for name, seven in of_baseline.items()
            }
            for baseline, of_baseline in found.items()
        },
    }


Pair = tuple[Floats, Floats]  # (E,) truths and forecasts, as the criteria take them


def _pairs(
    topic: Topic, epochs: Epochs, truth: Floats, naive: Floats, said: Mapping[str, Floats]
) -> dict[str, dict[str, Pair]]:
    """By baseline and contender; of volatility they are changes beyond what the baseline expects."""
    if not head_of(topic).kind.is_volatility:
        return {NO_CHANGE: {name: (epochs.at(truth), epochs.at(values)) for name, values in said.items()}}
    base = epochs.at(_logarithm(naive))
    change = epochs.at(_logarithm(truth)) - base
    dev = deviation(base, epochs.lasting(DAY_MS))
    fit_rows, lag = epochs.lasting(FIT_DAYS * DAY_MS), math.ceil(topic.horizon_ms / epochs.length_ms)
    fitted = trailing_fit(change, dev, fit_rows, lag, LEAST_TARGETS * epochs.ratio)
    return {
        baseline: {
            name: (change - expected, epochs.at(_logarithm(values)) - base - expected) for name, values in said.items()
        }
        for baseline, expected in ((DAY_MEAN, -dev), (TRAILING_FIT, fitted))
    }


def _daily_looks(topic: Topic, epochs: Epochs, pairs: Sequence[Pair]) -> NDArray[np.bool_]:
    """True for each whole day of the span at whose end all criteria hold, against each baseline."""
    days = (len(epochs.row) * epochs.length_ms + topic.horizon_ms) // DAY_MS
    ended = [max(0, day * DAY_MS - topic.horizon_ms) // epochs.length_ms for day in range(1, days + 1)]
    held = [
        all(one.passed for pair in pairs for one in criteria(epochs.record(topic, *pair, count)).values())
        for count in ended
    ]
    return np.array(held, np.bool_)


def _logarithm(volatility: Floats) -> Floats:
    result: Floats = np.log(np.where(volatility > 0, volatility, np.nan))
    return result


def _words(days: int, day: int | None, holds: float | None, found: Sequence[Mapping[str, Criterion]]) -> str:
    if not days:
        return "too short a span to say: admission is looked at once a day"
    if day is None:
        short = criteria_words([name for name in found[0] if not all(seven[name].passed for seven in found)])
        return f"not admitted in {days_words(days)}" + (f": short of {short}" if short else "")
    later = "" if holds is None else f"; the criteria hold on {percent_text(holds)} of the later days"
    return f"admitted after {days_words(day)}{later}"
