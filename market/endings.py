"""Pairs whose candles ended: told from a venue that stands still, and from one that has no trade for a while."""

import threading
from collections.abc import Sequence

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, iso
from core.errors import SYMBOL_SETTING, WorkerError
from market.klines import Span
from market.provider import Venue

ENDED_MS = DAY_MS  # without a candle: the longest halts of a listed pair are shorter
LOOKED_BACK_MS = 999 * DAY_MS  # one page of days
LOOK_AGAIN_MS = HOUR_MS
FRESH_MS = 10 * MINUTE_MS  # another symbol's candles have just been told


class Endings:
    """When each silent symbol's newest candle closed. Safe to use from several threads.

    Args:
        clock: for ages.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, tuple[int, int]] = {}  # by symbol: when it was asked, and the close of the newest candle
        self._fresh: dict[str, int] = {}  # by symbol: when a venue told its newest candles last

    def went_on(self, symbol: str, asked: Span) -> None:
        """A venue has told a symbol's candles, and was not silent.

        Args:
            asked: the range that it was asked for; one of long ago says nothing.
        """
        now_ms = self._clock.now_ms()
        if now_ms - asked[1] < FRESH_MS:
            with self._lock:
                self._fresh[symbol] = now_ms
                self._ends.pop(symbol, None)

    def look(self, symbol: str, interval_ms: int, silent: Sequence[Venue], known_ms: int) -> None:
        """Find out, once an hour, when the candles of a symbol ended that no venue has new ones of.

        Args:
            silent: the venues that were asked.
            known_ms: close of the newest candle that is known; 0 for none.
        """
        now_ms = self._clock.now_ms()
        if known_ms > 0 and now_ms - known_ms < ENDED_MS:
            return
        with self._lock:
            asked_ms, before_ms = self._ends.get(symbol, (-LOOK_AGAIN_MS, 0))
            if 0 <= now_ms - asked_ms < LOOK_AGAIN_MS and before_ms >= known_ms:
                return
            self._ends[symbol] = (now_ms, max(before_ms, known_ms))
        found_ms = max([known_ms, *(_newest_ms(venue, symbol, interval_ms, now_ms) for venue in silent)])
        with self._lock:
            self._ends[symbol] = (now_ms, found_ms)

    def of(self, symbol: str) -> str:
        """What is to be said of a symbol whose candles ended; empty where they did not, or not long ago."""
        now_ms = self._clock.now_ms()
        with self._lock:
            _, end_ms = self._ends.get(symbol, (0, 0))
            others = [other for other in {*self._ends, *self._fresh} if other != symbol]
            goes_on = any(0 <= now_ms - at_ms < FRESH_MS for at_ms in self._fresh.values())
        if now_ms - end_ms < ENDED_MS:
            return ""
        if symbol not in self._ends:
            return ""
        newest = f"newest candle of {symbol} closed {iso(end_ms)}" if end_ms else f"no candle of {symbol} in 999 days"
        if others and not goes_on:
            return f"{newest}, and no other symbol has new ones: the venue stands still; name another in MARKET_VENUES"
        return f"{newest}: delisted or renamed? Set {SYMBOL_SETTING} to a pair that trades"


def _newest_ms(venue: Venue, symbol: str, interval_ms: int, now_ms: int) -> int:
    """When the newest candle of a symbol closed at a venue; 0 where that cannot be told."""
    try:
        days = venue.klines(symbol, DAY_MS, (now_ms - LOOKED_BACK_MS) // DAY_MS * DAY_MS, now_ms)
        if not len(days):
            return 0
        last = venue.klines(symbol, interval_ms, days.end_ms - DAY_MS, min(days.end_ms, now_ms))
    except WorkerError:
        return 0
    return last.end_ms if len(last) else days.end_ms
