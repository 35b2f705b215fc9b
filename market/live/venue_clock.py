"""Corrects our clock by the venue's.

A machine whose clock is half a minute fast would find every trade too old to answer with, and take the running candle
for a closed one.
"""

import math
import threading

import structlog

from core.clock import DAY_MS, SECOND_MS, CorrectedClock
from core.errors import WorkerError
from core.seldom import Seldom
from market.venue import MarketData

EVERY_S, UNKNOWN_S = 60.0, 300.0  # between two questions; the second if the venue did not answer the last one
SUSPECT_S = 10.0  # the same if a trade's time looks odd
STEP_S = 5.0  # by which a clock and the time that has passed differ if it was set, or the machine slept
SUSPECT_MS = 2 * SECOND_MS  # a trade that is so far from our now: it is late, or the clocks differ
WORTH_A_WORD_MS = SECOND_MS  # clocks that differ by more are logged
MOST_AHEAD_MS = DAY_MS  # no machine that can speak TLS is further off: the venue's answer is wrong

log = structlog.get_logger()


class VenueClock:
    """Asks the venue for its time when that is due, and corrects the clock. Used by one thread, except ``heard``."""

    def __init__(self, market: MarketData, clock: CorrectedClock) -> None:
        self.tried = threading.Event()  # set once the venue was asked
        self._market = market
        self._clock = clock
        self._asked_s = self._due_s = -math.inf  # by ``elapsed_s``: the last question and the next one
        self._moment = (clock.now_ms(), clock.elapsed_s())
        self._seldom = Seldom()

    def heard(self, venue_ms: int) -> None:
        """Compare the venue's time of a trade that has just come in with ours."""
        if abs(self._clock.now_ms() - venue_ms) > SUSPECT_MS:
            self._due_s = min(self._due_s, self._asked_s + SUSPECT_S)

    def ask_soon(self) -> None:
        """Make the next ``look`` ask."""
        self._due_s = -math.inf

    def look(self) -> None:
        """Correct our clock if that is due."""
        now_s = self._clock.elapsed_s()
        if not self._has_stepped() and now_s < self._due_s:
            return
        self._asked_s, self._due_s = now_s, now_s + UNKNOWN_S
        try:
            self._correct(self._clock.ahead_ms + self._market.clock_ahead_ms())
        except WorkerError as error:
            log.info("venue_clock_unknown", reason=str(error))
        except Exception:
            if count := self._seldom.due("venue_clock_fault"):
                log.exception("venue_clock_fault", count=count)
        self.tried.set()

    def _has_stepped(self) -> bool:
        before, self._moment = self._moment, (self._clock.now_ms(), self._clock.elapsed_s())
        by_s = (self._moment[0] - before[0]) / SECOND_MS
        return by_s < 0 or by_s - (self._moment[1] - before[1]) > STEP_S

    def _correct(self, ahead_ms: int) -> None:
        if abs(ahead_ms) > MOST_AHEAD_MS:
            log.error("clock_not_believed", venue_ahead_s=ahead_ms / SECOND_MS, remedy="set this machine's clock (NTP)")
            return
        if abs(ahead_ms) > WORTH_A_WORD_MS and abs(ahead_ms - self._clock.ahead_ms) > WORTH_A_WORD_MS:
            log.warning(
                "clock_differs",
                venue_ahead_s=ahead_ms / SECOND_MS,
                remedy="set this machine's clock (NTP); the venue's time is used until then",
            )
        self._clock.ahead_ms, self._due_s = ahead_ms, self._asked_s + EVERY_S
        self._moment = (self._clock.now_ms(), self._clock.elapsed_s())  # a correction is no step
