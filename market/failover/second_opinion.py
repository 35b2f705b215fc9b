"""Which of a venue's candles are believed: about those that are hard to believe a second venue is asked."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog

from core.clock import MINUTE_MS, Clock, iso
from core.errors import MalformedKlines
from klines.activity import ROUNDING, extent_of
from klines.checks import RejectedRow
from klines.klines import COLUMNS, MOST_LEAP, Klines, unit_leaps
from klines.plausible import LEAPT, STAYED_ROWS, Doubts, doubts_of, rows_awaited
from market.failover.breaker import Health
from market.failover.level import Levels
from market.quarantine import Quarantine
from market.venue import Venue

AGAIN_MS, REMEMBERED = 10 * MINUTE_MS, 10_000  # how long what a second venue said counts: a doubt stays in the window
LONGEST_HOLE_ROWS = 300  # before a leap, over which a second venue is asked how far it went

log = structlog.get_logger()

ALIKE = MOST_LEAP / 2  # of ln(price): so near two are of one level
KNOWN_VISITS = 3  # a level that comes so often is the market's, and no slip of a unit
MOST_ASKED = 20  # leaps of one answer that a second venue is asked about, the newest
OTHER_LEVEL = "at another level than the rows around it, and no second venue has the like"

_Key = tuple[str, str, int, int, int]  # venue, symbol, interval, open time, end of what is known


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What a second venue has at the time of a leap, or of a spike."""

    step: float  # of ln(close): how far it goes there in the same direction
    before: float  # of ln(close): how far it is from the close before the leap
    after: float  # from the close after it


NOBODY = _Elsewhere(np.nan, np.nan, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SortedOut:
    """Open times of a run with leaps beyond ``MOST_LEAP``."""

    odd: tuple[int, ...] = ()  # rows that are not used
    marked: tuple[int, ...] = ()  # first rows of other levels that are
    held_ms: int | None = None  # from here on it is to be seen

    @classmethod
    def of(
        cls,
        run: Klines,
        starts: Sequence[int],
        ends: Sequence[int],
        odd: Sequence[int],
        marked: Sequence[int],
        *,
        held: int | None = None,
    ) -> "_SortedOut":
        """By the rows of a run; ``odd`` are numbers of stretches."""
        rows = [row for number in odd for row in range(starts[number], ends[number])]
        return cls(
            odd=tuple(_times(run, rows)),
            marked=tuple(_times(run, marked)),
            held_ms=None if held is None else int(run.open_time_ms[held]),
        )


class Belief:
    """See the module. Safe to use from several threads.

    Args:
        levels: knows the newest candles of each series.
        health: says who may be asked.
        aside: takes the rows that are not believed.
        clock: for how long what a second venue said counts.
    """

    def __init__(self, levels: Levels, health: Health, aside: Quarantine, clock: Clock) -> None:
        self._levels = levels
        self._health = health
        self._aside = aside
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[_Key, tuple[int, _Elsewhere]] = {}  # when a second venue was asked, and what it had
        self._held: dict[tuple[str, int], tuple[int, str]] = {}  # by series: the leap whose candles wait, and why

    def believed(
        self, venue: Venue, symbol: str, klines: Klines, among: Klines | None = None, *, alone: bool = False
    ) -> Klines:
        """Candles less those far from all others, unless a second venue has the like.

        Args:
            among: candles around them that are believed.
            alone: what is known of the series does not count.
        Raises:
            MalformedKlines: their level leaps, and a second venue's does not.
        """
        interval_ms = klines.interval_ms
        recent = None if alone else self._levels.recent(symbol, interval_ms)
        run = klines if among is None else among.merge(klines)
        doubts = doubts_of(run, recent)
        if recent is not None and len(run):  # the candle before the first says how far that one goes
            run = recent.between(0, int(run.open_time_ms[0])).merge(run)
        if not doubts and not unit_leaps(run):
            if not alone and among is None:
                self._held.pop((symbol, interval_ms), None)
            return klines
        known = set(_times(run, _known_levels(run)))
        doubts = replace(doubts, spikes=tuple(at_ms for at_ms in doubts.spikes if at_ms not in known))
        separate_rows = self._levels_of(venue, symbol, run, doubts, recent)
        self._refuse_leaps(venue, symbol, run, doubts, recent)
        refused = [
            _row(klines, at_ms, "far from its neighbours, and no second venue has the like")
            for at_ms in doubts.spikes
            if at_ms in klines.open_time_ms and self._is_alone(venue, symbol, run, at_ms, remember=True)
        ]
        refused += [_row(klines, at_ms, OTHER_LEVEL) for at_ms in separate_rows.odd if at_ms in klines.open_time_ms]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in refused])
        held_ms = separate_rows.held_ms
        leap_ms = None if doubts.leap_ms in _times(run, unit_leaps(run)) else doubts.leap_ms
        if leap_ms is not None and self._is_alone(venue, symbol, run, leap_ms):
            held_ms = leap_ms if held_ms is None else min(held_ms, leap_ms)
        if held_ms is not None:  # it comes again with the next question, and is believed when it has stayed
            keep &= klines.open_time_ms < held_ms
        if not alone and among is None:
            self._hold(venue, symbol, run, held_ms)
        self._aside.put(venue.offer.name, symbol, interval_ms, refused, self._clock.now_ms())
        marked = [at_ms for at_ms in separate_rows.marked if at_ms in klines.open_time_ms[keep]]
        self._aside.mark(venue.offer.name, symbol, interval_ms, [_row(klines, at_ms, LEAPT) for at_ms in marked])
        columns = {name: getattr(klines, name)[keep] for name in COLUMNS}
        return Klines(interval_ms=interval_ms, open_time_ms=klines.open_time_ms[keep], **columns)

    def why_held(self, symbol: str, interval_ms: int) -> str:
        """Why the newest candles of a series are not handed on yet; empty where they are."""
        return self._held.get((symbol, interval_ms), (0, ""))[1]

    def _hold(self, venue: Venue, symbol: str, run: Klines, held_ms: int | None) -> None:
        """Remember which candles wait to be believed, and say so once."""
        key = (symbol, run.interval_ms)
        before = self._held.pop(key, (None, ""))
        if held_ms is None:
            return
        rows = rows_awaited(run.interval_ms) if held_ms in _times(run, unit_leaps(run)) else STAYED_ROWS
        said = f"{symbol} leaps by {_percent(run, held_ms)} at {iso(held_ms)}, and no second venue has it"
        self._held[key] = (
            held_ms,
            f"{said}: used when {rows} more candles have stayed there, or it comes for the third time, or a second "
            "venue has it",
        )
        if before[0] != held_ms:
            log.warning("leap_awaits_confirmation", venue=venue.offer.name, symbol=symbol, open=iso(held_ms), rows=rows)

    def _levels_of(self, venue: Venue, symbol: str, run: Klines, doubts: Doubts, recent: Klines | None) -> "_SortedOut":
        """Which stretches of a run, parted by leaps beyond ``MOST_LEAP``, are used.

        Where a second venue has candles of that time, its level decides. Where none has, a level that was left for
        another and come back to is right, and a new one is believed when it has stayed for ``BELIEVED_AFTER_MS`` or
        comes for the third time.

        Raises:
            MalformedKlines: the newest stretch is not at a second venue's level: all is to be asked of that one.
        """
        spikes = set(doubts.spikes)
        leaps = [
            row
            for row in unit_leaps(run)
            if not spikes & {int(run.open_time_ms[row]), int(run.open_time_ms[row - 1])}
            and not (_is_known(recent, run, row) and _is_known(recent, run, row - 1))
        ]
        if not leaps:
            return _SortedOut()
        known = set(_known_levels(run))
        starts, ends = [0, *leaps], [*leaps, len(run)]
        is_right: list[bool | None] = [None] * len(starts)
        for number, row in list(enumerate(leaps))[-MOST_ASKED:]:
            elsewhere = self._elsewhere(venue, symbol, run, row)
            for side, apart in ((number, elsewhere.before), (number + 1, elsewhere.after)):
                if not np.isnan(min(elsewhere.before, elsewhere.after)) and is_right[side] is not True:
                    is_right[side] = apart <= ALIKE
            if min(elsewhere.before, elsewhere.after) > ALIKE:  # it is another unit or asset itself, and says nothing
                is_right[number], is_right[number + 1] = None, None
        odd: list[int] = []
        marked: list[int] = []
        level: float | None = None
        number = 0
        while number < len(starts):
            first = starts[number]
            if is_right[number] is False:
                odd.append(number)
            elif is_right[number] or level is None or _alike(run.close[first], level) or first in known:
                marked += [] if level is None or _alike(run.close[first], level) else [first]
                level = float(run.close[ends[number] - 1])
            else:  # nobody says, and it is a new level
                back = [
                    other
                    for other in range(number + 1, len(starts))
                    if is_right[other] is not False and _alike(run.close[starts[other]], level)
                ]
                if back and 2 * (starts[back[0]] - first) < len(run):
                    odd += range(number, back[0])
                    number = back[0]
                    continue
                if len(run) - 1 - first < rows_awaited(run.interval_ms):
                    return _SortedOut.of(run, starts, ends, odd, marked, held=first)
                marked.append(first)
                level = float(run.close[ends[number] - 1])
            number += 1
        if odd and odd[-1] == len(starts) - 1:
            at_ms = int(run.open_time_ms[starts[-1]])
            said = f"{symbol} leaps by {_percent(run, at_ms)} at {iso(at_ms)}"
            raise MalformedKlines(f"{said}, and another venue has no such move")
        return _SortedOut.of(run, starts, ends, odd, marked)

    def _refuse_leaps(self, venue: Venue, symbol: str, run: Klines, doubts: Doubts, recent: Klines | None) -> None:
        """Raises MalformedKlines where a leap of up to ``MOST_LEAP`` has stayed and another venue has none."""
        for at_ms in sorted({*doubts.leaps} - {*_times(run, unit_leaps(run))}):
            row = int(np.searchsorted(run.open_time_ms, at_ms))
            if _is_known(recent, run, row):
                continue
            step = abs(float(np.log(run.close[row] / run.close[row - 1])))
            elsewhere = self._elsewhere(venue, symbol, run, row)
            # At its new level another venue's candles are as well: it is the older ones that are wrong.
            if elsewhere.step < step / 2 and not elsewhere.after < step / 4:
                said = f"{symbol} leaps by {_percent(run, at_ms)} at {iso(at_ms)}"
                raise MalformedKlines(f"{said}, and another venue has no such move")

    def _elsewhere(self, first: Venue, symbol: str, run: Klines, row: int) -> "_Elsewhere":
        """What another venue has near the time of a leap; NaN where none can say."""
        interval_ms, at_ms, before_ms = run.interval_ms, int(run.open_time_ms[row]), int(run.open_time_ms[row - 1])
        if at_ms - before_ms > LONGEST_HOLE_ROWS * interval_ms:
            return NOBODY
        up = run.close[row] > run.close[row - 1]
        # There it may have come a little sooner or later.
        span = (before_ms - STAYED_ROWS * interval_ms, min(at_ms + (STAYED_ROWS + 1) * interval_ms, run.end_ms))

        def ask() -> _Elsewhere:
            for _, told in self._health.others(first, symbol, interval_ms, span):
                if len(told) and told.open_time_ms[0] <= before_ms and told.end_ms >= span[1]:
                    moves = np.log(told.close / told.close[0])
                    sides = told.between(0, at_ms), told.between(at_ms, told.end_ms)
                    closes = float(run.close[row - 1]), float(run.close[row])
                    apart = [
                        float(np.abs(np.log(side.close / close)).min(initial=np.inf))
                        for side, close in zip(sides, closes, strict=True)
                    ]
                    return _Elsewhere(float(moves.max() if up else -moves.min()), *apart)
            return NOBODY

        return self._once((first.offer.name, symbol, interval_ms, at_ms, span[1]), ask)

    def _is_alone(self, venue: Venue, symbol: str, run: Klines, at_ms: int, *, remember: bool = False) -> bool:
        """Whether no other venue has a move of half the size in the same candle."""

        def ask() -> _Elsewhere:
            return _Elsewhere(self._extent_elsewhere(venue, symbol, run, at_ms), np.nan, np.nan)

        its = (self._once((venue.offer.name, symbol, run.interval_ms, at_ms, 0), ask) if remember else ask()).step
        return not its >= extent_of(run, at_ms) / 2  # NaN as well

    def _extent_elsewhere(self, first: Venue, symbol: str, run: Klines, at_ms: int) -> float:
        """How far a candle goes at another venue; NaN where none has it."""
        interval_ms = run.interval_ms
        for _, told in self._health.others(first, symbol, interval_ms, (at_ms - interval_ms, at_ms + interval_ms)):
            if len(told.between(at_ms, at_ms + interval_ms)):
                return extent_of(told, at_ms)
        return np.nan

    def _once(self, key: _Key, ask: Callable[[], "_Elsewhere"]) -> "_Elsewhere":
        """What was said when it was asked last, for a while; where nobody could say, for a minute."""
        now_ms = self._clock.now_ms()
        with self._lock:
            known = self._said.get(key)
        if known is not None and 0 <= now_ms - known[0] < (MINUTE_MS if np.isnan(known[1].step) else AGAIN_MS):
            return known[1]
        said = ask()
        with self._lock:
            if len(self._said) > REMEMBERED:
                self._said.clear()
            self._said[key] = (now_ms, said)
        return said


def _is_known(known: Klines | None, run: Klines, row: int) -> bool:
    """Whether a candle of a run is known with its close."""
    at_ms, close = int(run.open_time_ms[row]), float(run.close[row])
    same = () if known is None else known.between(at_ms, at_ms + known.interval_ms).close
    return any(abs(one / close - 1) < ROUNDING for one in same)


def _known_levels(run: Klines) -> list[int]:
    """The rows that leap beyond ``MOST_LEAP`` to a level that comes ``KNOWN_VISITS`` times."""
    leaps = unit_leaps(run)
    came = np.log(run.close[[0, *leaps]]) if leaps else np.empty(0)
    return [row for row in leaps if (np.abs(np.log(run.close[row]) - came) <= ALIKE).sum() >= KNOWN_VISITS]


def _alike(close: float, level: float) -> bool:
    return abs(float(np.log(close / level))) <= ALIKE


def _times(run: Klines, rows: Sequence[int]) -> list[int]:
    times: list[int] = run.open_time_ms[list(rows)].tolist()
    return times


def _percent(run: Klines, at_ms: int) -> str:
    """How far the close of a candle is from the one before."""
    row = int(np.searchsorted(run.open_time_ms, at_ms))
    return f"{100 * (run.close[row] / run.close[row - 1] - 1):+.0f} %"


def _row(klines: Klines, at_ms: int, reason: str) -> RejectedRow:
    row = int(np.searchsorted(klines.open_time_ms, at_ms))
    cells = tuple(float(getattr(klines, name)[row]) for name in COLUMNS)
    return RejectedRow(open_time_ms=at_ms, reason=reason, row=cells)
