"""The activity of a market: candles with a trade, stretches without a trade, ranges of candles."""

import numpy as np

from klines.klines import PRICE_COLUMNS, Bools, Klines

ROUNDING = 1e-6  # share of a price, between a venue's candles and its ticker


def traded_in(klines: Klines) -> Bools:
    """``(T,)``: True if a candle has a trade. A candle equal to the candle before, volume included, has no trade."""
    table = np.stack([getattr(klines, name) for name in (*PRICE_COLUMNS, "volume")], axis=1)
    traded = klines.volume > 0
    traded[1:] &= (table[1:] != table[:-1]).any(axis=1)
    return traded


def quiet_rows(klines: Klines, end_ms: int) -> float:
    """Count the candles since the last trade before ``end_ms``, missing candles too; infinity if nothing traded."""
    traded_ms = klines.open_time_ms[traded_in(klines)]
    return (end_ms - int(traded_ms[-1])) // klines.interval_ms - 1 if len(traded_ms) else float("inf")


def longest_quiet(klines: Klines) -> int:
    """Count the candles of the longest stretch between two trades, missing candles too."""
    traded_ms = klines.open_time_ms[traded_in(klines)]
    return int(np.diff(traded_ms).max()) // klines.interval_ms - 1 if len(traded_ms) > 1 else 0


def has_left(price: float, klines: Klines | None, since_ms: int) -> bool:
    """True if the newest traded candle since ``since_ms`` has a range that excludes ``price``."""
    if klines is None:
        return False
    newest = klines.where((klines.volume > 0) & (klines.open_time_ms >= since_ms)).tail(1)
    return len(newest) > 0 and not newest.low[0] * (1 - ROUNDING) <= price <= newest.high[0] * (1 + ROUNDING)


def extent_of(klines: Klines, at_ms: int) -> float:
    """Return how far the candle at ``at_ms`` goes, in ln(price): its range, or its step from the close before."""
    pair = klines.between(at_ms - klines.interval_ms, at_ms + klines.interval_ms)
    within = float(np.log(pair.high[-1] / pair.low[-1]))
    return max(within, abs(float(np.log(pair.close[-1] / pair.close[0]))))
