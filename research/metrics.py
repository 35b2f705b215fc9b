"""What the rows of a walk say: directions, reliability and the seven metrics of the Forge builder kit, as numbers.

Rows overlap: two forecasts of the next hour made a minute apart share 59 minutes of truth. Wherever a chance is
computed here, the rows therefore count for fewer than they are.
"""

import math
from dataclasses import dataclass

import numpy as np

from market.klines import Floats, Ints
from model.hac import mean_over_time

DECILES = 10
TWO_SIDED = 1.96  # standard errors of a band that holds 95 of 100
FORGE = {  # metric -> what it must reach
    "directional_accuracy": 0.52,
    "directional_accuracy_low": 0.50,
    "directional_accuracy_p": 0.05,
    "pearson_r": 0.05,
    "pearson_p": 0.05,
    "wrmse_improvement": 0.05,
    "czar_improvement": 0.10,
}
FORGE_BELOW = frozenset({"directional_accuracy_p", "pearson_p"})  # must stay below; the others reach or exceed


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
    """Rows with neighbouring forecasts: what was said of them, and what came true."""

    rows: int
    forecast: float  # mean
    truth: float  # mean
    error: float  # standard error of the truth's mean, horizons overlapping; NaN where too little time says


def normal_tail(z: float) -> float:
    """Chance that a standard normal number exceeds ``z``.

    >>> round(normal_tail(1.6449), 4)
    0.05
    """
    return 0.5 * math.erfc(z / 2**0.5)


def hits(truth: Floats, forecast: Floats, confidence: Floats, ticks: Ints, steps: int) -> Hits:
    """Direction of a forecast against what came true.

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


def forge(truth: Floats, forecast: Floats) -> dict[str, float]:
    """The seven metrics of the Forge builder kit, and what its tests of chance count rows for.

    Args:
        truth, forecast: ``(N,)`` in time order, as differences from the naive forecast: returns as they are, volatility
            less that of the last window (of a number that is never negative every direction would be right).
    Returns:
        by name as in FORGE: share of right directions among rows that moved; the lower end of its Wilson interval and
        its one-sided p-value, both with the rows that lag-1 autocorrelation leaves; Pearson's r; its two-sided p-value,
        here with the rows that the lag-1 autocorrelations of both leave (Bretherton et al., J. Climate 12, 1999), where
        the kit takes all rows for independent; improvement over naive of the root of the mean squared error weighted by
        the size of the truth; and the sum of moves in the right direction less that of moves in the wrong one, over the
        sum of all moves ("cumulative z-scored absolute return").

    Source: allora-network/allora-forge-builder-kit, allora_forge_builder_kit/evaluation.py (v3.0).
    """
    moved = truth != 0
    right = (np.sign(truth[moved]) == np.sign(forecast[moved])).astype(np.float64)
    rate = float(right.mean()) if len(right) else 0.5
    worth = max(len(right) * _kept(_lag_one(right)), 2.0) if len(right) > 2 else float(len(right))
    low, p = 0.0, 1.0
    if worth > 0:
        z2 = TWO_SIDED**2
        spread = TWO_SIDED * (rate * (1 - rate) / worth + z2 / (4 * worth**2)) ** 0.5
        low = (rate + z2 / (2 * worth) - spread) / (1 + z2 / worth)
        p = normal_tail(max((rate - 0.5 - 0.5 / worth) / (0.25 / worth) ** 0.5, 0.0))
    r = _correlation(truth, forecast)
    both = max(len(truth) * _kept(_lag_one(truth) * _lag_one(forecast)), 3.0)
    size = np.abs(truth)
    missed, at_rest = float(size @ (truth - forecast) ** 2), float(size @ truth**2)
    return {
        "directional_accuracy": rate,
        "directional_accuracy_low": low,
        "directional_accuracy_p": p,
        "pearson_r": r,
        "pearson_p": 2 * normal_tail(abs(r) * ((both - 2) / max(1 - r**2, 1e-12)) ** 0.5),
        "wrmse_improvement": 1 - (missed / at_rest) ** 0.5 if at_rest > 0 else 0.0,
        "czar_improvement": float(np.where(np.sign(truth) == np.sign(forecast), size, -size).sum() / size.sum())
        if at_rest > 0
        else 0.0,
        "directional_rows": worth,
        "pearson_rows": both,
    }


def forge_passed(metrics: dict[str, float]) -> list[str]:
    """Which of the seven are reached.

    >>> forge_passed({name: 0.0 for name in FORGE})
    ['directional_accuracy_p', 'pearson_p']
    """
    return [
        name
        for name, threshold in FORGE.items()
        if (metrics[name] < threshold if name in FORGE_BELOW else metrics[name] >= threshold)
    ]


def _kept(rho: float) -> float:
    """Share of rows that autocorrelation leaves; a negative one adds none."""
    rho = min(max(rho, 0.0), 1.0 - 1e-9)
    return (1 - rho) / (1 + rho)


def _lag_one(values: Floats) -> float:
    return _correlation(values[:-1], values[1:]) if len(values) > 2 else 0.0


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    power = float(a @ a) * float(b @ b)
    return float(a @ b) / power**0.5 if power > 0 else 0.0
