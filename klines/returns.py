"""Log-returns of candles, sums over windows, and the one definition of volatility."""

import numpy as np

from core.clock import MINUTE_MS
from klines.klines import Floats, Klines

CHUNK_CELLS = 1 << 18  # of windows looked at together: 2 MB


def candle_returns(klines: Klines) -> Floats:
    """``(T,)``: log-return of each close over the close one candle before; NaN where that candle is missing."""
    returns = np.diff(np.log(klines.close), prepend=np.nan) if len(klines) else np.empty(0)
    returns[klines.run_length() == 1] = np.nan
    return returns


def rolling_sum(values: Floats, rows: int) -> Floats:
    """Return the sum over each row and the ``rows - 1`` before it; NaN where there are fewer.

    Sums of power-of-two runs are added up, so a row's result depends on its own window alone, to the last bit;
    a difference of running totals would carry the rounding of everything before it.

    >>> rolling_sum(np.array([1.0, 2.0, 3.0, 4.0]), 3)
    array([nan, nan,  6.,  9.])
    """
    padded: Floats = np.full(len(values), np.nan)
    if rows > len(values):
        return padded
    # run[i] is the sum over values[i : i + length]; total[i] over values[i : i + done], newest values first
    total, done = values, 0
    run, length = values, 1
    while True:
        if rows & length:
            total = total[length:] + run[: len(run) - done] if done else run
            done += length
        if done == rows:
            padded[rows - 1 :] = total
            return padded
        run, length = run[length:] + run[:-length], 2 * length


def volatility(squares: Floats | float, count: int, interval_ms: int, *, about_mean: bool) -> Floats:
    """Return the volatility per minute of log-returns, unitless.

    About the mean it is the sample standard deviation, which divides by ``count - 1`` as the words and the usual
    libraries have it (docs/decisions/0002); else the root mean square. A longer candle's is divided by the square root
    of its minutes.

    Args:
        squares: sum of the squares of the returns, about their mean or about zero.
        count: how many returns.
    """
    deviation: Floats = np.sqrt(squares / (count - about_mean))
    deviation *= (interval_ms / MINUTE_MS) ** -0.5
    return deviation


def volatility_of(returns: Floats, interval_ms: int, *, about_mean: bool) -> float:
    """Return the volatility of two or more returns, per minute."""
    squares = np.square(returns - (returns.mean() if about_mean else 0.0)).sum()
    return float(volatility(squares, len(returns), interval_ms, about_mean=about_mean))


def realised_volatility(klines: Klines, steps: int, *, about_mean: bool = True) -> Floats:
    """``(T,)``: volatility of the last ``steps`` returns, per minute.

    Row ``t`` reads closes ``t - steps`` to ``t``; NaN where one of them is missing.
    """
    returns = candle_returns(klines)
    squares = _squares_about_mean(returns, steps) if about_mean else rolling_sum(returns**2, steps)
    return volatility(squares, steps, klines.interval_ms, about_mean=about_mean)


def _squares_about_mean(values: Floats, rows: int) -> Floats:
    """Return the sum of squares of each row and the ``rows - 1`` before it, about their mean; NaN at the start.

    The mean square less the squared mean would be cheaper, and wrong in the tenth digit where all moves are alike.
    """
    total: Floats = np.full(len(values), np.nan)
    if rows > len(values):
        return total
    mean = rolling_sum(values, rows) / rows
    windows = np.lib.stride_tricks.sliding_window_view(values, rows)
    for first in range(0, len(windows), chunk := max(1, CHUNK_CELLS // rows)):
        distance = windows[first : first + chunk] - mean[rows - 1 + first : rows - 1 + first + chunk, np.newaxis]
        total[rows - 1 + first : rows - 1 + first + len(distance)] = np.square(distance, out=distance).sum(axis=1)
    return total
