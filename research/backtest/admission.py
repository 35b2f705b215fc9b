"""Admission of served forecasts to mainnet: the network's seven criteria, on rows an epoch apart."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from admission.criteria import Criterion
from admission.records import looks
from admission.replay import Epochs, Past, epoch_ms, past_with
from admission.standing import baselines, standing_of
from admission.words import standing_words
from core.clock import MINUTE_MS
from core.topic import Topic
from klines.klines import Floats, Ints

NO_CHANGE, DAY_MEAN, TRAILING_FIT = "no change", "back to the day's mean", "trailing fit"


def admission(topic: Topic, base_ms: Ints, truth: Floats, naive: Floats, said: Mapping[str, Floats]) -> dict[str, Any]:
    """The criteria of each contender, and when they hold for the first; JSON.

    Args:
        base_ms: ``(N,)`` start of each row's interval, rising, N at least 1.
        truth, naive: ``(N,)`` in the head's unit. A price's is ln(price / price at the base).
        said: by contender, ``(N,)`` likewise.
    """
    past = past_of_rows(topic, base_ms, truth, naive)
    forecasts = {name: _change(past, values) for name, values in said.items()}
    names = (DAY_MEAN, TRAILING_FIT) if past.head.kind.is_volatility else (NO_CHANGE,)
    judged = np.isfinite(sum(baselines(past), np.zeros(len(past.row))))
    first = int(np.argmax(judged))
    found = {
        name: {ours: _criteria(past, baseline, forecast, first) for ours, forecast in forecasts.items()}
        for name, baseline in zip(names, baselines(past), strict=True)
    }
    served = next(iter(forecasts))
    standing = standing_of(past, forecasts[served], 0)
    failed = [name for name in found[names[0]][served] if not all(of[served][name].passed for of in found.values())]
    advice = "" if standing.criteria else "too short a span to judge"
    return {
        "epoch_min": past.epochs.length_ms / MINUTE_MS,
        "ratio": past.epochs.ratio,
        "rows": int((past.row >= 0).sum()),
        "eligible": standing.eligible,
        "days": asdict(standing.days),
        "holds": standing.holds,
        "words": standing_words(standing, failed, advice),
        "criteria": {
            name: {ours: {criterion: asdict(one) for criterion, one in seven.items()} for ours, seven in of.items()}
            for name, of in found.items()
        },
    }


def past_of_rows(topic: Topic, base_ms: Ints, truth: Floats, naive: Floats) -> Past:
    """The first row of each epoch; an epoch is at least as long as the distance of rows.

    Args:
        base_ms, truth, naive: as for ``admission``.
    """
    apart_ms = float(np.median(np.diff(base_ms))) if len(base_ms) > 1 else 0.0
    length_ms = max(epoch_ms(topic), apart_ms)
    numbers, rows = np.unique((base_ms // length_ms).astype(np.int64), return_index=True)
    number = np.arange(numbers[0], numbers[-1] + 1)
    row = np.full(len(number), -1)
    row[numbers - numbers[0]] = rows
    epochs = Epochs(
        number=number,
        base_ms=np.where(row >= 0, base_ms[row], (number * length_ms).astype(np.int64)),
        length_ms=length_ms,
        ratio=max(1, round(topic.horizon_ms / length_ms)),
    )
    came_true, base = (np.where(row >= 0, values[row], np.nan) for values in (truth, naive))
    return past_with(topic, epochs, row=row, base=base, came_true=came_true)


def _change(past: Past, forecast: Floats) -> Floats:
    """``(E,)`` a contender's rows as the criteria take them."""
    said: Floats = np.where(past.row >= 0, forecast[past.row], np.nan)
    if not past.head.kind.is_volatility:
        return said
    change: Floats = np.log(np.where(said > 0, said, np.nan) / past.base)
    return change


def _criteria(past: Past, baseline: Floats, forecast: Floats, first: int) -> Mapping[str, Criterion]:
    """The criteria over all epochs from ``first`` on, where the baselines begin."""
    of_all = looks(
        past.truth - baseline,
        forecast - baseline,
        np.array([first]),
        np.array([len(past.row)]),
        horizon_min=past.topic.horizon_min,
        ratio=past.epochs.ratio,
    )
    return {name: one.at(0) for name, one in of_all.items()}
