"""All that knows Coinbase Exchange: its products, its column order and its pages."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import MalformedKlines
from klines.checks import CheckedRows, check_closed_rows
from klines.klines import Klines
from market.http.client import Refused
from market.venue import Offer, Price
from market.venues.base import RestVenue
from market.venues.parsing import aged_price, json_of, number, time_ms, whole_rows, whole_seconds_ms

T = TypeVar("T")

PAGE_ROWS = 300  # of one request; a longer range is refused
COLUMNS = ("time", "low", "high", "open", "close", "volume")  # in this order, the newest candle first
ADVANCED = ("start", *COLUMNS[1:])  # names in the answers of the Advanced Trade API
SILENT_PAGES = 24  # without a candle, from the newest back: it was not listed before that (five days of minutes)


class Coinbase(RestVenue):
    """Coinbase Exchange. A minute without a trade has no candle there.

    Source: docs.cdp.coinbase.com, Exchange API, products: candles and ticker.
    """

    OFFER: ClassVar[Offer] = Offer(
        name="coinbase",
        quote="USD",
        intervals_ms=frozenset({MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS}),
        prices_at_once=False,
        ping="/time",
        requests_a_minute=300,  # ten a second are allowed
    )

    def name_of(self, symbol: str) -> str:
        """See the protocol; "ETH-USD" for ETHUSDT."""
        return f"{self._usd_base(symbol)}-USD"

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range, page by page from the newest back; see the protocol."""
        self._check(interval_ms)
        now_ms = self._clock.now_ms()
        end_ms = min(-(-end_ms // interval_ms), now_ms // interval_ms) * interval_ms
        start_ms = -(-start_ms // interval_ms) * interval_ms
        path = f"/products/{self.name_of(symbol)}/candles"
        runs: list[Klines] = []
        silent = 0
        while start_ms < end_ms and silent < SILENT_PAGES:
            first_ms = max(start_ms, end_ms - PAGE_ROWS * interval_ms)
            params: dict[str, str | int] = {
                "granularity": interval_ms // SECOND_MS,
                "start": iso(first_ms),
                "end": iso(end_ms - interval_ms),
            }
            read = partial(candles, interval_ms=interval_ms, now_ms=now_ms, last_ms=end_ms)
            page = self._of_product(symbol, path, params, read)
            self._aside.take(self.OFFER.name, symbol, interval_ms, page, now_ms)
            run = page.klines.between(first_ms, end_ms)
            silent = 0 if len(run) else silent + 1
            runs.append(run)
            end_ms = first_ms
        return Klines.joined(interval_ms, runs[::-1])

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade of each symbol with the venue's own time of it, a request each; see the protocol."""
        return {
            symbol: self._of_product(
                symbol,
                f"/products/{self.name_of(symbol)}/ticker",
                {},
                partial(ticker, symbol=symbol, clock=self._clock),
            )
            for symbol in dict.fromkeys(symbols)
        }

    def clock_ahead_ms(self) -> int:
        """See the protocol."""
        return self._ahead_ms(self._time)

    def _time(self, body: bytes) -> int:
        answer = json_of(body)
        at_ms = time_ms(answer.get("iso")) if isinstance(answer, dict) else 0
        if not at_ms:
            raise MalformedKlines(f"the answer is no server time but {body[:60]!r}")
        return at_ms

    def _of_product(self, symbol: str, path: str, params: dict[str, str | int], parse: Callable[[bytes], T]) -> T:
        try:
            return self._hosts.ask(path, params, parse)
        except Refused as error:
            if error.status == 404:
                raise self._unknown(symbol, error) from error
            raise


def candles(body: bytes, *, interval_ms: int, now_ms: int, last_ms: int | None = None) -> CheckedRows:
    """The candles of an answer, of the Exchange or of the Advanced Trade API, in whatever order.

    Args:
        now_ms: by the venue's clock; the candle that has not ended by then is left out.
        last_ms: an answer of which every candle opens later is of another range; None does not ask.
    Raises:
        MalformedKlines: they are none, or of another range.
    """
    rows = _rows(json_of(body))
    opened_ms = whole_seconds_ms(row[0] for row in rows)
    cells = {name: np.array([number(row[at]) for row in rows], np.float64) for at, name in enumerate(COLUMNS) if at}
    # Taken for an empty page, a host that ignores the range would look like a symbol that was not listed yet.
    if last_ms is not None and rows and opened_ms.min() > last_ms:
        raise MalformedKlines(f"asked for candles up to {iso(last_ms)}, got only newer ones")
    return check_closed_rows(interval_ms, opened_ms, cells, now_ms)


def ticker(body: bytes, *, symbol: str, clock: Clock) -> Price:
    """The last trade.

    Raises:
        MalformedKlines: it is none, or has no time.
    """
    answer = json_of(body)
    if not isinstance(answer, dict):
        raise MalformedKlines(f"no price of {symbol} in the answer {body[:80]!r}")
    return aged_price(symbol, answer.get("price"), time_ms(answer.get("time")), clock.now_ms())


def _rows(answer: Any) -> list[list[Any]]:
    if isinstance(answer, dict) and isinstance(answer.get("candles"), list):
        answer = [[row.get(name) for name in ADVANCED] if isinstance(row, dict) else None for row in answer["candles"]]
    rule = f"candles must be a list of rows of {len(COLUMNS)}"
    if not isinstance(answer, list):
        raise MalformedKlines(f"{rule}, was {str(answer)[:80]}")
    return whole_rows(answer, lambda row: len(row) == len(COLUMNS), len(COLUMNS), rule)
