"""Figures of directions and reliability from the rows of a walk.

Rows overlap: two forecasts of the next hour made a minute apart share 59 minutes of truth. Wherever a chance is
computed here, the rows therefore count for fewer than they are.
"""

import math
from dataclasses import dataclass

import numpy as np

from klines.klines import Floats, Ints
from model.judging.significance import mean_over_time

DECILES = 10
TWO_SIDED = 1.96  # standard errors of a band that holds 95 of 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """How often a direction was right among some rows."""

    rows: int
    rate: float  # of rows whose price moved
    effective: float  # independent rows they are worth
    p: float  # chance of such a rate or a higher one by tossing a coin; one-sided; NaN where too little time says
    least: float  # confidence of the least confident of them, in standard deviations of the horizon
    most: float

    @property
    def band(self) -> tuple[float, float]:
        """Where the rate of a coin lies in 95 of 100 cases."""
        half = TWO_SIDED * 0.5 / max(self.effective, 1.0) ** 0.5
        return 0.5 - half, 0.5 + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Rows with neighbouring forecasts: the mean forecast and the mean truth."""

    rows: int
    forecast: float  # mean
    truth: float  # mean
    error: float  # standard error of the truth's mean, horizons overlapping; NaN where too little time says


def hits(truth: Floats, forecast: Floats, confidence: Floats, ticks: Ints, steps: int) -> Hits:
    """Compare the direction of a forecast with the direction of the truth.

    Args:
        truth, forecast: ``(N,)`` returns; rows that did not move are left out.
        confidence: ``(N,)`` size of the forecast over the market's present standard deviation.
        ticks: ``(N,)`` place in time, in candles; rows of several symbols may share one.
        steps: the horizon in candles.
    """
    moved = truth != 0
    right = (np.sign(truth[moved]) == np.sign(forecast[moved])).astype(np.float64)
    if not len(right):
        return Hits(rows=0, rate=0.5, effective=0.0, p=math.nan, least=math.nan, most=math.nan)
    over_coin = mean_over_time(right - 0.5, ticks[moved], steps)
    return Hits(
        rows=len(right),
        rate=float(right.mean()),
        effective=over_coin.effective,
        p=over_coin.p_above,
        least=float(confidence[moved].min()),
        most=float(confidence[moved].max()),
    )


def by_decile(order: Floats) -> list[Ints]:
    """Rows in ten groups of equal size, from the lowest ``order`` to the highest; fewer groups of very few rows."""
    ranked = np.argsort(order, kind="stable")
    return [group for group in np.array_split(ranked, DECILES) if len(group)]


def reliability(truth: Floats, forecast: Floats, ticks: Ints, steps: int) -> list[Bin]:
    """Mean truth by decile of the forecast: on the diagonal, a forecast means what it says.

    Args:
        ticks, steps: as for ``hits``.
    """
    return [
        Bin(
            rows=len(group),
            forecast=float(forecast[group].mean()),
            truth=float(truth[group].mean()),
            error=mean_over_time(truth[group], ticks[group], steps).error,
        )
        for group in map(np.sort, by_decile(forecast))
    ]
