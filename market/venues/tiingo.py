"""All that knows Tiingo: its tickers, its bars and its message that an allocation is used up."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows
from klines.klines import PRICE_COLUMNS
from market.http.client import json_of
from market.venue import Price, VenueInfo
from market.venues.base import Page, RestVenue, key_setting
from market.venues.parsing import candles_in, cell, list_of, price_of, spans, time_ms

PAGE_ROWS = 5000  # of one request; Tiingo documents no limit
RUN_OUT_S = 600.0  # rest after a used up allocation; Tiingo does not say when it is refilled
FREQUENCIES = {
    MINUTE_MS: "1min",
    5 * MINUTE_MS: "5min",
    15 * MINUTE_MS: "15min",
    30 * MINUTE_MS: "30min",
    HOUR_MS: "1hour",
    4 * HOUR_MS: "4hour",
    DAY_MS: "1day",
}
PLACES = (
    {"time": "date"}
    | {name: name for name in (*PRICE_COLUMNS, "volume")}
    | {
        "quote_volume": "volumeNotional",  # by Tiingo's documentation close times volume, not the sum over trades
        "trades": "tradesDone",
    }
)


class Tiingo(RestVenue):
    """Tiingo's bars over many exchanges, named by their open times. Source: tiingo.com/documentation/crypto.

    A free key has 50 requests an hour and 1000 a day. ``requests_a_minute`` lets a start fetch a month of minutes at
    once; a used up hour ends in MarketUnavailable. So Tiingo is not a venue to poll.
    """

    INFO = VenueInfo(
        name="tiingo",
        quote="USD",
        intervals_ms=frozenset(FREQUENCIES),
        flow=frozenset({"quote_volume", "trades"}),
        tells_time=False,
        ping="/api/test/",
        requests_a_minute=5,
        key=key_setting("tiingo"),
    )
    KEY_HEADER, KEY_SCHEME = "Authorization", "Token "
    KEY_ADVICE: ClassVar[Mapping[int, str]] = dict.fromkeys(
        (401, 403), f"set {key_setting('tiingo')} to a key that Tiingo accepts"
    )

    def name_of(self, symbol: str) -> str:
        return f"{self._usd_base(symbol)}usd".lower()

    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        parse = partial(bars, name=name, interval_ms=interval_ms, now_ms=now_ms)
        for span in spans(start_ms, end_ms, PAGE_ROWS * interval_ms):
            params = {
                "tickers": name,
                "startDate": iso(span[0]),
                "endDate": iso(span[1]),
                "resampleFreq": FREQUENCIES[interval_ms],
            }
            yield self.hosts.ask("/tiingo/crypto/prices", params, parse), span

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        parse = partial(tops, names=names, now_ms=now_ms)
        return self.hosts.ask("/tiingo/crypto/top", {"tickers": ",".join(names)}, parse)


def bars(body: bytes, *, name: str, interval_ms: int, now_ms: int) -> CheckedRows:
    """Read the bars of a ticker; an empty list means that Tiingo has no bars of that time.

    Raises:
        MarketUnavailable: the allocation is used up.
        MalformedKlines: not bars, or bars of another ticker.
    """
    tickers = _tickers(body)
    if tickers and name not in tickers:
        raise MalformedKlines(f"asked for bars of {name}, got those of {str(sorted(tickers))[:80]}")
    return candles_in(cell(tickers[name], "priceData") if tickers else [], interval_ms, PLACES, now_ms)


def tops(body: bytes, *, names: Sequence[str], now_ms: int) -> dict[str, Price]:
    """Read the last sale of each ticker; raises as ``bars``, also if a ticker is missing."""
    tickers = _tickers(body)
    prices = {}
    for name in names:
        top = cell(cell(tickers.get(name), "topOfBookData"), 0)
        if not top:
            raise MalformedKlines(f"no price of {name} in the answer {body[:80]!r}")
        prices[name] = price_of(name, cell(top, "lastPrice"), now_ms, time_ms(cell(top, "lastSaleTimestamp")))
    return prices


def _tickers(body: bytes) -> dict[str, Any]:
    if b"run over your" in body[:200]:  # with HTTP 200, in plain text or as {"detail": ...}
        raise MarketUnavailable(
            f"Tiingo's allocation is used up: {' '.join(body[:200].decode(errors='replace').split())}", RUN_OUT_S
        )
    return {str(cell(row, "ticker")).lower(): row for row in list_of(json_of(body), "the answer")}
