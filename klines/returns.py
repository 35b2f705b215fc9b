"""Returns of klines, and what is measured of them: sums and volatilities over trailing windows."""

import numpy as np

from core.clock import MINUTE_MS
from klines.klines import Floats, Klines

CHUNK_CELLS = 1 << 18  # of windows worked on at once: 2 MB


def rolling_sum(values: Floats, rows: int) -> Floats:
    """Sum over each row and the ``rows - 1`` before it; NaN for the first ``rows - 1`` rows.

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


def candle_returns(klines: Klines) -> Floats:
    """``(T,)`` log-return of each close over the close one candle before; NaN where that candle is missing."""
    returns = np.diff(np.log(klines.close), prepend=np.nan) if len(klines) else np.empty(0)
    returns[klines.run_length() == 1] = np.nan
    return returns


def trailing_return(klines: Klines, steps: int) -> Floats:
    """``(T,)`` log-return of each close over the close ``steps`` candles before; NaN where a candle is missing."""
    return rolling_sum(candle_returns(klines), steps)


def realised_volatility(klines: Klines, steps: int, *, about_mean: bool = True) -> Floats:
    """Volatility of the last ``steps`` one-candle log-returns, per minute.

    Args:
        about_mean: the sample standard deviation, which divides by ``steps - 1``, as the words "standard deviation"
            and the usual libraries have it (docs/decisions/0002); False for the root mean square.
    Returns:
        ``(T,)``, unitless; row ``t`` reads closes ``t - steps`` to ``t``; NaN where one of them is missing. Hourly
        returns are scaled to a minute by ``1 / sqrt(60)``.
    """
    returns = candle_returns(klines)
    if about_mean:
        mean = rolling_sum(returns, steps) / steps
        variance = _squares_about(mean, returns, steps) / (steps - 1)
    else:
        variance = rolling_sum(returns**2, steps) / steps
    deviation: Floats = np.sqrt(variance)
    deviation *= (klines.interval_ms / MINUTE_MS) ** -0.5
    return deviation


def volatility_of(returns: Floats, interval_ms: int, *, about_mean: bool = True) -> float:
    """``realised_volatility`` of the known returns of one window, two or more; per minute."""
    deviation = np.std(returns, ddof=1) if about_mean else np.sqrt(np.mean(returns**2))
    return float(deviation * (interval_ms / MINUTE_MS) ** -0.5)


def _squares_about(mean: Floats, values: Floats, rows: int) -> Floats:
    """Sum of the squared distances of each row and the ``rows - 1`` before it from ``mean``; NaN at the start.

    The mean square less the squared mean would be cheaper, and wrong in the tenth digit where all moves are alike.
    """
    total: Floats = np.full(len(values), np.nan)
    if rows > len(values):
        return total
    windows = np.lib.stride_tricks.sliding_window_view(values, rows)
    for first in range(0, len(windows), chunk := max(1, CHUNK_CELLS // rows)):
        distance = windows[first : first + chunk] - mean[rows - 1 + first : rows - 1 + first + chunk, np.newaxis]
        total[rows - 1 + first : rows - 1 + first + len(distance)] = np.square(distance, out=distance).sum(axis=1)
    return total
