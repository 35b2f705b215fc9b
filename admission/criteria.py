"""The seven criteria by which the network admits a worker to a mainnet topic, from the worker's past submissions.

Source: revision bd01f9d2 of the network's worker metrics, as published with allora-forge-builder-kit (October 2026).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.errors import ConfigError
from klines.klines import Floats, Ints

NAMES = ("n_eff", "direction", "pearson", "wrmse", "wczar", "log_aspect", "participation")
SURE, BOTH_SIDES = 1.6448536269514722, 1.959963984540054  # standard normal quantiles: 95 % of one side, of two
SHORT_MIN = 20  # minutes; rows of longer horizons count for more, because they take longer to gather
LEAST_ROWS, LEAST_PARTICIPATION = 20, 0.9
ASPECT = 0.5  # of log10(spread of the forecasts / spread of the truths), either way
FLOOR = 1e-6  # of a standard deviation
STEP = 1e-4  # relative, of the derivative by the standard deviation
PATIENT_DAYS = 730  # a longer wait is not advised
TAU = 0.1  # of the term of czar that softens small truths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """A worker's submissions to one topic, a row each, oldest first.

    Raises:
        ConfigError: the columns differ in length, a gap is below 1 epoch, or a number is out of its range.
    """

    truth: Floats  # (N,) log-returns; a row whose truth is not finite is left out
    forecast: Floats  # (N,) log-returns; a value that is not finite counts as a wrong direction
    gap: Ints  # (N,) epochs since the row before; the first row's is not read
    horizon_min: int
    ratio: int  # epochs that a horizon overlaps with: horizon over epoch length
    submitted: int  # epochs
    expected: int  # epochs

    def __post_init__(self) -> None:
        if not len(self.truth) == len(self.forecast) == len(self.gap):
            raise ConfigError(
                f"truth, forecast and gap must be equally long, were {len(self.truth)}, {len(self.forecast)} and "
                f"{len(self.gap)} rows"
            )
        if (self.gap[1:] < 1).any():
            row = int(np.flatnonzero(self.gap[1:] < 1)[0]) + 1
            raise ConfigError(f"row {row + 1}: gap is {self.gap[row]}: give the epochs since the row before, 1 or more")
        if self.horizon_min < 1 or self.ratio < 1:
            raise ConfigError(f"horizon and ratio must be 1 or more, were {self.horizon_min} min and {self.ratio}")
        if not 0 <= self.submitted <= self.expected:
            raise ConfigError(
                f"submitted epochs must be 0 to the expected ones, were {self.submitted} of {self.expected}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A criterion's value, the confidence bound that decides, and the verdict. None: not defined."""

    value: float | None
    bound: float | None  # of n_eff and participation the value; of the aspect the end of its interval nearer 0
    passed: bool


NOT_DEFINED = Criterion(value=None, bound=None, passed=False)


def criteria(record: Record) -> Mapping[str, Criterion]:
    """The seven criteria: n_eff, direction, pearson, wrmse, wczar, log_aspect and participation, in this order.

    A worker is admitted when all of them hold at once.
    """
    known = np.isfinite(record.truth) & (record.truth != 0)
    n_eff = effective_rows(record.truth[known], np.cumsum(record.gap)[known], record.ratio)
    scale = math.sqrt(max(1.0, record.horizon_min / SHORT_MIN))
    both = np.isfinite(record.truth) & np.isfinite(record.forecast)
    truth, forecast = record.truth[both], record.forecast[both]
    share = record.submitted / record.expected if record.expected else 0.0
    return {
        "n_eff": Criterion(value=n_eff, bound=n_eff, passed=n_eff >= LEAST_ROWS),
        "direction": _direction(record.truth[known], record.forecast[known], n_eff * scale),
        "pearson": _pearson(truth, forecast, n_eff),
        "wrmse": _wrmse(truth, forecast, n_eff * scale),
        "wczar": _wczar(truth, forecast, n_eff * scale),
        "log_aspect": _log_aspect(truth, forecast, n_eff),
        "participation": Criterion(value=share, bound=share, passed=share > LEAST_PARTICIPATION),
    }


def days_needed(criterion: Criterion, span_days: float) -> float:
    """Days of answers in all with which the bound would hold if the value stayed; infinite if it never would.

    The distance between the two falls with the root of the days.

    Args:
        criterion: one that fails; neither the aspect nor participation.
        span_days: that it was computed of.
    """
    value, bound = criterion.value, criterion.bound
    if value is None or bound is None:
        return math.inf
    if value == bound:  # n_eff
        return span_days * LEAST_ROWS / value if value > 0 else math.inf
    above = value - 0.5 if value - 0.5 > 0 and bound > 0 and value > 0.5 and bound <= 0.5 else value
    return span_days * ((value - bound) / above) ** 2 if above > 0 else math.inf


def effective_rows(truth: Floats, epoch: Ints, ratio: int) -> float:
    """Independent rows that overlapping rows are worth: fewer by the significant autocorrelations.

    Args:
        truth: ``(N,)``.
        epoch: ``(N,)`` rising; a lag compares rows that are exactly so many epochs apart.
        ratio: epochs that a horizon overlaps with; lags are 1 to ``ratio - 1``.
    """
    alike = 0.0
    for lag in range(1, ratio):
        later = np.minimum(np.searchsorted(epoch, epoch + lag), max(len(epoch) - 1, 0))
        paired = epoch[later] == epoch + lag if len(epoch) else np.zeros(0, np.bool_)
        r = _correlation(truth[paired], truth[later[paired]]) if paired.any() else None
        if r is not None and r > 1.96 / math.sqrt(paired.sum()):
            alike += r
    return len(truth) / (1 + 2 * alike)


def _direction(truth: Floats, forecast: Floats, rows: float) -> Criterion:
    """Share of right directions; the bound is of the score interval with a continuity correction."""
    if not len(truth):
        return NOT_DEFINED
    share = float(np.mean(np.isfinite(forecast) & (np.sign(truth) * np.sign(forecast) > 0)))
    corrected, z2 = share - 0.5 / rows, SURE**2
    inner = corrected * (1 - corrected) / rows + z2 / (4 * rows**2)
    bound = (corrected + z2 / (2 * rows) - SURE * math.sqrt(max(inner, 0.0))) / (1 + z2 / rows)
    return Criterion(value=share, bound=bound, passed=bound > 0.5)


def _pearson(truth: Floats, forecast: Floats, n_eff: float) -> Criterion:
    r = _correlation(truth, forecast)
    rows = min(max(n_eff, 3.0), len(truth))
    if r is None or rows <= 3:
        return Criterion(value=r, bound=None, passed=False)
    if abs(r) >= 1:
        return Criterion(value=r, bound=r, passed=r > 0)
    bound = math.tanh(math.atanh(r) - BOTH_SIDES / math.sqrt(rows - 3))
    return Criterion(value=r, bound=bound, passed=bound > 0)


def _wrmse(truth: Floats, forecast: Floats, rows: float) -> Criterion:
    """Gain over a forecast of 0 in the root of the mean squared error, weighted by the size of the truth."""
    weight = np.abs(truth)
    ours, zero = weight * (truth - forecast) ** 2, weight * truth**2
    if len(truth) < 2 or not zero.mean() > 0:
        return NOT_DEFINED
    root = math.sqrt(ours.mean() / zero.mean())
    influence = -0.5 * root * (ours / ours.mean() - zero / zero.mean()) if ours.mean() > 0 else np.zeros(len(truth))
    return _gain(1 - root, influence, rows)


def _wczar(truth: Floats, forecast: Floats, rows: float) -> Criterion:
    """Gain over a forecast of 0 in the weighted mean czar; the rows themselves give czar's standard deviation."""
    if len(truth) < 2:
        return NOT_DEFINED
    weight, std = np.abs(truth), max(float(np.std(truth)), FLOOR)
    nothing = np.zeros(len(truth))

    def losses(std: float) -> tuple[Floats, Floats]:
        return weight * czar(truth, forecast, std), weight * czar(truth, nothing, std)

    ours, zero = losses(std)
    mean, at_zero = float(ours.mean()), float(zero.mean())
    if not at_zero > 0:
        return NOT_DEFINED
    above, below = losses(std * (1 + STEP)), losses(std * (1 - STEP))
    slope, slope_at_zero = (
        float(up.mean() - down.mean()) / (2 * STEP * std) for up, down in zip(above, below, strict=True)
    )
    of_std = ((truth - truth.mean()) ** 2 - std**2) / (2 * std)
    ratio = mean / at_zero
    by_std = (ratio * slope_at_zero - slope) / at_zero
    influence = (ratio * (zero - at_zero) - (ours - mean)) / at_zero + by_std * of_std
    return _gain(1 - ratio, influence, rows)


def _gain(value: float, influence: Floats, rows: float) -> Criterion:
    bound = value - SURE * float(np.std(influence, ddof=1)) / math.sqrt(rows) if rows > 0 else None
    return Criterion(value=value, bound=bound, passed=bound is not None and bound > 0)


def _log_aspect(truth: Floats, forecast: Floats, n_eff: float) -> Criterion:
    """Judge the spread of the forecasts over that of the truths; a standard error may reach the allowed range."""
    if len(truth) < 2 or not n_eff > 0:
        return NOT_DEFINED
    value, error = log_aspect(truth, forecast, n_eff)
    low, high = value - error, value + error
    return Criterion(value=value, bound=min(low, high, key=abs), passed=low <= ASPECT and high >= -ASPECT)


def log_aspect(truth: Floats, forecast: Floats, n_eff: float) -> tuple[float, float]:
    """log10 of the forecasts' spread over the truths' spread, and its standard error.

    Args:
        truth, forecast: ``(N,)``, two or more.
        n_eff: above 0.
    """
    spreads = [max(float(np.std(values)), FLOOR) for values in (forecast, truth)]
    of_forecast, of_truth = (
        (values - values.mean()) ** 2 / spread**2 if spread > FLOOR else np.zeros(len(values))
        for values, spread in zip((forecast, truth), spreads, strict=True)
    )
    error = float(np.std((of_forecast - of_truth) / (2 * math.log(10)), ddof=1)) / math.sqrt(n_eff)
    return math.log10(spreads[0] / spreads[1]), error


def czar(truth: Floats, forecast: Floats, std: float) -> Floats:
    """The criteria's own czar: alpha 0, where topics that are scored by czar have alpha 1 (``core.losses``).

    Returns:
        ``(N,)``, the term of the truth alone included.
    """
    z = truth / std
    a, u = np.abs(z), np.where(z >= 0, forecast, -forecast) / std
    missed = np.where(
        u <= 0,
        np.arctan(a) - u,
        np.where(u <= a, np.arctan(a) - np.arctan(np.maximum(u, 0.0)), (u - a) / (1 + a**2)),
    )
    worth = math.pi / 4
    heat = TAU * (math.pi / (2 * worth) - 1)
    softened = np.logaddexp(0.0, (1 - np.arctan(a) / worth) / heat) / np.logaddexp(0.0, 1 / heat)
    result: Floats = missed + worth * softened
    return result


def _correlation(x: Floats, y: Floats) -> float | None:
    """Pearson's r; None if the forecasts or the truths do not vary."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    power = float(x @ x) * float(y @ y)
    return min(1.0, max(-1.0, float(x @ y) / math.sqrt(power))) if power > 0 else None
