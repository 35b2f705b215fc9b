"""Pairs whose candles ended: told from a venue that stands still, and from one that has no trade for a while."""

import threading
from collections.abc import Sequence

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, iso
from core.errors import SYMBOL_SETTING, WorkerError
from market.listings import lack
from market.venue import Venue

QUIET_MS = 5 * MINUTE_MS  # without a candle: a venue is seldom later
ENDED_MS = DAY_MS  # without a candle: the longest halts of a listed pair are shorter
LOOKED_BACK_MS = 999 * DAY_MS  # one page of days
LOOK_AGAIN_MS = HOUR_MS


class Endings:
    """When each silent symbol's newest candle closed. Safe to use from several threads.

    Args:
        clock: for ages.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By symbol: when it was asked, the close of the newest candle, and what venues list of it.
        self._ends: dict[str, tuple[int, int, str]] = {}
        self._told: dict[str, int] = {}  # by symbol: close of the newest candle of a venue that was not silent

    def went_on(self, symbol: str, end_ms: int) -> None:
        """A venue has told a symbol's candles up to a close, and was not silent."""
        with self._lock:
            self._told[symbol] = max(end_ms, self._told.get(symbol, 0))
            if end_ms > self._ends.get(symbol, (0, end_ms, ""))[1]:
                del self._ends[symbol]

    def look(self, symbol: str, interval_ms: int, silent: Sequence[Venue], known_ms: int) -> None:
        """Find out, once an hour, when the candles of a symbol ended that no venue has new ones of, and why.

        Args:
            silent: the venues that were asked.
            known_ms: close of the newest candle that is known; 0 for none.
        """
        now_ms = self._clock.now_ms()
        if known_ms > 0 and now_ms - known_ms < QUIET_MS:
            return
        with self._lock:
            asked_ms, before_ms, lists = self._ends.get(symbol, (-LOOK_AGAIN_MS, 0, ""))
            if 0 <= now_ms - asked_ms < LOOK_AGAIN_MS and before_ms >= known_ms:
                return
            self._ends[symbol] = (now_ms, max(before_ms, known_ms), lists)
        found_ms = known_ms
        if not known_ms or now_ms - known_ms >= ENDED_MS:
            found_ms = max([known_ms, *(_newest_ms(venue, symbol, interval_ms, now_ms) for venue in silent)])
        lists = ", ".join(said for venue in silent if (said := _lists(venue, symbol)))
        with self._lock:
            self._ends[symbol] = (now_ms, found_ms, lists)

    def of(self, symbol: str) -> str:
        """What is to be said of a symbol whose candles ended; empty where they did not, or just now."""
        now_ms = self._clock.now_ms()
        with self._lock:
            _, end_ms, lists = self._ends.get(symbol, (0, now_ms, ""))
            others = [other for other in {*self._ends, *self._told} if other != symbol]
            goes_on = any(self._told.get(other, 0) >= end_ms + QUIET_MS for other in others)
        if now_ms - end_ms < QUIET_MS:
            return ""
        newest = f"newest candle of {symbol} closed {iso(end_ms)}" if end_ms else f"no candle of {symbol} in 999 days"
        if others and not goes_on:
            return f"{newest}, and no other symbol has new ones: the venue stands still; name another in MARKET_VENUES"
        newest += f" ({lists})" if lists else ""
        if now_ms - end_ms < ENDED_MS:
            return (
                f"{newest}: halted, delisted or renamed? Its next candle is answered from; where none comes, set "
                f"{SYMBOL_SETTING} to a pair that trades"
            )
        return f"{newest}: delisted or renamed? Set {SYMBOL_SETTING} to a pair that trades"


def _lists(venue: Venue, symbol: str) -> str:
    """What a venue's list says of a symbol; empty where it cannot be asked, or has none."""
    try:
        listing, lacks = lack(venue, symbol)
    except WorkerError:
        return ""
    return lacks or (f"{venue.offer.name} lists it as trading" if listing else "")


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
