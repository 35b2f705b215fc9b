"""All that knows Coinbase Exchange: its products, its column order and its pages."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import MalformedKlines
from klines.checks import CheckedRows, check_closed_rows
from market.http.client import json_of
from market.http.errors import ErrorReply, FaultKind
from market.venue import Offer, Price
from market.venues.base import Page, RestVenue
from market.venues.parsing import aged_price, column, time_ms, whole_rows, whole_seconds_ms

PAGE_ROWS = 300  # of one request; a longer range is refused
COLUMNS = ("time", "low", "high", "open", "close", "volume")  # in this order, the newest candle first
ADVANCED = ("start", *COLUMNS[1:])  # names in the responses of the Advanced Trade API
EMPTY_PAGES = 24  # after so many, backwards in time, the product was not listed yet: five days of minutes


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
        return f"{self._usd_base(symbol)}-USD"

    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        # From the newest page back.
        empty = 0
        while start_ms < end_ms and empty < EMPTY_PAGES:
            first_ms = max(start_ms, end_ms - PAGE_ROWS * interval_ms)
            params: dict[str, str | int] = {
                "granularity": interval_ms // SECOND_MS,
                "start": iso(first_ms),
                "end": iso(end_ms - interval_ms),
            }
            parse = partial(candles, interval_ms=interval_ms, now_ms=now_ms, last_ms=end_ms)
            page = self._ask(f"/products/{name}/candles", params, parse)
            yield page, (first_ms, end_ms)
            empty = 0 if len(page.klines.between(first_ms, end_ms)) else empty + 1
            end_ms = first_ms

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return {
            name: self._ask(f"/products/{name}/ticker", {}, partial(ticker, name=name, clock=self._clock))
            for name in names
        }

    def clock_ahead_ms(self) -> int:
        return self._ahead_ms(server_time_ms)

    def _interpret(self, error: ErrorReply) -> ErrorReply:
        return replace(error, kind=FaultKind.UNKNOWN_SYMBOL) if error.status == 404 else error


def server_time_ms(body: bytes) -> int:
    """The venue's own time.

    Raises:
        MalformedKlines: the body has no time.
    """
    answer = json_of(body)
    at_ms = time_ms(answer.get("iso")) if isinstance(answer, dict) else 0
    if not at_ms:
        raise MalformedKlines(f"the answer is not a server time but {body[:60]!r}")
    return at_ms


def candles(body: bytes, *, interval_ms: int, now_ms: int, last_ms: int | None = None) -> CheckedRows:
    """Candles of the Exchange or of the Advanced Trade API, in any order.

    Args:
        now_ms: by the venue's clock; the candle that has not ended by then is left out.
        last_ms: if every candle opens later, the response is of another range; None does not check.
    Raises:
        MalformedKlines: not candles, or of another range.
    """
    answer: Any = json_of(body)
    if isinstance(answer, dict) and isinstance(answer.get("candles"), list):
        answer = [[row.get(name) for name in ADVANCED] if isinstance(row, dict) else None for row in answer["candles"]]
    width = len(COLUMNS)
    rows = whole_rows(answer, lambda row: len(row) == width, width, f"candles must be a list of rows of {width}")
    opened_ms = whole_seconds_ms(row[0] for row in rows)
    # Taken for an empty page, a host that ignores the range would look like a symbol that was not listed yet.
    if last_ms is not None and rows and opened_ms.min() > last_ms:
        raise MalformedKlines(f"asked for candles up to {iso(last_ms)}, got only newer ones")
    cells = {name: column(rows, place) for place, name in enumerate(COLUMNS) if place}
    return check_closed_rows(interval_ms, opened_ms, cells, now_ms)


def ticker(body: bytes, *, name: str, clock: Clock) -> Price:
    """The last trade.

    Raises:
        MalformedKlines: not a trade, or a trade without a time.
    """
    answer = json_of(body)
    if not isinstance(answer, dict):
        raise MalformedKlines(f"no price of {name} in the answer {body[:80]!r}")
    return aged_price(name, answer.get("price"), time_ms(answer.get("time")), clock.now_ms())
