"""Which of a venue's candles are believed: about those that are hard to believe a second venue is asked."""

import threading
from collections.abc import Callable

import numpy as np
import structlog

from core.clock import MINUTE_MS, Clock, iso
from core.errors import MalformedKlines
from market.health import Health
from market.klines import COLUMNS, Klines
from market.level import Levels
from market.provider import Venue
from market.quality import MOST_LEAP, ROUNDING, STAYED_ROWS, Aside, Doubts, RefusedRow, doubts_of, extent_of

AGAIN_MS, REMEMBERED = 10 * MINUTE_MS, 10_000  # how long what a second venue said counts: a doubt stays in the window
LONGEST_HOLE_ROWS = 300  # before a leap, over which a second venue is asked how far it went

log = structlog.get_logger()

_Key = tuple[str, str, int, int, int]  # venue, symbol, interval, open time, end of what is known


class Belief:
    """See the module. Safe to use from several threads.

    Args:
        levels: knows the newest candles of each series.
        health: says who may be asked.
        aside: takes the rows that are not believed.
        clock: for how long what a second venue said counts.
    """

    def __init__(self, levels: Levels, health: Health, aside: Aside, clock: Clock) -> None:
        self._levels = levels
        self._health = health
        self._aside = aside
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[_Key, tuple[int, float]] = {}  # when a second venue was asked, and how far it goes there
        self._awaited: dict[tuple[str, int], int] = {}  # by series: open time of the last leap that was said to wait

    def believed(
        self, venue: Venue, symbol: str, klines: Klines, among: Klines | None = None, *, alone: bool = False
    ) -> Klines:
        """Candles less those far from all others, unless a second venue has the like.

        Args:
            among: candles around them that are believed.
            alone: what is known of the series does not count.
        Raises:
            MalformedKlines: their level leaps where a second venue's does not, or too far to be believed of one alone.
        """
        interval_ms = klines.interval_ms
        recent = None if alone else self._levels.recent(symbol, interval_ms)
        run = klines if among is None else among.merge(klines)
        doubts = doubts_of(run, recent)
        if not doubts:
            return klines
        if recent is not None:  # the candle before the first says how far that one goes
            run = recent.between(0, int(run.open_time_ms[0])).merge(run)
        self._refuse_leaps(venue, symbol, run, doubts, recent)
        refused = [
            _row(klines, at_ms, "far from its neighbours, and no second venue has the like")
            for at_ms in doubts.spikes
            if at_ms in klines.open_time_ms and self._is_alone(venue, symbol, run, at_ms, remember=True)
        ]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in refused])
        leap_ms = doubts.leap_ms
        if leap_ms is not None and self._is_alone(venue, symbol, run, leap_ms):
            # It comes again with the next question, and is believed when it has stayed.
            keep &= klines.open_time_ms < leap_ms
            if self._awaited.get((symbol, interval_ms)) != leap_ms:
                self._awaited[symbol, interval_ms] = leap_ms
                log.warning("leap_awaits_confirmation", venue=venue.offer.name, symbol=symbol, open=iso(leap_ms))
        self._aside.put(venue.offer.name, symbol, interval_ms, refused, self._clock.now_ms())
        columns = {name: getattr(klines, name)[keep] for name in COLUMNS}
        return Klines(interval_ms=interval_ms, open_time_ms=klines.open_time_ms[keep], **columns)

    def _refuse_leaps(self, venue: Venue, symbol: str, run: Klines, doubts: Doubts, recent: Klines | None) -> None:
        """Raises MalformedKlines where a leap is another unit, or another asset."""
        for at_ms in (*doubts.leaps, *(() if doubts.leap_ms is None else (doubts.leap_ms,))):
            row, late = int(np.searchsorted(run.open_time_ms, at_ms)), at_ms == doubts.leap_ms
            step = float(np.log(run.close[row] / run.close[row - 1]))
            if _has(recent, at_ms, float(run.close[row])) or (late and abs(step) <= MOST_LEAP):
                continue  # it was believed before, or waits for others to follow
            said = f"{symbol} leaps by {100 * (np.exp(step) - 1):+.0f} % at {iso(at_ms)}"
            share = self._step_elsewhere(venue, symbol, run, row) / step
            if share < 1 / 2:
                raise MalformedKlines(f"{said}, and another venue has no such move")
            if np.isnan(share) and abs(step) > MOST_LEAP and not late:
                raise MalformedKlines(
                    f"{said}, and no second venue has it: another unit or asset? If it is so indeed, begin anew: "
                    "stop the node, delete DATA_DIR/klines, start it"
                )

    def _step_elsewhere(self, first: Venue, symbol: str, run: Klines, row: int) -> float:
        """How far another venue goes in the direction of a leap, near that time; NaN where none can say."""
        interval_ms, at_ms, before_ms = run.interval_ms, int(run.open_time_ms[row]), int(run.open_time_ms[row - 1])
        if at_ms - before_ms > LONGEST_HOLE_ROWS * interval_ms:
            return np.nan
        up = run.close[row] > run.close[row - 1]
        # There it may have come a little sooner or later.
        span = (before_ms - STAYED_ROWS * interval_ms, min(at_ms + (STAYED_ROWS + 1) * interval_ms, run.end_ms))

        def ask() -> float:
            for _, told in self._health.others(first, symbol, interval_ms, span):
                if len(told) and told.open_time_ms[0] <= before_ms and told.end_ms >= span[1]:
                    moves = np.log(told.close / told.close[0])
                    return float(moves.max() if up else moves.min())
            return np.nan

        return self._once((first.offer.name, symbol, interval_ms, at_ms, span[1]), ask)

    def _is_alone(self, venue: Venue, symbol: str, run: Klines, at_ms: int, *, remember: bool = False) -> bool:
        """Whether no other venue has a move of half the size in the same candle."""

        def ask() -> float:
            return self._extent_elsewhere(venue, symbol, run, at_ms)

        its = self._once((venue.offer.name, symbol, run.interval_ms, at_ms, 0), ask) if remember else ask()
        return not its >= extent_of(run, at_ms) / 2  # NaN as well

    def _extent_elsewhere(self, first: Venue, symbol: str, run: Klines, at_ms: int) -> float:
        """How far a candle goes at another venue; NaN where none has it."""
        interval_ms = run.interval_ms
        for _, told in self._health.others(first, symbol, interval_ms, (at_ms - interval_ms, at_ms + interval_ms)):
            if len(told.between(at_ms, at_ms + interval_ms)):
                return extent_of(told, at_ms)
        return np.nan

    def _once(self, key: _Key, ask: Callable[[], float]) -> float:
        """What was said when it was asked last, for a while; where nobody could say, for a minute."""
        now_ms = self._clock.now_ms()
        with self._lock:
            known = self._said.get(key)
        if known is not None and 0 <= now_ms - known[0] < (MINUTE_MS if np.isnan(known[1]) else AGAIN_MS):
            return known[1]
        said = ask()
        with self._lock:
            if len(self._said) > REMEMBERED:
                self._said.clear()
            self._said[key] = (now_ms, said)
        return said


def _has(known: Klines | None, at_ms: int, close: float) -> bool:
    """Whether a candle is known with that close."""
    same = () if known is None else known.between(at_ms, at_ms + known.interval_ms).close
    return any(abs(one / close - 1) < ROUNDING for one in same)


def _row(klines: Klines, at_ms: int, reason: str) -> RefusedRow:
    row = int(np.searchsorted(klines.open_time_ms, at_ms))
    cells = tuple(float(getattr(klines, name)[row]) for name in COLUMNS)
    return RefusedRow(open_time_ms=at_ms, reason=reason, row=cells)
