"""One series of the live market: its newest closed klines, and when to ask for them again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import ConfigError
from klines.klines import Klines
from klines.spans import Span
from market.live.price_feed import UNKNOWN_SYMBOL_S

AFTER_CLOSE_MS = 200  # a venue needs a moment to publish a candle that has just closed
# While the stream is up its candle comes by itself; REST is asked when it has not come by then, and after it has come,
# to see whether REST has the same.
STREAM_PATIENCE_MS = 1_000
VERIFY_AFTER_MS = 2_000
VERIFY_SPREAD_MS = 300  # from one series to the next
SAY_AGAIN_MS = SECOND_MS  # between two questions about candles of the stream that are not believed
STRAGGLERS_MS = 1_500  # how long the candles that are there wait for the others of their interval
FIRST_LOAD_MS = 10_000  # the same while some series have never been answered
RETRY_S = 1.0  # a venue that is back is noticed this soon; a rest that a venue asks for is kept anyway
OVERLAP_ROWS = 10  # asked for again each time: corrections of the venue are taken over
HEALED_ROWS = 1_000  # one page: a hole further back the venue will not fill any more
HEAL_MS = MINUTE_MS - SECOND_MS  # between two questions for what holes lack: with each candle, and once
LOOK_BACK_MS = 10 * MINUTE_MS  # between two questions for the whole window, for each of the two reasons


@dataclass(slots=True, kw_only=True)
class LiveSeries:
    """One series and when to ask for it again. Changed under the live market's lock."""

    symbol: str
    interval_ms: int
    rows: int  # how many klines are kept
    number: int  # among all series
    has_stream: bool
    klines: Klines
    due_ms: int = 0
    asked_ms: int = 0
    polling: bool = False
    tried: bool = False  # True once a request has ended, well or not
    confirmed: bool = False  # True once a venue has answered since the start
    failures: int = 0  # in a row
    fault: str = ""
    asks_all: bool = False  # True if the request under way is for the whole window
    has_stand_ins: bool = False  # True while candles of another venue than the home are kept
    home_answered: bool = False  # True if the newest answer is the home venue's
    last_ms: dict[str, int] = field(default_factory=dict)  # by reason: the last question for more than what is new

    @property
    def names(self) -> dict[str, Any]:
        """The series as fields of a log line."""
        return {"symbol": self.symbol, "interval_ms": self.interval_ms}

    def wanted(self, now_ms: int) -> Span:
        """The span to ask for now: from some candles before the newest one, or before a hole.

        The whole window is asked for where it is short, as a venue that reaches further may be back; and where the home
        venue is back, so that candles of another venue do not stay.
        """
        end_ms = now_ms // self.interval_ms * self.interval_ms
        oldest_ms = end_ms - self.rows * self.interval_ms
        known = self.klines.between(oldest_ms, end_ms)
        is_short = len(known) < self.rows and self.tried and self._is_time("short", LOOK_BACK_MS, now_ms)
        if is_short or not len(known) or self._wants_home(now_ms):
            self.last_ms["short" if is_short or not len(known) else "home"] = now_ms
            self.asks_all = True
            return oldest_ms, end_ms
        self.asks_all, since_ms = False, known.end_ms
        if self._is_time("holes", HEAL_MS, now_ms):  # not with each question for a candle that is late
            self.last_ms["holes"] = now_ms
            since_ms, _ = next(known.tail(HEALED_ROWS).gaps(), (known.end_ms, 0))
        return max(oldest_ms, since_ms - OVERLAP_ROWS * self.interval_ms), end_ms

    def _is_time(self, reason: str, every_ms: int, now_ms: int) -> bool:
        """True if the last question for a reason was long ago, or by a clock that has been set back since."""
        return not 0 <= now_ms - self.last_ms.get(reason, 0) < every_ms

    def _wants_home(self, now_ms: int) -> bool:
        """True if the home venue is back while candles of another venue are kept."""
        return self.has_stand_ins and self.home_answered and self._is_time("home", LOOK_BACK_MS, now_ms)

    def take(
        self, fetched: Klines, asked_ms: int, now_ms: int, *, is_stand_in: bool, stream_is_up: bool
    ) -> tuple[bool, int | None]:
        """Take over an answer; of a stand-in's, the new candles and the newest known candle alone.

        Returns whether candles are new or corrected, and the open time of the first candle that was corrected.
        """
        complete_ms = asked_ms // self.interval_ms * self.interval_ms
        # The klines known now, not at the request: the stream may have sent a candle meanwhile. After a clock was
        # set back, candles of the future are forgotten.
        latest_ms = now_ms // self.interval_ms * self.interval_ms + (self.interval_ms if self.has_stream else 0)
        known = self.klines.between(complete_ms - self.rows * self.interval_ms, latest_ms)
        if is_stand_in:
            fetched = fetched.merge(known.between(0, known.end_ms - OVERLAP_ROWS * self.interval_ms))
        self.has_stand_ins = is_stand_in or (self.has_stand_ins and not self.asks_all)
        self.home_answered = not is_stand_in
        klines = known.merge(fetched).tail(self.rows)
        changed_ms = fetched.not_in(known).open_time_ms
        corrected_ms = next(iter(changed_ms[np.isin(changed_ms, known.open_time_ms)].tolist()), None)
        # Fewer rows: old ones left. What an earlier run left counts once the venue has been asked about it.
        news = klines.end_ms != self.klines.end_ms or len(klines) > len(self.klines) or corrected_ms is not None
        news = news or (not self.confirmed and len(klines) > 0)
        self.klines, self.fault, self.failures, self.tried, self.polling = klines, "", 0, True, False
        self.confirmed = True
        patience_ms = STREAM_PATIENCE_MS if stream_is_up else AFTER_CLOSE_MS
        self.due_ms = min(complete_ms, now_ms) + self.interval_ms + patience_ms  # now: the clock may go back
        if klines.end_ms < complete_ms:
            self.due_ms = now_ms + late_pause_ms(asked_ms - complete_ms)
        elif self._wants_home(now_ms):
            self.due_ms = now_ms
        elif next(klines.tail(HEALED_ROWS).gaps(), None):
            self.due_ms = min(self.due_ms, now_ms + MINUTE_MS)
        return news, corrected_ms

    def add(self, kline: Klines, now_ms: int) -> None:
        """Take a closed candle of the stream; REST is asked about it soon, and at once if it leaves a hole."""
        follows = kline.end_ms == self.klines.end_ms + self.interval_ms
        self.klines = self.klines.merge(kline).tail(self.rows)
        self.due_ms = now_ms + (VERIFY_AFTER_MS + self.number * VERIFY_SPREAD_MS if follows else 0)

    def ask_instead(self, now_ms: int) -> None:
        """Ask REST instead of using a candle of the stream that is not believed, at most once per ``SAY_AGAIN_MS``."""
        self.due_ms = min(self.due_ms, max(now_ms, self.asked_ms + SAY_AGAIN_MS))

    def fail(self, error: Exception, now_ms: int) -> None:
        """Keep the last good klines and the reason, and ask again later."""
        least_s = UNKNOWN_SYMBOL_S if isinstance(error, ConfigError) else RETRY_S
        pause_s = max(least_s, getattr(error, "retry_after_s", None) or 0.0)
        self.failures += 1
        self.fault, self.tried, self.polling = str(error), True, False
        self.due_ms = now_ms + round(pause_s * 1000)


def is_whole(batch: Sequence[LiveSeries], since_ms: int, now_ms: int) -> bool:
    """True if it is no use to wait for further candles of one interval, of which some are new since ``since_ms``."""
    newest_ms = max(series.klines.end_ms for series in batch)
    # What failed and is not being asked for just now may take its time; its interval does not wait.
    late = [s for s in batch if not s.tried or (s.klines.end_ms != newest_ms and (s.polling or not s.fault))]
    patience_ms = STRAGGLERS_MS if all(series.tried for series in batch) else FIRST_LOAD_MS
    return not late or not 0 <= now_ms - since_ms < patience_ms  # before it began: the clock was set back


def late_pause_ms(late_ms: int) -> int:
    """The pause before the next request for a candle that closed ``late_ms`` ago and is not there yet.

    >>> [late_pause_ms(ms) for ms in (200, 3_000, 60_000)]
    [300, 1000, 15000]
    """
    return min(max(300, late_ms // 3), 15 * SECOND_MS)  # a venue may have no candle for a minute without a trade
