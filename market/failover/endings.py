"""Pairs whose candles ended, as against a venue that stands still, or a pair without a trade for a while."""

import threading
from collections.abc import Sequence

from core.clock import DAY_MS, MINUTE_MS, Clock, iso
from core.errors import SYMBOL_SETTING, WorkerError
from core.seldom import Seldom
from market.listings import lack
from market.venue import Venue

QUIET_MS = 5 * MINUTE_MS  # without a candle: a venue is seldom later
ENDED_MS = DAY_MS  # without a candle: the longest halts of a listed pair are shorter
LOOKED_BACK_MS = 999 * DAY_MS  # one page of days
LOOK_AGAIN_S = 3600.0


class Endings:
    """When and why the candles of silent symbols ended. Safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._looks = Seldom(clock.elapsed_s, LOOK_AGAIN_S)
        # By silent symbol: close of the newest candle, 0 if no candle is known; and what venues list of the symbol.
        self._ends: dict[str, tuple[int, str]] = {}
        self._seen_ms: dict[str, int] = {}  # by symbol: close of the newest candle of a venue that was not silent

    def went_on(self, symbol: str, end_ms: int) -> None:
        """Note that a venue that was not silent has a symbol's candles up to ``end_ms``."""
        with self._lock:
            self._seen_ms[symbol] = max(end_ms, self._seen_ms.get(symbol, 0))
            if symbol in self._ends and end_ms > self._ends[symbol][0]:
                del self._ends[symbol]

    def look(self, symbol: str, interval_ms: int, silent: Sequence[Venue], known_ms: int) -> None:
        """Find out, at most once an hour, when and why the candles of a symbol ended if no venue has new candles.

        Args:
            silent: the venues that were asked.
            known_ms: close of the newest known candle; 0 if no candle is known.
        """
        now_ms = self._clock.now_ms()
        if now_ms - known_ms < QUIET_MS:
            return
        with self._lock:
            close_ms, listed = self._ends.get(symbol, (0, ""))
            self._ends[symbol] = (max(close_ms, known_ms), listed)
        if not self._looks.due(symbol, known_ms):
            return
        close_ms = known_ms
        if now_ms - known_ms >= ENDED_MS:
            close_ms = max([known_ms, *(_newest_ms(venue, symbol, interval_ms, now_ms) for venue in silent)])
        listed = ", ".join(text for venue in silent if (text := _listed(venue, symbol)))
        with self._lock:
            self._ends[symbol] = (max(close_ms, self._ends.get(symbol, (0, ""))[0]), listed)

    def remark(self, symbol: str) -> str:
        """A message about a symbol whose candles ended; empty if the candles did not end, or ended just now."""
        now_ms = self._clock.now_ms()
        with self._lock:
            close_ms, listed = self._ends.get(symbol, (now_ms, ""))
            others = {*self._ends, *self._seen_ms} - {symbol}
            goes_on = any(self._seen_ms.get(other, 0) >= close_ms + QUIET_MS for other in others)
        if now_ms - close_ms < QUIET_MS:
            return ""
        newest = (
            f"newest candle of {symbol} closed {iso(close_ms)}" if close_ms else f"no candle of {symbol} in 999 days"
        )
        if others and not goes_on:
            return f"{newest}, and no other symbol has new ones: the venue stands still; name another in MARKET_VENUES"
        newest += f" ({listed})" if listed else ""
        if now_ms - close_ms < ENDED_MS:
            return (
                f"{newest}: halted, delisted or renamed? Its next candle is answered from; where none comes, set "
                f"{SYMBOL_SETTING} to a pair that trades"
            )
        return f"{newest}: delisted or renamed? Set {SYMBOL_SETTING} to a pair that trades"


def _listed(venue: Venue, symbol: str) -> str:
    """The state of a symbol in a venue's list, in words; empty if the venue fails or has no list."""
    try:
        listing, lacks = lack(venue, symbol)
    except WorkerError:
        return ""
    return lacks or (f"{venue.info.name} lists it as trading" if listing else "")


def _newest_ms(venue: Venue, symbol: str, interval_ms: int, now_ms: int) -> int:
    """The close time of a symbol's newest candle at a venue; 0 if it is not known."""
    try:
        days = venue.klines(symbol, DAY_MS, (now_ms - LOOKED_BACK_MS) // DAY_MS * DAY_MS, now_ms)
        if not len(days):
            return 0
        last = venue.klines(symbol, interval_ms, days.end_ms - DAY_MS, min(days.end_ms, now_ms))
    except WorkerError:
        return 0
    return last.end_ms or days.end_ms
