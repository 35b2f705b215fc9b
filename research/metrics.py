"""What the rows of a walk say: directions, reliability and the seven metrics of the Forge builder kit, as numbers.

Rows overlap: two forecasts of the next hour made a minute apart share 59 minutes of truth. Wherever a chance is
computed here, the rows therefore count for fewer than they are.
"""

import math
from dataclasses import dataclass

import numpy as np

from market.klines import Floats, Ints

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
    p: float  # chance of such a rate or a higher one by tossing a coin; one-sided
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


def normal_tail(z: float) -> float:
    """Chance that a standard normal number exceeds ``z``.

    >>> round(normal_tail(1.6449), 4)
    0.05
    """
    return 0.5 * math.erfc(z / 2**0.5)


def effective_rows(values: Floats, ticks: Ints, lags: int) -> float:
    """How many independent rows the mean of these is worth.

    The rows' variance over that of their mean, the latter allowing for correlation over ``lags`` candles and among
    rows of the same candle (several symbols): Newey and West, Econometrica 55(3), 1987. Never more than there are.

    Args:
        values: ``(N,)``, any order.
        ticks: ``(N,)`` the place of each in time, in candles.

    >>> effective_rows(np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), np.arange(6), 0)
    6.0
    >>> effective_rows(np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1, 2, 2]), 0)
    3.0
    """
    if len(values) < 2:
        return float(len(values))
    centred = values - values.mean()
    first = int(ticks.min())
    sums = np.bincount(ticks - first, weights=centred)
    lags = min(lags, len(sums) - 1)
    spectrum = np.fft.rfft(sums, 2 * len(sums))
    covariances = np.fft.irfft(np.abs(spectrum) ** 2)[: lags + 1]
    weights = 1 - np.arange(lags + 1) / (lags + 1)  # Bartlett
    of_sum = float(2 * (weights @ covariances) - covariances[0])
    power = float(centred @ centred)
    if not of_sum > 0 or not power > 0:
        return float(len(values))
    return min(round(len(values) * power / of_sum, 6), float(len(values)))


def diebold_mariano(lead: Floats, ticks: Ints, steps: int) -> tuple[float, float]:
    """Statistic and one-sided p of a loss that is lower than another's."""
    worth = effective_rows(lead, ticks, 2 * steps)
    spread = float(lead.std())
    if not spread > 0:
        return 0.0, 0.5
    statistic = float(lead.mean()) / spread * worth**0.5
    return statistic, normal_tail(-statistic)


def hits(truth: Floats, forecast: Floats, confidence: Floats, ticks: Ints, steps: int) -> Hits:
    """Direction of a forecast against what came true.

    Args:
        truth, forecast: ``(N,)`` returns; rows that did not move are left out.
        confidence: ``(N,)`` size of the forecast over the market's present standard deviation.
        ticks: ``(N,)`` place in time, in candles.
        steps: the horizon in candles; correlation is allowed for over twice as many.
    """
    moved = truth != 0
    right = (np.sign(truth[moved]) == np.sign(forecast[moved])).astype(np.float64)
    if not len(right):
        return Hits(rows=0, rate=0.5, effective=0.0, p=1.0, least=math.nan, most=math.nan)
    worth = effective_rows(right, ticks[moved], 2 * steps)
    rate = float(right.mean())
    z = (rate - 0.5 - 0.5 / worth) / (0.25 / worth) ** 0.5  # with the correction for counting in whole rows
    return Hits(
        rows=len(right),
        rate=rate,
        effective=worth,
        p=normal_tail(z),
        least=float(confidence[moved].min()),
        most=float(confidence[moved].max()),
    )


def by_decile(order: Floats) -> list[Ints]:
    """Rows in ten groups of equal size, from the lowest ``order`` to the highest; fewer groups of very few rows."""
    ranked = np.argsort(order, kind="stable")
    return [group for group in np.array_split(ranked, DECILES) if len(group)]


def reliability(truth: Floats, forecast: Floats) -> list[Bin]:
    """Mean truth by decile of the forecast: on the diagonal, a forecast means what it says."""
    return [
        Bin(rows=len(group), forecast=float(forecast[group].mean()), truth=float(truth[group].mean()))
        for group in by_decile(forecast)
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
