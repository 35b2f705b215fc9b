"""What the venues share that quote in USD, may want a key, and write their rows with names and times in text."""

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import numpy as np

from core.clock import HOUR_MS, Clock
from core.errors import ConfigError, MalformedKlines, WorkerError
from market.hosts import Blocked, Hosts, Refused
from market.klines import INTERVALS, Klines
from market.provider import Offer, Price, Venue
from market.quality import EARLIEST_MS, Aside, Sifted, sift
from market.reading import price_of

T = TypeVar("T")
Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a 403 says when it is about the key, and not about our address or a proxy; up to the first ";" it is the venue's.
ABOUT_A_KEY = re.compile(r"HTTP 403 to [^;]*\b(api[ _-]?key|token|tag|dataset|permission|credential|authenticat)", re.I)


class UsdVenue(Venue):
    """A venue that quotes in USD, takes a key in a header, and has neither archive files nor a clock.

    A key is in the header of a request and nowhere else: what a venue tells back of it is hidden.
    Safe to use from several threads.

    Args:
        urls: hosts in the order they are tried.
        clock: for waiting, for telling closed klines from the unfinished one, and for the age of prices.
        aside: takes the rows that are no klines.
        key: empty where there is none; a venue that wants one says so when it is asked for something.
        timeout_s, patience_s: as ``Hosts`` has them.
    """

    OFFER: ClassVar[Offer]
    KEY: ClassVar[str]  # environment variable of the key, also where it may do without
    HEADER: ClassVar[str]
    SCHEME: ClassVar[str] = ""  # before the key in the header
    ADVICE: ClassVar[Mapping[int, str]]  # HTTP status -> what to do, where it is the configuration that is wrong
    SETTLES_MS: ClassVar[int] = 0  # how long after its end a kline may still change

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        aside: Aside,
        *,
        key: str = "",
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._aside = aside
        self._key = key.strip()
        self._is_key = bool(re.fullmatch(r"[!-~]{8,}", self._key))  # anything else cannot be sent, or hidden
        self._hosts = Hosts(
            [url.rstrip("/") for url in urls],
            clock,
            timeout_s=timeout_s,
            patience_s=patience_s,
            remedy=f"check the network, or set {self.OFFER.name.upper()}_REST_URLS",
            requests_a_minute=self.offer.requests_a_minute,
            headers={self.HEADER: self.SCHEME + self._key} if self._is_key else None,
        )

    @property
    def offer(self) -> Offer:
        """See the protocol."""
        return replace(self.OFFER, key_missing=bool(self.OFFER.key) and not self._key)

    @property
    def hosts(self) -> Hosts:
        """See the protocol."""
        return self._hosts

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """None: there are no archive files."""
        return None

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range, asked for in spans that one request may have; see the protocol.

        Raises:
            ConfigError: also when the venue has no klines of that interval.
        """
        offer = self.offer
        if interval_ms not in offer.intervals_ms:
            has = ", ".join(INTERVALS[interval] for interval in sorted(offer.intervals_ms))
            raise ConfigError(f"{offer.name} has no klines of {interval_ms} ms: choose one of {has}, or another venue")
        name = self.name_of(symbol)
        now_ms = self._clock.now_ms()
        end_ms = min(end_ms, (now_ms - self.SETTLES_MS) // interval_ms * interval_ms)
        runs: list[Klines] = []
        for first_ms in range(-(-start_ms // interval_ms) * interval_ms, end_ms, self._span_ms(interval_ms)):
            last_ms = min(first_ms + self._span_ms(interval_ms), end_ms)
            sifted = self._span(name, interval_ms, first_ms, last_ms, now_ms)
            self._aside.put(offer.name, symbol, interval_ms, sifted.refused, now_ms)
            runs.append(sifted.klines.between(first_ms, last_ms))
        return Klines.joined(interval_ms, runs)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest price of each symbol with the venue's own time of it; see the protocol."""
        names = {symbol: self.name_of(symbol) for symbol in symbols}
        if not names:
            return {}
        found = self._newest(tuple(dict.fromkeys(names.values())), self._clock.now_ms())
        return {symbol: found[name] for symbol, name in names.items()}

    @abstractmethod
    def _span_ms(self, interval_ms: int) -> int:
        """How much time one request may ask for."""

    @abstractmethod
    def _span(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Sifted:
        """What the venue has of such a span; rows of other times may be among it."""

    @abstractmethod
    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        """The newest price of every name."""

    def _ask(self, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T]) -> T:
        """As ``Hosts.ask``, with the key checked before and hidden after.

        Raises:
            ConfigError: the key is missing or refused, or ``ADVICE`` knows what else is to be done.
        """
        name = self.offer.name
        if self.offer.key_missing:
            raise ConfigError(f"{name} wants a key: set {self.KEY}, or leave {name} out of MARKET_VENUES")
        if self._key and not self._is_key:
            raise ConfigError(f"{self.KEY} is no key: it must be 8 or more letters, digits and signs without blanks")
        # A venue may tell the key back, in an answer that a fault then quotes or in the text of a refusal.
        secret = self._key or "\0"
        try:
            return self._hosts.ask(path, params, lambda body: parse(body.replace(secret.encode(), b"***")))
        except WorkerError as error:
            error.args = (str(error).replace(secret, "***"),)
            status = error.status if isinstance(error, Refused) else 0
            if isinstance(error, Blocked) and ABOUT_A_KEY.search(str(error)):
                status = 403
            if status in self.ADVICE:
                raise ConfigError(f"{error}; {self.ADVICE[status]}") from error
            raise


def usd_base(venue: str, symbol: str) -> str:
    """The base asset of a symbol in dollars or in a dollar token, as a venue that quotes in USD has it.

    Raises:
        ConfigError: its prices are in something else, or it is no symbol.

    >>> usd_base("tiingo", "ETHUSDT"), usd_base("tiingo", "USDCUSD")
    ('ETH', 'USDC')
    """
    found = re.fullmatch(r"([A-Z0-9]+)(USDT|USDC|USD)", symbol)
    if not found:
        raise ConfigError(
            f"{venue} has prices in USD, and {symbol!r} is not a symbol in USDT, USDC or USD: set parameters.Symbol of "
            f'this worker in config.json to one such as "ETHUSDT", or leave {venue} out of MARKET_VENUES'
        )
    return found[1]


def time_ms(cell: object) -> int:
    """A time in text, UTC where it names no offset; 0, which no kline has, where it is no time.

    >>> time_ms("2019-05-01T02:00:00+02:00"), time_ms("soon"), time_ms(1556668800)
    (1556668800000, 0, 0)
    """
    try:
        at = datetime.fromisoformat(cell)  # type: ignore[arg-type]
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError):
        return 0


def number(cell: object) -> float:
    """A number or the text of one; NaN where it is neither, so that one bad cell costs one row."""
    try:
        return math.nan if isinstance(cell, bool) else float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def sifted_rows(interval_ms: int, rows: Sequence[Row], time: str, names: Mapping[str, str], now_ms: int) -> Sifted:
    """Rows with names, sorted out; one whose interval has not ended is left out, whatever it says.

    Args:
        time: name of the open time.
        names: our column -> theirs.
    Raises:
        MalformedKlines: as ``sift``.
    """
    times = np.array([time_ms(row.get(time)) for row in rows], np.int64)
    columns = {ours: np.array([number(row.get(theirs)) for row in rows], np.float64) for ours, theirs in names.items()}
    # By a clock that is a little behind the running one has not begun; what opens later is refused.
    kept = (times <= now_ms - interval_ms) | (times > now_ms + interval_ms)
    return sift(interval_ms, times[kept], {name: cells[kept] for name, cells in columns.items()}, now_ms=now_ms)


def aged_price(name: str, value: object, at_ms: int, now_ms: int) -> Price:
    """A price with the venue's time of it, never after now.

    Raises:
        MalformedKlines: it is no price; or its time is before 2009 or in an hour: in another unit, or none.
    """
    if not EARLIEST_MS <= at_ms <= now_ms + HOUR_MS:
        raise MalformedKlines(f"the price of {name} must have a time in the past, was {at_ms} ms")
    return Price(price=price_of(name, value), asof_ms=min(at_ms, now_ms))


def rows_in(value: object, what: str) -> list[Row]:
    """A list of objects.

    Raises:
        MalformedKlines: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise MalformedKlines(f"{what} must be a list of objects, was {str(value)[:80]}")
    return value
