"""All that knows Kraken: its names of assets and pairs, its errors with HTTP 200, its few candles."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows, check_closed_rows
from market.http.client import json_of
from market.http.errors import FaultKind, Refused, Unreached
from market.venue import Offer, Price
from market.venues.base import Page, RestVenue
from market.venues.parsing import column, price_of, whole_rows, whole_seconds_ms

ROWS = 720  # the newest candles, for any requested range
ROW = 8  # time, open, high, low, close, mean price, volume, count
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

    OFFER: ClassVar[Offer] = Offer(
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
            yield self._ask("/0/public/OHLC", params, parse), (start_ms, end_ms)

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        # Kraken names no time: a price is as of the moment before the request.
        found = self._ask("/0/public/Ticker", {"pair": ",".join(names)}, partial(last_trades, pairs=names))
        return {name: Price(price=price, asof_ms=now_ms) for name, price in found.items()}

    def clock_ahead_ms(self) -> int:
        return self._ahead_ms(self._server_time_ms)

    def _server_time_ms(self, body: bytes) -> int:
        at_s = _result(body).get("unixtime")
        if type(at_s) is not int or not 0 <= at_s < 10**11:
            raise MalformedKlines(f"the answer is not a server time but {body[:60]!r}")
        # Kraken names a whole second. Take the moment of it that is nearest to our clock: clocks that agree must not
        # seem to differ, or an unfinished candle would be taken for a closed one.
        return min(max(self._clock.now_ms(), at_s * SECOND_MS), (at_s + 1) * SECOND_MS - 1)


def candles(body: bytes, *, interval_ms: int, now_ms: int) -> CheckedRows:
    """Read the candles of one pair.

    Args:
        now_ms: by the venue's clock; the candle that has not ended by then is left out.
    Raises:
        MalformedKlines: not candles. Others: as ``_result``.
    """
    pairs = {name: value for name, value in _result(body).items() if name != "last"}
    if len(pairs) != 1:  # Kraken uses its own name for the pair
        raise MalformedKlines(f"the answer must be of one pair, was of {sorted(pairs)[:5]}")
    (answer,) = pairs.values()
    rows = whole_rows(answer, lambda row: len(row) >= ROW, ROW, f"candles must be a list of rows of {ROW}")
    opened_ms = whole_seconds_ms(row[0] for row in rows)
    opened, high, low, close, mean, volume, count = (column(rows, place) for place in range(1, ROW))
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    with np.errstate(over="ignore", invalid="ignore"):  # the checks below reject what is not finite
        columns |= {"quote_volume": np.where(volume == 0, 0.0, mean * volume), "trades": count}
    return check_closed_rows(interval_ms, opened_ms, columns, now_ms)


def last_trades(body: bytes, *, pairs: Sequence[str]) -> dict[str, float]:
    """Read the price of the last trade of each pair. Kraken may use an older name: XXBTZUSD for XBTUSD.

    Raises:
        MalformedKlines: a pair or its price is missing. Others: as ``_result``.
    """
    tickers = _result(body)
    prices = {}
    for pair in pairs:
        base = pair.removesuffix("USD")
        ticker = tickers.get(pair, tickers.get(f"X{base}ZUSD"))
        trade = ticker.get("c") if isinstance(ticker, dict) else None
        if not isinstance(trade, list) or not trade:
            raise MalformedKlines(f"no price of {pair} in the answer {body[:80]!r}")
        prices[pair] = price_of(pair, trade[0])
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
            raise Refused(message, status=400, kind=FaultKind.UNKNOWN_SYMBOL)
        for start, rest_s in BUSY_S.items():
            if error.startswith(start):
                raise Unreached(message) if rest_s is None else MarketUnavailable(message, rest_s)
    result = answer.get("result")
    if errors or not isinstance(result, dict):
        raise MalformedKlines(f"Kraken says {'; '.join(errors) or str(answer)[:80]}")
    return result
