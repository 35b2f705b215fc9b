"""What a change of volatility is judged against: named baselines that expect a return to the mean.

The network judges volatility topics by ln(target volatility / base volatility), less a causal trailing baseline whose
formula it has not published. Two stand in for it: back to the last day's mean, and a trailing fit, the stricter one.

Shapes: E epochs, evenly spaced in time; NaN where there is no volatility, or one of 0.
"""

import numpy as np

from market.klines import Floats
from model.features import Bools
from model.windows import Rows

FIT_DAYS = 7  # of epochs that the trailing fit is made on
LEAST_TARGETS = 20  # intervals that do not overlap, below which there is no fit


def deviation(log_base: Floats, rows: int) -> Floats:
    """``(E,)`` ln base volatility less its mean over the last day's epochs, the own included; back is ``-deviation``.

    Args:
        rows: epochs in a day.
    """
    there = np.isfinite(log_base)
    first, end = _window(len(log_base), rows, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _sums(log_base, there, first, end) / _sums(np.ones(len(there)), there, first, end)
    result: Floats = log_base - mean
    return result


def trailing_fit(change: Floats, dev: Floats, rows: int, lag: int, least: int) -> Floats:
    """``(E,)`` expected changes, by least squares with intercept of the change on the deviation.

    Args:
        change: ``(E,)`` ln(target volatility / base volatility).
        rows: epochs that the fit is made on.
        lag: epochs until an interval has ended: the newest that is read.
        least: with fewer epochs there is no fit, and the result is NaN.
    """
    there = np.isfinite(change) & np.isfinite(dev)
    first, end = _window(len(dev), rows, lag)
    columns = (np.ones(len(dev)), dev, change, dev * dev, dev * change)
    count, sx, sy, sxx, sxy = (_sums(column, there, first, end) for column in columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        about = sxx - sx * sx / count
        slope = np.where(about > 0, (sxy - sx * sy / count) / about, 0.0)
        fitted = sy / count + slope * (dev - sx / count)
    result: Floats = np.where(count >= least, fitted, np.nan)
    return result


def _window(count: int, rows: int, lag: int) -> tuple[Rows, Rows]:
    """First and end of the ``rows`` rows, the newest of which lies ``lag`` before each."""
    end = np.maximum(np.arange(1, count + 1) - lag, 0)
    return np.maximum(end - rows, 0), end


def _sums(values: Floats, there: Bools, first: Rows, end: Rows) -> Floats:
    total = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    result: Floats = total[end] - total[first]
    return result
