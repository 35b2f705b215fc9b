"""All that knows Kraken: its names of assets and pairs, its errors with HTTP 200, its few candles."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows
from klines.klines import PRICE_COLUMNS
from market.http.client import json_of
from market.http.errors import UnknownPair, Unreached
from market.venue import Price, VenueInfo
from market.venues.base import Page, RestVenue
from market.venues.parsing import Place, candles_in, cell, number, price_of, time_ms

ROWS = 720  # the newest candles, for any requested range
PLACES: dict[str, Place] = {
    **{name: place for place, name in enumerate(("time", *PRICE_COLUMNS))},
    "volume": 6,
    "quote_volume": lambda row: number(row[5]) * number(row[6]),  # the mean price times the volume
    "trades": 7,
}
ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
UNKNOWN = "EQuery:Unknown asset"  # "... pair" if it is the pair
# Seconds that the venue is left alone after each error; Kraken names none. None: the usual wait between two tries.
BUSY_S = {
    "EAPI:Rate limit exceeded": 15.0,
    "EGeneral:Too many requests": 15.0,
    "EGeneral:Temporary lockout": 900.0,
    "EService:": None,  # Unavailable, Busy, Market in cancel_only mode ...
    "EGeneral:Internal error": None,
}


class Kraken(RestVenue):
    """Kraken spot. A candle without a trade is flat and has volume 0. Source: docs.kraken.com, Spot REST API."""

    INFO: ClassVar[VenueInfo] = VenueInfo(
        name="kraken",
        quote="USD",
        intervals_ms=frozenset(
            {MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, DAY_MS}
        ),
        history_rows=ROWS - 1,  # the newest of them has not closed
        flow=frozenset({"quote_volume", "trades"}),
        ping="/0/public/Time",
        requests_a_minute=60,
    )

    def name_of(self, symbol: str) -> str:
        base = self._usd_base(symbol)
        return f"{ASSETS.get(base, base)}USD"

    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        if start_ms < end_ms:
            params: dict[str, str | int] = {
                "pair": name,
                "interval": interval_ms // MINUTE_MS,
                "since": max(0, start_ms // SECOND_MS - 1),  # the first candle is the one after
            }
            parse = partial(candles, interval_ms=interval_ms, now_ms=now_ms)
            yield self.hosts.ask("/0/public/OHLC", params, parse), (start_ms, end_ms)

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        parse = partial(last_trades, pairs=names, now_ms=now_ms)
        return self.hosts.ask("/0/public/Ticker", {"pair": ",".join(names)}, parse)

    def _server_time_ms(self, body: bytes) -> int:
        # Kraken names a whole second. Take the moment of it that is nearest to our clock: clocks that agree must not
        # seem to differ, or an unfinished candle would be taken for a closed one.
        at_ms = time_ms(cell(_result(body), "unixtime"))
        return at_ms and min(max(self._clock.now_ms(), at_ms), at_ms + SECOND_MS - 1)


def candles(body: bytes, *, interval_ms: int, now_ms: int) -> CheckedRows:
    """Read the candles of one pair; raises also as ``_result``."""
    pairs = {name: value for name, value in _result(body).items() if name != "last"}
    if len(pairs) != 1:  # Kraken uses its own name for the pair
        raise MalformedKlines(f"the answer must be of one pair, was of {sorted(pairs)[:5]}")
    (answer,) = pairs.values()
    return candles_in(answer, interval_ms, PLACES, now_ms)


def last_trades(body: bytes, *, pairs: Sequence[str], now_ms: int) -> dict[str, Price]:
    """Read the price of the last trade of each pair, which has no time; raises also as ``_result``."""
    tickers = _result(body)
    prices = {}
    for pair in pairs:
        older = f"X{pair.removesuffix('USD')}ZUSD"  # Kraken may use the older name: XXBTZUSD for XBTUSD
        trade = cell(tickers.get(pair, tickers.get(older)), "c")
        if not isinstance(trade, list) or not trade:
            raise MalformedKlines(f"no price of {pair} in the answer {body[:80]!r}")
        prices[pair] = price_of(pair, trade[0], now_ms)
    return prices


def _result(body: bytes) -> dict[str, Any]:
    """Return the result, or raise the error that stands in the place of one."""
    answer = json_of(body)
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), list):
        raise MalformedKlines(f"the answer must have a list of errors, was {str(answer)[:80]}")
    errors = [str(error) for error in answer["error"]]
    for error in errors:
        message = f"Kraken says {error}"
        if error.startswith(UNKNOWN):
            raise UnknownPair(message, status=400)
        for start, rest_s in BUSY_S.items():
            if error.startswith(start):
                raise Unreached(message) if rest_s is None else MarketUnavailable(message, rest_s)
    result = answer.get("result")
    if errors or not isinstance(result, dict):
        raise MalformedKlines(f"Kraken says {'; '.join(errors) or str(answer)[:80]}")
    return result
