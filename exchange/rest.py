"""Binance's REST interface and archive, as a function of a source of candles and the time; no server in it.

Source of the format: developers.binance.com, Spot REST API and errors; github.com/binance/binance-public-data.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
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

_FILE = re.compile(
    r"/data/spot/(daily|monthly)/klines/([^/]+)/([^/]+)/"
    r"(?P<name>\2-\3-([0-9]{4}-[0-9]{2}(?P<day>-[0-9]{2})?)\.zip)(?P<checksum>\.CHECKSUM)?"
)
_NO_SUCH_KEY = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"""

_SYMBOL = "[A-Z0-9-_.]{1,20}"
_LEGAL = {  # characters of each parameter
    "symbol": _SYMBOL,
    "symbols": rf'\[("{_SYMBOL}"(,"{_SYMBOL}")*)?\]',
    "interval": ".*",
    **dict.fromkeys(("startTime", "endTime", "limit"), "[0-9]{1,20}"),
}

Query = Sequence[tuple[str, str]]


class _BadRequest(Exception):
    """A request that Binance answers with an error; the arguments are Binance's code and message."""


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
        if path in _HANDLERS:
            try:
                return _as_json(_HANDLERS[path](source, now_ms, query))
            except _BadRequest as error:
                return _as_json(dict(zip(("code", "msg"), error.args, strict=True)), 400)
        file = _FILE.fullmatch(path)
        packed, digest = self._file(source, now_ms, file) if file else (b"", "")
        if not (file and packed):
            return Response(_NO_SUCH_KEY, 404, media_type="application/xml")
        if file["checksum"]:
            return Response(f"{digest}  {file['name']}\n", media_type="binary/octet-stream")
        return Response(packed, media_type="application/zip")

    def _file(self, source: Source, now_ms: int, file: re.Match[str]) -> tuple[bytes, str]:
        period, symbol, interval, name, date = file.group(1, 2, 3, 4, 5)
        span = archive_span(date)
        known = symbol in source.symbols and interval in INTERVALS_MS and (period == "daily") == bool(file["day"])
        if not known or span is None or span[1] > now_ms:
            return b"", ""
        return self._archive(source, symbol, interval, *span, name)


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
    end = min(end_ms, open_ms) + 1
    first = min(max(start_ms or 0, source.symbols[symbol].first_ms), end)
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
    given = _parameters(query, "startTime", "endTime", "limit", mandatory=("symbol", "interval"))
    (symbol,) = _wanted(given, source)
    interval_ms = INTERVALS_MS.get(given["interval"])
    if interval_ms is None:
        raise _BadRequest(-1120, "Invalid interval.")
    limit = min(int(given.get("limit", DEFAULT_ROWS)), MAX_ROWS)
    if limit == 0:
        raise _BadRequest(-1130, "Data sent for parameter 'limit' is not valid.")
    start_ms, end_ms = int(given["startTime"]) if "startTime" in given else None, int(given.get("endTime", now_ms))
    return rest_rows(page(source, symbol, interval_ms, start_ms=start_ms, end_ms=end_ms, limit=limit, now_ms=now_ms))


def _ticker(source: Source, now_ms: int, query: Query) -> Any:
    given = _parameters(query, "symbol", "symbols")
    if len(given) == 2:
        raise _BadRequest(-1128, "Combination of optional parameters invalid.")
    wanted = _wanted(given, source)
    # In the exchange's own order, not in the order asked for.
    prices = ((symbol, source.ticker(symbol, now_ms)) for symbol in source.symbols if symbol in wanted)
    answer = [{"symbol": symbol, "price": price} for symbol, price in prices if price is not None]
    return answer[0] if "symbol" in given and answer else answer


def _exchange_info(source: Source, now_ms: int, query: Query) -> Any:
    entries = []
    for symbol in _wanted(_parameters(query, "symbol"), source):
        base, quote = split_symbol(symbol, "")
        entries.append({"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote})
    return {"timezone": "UTC", "serverTime": now_ms, "symbols": entries}


def _parameters(query: Query, *optional: str, mandatory: Sequence[str] = ()) -> dict[str, str]:
    """Return the query as a dict; Binance refuses parameters that are not known, given twice, missing or malformed."""
    read, given = [name for name, _ in query if name in (*optional, *mandatory)], dict(query)
    if len(read) < len(query):
        many = f"read '{len(read)}' parameter(s) but was sent '{len(query)}'"
        raise _BadRequest(-1104, f"Not all sent parameters were read; {many}.")
    if len(given) < len(read):
        raise _BadRequest(-1101, "Too many parameters; expected each at most once.")
    for name in mandatory:
        if not given.get(name):
            raise _BadRequest(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    for name, text in given.items():
        if not re.fullmatch(_LEGAL[name], text):
            legal = f"legal range is '^{_LEGAL[name]}$'"
            raise _BadRequest(-1100, f"Illegal characters found in parameter '{name}'; {legal}.")
    return given


def _wanted(given: Mapping[str, str], source: Source) -> list[str]:
    """Return the symbols that a query names; all if it names none."""
    wanted: list[str] = json.loads(given["symbols"]) if "symbols" in given else list(source.symbols)
    wanted = [given["symbol"]] if "symbol" in given else wanted
    if not set(wanted) <= set(source.symbols):
        raise _BadRequest(-1121, "Invalid symbol.")
    return wanted


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
