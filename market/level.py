"""How far two venues' candles of one asset are apart: what brings one to the level of the other."""

from dataclasses import dataclass

import numpy as np

from market.klines import Klines

LEAST_COMMON = 10  # candles that two venues must share
MOST_SPREAD = 0.005  # of ln(ratio) over them: beyond it the two do not move together
MOST_APART = 0.05  # of ln(ratio): beyond it the two are not the same thing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a venue's candles are multiplied by to be at the level of a series."""

    price: float
    flow: float  # its volumes; 1 where nobody traded
    measured_ms: int = 0  # when


def level_ratio(level: Klines, other: Klines) -> Scale | None:
    """What another venue's candles are multiplied by to be at a series' level.

    Args:
        level: candles of the series; other: candles of the same interval.
    Returns:
        By the candles that both have; None where they share too few, do not move together, or are apart by more than
        two venues of one asset can be.
    """
    _, left, right = np.intersect1d(level.open_time_ms, other.open_time_ms, assume_unique=True, return_indices=True)
    if len(left) < LEAST_COMMON:
        return None
    apart = np.log(level.close[left] / other.close[right])
    middle = float(np.median(apart))
    if abs(middle) > MOST_APART or float(np.median(np.abs(apart - middle))) > MOST_SPREAD:
        return None
    mine, its = float(level.volume[left].sum()), float(other.volume[right].sum())
    return Scale(price=float(np.exp(middle)), flow=mine / its if mine > 0 and its > 0 else 1.0)
