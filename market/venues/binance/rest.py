"""All that knows Binance: its routes, units, limits, error codes and archive names."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import structlog

from core.clock import DAY_MS, Clock, iso
from core.errors import MalformedKlines
from klines.checks import UNREADABLE_MS, CheckedRows, check_rows
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Klines
from klines.spans import INTERVALS, interval_name, month_span
from market.http.client import PROBATION_MS, Hosts, Reach, Refused
from market.quarantine import Quarantine
from market.venue import Listing, Offer, Price
from market.venues.base import RestVenue
from market.venues.binance.archive import check, read_archive
from market.venues.parsing import json_of, number, price_of, whole_rows

T = TypeVar("T")

PAGE_ROWS = 1000  # the most that one klines request may ask for
LAST_ROWS = 2  # of a range, on a page of their own: that they are odd does not make the pages before them so
# Of a row: open time, four prices, volume, close time, and the other flows; more are unused.
PLACES = dict(zip(PRICE_COLUMNS + FLOW_COLUMNS, (1, 2, 3, 4, 5, 7, 8, 9, 10), strict=True))
COLUMNS = 11
ROW_RULE = f"a row must be a list of {COLUMNS} columns or more with times in milliseconds"
BAD_SYMBOL_CODES = {-1100, -1121}  # illegal characters in a parameter (the symbol is the only text); invalid symbol
# REST serves what an archive file does not: a broken archive host is not worth waiting for.
ARCHIVE_PATIENCE_S = 5.0
REQUESTS_A_MINUTE = 1_200  # of weight 2 to 4 each, where 6,000 a minute are allowed

_log = structlog.get_logger()


class Binance(RestVenue):
    """Binance spot, or any server that speaks its format. Safe to use from several threads.

    Args:
        rest_urls: hosts in the order they are tried, without a trailing slash.
        archive_url: where the daily and monthly zips are.
        clock: for waiting and for telling closed klines from the unfinished one.
        timeout_s: limit of a connection and of an answer.
        patience_s: how long one request may wait out rate limits and failing hosts; 0 asks each host once.
        aside: takes the rows that are no klines.
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
        aside: Quarantine | None = None,
        name: str = "binance",
    ) -> None:
        offer = Offer(
            name=name,
            quote="",
            intervals_ms=frozenset(INTERVALS),
            flow=frozenset(FLOW_COLUMNS[1:]),
            archives=bool(archive_url),
            ping="/api/v3/time",
            requests_a_minute=REQUESTS_A_MINUTE,
        )
        super().__init__(
            rest_urls, clock, aside or Quarantine(), offer=offer, timeout_s=timeout_s, patience_s=patience_s
        )
        self._files = Hosts(
            [archive_url.rstrip("/")] if archive_url else self.hosts.urls,
            clock,
            timeout_s=timeout_s,
            patience_s=min(patience_s, ARCHIVE_PATIENCE_S),
            remedy="check the network, or set BINANCE_ARCHIVE_URL",
        )
        self._one_by_one_until_ms = 0  # the server does not seem to know the ticker of several symbols

    def name_of(self, symbol: str) -> str:
        """See the protocol: the symbol itself."""
        return symbol

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range; see the protocol.

        Pages are read until the range is full or a page has nothing new for it, since a host may serve fewer
        rows than it was asked for. Rows from ``end_ms`` on are dropped; so are rows before the page's start,
        unless nothing else came: then the host ignores ``startTime`` and the answer is malformed, as it is
        when rows are not in rising order.
        """
        interval = interval_name(interval_ms)
        # By the venue's clock as far as it is known, and before the request: what is closed now is so in the answer.
        now_ms = self._clock.now_ms()
        cursor = -(-start_ms // interval_ms) * interval_ms
        end_ms = min(end_ms, now_ms // interval_ms * interval_ms)
        pages: list[Klines] = []
        while cursor < end_ms:
            few = LAST_ROWS if pages else 0
            page = self._ask(
                symbol,
                "/api/v3/klines",
                {
                    "symbol": symbol,
                    "interval": interval,
                    "startTime": cursor,
                    "endTime": end_ms - 1,
                    "limit": PAGE_ROWS,
                },
                partial(_page, interval_ms=interval_ms, start_ms=cursor, end_ms=end_ms, now_ms=now_ms, few=few),
            )
            self._aside.take(self.offer.name, symbol, interval_ms, page, now_ms)
            if not len(page.klines):
                break
            pages.append(page.klines)
            cursor = page.klines.end_ms
        return Klines.joined(interval_ms, pages)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade price of each symbol, in one request where the server can do that."""
        wanted = tuple(dict.fromkeys(symbols))
        several = len(wanted) > 1 and self._clock.now_ms() >= self._one_by_one_until_ms
        if several and (found := self._several(wanted)) is not None:
            return found
        prices = {symbol: self._price(symbol) for symbol in wanted}
        if several:
            _log.info("ticker_one_by_one", why="the server does not know /api/v3/ticker/price?symbols=")
            self._one_by_one_until_ms = self._clock.now_ms() + PROBATION_MS  # it may have been a passing fault
        return prices

    def listing(self, symbol: str) -> Listing | None:
        """See the protocol."""
        return self._ask(symbol, "/api/v3/exchangeInfo", {"symbol": symbol}, partial(_listing, symbol=symbol))

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """One daily or monthly archive file, checked against its checksum file; see the protocol."""
        if not self.offer.archives:
            return None
        interval = interval_name(interval_ms)
        start_ms = day_ms // DAY_MS * DAY_MS
        start_ms, end_ms = month_span(start_ms) if month else (start_ms, start_ms + DAY_MS)
        stamp = datetime.fromtimestamp(start_ms / 1000, UTC).strftime("%Y-%m" if month else "%Y-%m-%d")
        folder = f"/data/spot/{'monthly' if month else 'daily'}/klines/{quote(symbol, safe='')}/{interval}"
        path = f"{folder}/{quote(symbol, safe='')}-{interval}-{stamp}.zip"
        body = self._file(path)
        if body is None:
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
        self._aside.take(self.offer.name, symbol, interval_ms, found, now_ms)
        return found.klines.closed(now_ms)

    def answers(self, timeout_s: float) -> Reach:
        """Ask every REST host for its time at once; the first that answers decides.

        Args:
            timeout_s: how long to wait for it in all.
        """
        return self._hosts.answers(self.offer.ping, timeout_s)

    def clock_ahead_ms(self) -> int:
        """See the protocol."""
        return self._ahead_ms(self._time)

    def _time(self, body: bytes) -> int:
        value = json_of(body)
        if not isinstance(value, dict) or not isinstance(value.get("serverTime"), int):
            raise MalformedKlines(f"the answer is no server time but {body[:60]!r}")
        return int(value["serverTime"])

    def _ask(self, symbol: str, path: str, params: dict[str, str | int], parse: Callable[[bytes], T]) -> T:
        try:
            return self._hosts.ask(path, params, parse)
        except Refused as error:
            if error.code in BAD_SYMBOL_CODES:
                raise self._unknown(symbol, error) from error
            raise

    def _price(self, symbol: str) -> Price:
        asof_ms = self._clock.now_ms()
        found = self._ask(symbol, "/api/v3/ticker/price", {"symbol": symbol}, partial(_tickers, wanted=(symbol,)))
        return Price(price=found[symbol], asof_ms=asof_ms)

    def _several(self, symbols: tuple[str, ...]) -> dict[str, Price] | None:
        """All prices from one request; None when the server does not seem to know such a request."""
        asof_ms = self._clock.now_ms()
        params = {"symbols": json.dumps(symbols, separators=(",", ":"), ensure_ascii=False)}
        try:
            found = self._hosts.ask("/api/v3/ticker/price", params, partial(_tickers, wanted=symbols))
        except (Refused, MalformedKlines) as error:
            _log.info("ticker_of_several_failed", why=str(error))
            return None
        return {symbol: Price(price=found[symbol], asof_ms=asof_ms) for symbol in symbols}

    def _file(self, path: str) -> bytes | None:
        try:
            return self._files.ask(path, {}, bytes)
        except Refused as error:
            if error.status == 404:
                return None
            raise


def _page(body: bytes, interval_ms: int, start_ms: int, end_ms: int, now_ms: int, few: int) -> CheckedRows:
    """The rows of one answer that lie in ``[start_ms, end_ms)`` and have closed, and those that are no klines.

    Raises:
        MalformedKlines: names the row and what is wrong with it.
    """
    rows = json_of(body)
    if not isinstance(rows, list):
        raise MalformedKlines(f"klines must be a list, was {str(rows)[:80]}")
    rows = whole_rows(rows, _is_row, COLUMNS, ROW_RULE, few)
    if not rows:
        return CheckedRows(klines=Klines.empty(interval_ms))
    lengths = {row[6] - row[0] + 1 for row in rows if row[0] != UNREADABLE_MS}
    if lengths and interval_ms not in lengths and lengths <= INTERVALS.keys():
        raise MalformedKlines(f"rows must be {interval_ms // 1000} s long, all are {min(lengths) // 1000} s or longer")
    columns = list(zip(*(row[:COLUMNS] for row in rows), strict=True))
    times = np.array(columns[0], dtype=np.int64)
    if 2 * int((np.diff(times) < 0).sum()) > len(times):  # of a page newest first, older rows may have been cut off
        raise MalformedKlines("open_time_ms must rise: the rows are in another order")
    newest_ms = int(times.max())
    # The page before may have ended with rows off the grid, which are told again.
    if newest_ms != UNREADABLE_MS and newest_ms <= start_ms - (interval_ms if few else 1):
        raise MalformedKlines(f"asked for klines from {iso(start_ms)} on, got only older ones up to {iso(newest_ms)}")
    cells = {name: np.array([number(cell) for cell in columns[at]]) for name, at in PLACES.items()}
    found = check_rows(
        interval_ms, times, cells, now_ms=now_ms + interval_ms, few=few
    )  # the running one may seem not to have begun
    # The newest alone: that an old one ends some day to come is a slip, and costs no other its place.
    newest = sorted(rows, key=lambda row: int(row[0]))[-2:]
    unfinished = [row[0] // interval_ms * interval_ms for row in newest if row[6] >= now_ms]
    klines = found.klines.between(start_ms, min([end_ms, *unfinished]))
    return replace(found, klines=klines)


def _is_row(row: list[Any]) -> bool:
    """Whether a row has all columns, and times in milliseconds."""
    if len(row) < COLUMNS:
        return False
    return type(row[0]) is int and type(row[6]) is int and 0 <= row[0] < 10**14


def _listing(body: bytes, symbol: str) -> Listing:
    """The entry of a symbol in ``exchangeInfo``.

    Raises:
        MalformedKlines: it has none, or one without base or quote.
    """
    answer = json_of(body)
    entries = answer.get("symbols") if isinstance(answer, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("symbol") == symbol:
            base, quote = entry.get("baseAsset"), entry.get("quoteAsset")
            if base and quote:
                return Listing(base=str(base), quote=str(quote), trades=entry.get("status") == "TRADING")
    raise MalformedKlines(f"no base and quote of {symbol} in the answer {body[:80]!r}")


def _tickers(body: bytes, wanted: Sequence[str]) -> dict[str, float]:
    """Prices of the wanted symbols from one ticker object or a list of them.

    Raises:
        MalformedKlines: one is missing, or not a finite number above 0.
    """
    answer = json_of(body)
    entries = answer if isinstance(answer, list) else [answer]
    texts: dict[str, Any] = {
        str(entry.get("symbol")): entry.get("price") for entry in entries if isinstance(entry, dict)
    }
    prices = {}
    for symbol in wanted:
        if symbol not in texts:
            raise MalformedKlines(f"no price of {symbol} in the answer {str(answer)[:80]}")
        prices[symbol] = price_of(symbol, texts[symbol])
    return prices
