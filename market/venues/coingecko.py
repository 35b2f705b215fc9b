"""All that knows CoinGecko: its coins, its coarse candles and the age of its prices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import SYMBOL_SETTING, MalformedKlines, UnknownSymbol
from klines.checks import CheckedRows, check_rows
from klines.klines import PRICE_COLUMNS, Klines
from market.venue import Offer, Price
from market.venues.base import KeyedVenue
from market.venues.parsing import aged_price, json_of, number, whole_rows

COINS = {
    "ADA": "cardano",
    "ARB": "arbitrum",
    "AVAX": "avalanche-2",
    "BERA": "berachain-bera",
    "BNB": "binancecoin",
    "BTC": "bitcoin",
    "DOGE": "dogecoin",
    "DOT": "polkadot",
    "ETH": "ethereum",
    "LINK": "chainlink",
    "LTC": "litecoin",
    "NEAR": "near",
    "PAXG": "pax-gold",
    "SOL": "solana",
    "SUI": "sui",
    "TON": "the-open-network",
    "TRX": "tron",
    "XRP": "ripple",
}
# The length of a candle follows from how many days are asked for, and only some numbers of days may be.
DAYS = {30 * MINUTE_MS: (1,), 4 * HOUR_MS: (7, 14, 30)}


class CoinGecko(KeyedVenue):
    """Means over exchanges, for want of anything better. Source: docs.coingecko.com, coins-id-ohlc and simple-price.

    It has no volume. Klines must have one, so ``volume`` is 0 in every row and says nothing: it does not say that
    nobody traded. Candles are served from a cache of a quarter of an hour, in which the unfinished one already carries
    the time of its end; so one that ended within that is not taken for closed yet.
    ``history_rows`` is what half hours have; of four hours there are 180.
    """

    OFFER = Offer(
        name="coingecko",
        quote="USD",
        intervals_ms=frozenset(DAYS),
        history_rows=48,
        trades=False,
        tells_time=False,
        ping="/api/v3/ping",
        requests_a_minute=5,  # by address, shared with whoever else is behind it
    )
    KEY = "COINGECKO_API_KEY"
    HEADER = "x-cg-demo-api-key"
    ADVICE: ClassVar[Mapping[int, str]] = {
        **dict.fromkeys((401, 403), "set COINGECKO_API_KEY to a demo key, or unset it"),
        404: "CoinGecko knows the coin by another id now, or no longer: leave coingecko out of MARKET_VENUES",
    }
    SETTLES_MS = 15 * MINUTE_MS

    @classmethod
    def _offered(cls, *, has_key: bool) -> Offer:
        return replace(cls.OFFER, requests_a_minute=30) if has_key else cls.OFFER

    def name_of(self, symbol: str) -> str:
        """See the protocol; "ethereum" for ETHUSDT."""
        base = self._usd_base(symbol)
        if base not in COINS:
            raise UnknownSymbol(
                f"no CoinGecko id is known for {base} of {symbol!r}: leave coingecko out of MARKET_VENUES, or set "
                f"{SYMBOL_SETTING} to one of {', '.join(COINS)} in dollars"
            )
        return COINS[base]

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """See the protocol; what lies further back than the venue reaches is a gap and is not asked for."""
        reach_ms = max(DAYS.get(interval_ms, (0,))) * DAY_MS
        return super().klines(symbol, interval_ms, max(start_ms, self._clock.now_ms() - reach_ms), end_ms)

    def _span_ms(self, interval_ms: int) -> int:
        return (max(DAYS[interval_ms]) + 1) * DAY_MS  # always the whole range

    def _span(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> CheckedRows:
        days = next((days for days in DAYS[interval_ms] if now_ms - days * DAY_MS <= start_ms), max(DAYS[interval_ms]))
        return self._ask(
            f"/api/v3/coins/{name}/ohlc",
            {"vs_currency": "usd", "days": days},
            partial(candles, interval_ms=interval_ms, now_ms=now_ms),
        )

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return self._ask(
            "/api/v3/simple/price",
            {"ids": ",".join(names), "vs_currencies": "usd", "include_last_updated_at": "true"},
            partial(means, names=names, now_ms=now_ms),
        )


def candles(body: bytes, *, interval_ms: int, now_ms: int) -> CheckedRows:
    """Candles of that length from rows of [end in ms, open, high, low, close], the unfinished one among them.

    A first or last row whose end is off the grid is a part of a candle, and dropped.

    Raises:
        MalformedKlines: they are no candles, or of another length.
    """
    rows = json_of(body)
    if not isinstance(rows, list):
        raise MalformedKlines(f"candles must be a list of lists of 5 columns, was {body[:80]!r}")
    rows = whole_rows(rows, lambda row: len(row) >= 5, 5, "candles must be a list of lists of 5 columns")
    ends = np.array([row[0] if type(row[0]) is int and 0 < row[0] < 10**14 else 0 for row in rows], np.int64)
    whole = ends % interval_ms == 0
    kept = whole | ((ends != ends.min(initial=2**62)) & (ends != ends.max(initial=0)))
    steps = np.diff(np.unique(ends[kept]))
    if len(steps) and np.median(steps) != interval_ms:
        raise MalformedKlines(
            f"asked for candles of {interval_ms // MINUTE_MS} min, got them every {np.median(steps) / MINUTE_MS:g} min"
        )
    columns = {
        name: np.array([number(row[place]) for row in rows], np.float64)[kept]
        for place, name in enumerate(PRICE_COLUMNS, 1)
    }
    columns["volume"] = np.zeros(int(kept.sum()))
    return check_rows(interval_ms, ends[kept] - interval_ms, columns, now_ms=now_ms)


def means(body: bytes, *, names: Sequence[str], now_ms: int) -> dict[str, Price]:
    """The price of each coin and when it was last told.

    Raises:
        MalformedKlines: a coin is missing, or its price or time is none.
    """
    answer = json_of(body)
    prices = {}
    for name in names:
        coin = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(coin, dict):
            raise MalformedKlines(f"no price of {name} in the answer {body[:80]!r}")
        told_s = number(coin.get("last_updated_at"))
        prices[name] = aged_price(name, coin.get("usd"), int(told_s * 1000) if 0 < told_s < 10**11 else 0, now_ms)
    return prices
