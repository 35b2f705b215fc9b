"""Skill: the share of the naive forecast's loss that a forecaster saves, with a confidence interval."""

import math
from dataclasses import dataclass

from klines.klines import Floats, Ints
from model.judging.significance import mean_over_time, student_tail

CONFIDENCE = 0.95  # two-sided


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """``1 - mean loss / mean naive loss`` over some rows, and the interval that holds it at CONFIDENCE."""

    n: int
    skill: float | None  # None: no rows, or the naive forecast made no error
    low: float | None  # None: the rows cover too little time
    high: float | None


def skill_of(ticks: Ints, losses: Floats, naive_losses: Floats, steps: int) -> Skill:
    """Skill and its interval, whose standard error allows for overlapping horizons (``mean_over_time``).

    The error is that of the ratio of the two means (delta method), so that a day of large moves counts once.

    Args:
        ticks: ``(N,)`` place of each row in time, in candles, in any order.
        losses, naive_losses: ``(N,)`` finite, of the same rows.
        steps: the horizon in candles.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal((2, 4000))
    >>> found = skill_of(np.arange(4000), 0.8 * noise[0] ** 2, noise[1] ** 2, 1)
    >>> round(found.skill, 2), found.low < 0.2 < found.high
    (0.21, True)
    >>> skill_of(np.arange(0), np.zeros(0), np.zeros(0), 1)
    Skill(n=0, skill=None, low=None, high=None)
    """
    n = len(losses)
    naive = float(naive_losses.mean()) if n else 0.0
    if not naive > 0:
        return Skill(n=n, skill=None, low=None, high=None)
    skill = 1.0 - float(losses.mean()) / naive
    error = mean_over_time(((1.0 - skill) * naive_losses - losses) / naive, ticks, steps)
    if not error.freedom or not math.isfinite(error.error):
        return Skill(n=n, skill=skill, low=None, high=None)
    half = _student_quantile((1 - CONFIDENCE) / 2, error.freedom) * error.error
    return Skill(n=n, skill=skill, low=skill - half, high=skill + half)


def _student_quantile(tail: float, freedom: int) -> float:
    """The t that Student's t exceeds with a chance of ``tail`` (below 1/2).

    >>> round(_student_quantile(0.025, 10), 3), round(_student_quantile(0.025, 1), 2)
    (2.228, 12.71)
    """
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > tail:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > tail else (low, middle)
    return high
