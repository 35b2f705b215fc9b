"""Standard error and Student's t of a mean over time, when neighbouring rows share a part of their truth.

Two forecasts of the next hour made a minute apart share 59 minutes of truth, so 60 rows are worth little more than a
single row. The long-run variance is the mean of ``B`` estimates that are independent of each other: the squares of the
first ``B`` cosine transforms of the values. The ratio of mean to standard error is then Student's t with ``B`` degrees
of freedom, even if the rows cover few horizons. Source: Lazarus, Lewis, Stock and Watson, J. Business & Economic
Statistics 36(4), 2018. With few horizons the Bartlett weights of Newey and West need special critical values:
docs/decisions/0004 compares both methods.
"""

import math
from dataclasses import dataclass

import numpy as np

from klines.klines import Floats, Ints

COSINES_PER_HORIZON = 0.4  # at faster cosines the overlap of horizons has averaged the variance away
MOST_BINS = 4096  # of time: the fastest cosine turns by less than a twentieth of a radian within a bin
MOST_COSINES = 64  # the fastest has a period of 1/32 of the time, so correlation that outlasts a horizon counts too


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over rows in time, and its standard error."""

    value: float
    error: float  # standard error; NaN if it cannot be estimated
    freedom: int  # degrees of freedom of Student's t; 0 if the error cannot be estimated
    rows: int
    horizons: float  # length of the time that the rows cover, in horizons
    effective: float  # number of independent rows with the same error; ``rows`` if the error cannot be estimated

    @property
    def p_below(self) -> float:
        """Chance of a mean this low or lower if the expectation were 0."""
        return _tail(-self.value, self.error, self.freedom)

    @property
    def p_above(self) -> float:
        """Chance of a mean this high or higher if the expectation were 0."""
        return _tail(self.value, self.error, self.freedom)


def mean_over_time(values: Floats, ticks: Ints, steps: int) -> Mean:
    """Mean of values that are correlated because their horizons overlap.

    Args:
        values: ``(N,)`` finite, any unit.
        ticks: ``(N,)`` number of the candle of each value, in any order; values of several symbols may share a tick. A
            candle without a value adds nothing to the sums.
        steps: the horizon in candles, 1 or more.

    >>> flat = mean_over_time(np.array([1.0, -1.0] * 500), np.arange(1000), 10)
    >>> flat.value, flat.freedom, flat.horizons
    (0.0, 40, 100.0)
    """
    rows, covered = len(values), horizons(ticks, steps)
    mean = float(values.mean()) if rows else math.nan
    freedom = min(MOST_COSINES, int(COSINES_PER_HORIZON * covered))
    if freedom < 1 or not math.isfinite(mean):
        return Mean(value=mean, error=math.nan, freedom=0, rows=rows, horizons=covered, effective=float(rows))
    centred = values - mean
    power, of_sum = float(centred @ centred), variance_of_sum(centred, ticks, freedom)
    return Mean(
        value=mean,
        error=of_sum**0.5 / rows,
        freedom=freedom,
        rows=rows,
        horizons=covered,
        effective=min(float(rows), rows * power / of_sum) if of_sum > 0 else float(rows),
    )


def horizons(ticks: Ints, steps: int) -> float:
    """Return how many horizons of time the rows cover. A hole longer than a horizon counts as a single horizon."""
    if not len(ticks):
        return 0.0
    apart = np.diff(ticks)
    if (apart < 0).any():
        apart = np.diff(np.sort(ticks))
    return float(np.minimum(apart, steps).sum() + 1) / steps


def horizons_so_far(ticks: Ints, steps: int) -> Floats:
    """Return ``(N,)`` how many horizons of time each row and the rows before it cover; the last is ``horizons``.

    Args:
        ticks: ``(N,)`` rising.

    >>> horizons_so_far(np.array([0, 5, 100]), 10)
    array([0.1, 0.6, 1.6])
    """
    apart = np.minimum(np.diff(ticks, prepend=ticks[:1]), steps)
    covered: Floats = (np.cumsum(apart) + 1) / steps
    return covered


def variance_of_sum(centred: Floats, ticks: Ints, cosines: int) -> float:
    """Variance of the sum of values whose expectation is 0, by their first ``cosines`` cosine transforms.

    Args:
        centred: ``(N,)``.
        ticks: ``(N,)`` as for ``mean_over_time``.
        cosines: 1 or more, up to MOST_COSINES, and fewer than half the candles between the first tick and the last.
    """
    first = int(ticks.min())
    span = int(ticks.max()) - first + 1
    bins = min(span, MOST_BINS)
    by_bin = np.bincount((ticks - first) * bins // span, weights=centred, minlength=bins)
    number = np.arange(1, cosines + 1)
    # Cosine transform (DCT-II) by FFT: zeros double the length, the phase moves each cosine by half a bin.
    turned = np.fft.rfft(by_bin, 2 * bins)[1 : cosines + 1] * np.exp(-0.5j * np.pi * number / bins)
    return float(2 * np.square(turned.real).mean())  # the mean square of a cosine is 1/2, hence the factor 2


def student_tail(t: float, freedom: int) -> float:
    """Chance that Student's t with ``freedom`` degrees of freedom exceeds ``t``.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    >>> round(student_tail(6.314, 1), 4), round(student_tail(1.812, 10), 4), round(student_tail(-1.725, 20), 4)
    (0.05, 0.05, 0.95)
    """
    angle = math.atan2(t, freedom**0.5)
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine2 * (k - 1) / k
        total += term
    within = math.sin(angle) * total
    if odd:
        within = 2 / math.pi * (angle + within)
    return min(1.0, max(0.0, 0.5 - 0.5 * within))


def _tail(value: float, error: float, freedom: int) -> float:
    if not freedom or not math.isfinite(error) or not math.isfinite(value):
        return math.nan
    if error <= 0:  # all rows are equal, so the sign decides
        return 0.0 if value > 0 else 1.0
    return student_tail(value / error, freedom)
