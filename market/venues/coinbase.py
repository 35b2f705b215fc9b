"""All that knows Coinbase Exchange: its products, its column order and its pages."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows
from market.http.client import json_of
from market.http.errors import ErrorReply, UnknownPair
from market.venue import Price, VenueInfo
from market.venues.base import Page, RestVenue
from market.venues.parsing import candles_in, cell, price_of, time_ms

PAGE_ROWS = 300  # of one request; a longer range is refused
PLACES = {"time": 0, "low": 1, "high": 2, "open": 3, "close": 4, "volume": 5}  # the newest candle comes first
EMPTY_PAGES = 24  # after so many, backwards in time, the product was not listed yet: five days of minutes


class Coinbase(RestVenue):
    """Coinbase Exchange. A minute without a trade has no candle there.

    Source: docs.cdp.coinbase.com, Exchange API, products: candles and ticker.
    """

    INFO: ClassVar[VenueInfo] = VenueInfo(
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
            page = self.hosts.ask(f"/products/{name}/candles", params, parse)
            yield page, (first_ms, end_ms)
            empty = 0 if len(page.klines.between(first_ms, end_ms)) else empty + 1
            end_ms = first_ms

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return {
            name: self.hosts.ask(
                f"/products/{name}/ticker", {}, partial(ticker, name=name, now_ms=self._clock.now_ms())
            )
            for name in names
        }

    def _server_time_ms(self, body: bytes) -> int:
        return time_ms(cell(json_of(body), "iso"))

    def _fault_of(self, error: ErrorReply) -> MarketUnavailable:
        return UnknownPair(error.text, status=404) if error.status == 404 else super()._fault_of(error)


def candles(body: bytes, *, interval_ms: int, now_ms: int, last_ms: int = 2**62) -> CheckedRows:
    """Read candles; raises MalformedKlines also if every candle opens after ``last_ms``: of another range."""
    found = candles_in(json_of(body), interval_ms, PLACES, now_ms)
    # Taken for an empty page, a host that ignores the range would look like a symbol that was not listed yet.
    if len(found.klines) and found.klines.open_time_ms[0] > last_ms:
        raise MalformedKlines(f"asked for candles up to {iso(last_ms)}, got only newer ones")
    return found


def ticker(body: bytes, *, name: str, now_ms: int) -> Price:
    """Read the last trade."""
    answer = json_of(body)
    return price_of(name, cell(answer, "price"), now_ms, time_ms(cell(answer, "time")))
