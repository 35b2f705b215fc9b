"""How each venue writes candles and prices, for tests: the other direction of the venues' clients."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.clock import MINUTE_MS, Clock, iso
from klines.checks import CheckedRows
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues import atlas, coinbase, kraken, tiingo
from market.venues.base import RestVenue
from market.venues.binance import rest as binance
from market.venues.parsing import time_ms
from tests.fakes.venue_server import Answer, Handler, rest_rows

KEY = "0123456789abcdef0123456789abcdef01234567"
Row = Any  # a list or an object


@dataclass(frozen=True, kw_only=True)
class Format:
    """A venue's format. ``ETHUSDT`` is the symbol of all bodies."""

    name: str
    client: Callable[..., RestVenue]  # of url, clock, quarantine and waits
    candles: str  # path of its candles
    rows: Callable[[Klines], list[Row]]
    page: Callable[[list[Row]], str]  # a body of rows
    span: Callable[[dict[str, str]], tuple[int, int]]  # of a query: first and last open time
    places: dict[str, Any]  # of the open time and the prices in a row
    price: Callable[[object, int], str]  # a body with a price, and its time in ms if the venue names one
    parse: Callable[[bytes, int], CheckedRows]  # of a body and now
    parse_price: Callable[[bytes, int], float]
    unknown: Answer | None = None  # the answer about a symbol that the venue does not trade

    def changed(self, row: Row, **cells: object) -> Row:
        """The same row with other cells."""
        copy = json.loads(json.dumps(row))
        for name, value in cells.items():
            place = self.places[name]
            target = copy["values"] if isinstance(copy, dict) and place not in copy else copy
            target[place] = value
        return copy

    def serving(self, klines: Klines, price: str = "") -> Handler:
        """Answers as the venue does, from some klines."""

        def answer(path: str, query: dict[str, str]) -> Answer | None:
            if path != self.candles:
                return Answer(price) if price and "ime" not in path else None
            first_ms, last_ms = self.span(query)
            return Answer(self.page(self.rows(klines.between(first_ms, last_ms + 1))))

        return answer


def _lists(klines: Klines, names: Sequence[str]) -> list[list[Any]]:
    columns = [getattr(klines, name).tolist() for name in names]
    return [[at // 1000, *row] for at, *row in zip(klines.open_time_ms.tolist(), *columns, strict=True)]


def coinbase_rows(klines: Klines) -> list[list[Any]]:
    return _lists(klines, ("low", "high", "open", "close", "volume"))[::-1]


def kraken_rows(klines: Klines) -> list[list[Any]]:
    mean = np.divide(klines.quote_volume, klines.volume)
    rows = _lists(klines, ("open", "high", "low", "close", "volume", "trades"))
    return [
        [at, *map(repr, prices), repr(float(mean[n])), repr(volume), int(trades)]
        for n, (at, *prices, volume, trades) in enumerate(rows)
    ]


def kraken_said(result: object, *errors: str) -> Answer:
    return Answer(json.dumps({"error": list(errors), "result": result}))


def tiingo_rows(klines: Klines) -> list[dict[str, Any]]:
    return [
        {"date": iso(at * 1000).replace(".000Z", "+00:00"), "open": opened, "high": high, "low": low, "close": close}
        | {"volume": volume, "volumeNotional": quote, "tradesDone": trades}
        for at, opened, high, low, close, volume, quote, trades in _lists(
            klines, ("open", "high", "low", "close", "volume", "quote_volume", "trades")
        )
    ]


def tiingo_page(rows: list[Row], ticker: str = "ethusd") -> str:
    return json.dumps([{"ticker": ticker, "priceData": rows}] if rows else [])


def tiingo_top(price: object = 2000.5, at: object = "", ticker: str = "ethusd") -> dict[str, Any]:
    return {"ticker": ticker, "topOfBookData": [{"bidPrice": None, "lastPrice": price, "lastSaleTimestamp": at}]}


def atlas_rows(klines: Klines) -> list[dict[str, Any]]:
    """Minutes keep their numbers in ``values``; longer bars have a count of their minutes."""
    rows = []
    for row in tiingo_rows(klines):
        at = {"dataset_id": 3, "timestamp": row.pop("date")}
        flow = {"volume_notional": row.pop("volumeNotional"), "trades_done": row.pop("tradesDone")}
        is_minute = klines.interval_ms == MINUTE_MS
        rows.append(at | ({"values": row | flow} if is_minute else row | {"count": klines.interval_ms // MINUTE_MS}))
    return rows


def atlas_page(rows: object, following: object = None) -> str:
    return json.dumps({"count": -1, "next": following, "previous": None, "results": rows})


def atlas_line(close: object, at: object) -> str:
    return json.dumps({"close": close, "timestamp": at})


def _between(first: str, last: str, scale: float | None) -> Callable[[dict[str, str]], tuple[int, int]]:
    def read(query: dict[str, str]) -> tuple[int, int]:
        values = (query[first], query.get(last, str(10**10)))
        return tuple(time_ms(value) if scale is None else round(int(value) * scale) for value in values)  # type: ignore[return-value]

    return read


NAMES = ("open", "high", "low", "close", "volume")
IN_LISTS = {name: place for place, name in enumerate(("time", *NAMES))}
IN_OBJECTS = {name: name for name in NAMES}


def _binance(url: str, clock: Clock, quarantine: Quarantine, **waits: Any) -> RestVenue:
    return binance.Binance([url], "", clock, quarantine=quarantine, **waits)


def _of(kind: type[RestVenue]) -> Callable[..., RestVenue]:
    return lambda url, clock, quarantine, **waits: kind([url], clock, quarantine, **{"key": KEY} | waits)


FORMATS = [
    Format(
        name="binance",
        client=_binance,
        candles="/api/v3/klines",
        rows=rest_rows,
        page=json.dumps,
        span=_between("startTime", "endTime", 1),
        places=IN_LISTS,
        price=lambda price, at_ms: json.dumps({"symbol": "ETHUSDT", "price": price}),
        parse=lambda body, now_ms: binance._page(body, MINUTE_MS, 0, now_ms // MINUTE_MS * MINUTE_MS, now_ms, 0),
        parse_price=lambda body, now_ms: binance._tickers(body, ("ETHUSDT",), now_ms)["ETHUSDT"].price,
        unknown=Answer('{"code":-1121,"msg":"Invalid symbol."}', 400),
    ),
    Format(
        name="coinbase",
        client=_of(coinbase.Coinbase),
        candles="/products/ETH-USD/candles",
        rows=coinbase_rows,
        page=json.dumps,
        span=_between("start", "end", None),
        places={"time": 0, "low": 1, "high": 2, "open": 3, "close": 4, "volume": 5},
        price=lambda price, at_ms: json.dumps({"price": price, "time": iso(at_ms)}),
        parse=lambda body, now_ms: coinbase.candles(body, interval_ms=MINUTE_MS, now_ms=now_ms),
        parse_price=lambda body, now_ms: coinbase.ticker(body, name="ETH-USD", now_ms=now_ms).price,
        unknown=Answer('{"message":"NotFound"}', 404),
    ),
    Format(
        name="kraken",
        client=_of(kraken.Kraken),
        candles="/0/public/OHLC",
        rows=kraken_rows,
        page=lambda rows: json.dumps({"error": [], "result": {"XETHZUSD": rows, "last": 1}}),
        span=_between("since", "", 1000),
        places=IN_LISTS | {"volume": 6},
        price=lambda price, at_ms: json.dumps({"error": [], "result": {"XETHZUSD": {"c": [price, "1"]}}}),
        parse=lambda body, now_ms: kraken.candles(body, interval_ms=MINUTE_MS, now_ms=now_ms),
        parse_price=lambda body, now_ms: kraken.last_trades(body, pairs=["ETHUSD"], now_ms=now_ms)["ETHUSD"].price,
        unknown=kraken_said({}, "EQuery:Unknown asset pair"),
    ),
    Format(
        name="tiingo",
        client=_of(tiingo.Tiingo),
        candles="/tiingo/crypto/prices",
        rows=tiingo_rows,
        page=tiingo_page,
        span=_between("startDate", "endDate", None),
        places=IN_OBJECTS | {"time": "date"},
        price=lambda price, at_ms: json.dumps([tiingo_top(price, iso(at_ms))]),
        parse=lambda body, now_ms: tiingo.bars(body, name="ethusd", interval_ms=MINUTE_MS, now_ms=now_ms),
        parse_price=lambda body, now_ms: tiingo.tops(body, names=["ethusd"], now_ms=now_ms)["ethusd"].price,
    ),
    Format(
        name="atlas",
        client=_of(atlas.Atlas),
        candles="/api/rows/",
        rows=atlas_rows,
        page=atlas_page,
        span=_between("start", "end", None),
        places=IN_OBJECTS | {"time": "timestamp"},
        price=lambda price, at_ms: atlas_line(price, iso(at_ms - MINUTE_MS)),
        parse=lambda body, now_ms: atlas.page(body, interval_ms=MINUTE_MS, now_ms=now_ms)[0],
        parse_price=lambda body, now_ms: atlas.live(body, name="tiingo_ethusd_1min", now_ms=now_ms).price,
    ),
]
