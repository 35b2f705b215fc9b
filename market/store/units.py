"""Stretches of a stored series that are of another unit or asset than the rest of it.

A file of an archive may be sound in itself, checksum and all, and count in another unit than the files beside it. Files
come in any order, so it is looked at when they are stored: where two neighbours are too far apart to be the same thing,
the venue is asked for both, and for the newest one. What it repeats is so; where nobody says, the smaller part is odd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from core.errors import WorkerError
from klines.klines import MOST_LEAP, Klines
from klines.spans import Span, joined, without
from market.store.kline_store import KlineStore
from market.venue import MarketData

NEAR_ROWS = 300  # neighbours within so many are asked for in one go
BESIDE_ROWS = 2  # asked for around each
MOST_LEAPS = 50  # the newest are looked at; more come from no archive
ALIKE = MOST_LEAP / 2  # of ln(close) of one moment
UNSAID = float(np.log(5))  # of ln(close): within it a move may be genuine, and where nobody says, nothing is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Klines between two leaps."""

    span: Span
    level: float  # ln(price) beside the first stretch, by the leaps between
    refuted: tuple[int, ...]  # open times at its edges that the market has otherwise
    right: bool  # whether the market has an edge of it so


def odd_stretches(
    store: KlineStore,
    market: MarketData,
    symbol: str,
    interval_ms: int,
    fresh: Sequence[Span],
    start_ms: int,
    now_ms: int,
) -> list[Span]:
    """What is not to be believed of a stored series; empty where nothing leaps.

    Args:
        market: is asked for the neighbours of each leap that it has not repeated before.
        fresh: what was just stored from archives; where nobody says anything, nothing else is given up.
        start_ms: what is older and not fresh would not be fetched again, and stays.
        now_ms: no kline that closes later is asked for.
    """
    fresh = joined(fresh)
    stretches = _stretches(store, market, symbol, interval_ms, now_ms, ask_newest=bool(fresh))
    odd: list[Span] = []
    for stretch in stretches:
        if stretch.refuted:
            times = store.read(symbol, interval_ms, *stretch.span).open_time_ms
            cuts = np.flatnonzero(np.diff(times) != interval_ms) + 1
            runs = [(int(run[0]), int(run[-1]) + interval_ms) for run in np.split(times, cuts) if len(run)]
            old = without([(start_ms, stretch.span[1])], fresh)
            pieces = [piece for run in runs for part in (fresh, old) for piece in without([run], without([run], part))]
            odd += [(start, end) for start, end in pieces if any(start <= at < end for at in stretch.refuted)]
        elif not stretch.right and _is_odd(stretch, stretches):
            odd += without([stretch.span], without([stretch.span], fresh))
    return odd


def _stretches(
    store: KlineStore, market: MarketData, symbol: str, interval_ms: int, now_ms: int, *, ask_newest: bool
) -> list[_Stretch]:
    leaps = store.leaps(symbol, interval_ms)[-MOST_LEAPS:]
    first, latest = store.first(symbol, interval_ms), store.latest(symbol, interval_ms)
    if first is None or latest is None or not (leaps or ask_newest):
        return []
    spans = list(pairwise([first, *(after for _, after in leaps), latest + interval_ms]))
    refuted: list[set[int]] = [set() for _ in spans]
    right = [False] * len(spans)
    steps: list[float] = []
    asking = True
    for number, leap in enumerate(leaps):
        stored = store.read(symbol, interval_ms, leap[0], leap[1] + interval_ms)
        steps.append(float(np.log(stored.close[-1] / stored.close[0])))
        told = _told(market, symbol, interval_ms, leap, now_ms) if asking else None
        asking = told is not None
        sides = [None if told is None else _alike(stored, told, at_ms) for at_ms in leap]
        if sides == [True, True]:
            store.believe(symbol, interval_ms, leap)
        if None in sides or not any(sides):
            continue  # where both are refuted it is the level of who says so that is another
        for side, its, at_ms in zip((number, number + 1), sides, leap, strict=True):
            right[side] |= bool(its)
            refuted[side] |= set() if its else {at_ms}
    if ask_newest and asking and not (refuted[-1] or right[-1]):
        told = _told(market, symbol, interval_ms, (latest, latest), now_ms)
        stored = store.read(symbol, interval_ms, latest, latest + interval_ms)
        if told is not None and _alike(stored, told, latest) is False:
            refuted[-1].add(latest)
    levels = accumulate(steps, initial=0.0)
    return [
        _Stretch(span=span, level=level, refuted=tuple(sorted(edges)), right=its)
        for span, level, edges, its in zip(spans, levels, refuted, right, strict=True)
    ]


def _told(market: MarketData, symbol: str, interval_ms: int, pair: Span, now_ms: int) -> Klines | None:
    """Two neighbours as the market has them now, and some beside them; None where it cannot be asked."""
    beside_ms, end_ms = BESIDE_ROWS * interval_ms, now_ms // interval_ms * interval_ms
    spans = [(at_ms - beside_ms, min(at_ms + interval_ms + beside_ms, end_ms)) for at_ms in pair]
    if pair[1] - pair[0] <= NEAR_ROWS * interval_ms:
        spans = [(spans[0][0], spans[1][1])]
    try:
        told = [market.retold(symbol, interval_ms, *span) for span in spans]
    except WorkerError:
        return None
    return told[0].merge(told[-1])


def _alike(stored: Klines, told: Klines, at_ms: int) -> bool | None:
    """Whether both have about the same close; None where it was not told."""
    its, other = (klines.between(at_ms, at_ms + klines.interval_ms).close for klines in (stored, told))
    return bool(abs(np.log(its[0] / other[0])) <= ALIKE) if len(other) else None


def _is_odd(one: _Stretch, stretches: Sequence[_Stretch]) -> bool:
    """Whether a stretch that nobody says anything of is at another level than those that are right, or than most."""
    known = [other for other in stretches if other.right]
    if known:
        return all(abs(one.level - other.level) > UNSAID for other in known)

    def weight(level: float) -> int:
        return sum(other.span[1] - other.span[0] for other in stretches if abs(other.level - level) <= UNSAID)

    usual = max(stretches, key=lambda other: (weight(other.level), other.span[1]))
    return abs(one.level - usual.level) > UNSAID
