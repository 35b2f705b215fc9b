"""How far the venue that forecasts are scored on stands from the one that they start from, kept warm in memory."""

import threading
from collections.abc import Iterable

import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import WorkerError
from core.seldom import Seldom
from market.price_ratio import MOST_AGE_MS, Basis, Ratio
from market.venue import MarketData, Venue

SERVING = "serving"  # the level of the series, whoever tells them
SETTLE_MS = 5 * SECOND_MS  # a venue needs a moment for the minute that has just closed
FIRST_ROWS, OVERLAP_ROWS = 90, 5
SHARE = 0.5  # of what the truth venue lets itself be asked: its key may be used elsewhere as well

log = structlog.get_logger()


class TruthFeed:
    """Asks the truth venue for each symbol's newest minutes, and learns the ratio to the serving level.

    Args:
        truth: whose prices forecasts are scored on.
        serving: whose prices they start from.
        symbols: of the price topics.
        clock: for minutes and ages.
    """

    def __init__(self, truth: Venue, serving: MarketData, symbols: Iterable[str], clock: Clock) -> None:
        self.name = truth.offer.name
        self._truth = truth
        self._serving = serving
        self._symbols = tuple(dict.fromkeys(symbols))
        self._clock = clock
        self._basis = Basis()
        self._ratios: dict[str, Ratio] = {}  # replaced, never changed
        self._faults: dict[str, str] = {}
        self._seldom = Seldom()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="truth", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        if self._symbols:
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread; one that hangs in a request is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def ratio(self, symbol: str, now_ms: int) -> Ratio | None:
        """The truth venue's level over the serving one's; None while it is not known, or not any more."""
        known = self._ratios.get(symbol)
        return known if known and 0 <= now_ms - known.newest_ms <= MOST_AGE_MS else None

    def fault(self, symbol: str) -> str:
        """Why a symbol's ratio is not known, or grows old; empty when it does not."""
        return self._faults.get(symbol, "")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Whose ratios are kept."""
        return self._symbols

    def look(self, symbol: str) -> None:
        """Ask both venues for a symbol's newest minutes.

        Raises:
            WorkerError: one of them could not tell.
        """
        end_ms = self._clock.now_ms() // MINUTE_MS * MINUTE_MS
        known = self._ratios.get(symbol)
        rows = OVERLAP_ROWS + (end_ms - known.newest_ms) // MINUTE_MS if known else FIRST_ROWS
        start_ms = end_ms - min(max(rows, OVERLAP_ROWS), FIRST_ROWS) * MINUTE_MS
        self._basis.learn(symbol, self.name, self._truth.klines(symbol, MINUTE_MS, start_ms, end_ms))
        self._basis.learn(symbol, SERVING, self._serving.klines(symbol, MINUTE_MS, start_ms, end_ms))
        found = self._basis.ratio(symbol, of=self.name, to=SERVING, now_ms=self._clock.now_ms())
        ratios = {**self._ratios}
        ratios.pop(symbol, None)
        self._ratios = ratios | ({symbol: found} if found else {})

    def _run(self) -> None:
        while not self._stopping.is_set():
            began_ms = self._clock.now_ms()
            for symbol in self._symbols:
                if self._stopping.is_set():
                    return
                self._look_and_note(symbol)
            self._stopping.wait(self._pause_s(began_ms))

    def _look_and_note(self, symbol: str) -> None:
        fault = ""
        try:
            self.look(symbol)
        except WorkerError as error:
            fault = str(error)
        except Exception as error:
            if count := self._seldom.due("truth_fault", symbol):
                log.exception("truth_fault", symbol=symbol, count=count)
            fault = repr(error)
        else:
            if symbol not in self._ratios:
                fault = f"{self.name} and the serving venue share too few minutes of {symbol}, or do not move together"
        news = fault and fault != self._faults.get(symbol, "")
        if news and (count := self._seldom.due("truth_ratio_unknown", symbol)):
            log.warning("truth_ratio_unknown", symbol=symbol, venue=self.name, reason=fault, count=count)
        self._faults = {**self._faults, symbol: fault}

    def _pause_s(self, began_ms: int) -> float:
        """Until shortly after the next minute has closed, or later where the venue lets itself be asked less often."""
        now_ms = self._clock.now_ms()
        least_ms = round(len(self._symbols) * MINUTE_MS / (SHARE * self._truth.offer.requests_a_minute))
        due_ms = max(began_ms + least_ms, now_ms)
        return ((due_ms - SETTLE_MS) // MINUTE_MS * MINUTE_MS + MINUTE_MS + SETTLE_MS - now_ms) / 1000
