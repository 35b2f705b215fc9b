"""All that knows Binance: its routes, units, limits, error codes and archive names."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
import structlog

from core.clock import DAY_MS, Clock, iso
from core.errors import ConfigError, MalformedKlines
from core.settings import Market, Settings
from market.archive import check, read_archive
from market.hosts import PROBATION_MS, Hosts, Refused, is_loopback
from market.klines import INTERVALS, Klines, interval_name, month_span
from market.provider import MarketData, Price

__all__ = ["INTERVALS", "PAGE_ROWS", "Binance", "Reach", "binance_from"]

T = TypeVar("T")

PAGE_ROWS = 1000  # the most that one klines request may ask for
COLUMNS = 11  # read: open time, four prices, volume, close time, quote volume, trades, two taker; more are unused
BAD_SYMBOL_CODES = {-1100, -1121}  # illegal characters in a parameter (the symbol is the only text); invalid symbol
# REST serves what an archive file does not: a broken archive host is not worth waiting for.
ARCHIVE_PATIENCE_S = 5.0
LEAST_AHEAD_MS = 100  # clocks that agree this well need no correction

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Did a venue answer? True in a condition when it did."""

    ok: bool
    detail: str  # the host that answered, or why none did

    def __bool__(self) -> bool:
        return self.ok


class Binance(MarketData):
    """Binance spot, or any server that speaks its format. Safe to use from several threads.

    Args:
        rest_urls: hosts in the order they are tried, without a trailing slash.
        archive_url: where the daily and monthly zips are.
        clock: for waiting and for telling closed klines from the unfinished one.
        timeout_s: limit of a connection and of an answer.
        patience_s: how long one request may wait out rate limits and failing hosts; 0 asks each host once.
    """

    def __init__(
        self,
        rest_urls: Sequence[str],
        archive_url: str,
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._rest = Hosts(
            [url.rstrip("/") for url in rest_urls],
            clock,
            timeout_s=timeout_s,
            patience_s=patience_s,
            remedy="check the network, or set BINANCE_REST_URLS to hosts that can be reached from here",
        )
        self._archive = Hosts(
            [archive_url.rstrip("/")],
            clock,
            timeout_s=timeout_s,
            patience_s=min(patience_s, ARCHIVE_PATIENCE_S),
            remedy="check the network, or set BINANCE_ARCHIVE_URL",
        )
        self._ahead_ms = 0
        self._one_by_one_until_ms = 0  # the server does not seem to know the ticker of several symbols

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range; see the protocol.

        Pages are read until the range is full or a page has nothing new for it, since a host may serve fewer
        rows than it was asked for. Rows from ``end_ms`` on are dropped; so are rows before the page's start,
        unless nothing else came: then the host ignores ``startTime`` and the answer is malformed, as it is
        when rows are not in rising order.
        """
        interval = interval_name(interval_ms)
        # By the venue's clock as far as it is known, and before the request: what is closed now is so in the answer.
        now_ms = self._clock.now_ms() + self._ahead_ms
        cursor = -(-start_ms // interval_ms) * interval_ms
        end_ms = min(end_ms, now_ms // interval_ms * interval_ms)
        pages: list[Klines] = []
        while cursor < end_ms:
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
                partial(_page, interval_ms=interval_ms, start_ms=cursor, end_ms=end_ms, now_ms=now_ms),
            )
            if not len(page):
                break
            pages.append(page)
            cursor = page.end_ms
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

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """One daily or monthly archive file, checked against its checksum file; see the protocol."""
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
            klines = read_archive(body, interval_ms, start_ms, end_ms)
        except MalformedKlines as error:
            raise MalformedKlines(f"{self._archive.urls[0]}{path}: {error}") from error
        return klines.closed(self._clock.now_ms())

    def clock_ahead_ms(self) -> int:
        """See the protocol. The answer is taken to be of the middle between question and answer."""
        asked_ms = self._clock.now_ms()
        venue_ms = self._rest.ask("/api/v3/time", {}, _server_time)
        took_ms = self._clock.now_ms() - asked_ms
        ahead_ms = venue_ms - asked_ms - took_ms // 2
        self._ahead_ms = ahead_ms if abs(ahead_ms) > max(took_ms, LEAST_AHEAD_MS) else 0
        return self._ahead_ms

    def answers(self, timeout_s: float) -> Reach:
        """Ask every REST host for its time at once; the first that answers decides.

        Args:
            timeout_s: how long to wait for it in all.
        """
        probes = {
            url: Hosts([url], self._clock, timeout_s=timeout_s, patience_s=0, remedy="") for url in self._rest.urls
        }
        reasons: dict[str, str] = dict.fromkeys(probes, f"no answer within {timeout_s:g} s")
        pool = ThreadPoolExecutor(len(probes), thread_name_prefix="probe")
        try:
            asked = {pool.submit(probe.ask, "/api/v3/time", {}, _server_time): url for url, probe in probes.items()}
            for answered in as_completed(asked, timeout=timeout_s):
                error = answered.exception()
                if error is None:
                    return Reach(ok=True, detail=asked[answered])
                reasons[asked[answered]] = str(error).removeprefix(asked[answered]).strip(" :;")
        except TimeoutError:
            pass  # whoever has not answered keeps the reason it began with
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return Reach(ok=False, detail="; ".join(f"{url}: {reason}" for url, reason in reasons.items()))

    def _ask(self, symbol: str, path: str, params: dict[str, str | int], parse: Callable[[bytes], T]) -> T:
        try:
            return self._rest.ask(path, params, parse)
        except Refused as error:
            if error.code in BAD_SYMBOL_CODES:
                raise ConfigError(
                    f"unknown symbol {symbol!r}: {error}; set parameters.Symbol of this worker in config.json to a "
                    'symbol that the exchange trades, such as "ETHUSDT"'
                ) from error
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
            found = self._rest.ask("/api/v3/ticker/price", params, partial(_tickers, wanted=symbols))
        except (Refused, MalformedKlines) as error:
            _log.info("ticker_of_several_failed", why=str(error))
            return None
        return {symbol: Price(price=found[symbol], asof_ms=asof_ms) for symbol in symbols}

    def _file(self, path: str) -> bytes | None:
        try:
            return self._archive.ask(path, {}, bytes)
        except Refused as error:
            if error.status == 404:
                return None
            raise


def binance_from(settings: Settings, clock: Clock, *, timeout_s: float = 10.0, patience_s: float = 60.0) -> Binance:
    """The venue that the settings name.

    Raises:
        ConfigError: a URL is not http(s), or MARKET is simulated and a URL is not this machine's.
    """
    urls = {"BINANCE_REST_URLS": settings.rest_urls, "BINANCE_ARCHIVE_URL": (settings.binance_archive_url.strip(),)}
    for name, url in chain.from_iterable(((name, url) for url in group) for name, group in urls.items()):
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigError(f"{name} must begin with http:// or https://, was {url!r}")
        if settings.market is Market.SIMULATED and not is_loopback(url):
            raise ConfigError(
                f"MARKET=simulated needs {name} on this machine, was {url!r}: start `python -m market.simulated` and "
                "set BINANCE_REST_URLS and BINANCE_ARCHIVE_URL to the URL it prints"
            )
    return Binance(
        settings.rest_urls, settings.binance_archive_url.strip(), clock, timeout_s=timeout_s, patience_s=patience_s
    )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedKlines(f"the answer is not JSON but {body[:60]!r}") from error


def _server_time(body: bytes) -> int:
    value = _json(body)
    if not isinstance(value, dict) or not isinstance(value.get("serverTime"), int):
        raise MalformedKlines(f"the answer is no server time but {body[:60]!r}")
    return int(value["serverTime"])


def _page(body: bytes, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Klines:
    """The rows of one answer that lie in ``[start_ms, end_ms)`` and have closed.

    Raises:
        MalformedKlines: names the row and what is wrong with it.
    """
    rows = _json(body)
    if not isinstance(rows, list):
        raise MalformedKlines(f"klines must be a list, was {str(rows)[:80]}")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) < COLUMNS:
            raise MalformedKlines(f"row {number} must be a list of {COLUMNS} columns or more, was {str(row)[:80]}")
        if type(row[0]) is not int or type(row[6]) is not int or not 0 <= row[0] < 10**14:
            raise MalformedKlines(f"row {number} must have times in milliseconds, was {str(row)[:80]}")
    if not rows:
        return Klines.empty(interval_ms)
    columns = list(zip(*(row[:COLUMNS] for row in rows), strict=True))
    klines = Klines(
        interval_ms=interval_ms,
        open_time_ms=np.array(columns[0], dtype=np.int64),
        open=_floats("open", columns[1]),
        high=_floats("high", columns[2]),
        low=_floats("low", columns[3]),
        close=_floats("close", columns[4]),
        volume=_floats("volume", columns[5]),
        quote_volume=_floats("quote volume", columns[7]),
        trades=_floats("trades", columns[8]),
        taker_buy_base=_floats("taker buy base", columns[9]),
        taker_buy_quote=_floats("taker buy quote", columns[10]),
    )
    if klines.open_time_ms[-1] < start_ms:
        raise MalformedKlines(
            f"asked for klines from {iso(start_ms)} on, got only older ones up to {iso(int(klines.open_time_ms[-1]))}"
        )
    unfinished = [row[0] for row in rows if row[6] >= now_ms]
    return klines.between(start_ms, min([end_ms, *unfinished]))


def _floats(name: str, cells: Iterable[Any]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    try:
        return np.array([float(cell) for cell in cells])
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedKlines(f"a cell of column {name} is no number: {error}") from error


def _tickers(body: bytes, wanted: Sequence[str]) -> dict[str, float]:
    """Prices of the wanted symbols from one ticker object or a list of them.

    Raises:
        MalformedKlines: one is missing, or not a finite number above 0.
    """
    answer = _json(body)
    entries = answer if isinstance(answer, list) else [answer]
    texts: dict[str, Any] = {
        str(entry.get("symbol")): entry.get("price") for entry in entries if isinstance(entry, dict)
    }
    prices = {}
    for symbol in wanted:
        if symbol not in texts:
            raise MalformedKlines(f"no price of {symbol} in the answer {str(answer)[:80]}")
        try:
            price = math.nan if isinstance(texts[symbol], bool) else float(texts[symbol])
        except (TypeError, ValueError, OverflowError):
            price = math.nan
        if not (math.isfinite(price) and price > 0):
            raise MalformedKlines(f"the price of {symbol} must be finite and above 0, was {texts[symbol]!r}")
        prices[symbol] = price
    return prices
