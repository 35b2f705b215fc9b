"""All that knows Kraken: its names of assets and pairs, its errors in answers with HTTP 200, its few candles."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows, check_closed_rows
from klines.klines import Klines
from market.http.client import Refused, Unreached
from market.venue import Offer, Price
from market.venues.base import RestVenue
from market.venues.parsing import json_of, number, price_of, whole_rows, whole_seconds_ms

T = TypeVar("T")

ROWS = 720  # the newest, whatever is asked for
QUOTE = len("USD")
ROW = 8  # time, open, high, low, close, mean price, volume, count
ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
UNKNOWN = "EQuery:Unknown asset"  # "... pair" where it is the pair
# How many seconds it is left alone after each; Kraken does not say. None: the usual waits between two tries.
BUSY_S = {
    "EAPI:Rate limit exceeded": 15.0,
    "EGeneral:Too many requests": 15.0,
    "EGeneral:Temporary lockout": 900.0,
    "EService:": None,  # Unavailable, Busy, Market in cancel_only mode ...
    "EGeneral:Internal error": None,
}


class UnknownPair(Refused):
    """Kraken does not trade the pair; it says so with HTTP 200."""


class Kraken(RestVenue):
    """Kraken spot. Its candles without a trade are flat and have volume 0. Source: docs.kraken.com, Spot REST API."""

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
        """See the protocol; "XBTUSD" for BTCUSDT."""
        base = self._usd_base(symbol)
        return f"{ASSETS.get(base, base)}USD"

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range, as far as the newest 720 reach back; see the protocol."""
        self._check(interval_ms)
        now_ms = self._clock.now_ms()
        end_ms = min(end_ms, now_ms // interval_ms * interval_ms)
        if start_ms >= end_ms:
            return Klines.empty(interval_ms)
        params: dict[str, str | int] = {
            "pair": self.name_of(symbol),
            "interval": interval_ms // MINUTE_MS,
            "since": max(0, start_ms // SECOND_MS - 1),  # it tells what is after that
        }
        page = self._of_pair(symbol, "/0/public/OHLC", params, partial(candles, interval_ms=interval_ms, now_ms=now_ms))
        self._aside.take(self.OFFER.name, symbol, interval_ms, page, now_ms)
        return page.klines.between(start_ms, end_ms)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade price of each symbol, as of the moment before they were asked for; see the protocol."""
        names = {symbol: self.name_of(symbol) for symbol in symbols}
        if not names:
            return {}
        asof_ms = self._clock.now_ms()
        pairs = tuple(dict.fromkeys(names.values()))
        params: dict[str, str | int] = {"pair": ",".join(pairs)}
        found = self._of_pair(", ".join(names), "/0/public/Ticker", params, partial(last_trades, pairs=pairs))
        return {symbol: Price(price=found[name], asof_ms=asof_ms) for symbol, name in names.items()}

    def clock_ahead_ms(self) -> int:
        """See the protocol."""
        return self._ahead_ms(self._time)

    def _time(self, body: bytes) -> int:
        at_s = _result(body).get("unixtime")
        if type(at_s) is not int or not 0 <= at_s < 10**11:
            raise MalformedKlines(f"the answer is no server time but {body[:60]!r}")
        # It names a whole second. Of that the moment nearest to our clock: clocks that agree must not seem to differ,
        # or the candle that is not finished would be taken for a closed one.
        return min(max(self._clock.now_ms(), at_s * SECOND_MS), (at_s + 1) * SECOND_MS - 1)

    def _of_pair(self, symbol: str, path: str, params: dict[str, str | int], parse: Callable[[bytes], T]) -> T:
        try:
            return self._hosts.ask(path, params, parse)
        except UnknownPair as error:
            raise self._unknown(symbol, error) from error


def candles(body: bytes, *, interval_ms: int, now_ms: int) -> CheckedRows:
    """The candles of an answer.

    Args:
        now_ms: by the venue's clock; the candle that has not ended by then is left out.
    Raises:
        MalformedKlines: they are none. UnknownPair, MarketUnavailable: Kraken says so.
    """
    rows = _of_one_pair(body)
    rule = f"candles must be a list of rows of {ROW}"
    if not isinstance(rows, list):
        raise MalformedKlines(f"{rule}, was {str(rows)[:80]}")
    rows = whole_rows(rows, lambda row: len(row) >= ROW, ROW, rule)
    opened_ms = whole_seconds_ms(row[0] for row in rows)
    opened, high, low, close, mean, volume, count = (
        np.array([number(row[at]) for row in rows], np.float64) for at in range(1, ROW)
    )
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        columns |= {"quote_volume": np.where(volume == 0, 0.0, mean * volume), "trades": count}
    return check_closed_rows(interval_ms, opened_ms, columns, now_ms)


def last_trades(body: bytes, *, pairs: Sequence[str]) -> dict[str, float]:
    """The price of the last trade of each pair, which an answer may call by an older name: XXBTZUSD for XBTUSD.

    Raises: as ``candles``; also when one is missing.
    """
    told = _result(body)
    prices = {}
    for pair in pairs:
        base, quote = pair[:-QUOTE], pair[-QUOTE:]
        ticker = told.get(pair, told.get(f"X{base}Z{quote}"))
        trade = ticker.get("c") if isinstance(ticker, dict) else None
        if not isinstance(trade, list) or not trade:
            raise MalformedKlines(f"no price of {pair} in the answer {body[:80]!r}")
        prices[pair] = price_of(pair, trade[0])
    return prices


def _of_one_pair(body: bytes) -> Any:
    """What an answer has of its one pair, which it calls by a name of its own."""
    pairs = {name: value for name, value in _result(body).items() if name != "last"}
    if len(pairs) != 1:
        raise MalformedKlines(f"the answer must be of one pair, was of {sorted(pairs)[:5]}")
    return next(iter(pairs.values()))


def _result(body: bytes) -> dict[str, Any]:
    answer = json_of(body)
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), list):
        raise MalformedKlines(f"the answer must have a list of errors, was {str(answer)[:80]}")
    errors = [str(error) for error in answer["error"]]
    for error in errors:
        if error.startswith(UNKNOWN):
            raise UnknownPair(f"Kraken says {error}", status=400, code=None)
        for start, rest_s in BUSY_S.items():
            if error.startswith(start):
                said = f"Kraken says {error}"
                raise Unreached(said) if rest_s is None else MarketUnavailable(said, rest_s)
    result = answer.get("result")
    if errors or not isinstance(result, dict):
        raise MalformedKlines(f"Kraken says {'; '.join(errors) or str(answer)[:80]}")
    return result
