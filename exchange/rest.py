"""Binance's REST interface and archive, as a function of a source of candles and the time; no server in it.

Source of the format: developers.binance.com, Spot REST API and errors; github.com/binance/binance-public-data.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from starlette.responses import Response

from core.topic import split_symbol
from exchange.formats import archive_span, archive_zip, rest_rows
from exchange.sources.source import Source
from klines.klines import Klines
from klines.spans import INTERVALS_MS

MAX_ROWS, DEFAULT_ROWS = 1_000, 500  # of one request for klines
ARCHIVES_KEPT = 4  # files in memory: each is asked for twice, with its checksum

_FILE = re.compile(r"/data/spot/([^/]+)/klines/([^/]+)/([^/]+)/([^/]+)")

Query = Sequence[tuple[str, str]]


class _BadRequest(Exception):
    """A request that Binance answers with an error; ``code`` and ``msg`` are Binance's."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code, self.msg = code, msg


_NO_SUCH_KEY = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"""


class Rest:
    """Answers requests as Binance does. Safe to use from several threads.

    Args:
        archives_kept: archive files that are kept in memory.
    """

    def __init__(self, archives_kept: int = ARCHIVES_KEPT) -> None:
        self._archive = lru_cache(maxsize=archives_kept)(_archive)

    def answer(self, source: Source, now_ms: int, path: str, query: Query) -> Response:
        """Answer a GET request.

        Args:
            now_ms: decides which candles and archive files there are.
            query: names and values as sent, decoded.
        """
        if match := _FILE.fullmatch(path):
            return self._file(source, now_ms, *match.groups()) or _missing()
        if path not in _HANDLERS:
            return _missing()
        try:
            content = _HANDLERS[path](source, now_ms, query)
        except _BadRequest as error:
            return _as_json({"code": error.code, "msg": error.msg}, 400)
        return _as_json(content)

    def _file(self, source: Source, now_ms: int, period: str, symbol: str, interval: str, name: str) -> Response | None:
        zip_name, stem = name.removesuffix(".CHECKSUM"), f"{symbol}-{interval}-"
        if not (zip_name.startswith(stem) and zip_name.endswith(".zip") and interval in INTERVALS_MS):
            return None
        span = archive_span(period, zip_name.removeprefix(stem).removesuffix(".zip"))
        if span is None or span[1] > now_ms or symbol not in source.symbols:
            return None
        packed, digest = self._archive(source, symbol, interval, *span, zip_name)
        if not packed:
            return None
        if name != zip_name:
            return Response(f"{digest}  {zip_name}\n", media_type="binary/octet-stream")
        return Response(packed, media_type="application/zip")


def _archive(source: Source, symbol: str, interval: str, start_ms: int, end_ms: int, name: str) -> tuple[bytes, str]:
    """Return the zip and its SHA-256; the zip is empty if nothing was traded yet."""
    klines = source.klines(symbol, INTERVALS_MS[interval], start_ms, end_ms)
    packed = archive_zip(klines, name.removesuffix(".zip"), end_ms) if len(klines) else b""
    return packed, hashlib.sha256(packed).hexdigest()


def page(
    source: Source, symbol: str, interval_ms: int, *, start_ms: int | None, end_ms: int, limit: int, now_ms: int
) -> Klines:
    """Return the rows of one request for klines: the first ``limit`` from ``start_ms`` on, or without it the last.

    Holes do not count as rows. The candle that is open at ``now_ms`` is the newest row; later ones are not shown.

    Args:
        end_ms: newest open time asked for, itself included.
    """
    open_ms = now_ms // interval_ms * interval_ms
    first = source.first_ms(symbol) if start_ms is None else max(start_ms, source.first_ms(symbol))
    end = min(end_ms, open_ms) + 1
    first = min(first, end)
    span = limit * interval_ms
    while True:  # the span doubles until there are rows enough or nothing is left to look through
        low, high = (max(first, end - span), end) if start_ms is None else (first, min(end, first + span))
        rows = source.klines(symbol, interval_ms, low, min(high, open_ms))
        if low <= open_ms < high:
            rows = rows.merge(source.unfinished(symbol, interval_ms, now_ms))
        if len(rows) >= limit or high - low < span:
            return rows.tail(limit) if start_ms is None else rows.rows(0, limit)
        span *= 2


def _klines(source: Source, now_ms: int, query: Query) -> bytes:
    given = _parameters(query, "symbol", "interval", "startTime", "endTime", "limit")
    symbol = _symbol(given.get("symbol"), source)
    if not given.get("interval"):
        raise _BadRequest(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
    interval_ms = INTERVALS_MS.get(given["interval"])
    if interval_ms is None:
        raise _BadRequest(-1120, "Invalid interval.")
    start_ms, end_ms, limit = (_number(given.get(name), name) for name in ("startTime", "endTime", "limit"))
    if limit == 0:
        raise _BadRequest(-1130, "Data sent for parameter 'limit' is not valid.")
    rows = page(
        source,
        symbol,
        interval_ms,
        start_ms=start_ms,
        end_ms=now_ms if end_ms is None else end_ms,
        limit=min(limit or DEFAULT_ROWS, MAX_ROWS),
        now_ms=now_ms,
    )
    return rest_rows(rows)


def _ticker(source: Source, now_ms: int, query: Query) -> Any:
    given = _parameters(query, "symbol", "symbols")
    if len(given) == 2:
        raise _BadRequest(-1128, "Combination of optional parameters invalid.")
    wanted = set(source.symbols)
    if "symbol" in given:
        wanted = {_symbol(given["symbol"], source)}
    elif "symbols" in given:
        if not re.fullmatch(r'\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}")*)?\]', given["symbols"]):
            raise _BadRequest(-1100, "Illegal characters found in parameter 'symbols'.")
        wanted = {_symbol(symbol, source) for symbol in json.loads(given["symbols"])}
    # In the exchange's own order, not in the order asked for.
    prices = ((symbol, source.ticker(symbol, now_ms)) for symbol in source.symbols if symbol in wanted)
    answer = [{"symbol": symbol, "price": price} for symbol, price in prices if price is not None]
    return answer[0] if "symbol" in given and answer else answer


def _exchange_info(source: Source, now_ms: int, query: Query) -> Any:
    given = _parameters(query, "symbol")
    entries = []
    for symbol in [_symbol(given["symbol"], source)] if "symbol" in given else source.symbols:
        base, quote = split_symbol(symbol, "")
        entries.append({"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote})
    return {"timezone": "UTC", "serverTime": now_ms, "symbols": entries}


def _parameters(query: Query, *known: str) -> dict[str, str]:
    """Return the query as a dict; Binance refuses parameters that are not known or given twice."""
    read = [name for name, _ in query if name in known]
    if len(read) < len(query):
        many = f"read '{len(read)}' parameter(s) but was sent '{len(query)}'"
        raise _BadRequest(-1104, f"Not all sent parameters were read; {many}.")
    if len(set(read)) < len(read):
        raise _BadRequest(-1101, "Too many parameters; expected each at most once.")
    return dict(query)


def _symbol(text: str | None, source: Source) -> str:
    if not text:
        raise _BadRequest(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if not re.fullmatch(r"[A-Z0-9-_.]{1,20}", text):
        raise _illegal("symbol", "[A-Z0-9-_.]{1,20}")
    if text not in source.symbols:
        raise _BadRequest(-1121, "Invalid symbol.")
    return text


def _illegal(name: str, legal: str) -> _BadRequest:
    return _BadRequest(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^{legal}$'.")


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise _illegal(name, "[0-9]{1,20}")
    return int(text)


_HANDLERS: dict[str, Callable[[Source, int, Query], Any]] = {
    "/api/v3/ping": lambda source, now_ms, query: {},
    "/api/v3/time": lambda source, now_ms, query: {"serverTime": now_ms},
    "/api/v3/exchangeInfo": _exchange_info,
    "/api/v3/klines": _klines,
    "/api/v3/ticker/price": _ticker,
}


def _as_json(content: Any, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":"))
    return Response(body, status, media_type="application/json")


def _missing() -> Response:
    return Response(_NO_SUCH_KEY, 404, media_type="application/xml")
