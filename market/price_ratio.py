"""The price ratio of two venues: how far apart their prices of one symbol are.

Dollars against USDT, a perpetual against spot: venues differ by a few hundredths of a percent for hours. The ratio
brings a stand-in's candles and prices to the prices of the home venue, so that the difference never becomes a return,
and a price forecast to the prices of the feed that scores it. Decision 0012 has the figures behind the constants.
"""

import math
from dataclasses import dataclass

import numpy as np

from klines.activity import traded_in
from klines.klines import Floats, Ints, Klines

# By python -m benchmarks.studies.price_ratio, "error of the basis": a shorter half-life follows a moving ratio and
# keeps more noise. This one is at worst 14 % above the best estimator, a median of 60 candles 62 %.
HALF_LIFE_ROWS = 7.0
WINDOW_ROWS = 180  # newest candles that count; older ones weigh nothing
LEAST_ROWS = 10  # of fewer candles, wrong ones make up half the weight too often (same study, "from few minutes")
MOST_SPREAD = 0.005  # of ln(ratio); wider: the venues do not move together; not measured
# Of ln(ratio). Ten times the furthest hour of a real pair, and nearer than another asset or unit. A currency that has
# lost its peg by so much counts as another currency.
MOST_APART = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRatio:
    """The ratio of two venues' prices: a price of the second venue times ``value`` is a price of the first."""

    value: float
    flow: float  # the same for volumes
    rows: int  # candles that it was measured on
    newest_ms: int  # close of the newest of them
    spread: float  # median distance of the candles' ln(ratio) from ln(value)


def shared_rows(of: Klines, to: Klines) -> tuple[Ints, Ints]:
    """Rows of the newest shared candles with a trade at both venues; without a trade a close is old."""
    left, right = of.common(to)
    both = traded_in(of)[left] & traded_in(to)[right]
    left, right = left[both], right[both]
    recent = of.open_time_ms[left] > of.open_time_ms[left].max(initial=0) - WINDOW_ROWS * of.interval_ms
    return left[recent], right[recent]


def price_ratio(of: Klines, to: Klines) -> PriceRatio | None:
    """Measure the prices of ``of`` over those of ``to``, by candles of one symbol and interval.

    The ratio is the median of the shared candles' ratios of closes, each with a weight that halves with its age. None
    if the two share too few candles, do not move together, or are too far apart to be the same asset.
    """
    left, right = shared_rows(of, to)
    if len(left) < LEAST_ROWS:
        return None
    log_ratio, opened_ms = np.log(of.close[left] / to.close[right]), of.open_time_ms[left]
    weights = 0.5 ** ((opened_ms[-1] - opened_ms) / (HALF_LIFE_ROWS * of.interval_ms))
    middle = _median(log_ratio, weights)
    spread = _median(np.abs(log_ratio - middle), weights)
    if spread > MOST_SPREAD or abs(middle) > MOST_APART:
        return None
    return PriceRatio(
        value=math.exp(middle),
        flow=float(of.volume[left].sum() / to.volume[right].sum()),
        rows=len(left),
        newest_ms=int(opened_ms[-1]) + of.interval_ms,
        spread=spread,
    )


def _median(values: Floats, weights: Floats) -> float:
    """The value at which half the weight is reached, from the smallest on."""
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(passed, passed[-1] / 2)]])
