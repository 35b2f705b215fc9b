"""The price ratio of the venue that scores forecasts to the venue that they start from, kept warm in memory."""

import threading
from collections.abc import Iterable

import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import WorkerError
from core.seldom import Seldom
from klines.klines import Klines
from market.price_ratio import WINDOW_ROWS, PriceRatio, price_ratio
from market.venue import MarketData, Venue

SETTLE_MS = 5 * SECOND_MS  # a venue needs a moment for the minute that has just closed
FIRST_ROWS, AGAIN_ROWS = 90, 5  # asked for at first, and of the known ones each time: corrections are taken over
SHARE = 0.5  # of the truth venue's budget: its key may be used elsewhere as well
# Decision 0012: a ratio up to two hours old gains something under every law that was tried; of four hours it does not.
MOST_AGE_MS = 120 * MINUTE_MS
# Of ln(ratio): at this spread a ratio errs by 6 basis points, about the cost of having no ratio (decision 0012).
MOST_NOISE = 0.0015

log = structlog.get_logger()


class TruthFeed:
    """Asks the truth venue for each symbol's newest minutes, and measures its ratio to the serving venue's prices."""

    def __init__(self, truth: Venue, serving: MarketData, symbols: Iterable[str], clock: Clock) -> None:
        self.name = truth.info.name
        self.symbols = tuple(dict.fromkeys(symbols))
        self._truth = truth
        self._serving = serving
        self._clock = clock
        self._minutes: dict[str, tuple[Klines, Klines]] = {}  # by symbol: of the truth venue, and serving
        self._ratios: dict[str, PriceRatio | None] = {}
        self._faults: dict[str, str] = {}
        self._seldom = Seldom()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="truth", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        if self.symbols:
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread; a thread that hangs in a request is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def ratio(self, symbol: str, now_ms: int) -> PriceRatio | None:
        """The truth venue's prices over the serving prices; None if the ratio is not known or too old."""
        known = self._ratios.get(symbol)
        return known if known and 0 <= now_ms - known.newest_ms <= MOST_AGE_MS else None

    def fault(self, symbol: str) -> str:
        """Why a symbol's ratio is not known, or grows old; empty otherwise."""
        return self._faults.get(symbol, "")

    def look(self, symbol: str) -> None:
        """Ask both venues for a symbol's newest minutes; raises WorkerError if one of them fails."""
        end_ms = self._clock.now_ms() // MINUTE_MS * MINUTE_MS
        known = self._minutes.get(symbol, (Klines.empty(MINUTE_MS), Klines.empty(MINUTE_MS)))
        again_ms = min(end_ms, *(minutes.end_ms for minutes in known)) - AGAIN_ROWS * MINUTE_MS
        asked = max(end_ms - FIRST_ROWS * MINUTE_MS, again_ms), end_ms
        kept = end_ms - WINDOW_ROWS * MINUTE_MS, end_ms
        truth, serving = (
            minutes.merge(venue.klines(symbol, MINUTE_MS, *asked)).between(*kept)
            for minutes, venue in zip(known, (self._truth, self._serving), strict=True)
        )
        self._minutes[symbol] = truth, serving
        found = price_ratio(truth, serving)
        self._ratios[symbol] = found if found and found.spread <= MOST_NOISE else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            began_ms = self._clock.now_ms()
            for symbol in self.symbols:
                if self._stopping.is_set():
                    return
                self._look_and_note(symbol)
            self._stopping.wait(self._pause_s(began_ms))

    def _look_and_note(self, symbol: str) -> None:
        fault = ""
        try:
            self.look(symbol)
            if self._ratios[symbol] is None:
                fault = f"{self.name} and the serving venue share too few minutes of {symbol}, or do not move together"
        except Exception as error:
            fault = str(error) if isinstance(error, WorkerError) else repr(error)
            if not isinstance(error, WorkerError) and (count := self._seldom.due("truth_fault", symbol)):
                log.exception("truth_fault", symbol=symbol, count=count)
        if fault not in ("", self.fault(symbol)) and (count := self._seldom.due("truth_ratio_unknown", symbol)):
            log.warning("truth_ratio_unknown", symbol=symbol, venue=self.name, reason=fault, count=count)
        self._faults[symbol] = fault

    def _pause_s(self, began_ms: int) -> float:
        """Until shortly after the next minute has closed, or later if the venue's budget is small."""
        now_ms = self._clock.now_ms()
        least_ms = round(len(self.symbols) * MINUTE_MS / (SHARE * self._truth.info.requests_a_minute))
        due_ms = max(began_ms + least_ms, now_ms)
        return ((due_ms - SETTLE_MS) // MINUTE_MS * MINUTE_MS + MINUTE_MS + SETTLE_MS - now_ms) / 1000
