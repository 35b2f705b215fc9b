"""Asks a second venue about candles that are hard to believe: spikes, leaps, and changes of the price unit."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import structlog

from core.clock import Clock, iso
from core.errors import MalformedKlines
from klines.activity import extent_of
from klines.checks import RejectedRow
from klines.klines import Klines
from klines.plausible import LEAPT, STAYED_ROWS, doubts_of, rows_awaited
from klines.spans import Span
from market.failover.breaker import VenueBreaker
from market.failover.home_ratio import HomeRatios
from market.failover.stretches import ALIKE, Case, sorted_stretches
from market.quarantine import Quarantine
from market.venue import Venue

AGAIN_S, NOBODY_AGAIN_S = 600.0, 60.0  # how long a second venue's answer counts; the second if no venue had any
REMEMBERED = 1_000  # answers
LONGEST_HOLE_ROWS = 300  # before a leap, over which a second venue is asked how far it went
MOST_ASKED = 20  # leaps of one answer that a second venue is asked about, the newest
LONE_SPIKE = "far from its neighbours, and no second venue has the like"
OTHER_LEVEL = "at another level than the rows around it, and no second venue has the like"

log = structlog.get_logger()


class SecondOpinion:
    """Confirms candles, or refuses them into the quarantine. Safe to use from several threads."""

    def __init__(self, ratios: HomeRatios, breaker: VenueBreaker, quarantine: Quarantine, clock: Clock) -> None:
        self._ratios = ratios
        self._breaker = breaker
        self._quarantine = quarantine
        self._clock = clock
        self._lock = threading.Lock()
        # By venue, symbol, interval and span: until when another venue's candles count, by Clock.elapsed_s.
        self._answers: dict[tuple[str, str, int, Span], tuple[float, Klines | None]] = {}
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
        if len(run):  # the candle before the first says how far that one goes
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
        odd, marked, held = sorted_stretches(case, leaps, self._levels_elsewhere(venue, case, leaps))
        self._refuse_leaps(venue, case, set(case.rows(doubts.leaps)) - set(case.leaps))
        asked = [row for row in spikes if case.time(row) in klines.open_time_ms]
        lone = [row for row in asked if self._is_alone(venue, case, row, keep=True)]
        rejected = [*_rejected(case, klines, lone, LONE_SPIKE), *_rejected(case, klines, odd, OTHER_LEVEL)]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in rejected])
        late = case.rows([] if doubts.leap_ms is None else [doubts.leap_ms])
        waiting = [row for row in late if row not in case.leaps and self._is_alone(venue, case, row)]
        held = min([*waiting, *([] if held is None else [held])], default=None)
        if held is not None:  # it comes again with the next question, and is used when it has stayed
            keep &= klines.open_time_ms < case.time(held)
        if among is None:
            self._hold(venue, case, held)
        self._quarantine.put(venue.info.name, symbol, interval_ms, rejected, self._clock.now_ms())
        kept = klines.where(keep)
        self._quarantine.mark(venue.info.name, symbol, interval_ms, _rejected(case, kept, marked, LEAPT))
        return kept

    def why_held(self, symbol: str, interval_ms: int) -> str:
        """Why the newest candles of a series are not used yet; empty if they are."""
        return self._held.get((symbol, interval_ms), (0, ""))[1]

    def _hold(self, venue: Venue, case: Case, held: int | None) -> None:
        """Remember which candles wait to be confirmed, and log a new one once."""
        key = (case.symbol, case.run.interval_ms)
        before_ms, _ = self._held.pop(key, (None, ""))
        if held is None:
            return
        at_ms, rows = case.time(held), rows_awaited(case.run.interval_ms) if held in case.leaps else STAYED_ROWS
        self._held[key] = (
            at_ms,
            f"{case.leap(held)}, and no second venue has it: used when {rows} more candles have stayed there, or it "
            "comes for the third time, or a second venue has it",
        )
        if before_ms != at_ms:
            details = {"symbol": case.symbol, "open": iso(at_ms), "rows": rows}
            log.warning("leap_awaits_confirmation", venue=venue.info.name, **details)

    def _levels_elsewhere(self, venue: Venue, case: Case, leaps: Sequence[int]) -> list[bool | None]:
        """For each stretch between leaps, True if a second venue is at its level; None if no venue says."""
        is_right: list[bool | None] = [None] * (len(leaps) + 1)
        for number, row in list(enumerate(leaps))[-MOST_ASKED:]:
            _, before, after = self._moves(venue, case, row)
            if np.isnan(before):
                continue
            for side, apart in ((number, before), (number + 1, after)):
                if is_right[side] is not True:
                    is_right[side] = apart <= ALIKE
            if min(before, after) > ALIKE:  # that venue has another unit or asset itself, and says nothing
                is_right[number], is_right[number + 1] = None, None
        return is_right

    def _refuse_leaps(self, venue: Venue, case: Case, rows: Iterable[int]) -> None:
        """Raise MalformedKlines if a leap of up to ``MOST_LEAP`` has stayed and another venue has no such leap."""
        for row in sorted(rows):
            if case.is_known(row):
                continue
            size = abs(float(np.log(case.run.close[row] / case.run.close[row - 1])))
            step, _, after = self._moves(venue, case, row)
            # If another venue is at the new level as well, the older candles are wrong.
            if step < size / 2 and not after < size / 4:
                raise MalformedKlines(f"{case.leap(row)}, and another venue has no such move")

    def _moves(self, venue: Venue, case: Case, row: int) -> tuple[float, float, float]:
        """Return how another venue moved at the time of a leap, in ln(price); NaN if no venue has that time.

        The three are: how far it goes in the same direction, and how near it comes to the close before the leap and to
        the close after.
        """
        run, interval_ms, at_ms, before_ms = case.run, case.run.interval_ms, case.time(row), case.time(row - 1)
        # There it may have come a little sooner or later.
        span = (before_ms - STAYED_ROWS * interval_ms, min(at_ms + (STAYED_ROWS + 1) * interval_ms, run.end_ms))
        if at_ms - before_ms > LONGEST_HOLE_ROWS * interval_ms:
            return np.nan, np.nan, np.nan
        other = self._elsewhere(venue, case, span, before_ms, keep=True)
        if other is None:
            return np.nan, np.nan, np.nan
        before, after = run.close[row - 1], run.close[row]
        moves = np.sign(after - before) * np.log(other.close / other.close[0])
        sides = (other.between(0, at_ms).close, before), (other.between(at_ms, other.end_ms).close, after)
        near_before, near_after = (float(np.abs(np.log(side / close)).min(initial=np.inf)) for side, close in sides)
        return float(moves.max()), near_before, near_after

    def _is_alone(self, venue: Venue, case: Case, row: int, *, keep: bool = False) -> bool:
        """True if no other venue has a move of half the size in the same candle."""
        interval_ms, at_ms = case.run.interval_ms, case.time(row)
        other = self._elsewhere(venue, case, (at_ms - interval_ms, at_ms + interval_ms), at_ms, keep=keep)
        return other is None or extent_of(other, at_ms) < extent_of(case.run, at_ms) / 2

    def _elsewhere(self, venue: Venue, case: Case, span: Span, since_ms: int, *, keep: bool) -> Klines | None:
        """The candles of a span at the first other venue that has them from ``since_ms`` on; None if no venue has.

        Args:
            keep: use the last answer while it counts.
        """
        key, now_s = (venue.info.name, case.symbol, case.run.interval_ms, span), self._clock.elapsed_s()
        until_s, known = self._answers.get(key, (now_s, None))
        if keep and now_s < until_s:
            return known
        candles = (found for _, found in self._breaker.others(venue, case.symbol, case.run.interval_ms, span))
        has_all = (one for one in candles if len(one) and one.open_time_ms[0] <= since_ms and one.end_ms >= span[1])
        answer = next(has_all, None)
        if keep:
            with self._lock:
                if len(self._answers) > REMEMBERED:
                    self._answers.clear()
                self._answers[key] = (now_s + (NOBODY_AGAIN_S if answer is None else AGAIN_S), answer)
        return answer


def _rejected(case: Case, klines: Klines, rows: Iterable[int], reason: str) -> list[RejectedRow]:
    """Return the rows of a case that are among ``klines``, as rows for the quarantine."""
    found = klines.where(np.isin(klines.open_time_ms, [case.time(row) for row in rows]))
    cells = zip(found.open_time_ms.tolist(), found.table().tolist(), strict=True)
    return [RejectedRow(open_time_ms=at_ms, reason=reason, row=tuple(row)) for at_ms, row in cells]
