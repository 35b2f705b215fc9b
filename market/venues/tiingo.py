"""All that knows Tiingo: its tickers, its bars and how it says that an allocation is used up."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows
from market.venue import Offer, Price
from market.venues.base import KeyedVenue
from market.venues.parsing import Row, aged_price, json_of, rows_in, sifted_rows, time_ms

PAGE_ROWS = 5000  # of one request; how many more it would serve is not written anywhere
RUN_OUT_S = 600.0  # it does not say when a used up allocation is refilled
FREQUENCIES = {
    MINUTE_MS: "1min",
    5 * MINUTE_MS: "5min",
    15 * MINUTE_MS: "15min",
    30 * MINUTE_MS: "30min",
    HOUR_MS: "1hour",
    4 * HOUR_MS: "4hour",
    DAY_MS: "1day",
}
COLUMNS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "volume": "volume",
    "quote_volume": "volumeNotional",  # its documentation: close times volume, not the sum over trades
    "trades": "tradesDone",
}


class Tiingo(KeyedVenue):
    """Tiingo's bars over many exchanges, each by its open time. Source: tiingo.com/documentation/crypto.

    A free key has 50 requests an hour and 1000 a day. ``requests_a_minute`` lets a start fetch a month of minutes at
    once, and a used up hour ends in MarketUnavailable: it is no venue to poll.
    """

    OFFER = Offer(
        name="tiingo",
        quote="USD",
        intervals_ms=frozenset(FREQUENCIES),
        flow=frozenset({"quote_volume", "trades"}),
        tells_time=False,
        ping="/api/test/",
        requests_a_minute=5,
        key="TIINGO_API_KEY",
    )
    KEY = "TIINGO_API_KEY"
    HEADER, SCHEME = "Authorization", "Token "
    ADVICE: ClassVar[Mapping[int, str]] = dict.fromkeys((401, 403), "set TIINGO_API_KEY to a key that Tiingo accepts")

    def name_of(self, symbol: str) -> str:
        """See the protocol; "ethusd" for ETHUSDT."""
        return f"{self._usd_base(symbol)}usd".lower()

    def _span_ms(self, interval_ms: int) -> int:
        return PAGE_ROWS * interval_ms

    def _span(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> CheckedRows:
        params = {
            "tickers": name,
            "startDate": iso(start_ms),
            "endDate": iso(end_ms),
            "resampleFreq": FREQUENCIES[interval_ms],
        }
        return self._ask(
            "/tiingo/crypto/prices", params, partial(bars, name=name, interval_ms=interval_ms, now_ms=now_ms)
        )

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return self._ask("/tiingo/crypto/top", {"tickers": ",".join(names)}, partial(tops, names=names, now_ms=now_ms))


def bars(body: bytes, *, name: str, interval_ms: int, now_ms: int) -> CheckedRows:
    """The bars of a ticker; an empty list says that it has none of that time.

    Raises:
        MarketUnavailable: the allocation is used up.
        MalformedKlines: they are no bars, or another ticker's.
    """
    tickers = _tickers(body)
    if tickers and name not in tickers:
        raise MalformedKlines(f"asked for bars of {name}, got those of {str(sorted(tickers))[:80]}")
    rows = rows_in(tickers[name].get("priceData"), "priceData") if tickers else []
    return sifted_rows(interval_ms, rows, "date", COLUMNS, now_ms)


def tops(body: bytes, *, names: Sequence[str], now_ms: int) -> dict[str, Price]:
    """The last sale of each ticker.

    Raises: as ``bars``, also when one is missing.
    """
    tickers = _tickers(body)
    prices = {}
    for name in names:
        book = rows_in(tickers.get(name, {}).get("topOfBookData", []), "topOfBookData")
        if not book:
            raise MalformedKlines(f"no price of {name} in the answer {body[:80]!r}")
        prices[name] = aged_price(name, book[0].get("lastPrice"), time_ms(book[0].get("lastSaleTimestamp")), now_ms)
    return prices


def _tickers(body: bytes) -> dict[str, Row]:
    if b"run over your" in body[:200]:  # it says so with HTTP 200, in plain text or as {"detail": ...}
        raise MarketUnavailable(
            f"Tiingo's allocation is used up: {' '.join(body[:200].decode(errors='replace').split())}", RUN_OUT_S
        )
    return {str(row.get("ticker")).lower(): row for row in rows_in(json_of(body), "the answer")}
