"""Stretches of a stored series that are of another unit or asset than the rest of it.

A file of an archive may be sound in itself, checksum and all, and count in another unit than the files beside it. Files
come in any order, so it is looked at when they are stored: where two neighbours are too far apart to be the same thing,
the venue is asked for both; where it does not say, the smaller part is the odd one.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from core.errors import WorkerError
from market.klines import Klines, Span, without
from market.provider import MarketData
from market.quality import MOST_LEAP
from market.store import KlineStore

NEAR_ROWS = 300  # neighbours within so many are asked for in one go, and a leap between them is looked at there as well
BEFORE_ROWS, AFTER_ROWS = 2, 4  # so that others follow at the level of the second

ALIKE = MOST_LEAP / 2  # closes of one moment


def odd_stretches(
    store: KlineStore, market: MarketData, symbol: str, interval_ms: int, fresh: Sequence[Span], now_ms: int
) -> list[Span]:
    """What is not to be believed of a stored series; empty where nothing leaps.

    Args:
        market: is asked for the neighbours of each leap, at the level of the series.
        fresh: what was just stored from archives; of the rest only what the market refutes is given up.
        now_ms: no kline that closes later is asked for.
    """
    leaps = store.leaps(symbol, interval_ms)
    first, latest = store.first(symbol, interval_ms), store.latest(symbol, interval_ms)
    if not leaps or first is None or latest is None:
        return []
    starts = [first, *(after for _, after in leaps)]
    stretches = list(pairwise([*starts, latest + interval_ms]))
    said: list[bool | None] = [None] * len(stretches)  # whether the market has them so
    steps = []
    for number, (before, after) in enumerate(leaps):
        stored = store.read(symbol, interval_ms, before, after + interval_ms)
        steps.append(float(np.log(stored.close[-1] / stored.close[0])))
        told = _told(market, symbol, interval_ms, (before, after), now_ms)
        sides = _alike(stored, told, before), _alike(stored, told, after)
        if None in sides or not any(sides):
            continue  # where both are refuted it is the level of who says so that is another
        for side, its in zip((number, number + 1), sides, strict=True):
            said[side] = its if said[side] is None else said[side] and its
    levels = list(accumulate(steps, initial=0.0))  # of each stretch beside the first, as a logarithm
    odd: list[Span] = []
    for stretch, level, right in zip(stretches, levels, said, strict=True):
        if right is False:
            odd.append(stretch)
        elif right is None and _is_odd(level, levels, said, stretches):
            odd += without([stretch], without([stretch], fresh))
    return odd


def _told(market: MarketData, symbol: str, interval_ms: int, leap: Span, now_ms: int) -> Klines:
    """The neighbours as the market has them now; empty where it does not say."""
    before, after = leap
    end_ms = now_ms // interval_ms * interval_ms
    spans = [(before - BEFORE_ROWS * interval_ms, min(after + AFTER_ROWS * interval_ms, end_ms))]
    if after - before > NEAR_ROWS * interval_ms:
        spans = [(spans[0][0], before + interval_ms), (after, spans[0][1])]
    told = Klines.empty(interval_ms)
    for span in spans:
        try:
            told = told.merge(market.klines(symbol, interval_ms, *span))
        except WorkerError:
            continue
    return told


def _alike(stored: Klines, told: Klines, at_ms: int) -> bool | None:
    """Whether both have about the same close; None where it was not told."""
    its, other = (klines.between(at_ms, at_ms + klines.interval_ms).close for klines in (stored, told))
    return bool(abs(np.log(its[0] / other[0])) <= ALIKE) if len(other) else None


def _is_odd(level: float, levels: Sequence[float], said: Sequence[bool | None], stretches: Sequence[Span]) -> bool:
    """Whether a stretch that nobody says anything of is at another level than those that are right, or than most."""
    right = [other for other, its in zip(levels, said, strict=True) if its]
    if right:
        return all(abs(level - other) > ALIKE for other in right)

    def weight(one: float) -> int:
        return sum(
            end - start for (start, end), other in zip(stretches, levels, strict=True) if abs(one - other) <= ALIKE
        )

    return weight(level) < max(map(weight, levels))
