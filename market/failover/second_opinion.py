"""Asks a second venue about candles that are hard to believe: spikes, leaps, and changes of the price unit."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from core.clock import Clock, iso
from core.errors import MalformedKlines
from klines.activity import extent_of
from klines.checks import RejectedRow
from klines.klines import Klines
from klines.plausible import LEAPT, STAYED_ROWS, doubts_of, rows_awaited
from market.failover.breaker import VenueBreaker
from market.failover.home_ratio import HomeRatios
from market.failover.stretches import ALIKE, Case, sorted_stretches
from market.quarantine import Quarantine
from market.venue import Venue

AGAIN_S, NOBODY_AGAIN_S = 600.0, 60.0  # how long a second venue's answer counts; the second if no venue had any
REMEMBERED = 10_000  # answers
LONGEST_HOLE_ROWS = 300  # before a leap, over which a second venue is asked how far it went
MOST_ASKED = 20  # leaps of one answer that a second venue is asked about, the newest
LONE_SPIKE = "far from its neighbours, and no second venue has the like"
OTHER_LEVEL = "at another level than the rows around it, and no second venue has the like"

log = structlog.get_logger()

_Key = tuple[str, str, int, int, int]  # venue, symbol, interval, open time, end of what is known


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A second venue's moves at the time of a leap or a spike. NaN if no venue has that time."""

    step: float = np.nan  # of ln(close): how far it goes there in the same direction
    before: float = np.nan  # of ln(close): how far it is from the close before the leap
    after: float = np.nan  # the same for the close after the leap


class SecondOpinion:
    """Safe to use from several threads.

    Args:
        ratios: knows the newest candles of each series.
        breaker: knows which venues may be asked.
        aside: takes the rows that are refused.
        clock: for how long an answer counts.
    """

    def __init__(self, ratios: HomeRatios, breaker: VenueBreaker, aside: Quarantine, clock: Clock) -> None:
        self._ratios = ratios
        self._breaker = breaker
        self._aside = aside
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[_Key, tuple[float, _Elsewhere]] = {}  # with the time of Clock.elapsed_s
        self._held: dict[tuple[str, int], tuple[int, str]] = {}  # by series: the leap that waits, and why

    def confirmed(self, venue: Venue, symbol: str, klines: Klines, among: Klines | None = None) -> Klines:
        """Return the candles without those far from all others, unless a second venue has the like.

        Args:
            among: confirmed candles around them.
        Raises:
            MalformedKlines: their level leaps, and a second venue's does not.
        """
        interval_ms = klines.interval_ms
        recent = self._ratios.recent(symbol, interval_ms)
        run = klines if among is None else among.merge(klines)
        doubts = doubts_of(run, recent)
        if recent is not None and len(run):  # the candle before the first says how far that one goes
            run = recent.between(0, int(run.open_time_ms[0])).merge(run)
        case = Case(symbol, run, recent)
        if not doubts and not case.leaps:
            if among is None:
                self._held.pop((symbol, interval_ms), None)
            return klines
        spikes = [row for row in case.rows(doubts.spikes) if row not in case.visited]
        leaps = [
            row
            for row in case.leaps
            if not {row, row - 1} & {*spikes} and not (case.is_known(row) and case.is_known(row - 1))
        ]
        found = sorted_stretches(case, leaps, self._levels_elsewhere(venue, case, leaps))
        self._refuse_leaps(venue, case, set(case.rows(doubts.leaps)) - set(case.leaps))
        spikes = [row for row in spikes if case.time(row) in klines.open_time_ms]
        lone = [row for row in spikes if self._is_alone(venue, case, row, keep=True)]
        refused = [*_refused(case, klines, lone, LONE_SPIKE), *_refused(case, klines, found.odd, OTHER_LEVEL)]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in refused])
        for row in case.rows([] if doubts.leap_ms is None else [doubts.leap_ms]):
            if row not in case.leaps and self._is_alone(venue, case, row):
                found.held = row if found.held is None else min(found.held, row)
        if found.held is not None:  # it comes again with the next question, and is used when it has stayed
            keep &= klines.open_time_ms < case.time(found.held)
        if among is None:
            self._hold(venue, case, found.held)
        self._aside.put(venue.offer.name, symbol, interval_ms, refused, self._clock.now_ms())
        kept = Klines.from_table(interval_ms, klines.open_time_ms[keep], klines.table()[keep])
        self._aside.mark(venue.offer.name, symbol, interval_ms, _refused(case, kept, found.marked, LEAPT))
        return kept

    def why_held(self, symbol: str, interval_ms: int) -> str:
        """Why the newest candles of a series are not used yet; empty if they are."""
        return self._held.get((symbol, interval_ms), (0, ""))[1]

    def _hold(self, venue: Venue, case: Case, held: int | None) -> None:
        """Remember which candles wait to be confirmed, and log a new one once."""
        key = (case.symbol, case.run.interval_ms)
        before = self._held.pop(key, (None, ""))
        if held is None:
            return
        rows = rows_awaited(case.run.interval_ms) if held in case.leaps else STAYED_ROWS
        self._held[key] = (
            case.time(held),
            f"{case.leap(held)}, and no second venue has it: used when {rows} more candles have stayed there, or it "
            "comes for the third time, or a second venue has it",
        )
        if before[0] != case.time(held):
            details = {"symbol": case.symbol, "open": iso(case.time(held)), "rows": rows}
            log.warning("leap_awaits_confirmation", venue=venue.offer.name, **details)

    def _levels_elsewhere(self, venue: Venue, case: Case, leaps: Sequence[int]) -> list[bool | None]:
        """For each stretch between leaps, True if a second venue is at its level; None if no venue says."""
        is_right: list[bool | None] = [None] * (len(leaps) + 1)
        for number, row in list(enumerate(leaps))[-MOST_ASKED:]:
            elsewhere = self._elsewhere(venue, case, row)
            nearest = min(elsewhere.before, elsewhere.after)
            if np.isnan(nearest):
                continue
            for side, apart in ((number, elsewhere.before), (number + 1, elsewhere.after)):
                if is_right[side] is not True:
                    is_right[side] = apart <= ALIKE
            if nearest > ALIKE:  # that venue has another unit or asset itself, and says nothing
                is_right[number], is_right[number + 1] = None, None
        return is_right

    def _refuse_leaps(self, venue: Venue, case: Case, rows: Iterable[int]) -> None:
        """Raise MalformedKlines if a leap of up to ``MOST_LEAP`` has stayed and another venue has no such leap."""
        for row in sorted(rows):
            if case.is_known(row):
                continue
            step = abs(float(np.log(case.run.close[row] / case.run.close[row - 1])))
            elsewhere = self._elsewhere(venue, case, row)
            # If another venue is at the new level as well, the older candles are wrong.
            if elsewhere.step < step / 2 and not elsewhere.after < step / 4:
                raise MalformedKlines(f"{case.leap(row)}, and another venue has no such move")

    def _elsewhere(self, venue: Venue, case: Case, row: int) -> _Elsewhere:
        run, interval_ms = case.run, case.run.interval_ms
        at_ms, before_ms = case.time(row), case.time(row - 1)
        if at_ms - before_ms > LONGEST_HOLE_ROWS * interval_ms:
            return _Elsewhere()
        closes = float(run.close[row - 1]), float(run.close[row])
        # There it may have come a little sooner or later.
        span = (before_ms - STAYED_ROWS * interval_ms, min(at_ms + (STAYED_ROWS + 1) * interval_ms, run.end_ms))

        def ask() -> _Elsewhere:
            for _, other in self._breaker.others(venue, case.symbol, interval_ms, span):
                if len(other) and other.open_time_ms[0] <= before_ms and other.end_ms >= span[1]:
                    moves = np.log(other.close / other.close[0])
                    sides = other.between(0, at_ms), other.between(at_ms, other.end_ms)
                    before, after = (
                        float(np.abs(np.log(side.close / close)).min(initial=np.inf))
                        for side, close in zip(sides, closes, strict=True)
                    )
                    return _Elsewhere(float(moves.max() if closes[1] > closes[0] else -moves.min()), before, after)
            return _Elsewhere()

        return self._once((venue.offer.name, case.symbol, interval_ms, at_ms, span[1]), ask)

    def _is_alone(self, venue: Venue, case: Case, row: int, *, keep: bool = False) -> bool:
        """True if no other venue has a move of half the size in the same candle; ``keep`` the answer for a while."""
        interval_ms, at_ms = case.run.interval_ms, case.time(row)

        def ask() -> _Elsewhere:
            span = (at_ms - interval_ms, at_ms + interval_ms)
            for _, other in self._breaker.others(venue, case.symbol, interval_ms, span):
                if len(other.between(at_ms, at_ms + interval_ms)):
                    return _Elsewhere(step=extent_of(other, at_ms))
            return _Elsewhere()

        key = (venue.offer.name, case.symbol, interval_ms, at_ms, 0)
        extent = (self._once(key, ask) if keep else ask()).step
        return not extent >= extent_of(case.run, at_ms) / 2  # NaN as well

    def _once(self, key: _Key, ask: Callable[[], _Elsewhere]) -> _Elsewhere:
        """Return the last answer while it counts, or ask anew."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            known = self._answers.get(key)
        if known is not None and now_s - known[0] < (NOBODY_AGAIN_S if np.isnan(known[1].step) else AGAIN_S):
            return known[1]
        answer = ask()
        with self._lock:
            if len(self._answers) > REMEMBERED:
                self._answers.clear()
            self._answers[key] = (now_s, answer)
        return answer


def _refused(case: Case, klines: Klines, rows: Iterable[int], reason: str) -> list[RejectedRow]:
    """Return the rows of a run that are among ``klines``, as rows for the quarantine."""
    times_ms = [case.time(row) for row in rows if case.time(row) in klines.open_time_ms]
    cells = klines.table()[np.searchsorted(klines.open_time_ms, times_ms)].tolist()
    return [
        RejectedRow(open_time_ms=at_ms, reason=reason, row=tuple(row))
        for at_ms, row in zip(times_ms, cells, strict=True)
    ]
