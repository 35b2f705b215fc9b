"""Binance over REST: its routes, units, limits and error codes, and the names of its archive files."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

import numpy as np
import structlog

from core.clock import DAY_MS, Clock, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.checks import CheckedRows, check_rows
from klines.klines import FLOW_COLUMNS, Klines
from klines.spans import INTERVALS, interval_name, month_span
from market.http.client import PROBATION_S, HostPool, json_of
from market.http.errors import ErrorReply, Refused, UnknownPair
from market.quarantine import Quarantine
from market.venue import Listing, Price, VenueInfo
from market.venues.base import Page, RestVenue
from market.venues.binance.archive import check, read_archive
from market.venues.binance.rows import CLOSE_TIME, OPEN_TIME, PLACES, WIDTH
from market.venues.parsing import NO_TIME_MS, cell, list_of, number, price_of, time_ms

PAGE_ROWS = 1000  # the most that one klines request may ask for
LAST_ROWS = 2  # a last page of so few rows may be odd as a whole, and costs the pages before it nothing
ROW_RULE = f"a row must have {WIDTH} columns or more with times in milliseconds"
BAD_SYMBOL_CODES = {-1100, -1121}  # illegal characters in a parameter (the symbol is the only text); invalid symbol
ARCHIVE_PATIENCE_S = 5.0  # REST serves the same rows, so a broken archive host is not worth a long wait
REQUESTS_A_MINUTE = 1_200  # of weight 2 to 4 each; 6,000 a minute are allowed

_log = structlog.get_logger()


class Binance(RestVenue):
    """Binance spot, or any server that speaks its format.

    Args:
        archive_url: host of the daily and monthly zips; empty for a venue without archives.
        name: as MARKET_VENUES has it; Binance.US is another market in the same format, without archives.
    """

    def __init__(
        self,
        rest_urls: Sequence[str],
        archive_url: str,
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
        quarantine: Quarantine | None = None,
        name: str = "binance",
    ) -> None:
        info = VenueInfo(
            name=name,
            quote="",
            intervals_ms=frozenset(INTERVALS),
            flow=frozenset(FLOW_COLUMNS[1:]),
            archives=bool(archive_url),
            ping="/api/v3/time",
            requests_a_minute=REQUESTS_A_MINUTE,
        )
        super().__init__(
            rest_urls, clock, quarantine or Quarantine(), info=info, timeout_s=timeout_s, patience_s=patience_s
        )
        self._files = HostPool(
            [archive_url.rstrip("/")] if archive_url else self.hosts.urls,
            clock,
            timeout_s=timeout_s,
            patience_s=min(patience_s, ARCHIVE_PATIENCE_S),
            remedy="check the network, or set BINANCE_ARCHIVE_URL",
        )
        self._one_by_one_until_s = float("-inf")  # until then prices are asked for one symbol at a time

    def name_of(self, symbol: str) -> str:
        return symbol

    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        # A host may serve fewer rows than requested: only a page without a new row is the last page.
        cursor = start_ms
        while cursor < end_ms:
            few = LAST_ROWS if cursor > start_ms else 0
            params: dict[str, str | int] = {
                "symbol": name,
                "interval": interval_name(interval_ms),
                "startTime": cursor,
                "endTime": end_ms - 1,
                "limit": PAGE_ROWS,
            }
            parse = partial(_page, interval_ms=interval_ms, start_ms=cursor, end_ms=end_ms, now_ms=now_ms, few=few)
            page = self.hosts.ask("/api/v3/klines", params, parse)
            yield page, (cursor, end_ms)
            cursor = page.klines.end_ms or end_ms

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        # In one request if the server knows that form; the prices are as of the moment before the request.
        tries_several = len(names) > 1 and self._clock.elapsed_s() >= self._one_by_one_until_s
        if tries_several:
            symbols = json.dumps(names, separators=(",", ":"), ensure_ascii=False)
            try:
                return self._tickers({"symbols": symbols}, names)
            except (Refused, MalformedKlines) as error:
                _log.info("ticker_of_several_failed", why=str(error))
        prices: dict[str, Price] = {}
        for name in names:
            with self._asking(name):
                prices |= self._tickers({"symbol": name}, [name])
        if tries_several:
            _log.info("ticker_one_by_one", why="the server does not know /api/v3/ticker/price?symbols=")
            self._one_by_one_until_s = self._clock.elapsed_s() + PROBATION_S  # it may have been a passing fault
        return prices

    def _tickers(self, params: Mapping[str, str], names: Sequence[str]) -> dict[str, Price]:
        parse = partial(_tickers, wanted=names, now_ms=self._clock.now_ms())
        return self.hosts.ask("/api/v3/ticker/price", params, parse)

    def listing(self, symbol: str) -> Listing | None:
        with self._asking(symbol):
            return self.hosts.ask("/api/v3/exchangeInfo", {"symbol": symbol}, partial(_listing, symbol=symbol))

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        if not self.info.archives:
            return None
        interval = interval_name(interval_ms)
        start_ms = day_ms // DAY_MS * DAY_MS
        start_ms, end_ms = month_span(start_ms) if month else (start_ms, start_ms + DAY_MS)
        stamp = datetime.fromtimestamp(start_ms / 1000, UTC).strftime("%Y-%m" if month else "%Y-%m-%d")
        folder = f"/data/spot/{'monthly' if month else 'daily'}/klines/{quote(symbol, safe='')}/{interval}"
        path = f"{folder}/{quote(symbol, safe='')}-{interval}-{stamp}.zip"
        if (body := self._file(path)) is None:
            return None
        checksum = self._file(f"{path}.CHECKSUM")
        if checksum is None:
            _log.warning("archive_without_checksum", file=path)
        try:
            if checksum is not None:
                check(body, checksum)
            found = read_archive(body, interval_ms, start_ms, end_ms)
        except MalformedKlines as error:
            raise MalformedKlines(f"{self._files.urls[0]}{path}: {error}") from error
        now_ms = self._clock.now_ms()
        self._quarantine.take(self.info.name, symbol, interval_ms, found, now_ms)
        return found.klines.closed(now_ms)

    def _server_time_ms(self, body: bytes) -> int:
        return time_ms(cell(json_of(body), "serverTime"), unit_ms=1)

    def _fault_of(self, error: ErrorReply) -> MarketUnavailable:
        if error.code in BAD_SYMBOL_CODES:
            return UnknownPair(error.text, status=error.status)
        if until := re.search(r"banned until (\d{13})", error.message):
            ban_s = (int(until[1]) - self._clock.now_ms()) / 1000
            return replace(error, rest_s=max(ban_s, error.rest_s or 0.0)).fault()
        return error.fault()

    def _file(self, path: str) -> bytes | None:
        try:
            return self._files.ask(path, {}, bytes)
        except Refused as error:
            if error.status == 404:
                return None
            raise


def _page(body: bytes, interval_ms: int, start_ms: int, end_ms: int, now_ms: int, few: int) -> CheckedRows:
    """Check the rows of a page, and keep the klines that lie in ``[start_ms, end_ms)`` and have closed.

    Raises:
        MalformedKlines: names the row and what is wrong.
    """
    rows = list_of(json_of(body), "klines")
    if not rows:
        return CheckedRows(klines=Klines.empty(interval_ms))
    # Open and close time of each row; of a row that lacks either, both count as unreadable.
    spans = [tuple(time_ms(cell(row, place), unit_ms=1) for place in (OPEN_TIME, CLOSE_TIME)) for row in rows]
    spans = [
        span if all(span) and len(row) >= WIDTH else (NO_TIME_MS, 0) for row, span in zip(rows, spans, strict=True)
    ]
    lengths = {closed_ms - opened_ms + 1 for opened_ms, closed_ms in spans if opened_ms != NO_TIME_MS}
    if lengths and interval_ms not in lengths and lengths <= INTERVALS.keys():
        raise MalformedKlines(f"rows must be {interval_ms // 1000} s long, all are {min(lengths) // 1000} s or longer")
    times = np.array([opened_ms for opened_ms, _ in spans], np.int64)
    if 2 * int((np.diff(times) < 0).sum()) > len(times):  # of a page newest first, older rows may have been cut off
        raise MalformedKlines("open_time_ms must rise: the rows are in another order")
    newest_ms = int(times.max())
    # The page before may have ended with rows off the grid, which this page then repeats.
    if newest_ms != NO_TIME_MS and newest_ms <= start_ms - (interval_ms if few else 1):
        raise MalformedKlines(f"asked for klines from {iso(start_ms)} on, got only older ones up to {iso(newest_ms)}")
    cells = {name: np.array([number(cell(row, place)) for row in rows], np.float64) for name, place in PLACES.items()}
    try:
        # The running candle may seem not to have begun, where clocks differ: it is not a row of the future.
        found = check_rows(interval_ms, times, cells, now_ms=now_ms + interval_ms, few=few)
    except MalformedKlines as error:
        raise MalformedKlines(f"{error}; {ROW_RULE}, the first was {rows[0]!r:.80}") from error
    # Only the newest rows can be unfinished: an old row with a close time to come is a slip of the venue.
    unfinished = [
        opened_ms // interval_ms * interval_ms for opened_ms, closed_ms in sorted(spans)[-2:] if closed_ms >= now_ms
    ]
    return replace(found, klines=found.klines.between(start_ms, min([end_ms, *unfinished])))


def _listing(body: bytes, symbol: str) -> Listing:
    """Read a symbol's entry of ``exchangeInfo``; raises MalformedKlines if it is missing, or lacks base or quote."""
    entries = cell(json_of(body), "symbols")
    for entry in entries if isinstance(entries, list) else []:
        base, quote = cell(entry, "baseAsset"), cell(entry, "quoteAsset")
        if cell(entry, "symbol") == symbol and base and quote:
            return Listing(base=str(base), quote=str(quote), trades=cell(entry, "status") == "TRADING")
    raise MalformedKlines(f"no base and quote of {symbol} in the answer {body[:80]!r}")


def _tickers(body: bytes, wanted: Sequence[str], now_ms: int) -> dict[str, Price]:
    """Read the prices of the wanted symbols from one ticker or a list of tickers."""
    answer = json_of(body)
    entries = answer if isinstance(answer, list) else [answer]
    texts = {str(cell(entry, "symbol")): cell(entry, "price") for entry in entries}
    for symbol in wanted:
        if symbol not in texts:
            raise MalformedKlines(f"no price of {symbol} in the answer {str(answer)[:80]}")
    return {symbol: price_of(symbol, texts[symbol], now_ms) for symbol in wanted}
