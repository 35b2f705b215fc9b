"""The parts that all venues with a REST API share: hosts, symbols, keys, the difference of clocks."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from core.clock import Clock
from core.errors import SYMBOL_SETTING, ConfigError, KeyRefused, MalformedKlines, MarketUnavailable, UnknownSymbol
from core.settings import urls_setting
from core.topic import split_symbol
from klines.checks import CheckedRows
from klines.klines import Klines
from klines.spans import INTERVALS, Span
from market.http.client import HostPool
from market.http.errors import ErrorReply, KeyFault, UnknownPair
from market.quarantine import Quarantine
from market.venue import Listing, Price, Venue, VenueInfo

Page = tuple[CheckedRows, Span]

LEAST_AHEAD_MS = 100  # clocks that agree this well need no correction
# The words of a 403 that is about the key, and not about our address or a proxy.
ABOUT_A_KEY = re.compile(r"\b(api[ _-]?key|token|tag|dataset|permission|credential|authenticat)", re.IGNORECASE)


def key_setting(venue: str) -> str:
    """The place where a venue's key is set, for messages."""
    return f"VENUE_KEYS ({venue}=KEY)"


class RestVenue(Venue):
    """A venue with interchangeable hosts. Safe to use from several threads.

    A key is in the header of a request and nowhere else: it is masked where a venue repeats it.

    Args:
        urls, timeout_s, patience_s: as ``HostPool`` has them.
        quarantine: takes the rows that break a rule of klines.
        tokens: token of each configured symbol; a symbol that is missing is split by its text.
        key: empty if the settings have no key.
        info: only where a class serves several venues.
    """

    INFO: ClassVar[VenueInfo]
    KEY_HEADER: ClassVar[str] = ""  # request header that takes the key
    KEY_SCHEME: ClassVar[str] = ""  # written before the key in the header
    KEY_ADVICE: ClassVar[Mapping[int, str]] = {}  # by HTTP status of an error about the key: what to do

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        quarantine: Quarantine,
        *,
        tokens: Mapping[str, str] = MappingProxyType({}),
        key: str = "",
        info: VenueInfo | None = None,
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        key = key.strip() if self.KEY_HEADER else ""
        info = info or self.INFO
        self._info = replace(info, key_missing=bool(info.key) and not key)
        self._has_bad_key = bool(key) and not re.fullmatch(r"[!-~]{8,}", key)  # could not be sent, or not be masked
        self._clock = clock
        self._quarantine = quarantine
        self._tokens = tokens
        self._hosts = HostPool(
            [url.rstrip("/") for url in urls],
            clock,
            timeout_s=timeout_s,
            patience_s=patience_s,
            remedy=f"check the network, or set {urls_setting(info.name)} to hosts that can be reached from here",
            requests_a_minute=info.requests_a_minute,
            headers={self.KEY_HEADER: self.KEY_SCHEME + key} if key and not self._has_bad_key else None,
            fault_of=self._fault_of,
        )

    @property
    def info(self) -> VenueInfo:
        return self._info

    @property
    def hosts(self) -> HostPool:
        return self._hosts

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        if interval_ms not in self._info.intervals_ms:
            has = ", ".join(INTERVALS[interval] for interval in sorted(self._info.intervals_ms))
            raise ConfigError(
                f"{self._info.name} has no klines of {interval_ms} ms: choose one of {has}, or another venue"
            )
        name = self.name_of(symbol)
        now_ms = self._clock.now_ms()  # before the request: a kline that is closed now is final in the answer
        first_ms = -(-start_ms // interval_ms) * interval_ms
        end_ms = min(-(-end_ms // interval_ms), now_ms // interval_ms) * interval_ms
        klines = Klines.empty(interval_ms)
        with self._asking(symbol):
            for page, span in self._pages(name, interval_ms, first_ms, end_ms, now_ms):
                self._quarantine.take(self._info.name, symbol, interval_ms, page, now_ms)
                klines = klines.merge(page.klines.between(*span))
        return klines

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        names = {symbol: self.name_of(symbol) for symbol in symbols}
        if not names:
            return {}
        with self._asking(", ".join(names)):
            found = self._newest(tuple(dict.fromkeys(names.values())), self._clock.now_ms())
        return {symbol: found[name] for symbol, name in names.items()}

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        return None

    def listing(self, symbol: str) -> Listing | None:
        self.prices([symbol])
        return None

    @abstractmethod
    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        """Fetch a range that lies on the grid, page by page in any order, each with the span that it serves."""

    @abstractmethod
    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        """Fetch the newest price of each name."""

    def _fault_of(self, error: ErrorReply) -> MarketUnavailable:
        """The exception of an error response, by the venue's own rules."""
        if error.status in self.KEY_ADVICE and (error.status != 403 or ABOUT_A_KEY.search(error.message)):
            return KeyFault(f"{error.text}; {self.KEY_ADVICE[error.status]}", status=error.status)
        return error.fault()

    @contextmanager
    def _asking(self, symbols: str) -> Iterator[None]:
        """Raise KeyRefused or UnknownSymbol for a fault of the key or the symbols; without a key nothing is asked."""
        name, key = self._info.name, self._info.key
        if self._info.key_missing:
            raise KeyRefused(f"{name} wants a key: set {key}, or leave {name} out of MARKET_VENUES")
        if self._has_bad_key:
            raise KeyRefused(f"{key} is not a key: it must be 8 or more letters, digits and signs without blanks")
        try:
            yield
        except KeyFault as error:
            raise KeyRefused(str(error)) from error
        except UnknownPair as error:
            raise UnknownSymbol(
                f"unknown symbol {symbols!r}: {error}; set {SYMBOL_SETTING} to a symbol that {name} trades, or "
                f"leave {name} out of MARKET_VENUES"
            ) from error

    def _usd_base(self, symbol: str) -> str:
        """Return the base asset of a pair in any dollar, for a venue that quotes in USD.

        Raises:
            UnknownSymbol: the quote is not a dollar, or the text is not a symbol.
        """
        name = self._info.name
        base, quote = split_symbol(symbol, self._tokens.get(symbol, ""))
        if not quote or not re.fullmatch(r"[A-Z0-9]+", base):
            raise UnknownSymbol(
                f"{name} has prices in USD, and {symbol!r} is not a symbol in USDT, USDC or USD: set {SYMBOL_SETTING} "
                f'to one such as "ETHUSDT", or leave {name} out of MARKET_VENUES'
            )
        return base

    def clock_ahead_ms(self) -> int:
        if not self._info.tells_time:
            return 0

        def read(body: bytes) -> int:
            if at_ms := self._server_time_ms(body):
                return at_ms
            raise MalformedKlines(f"the answer is not a server time but {body[:60]!r}")

        asked_ms = self._clock.now_ms()
        venue_ms = self._hosts.ask(self._info.ping, {}, read)
        took_ms = self._clock.now_ms() - asked_ms
        ahead_ms = venue_ms - asked_ms - took_ms // 2  # the venue's time is taken to be of the middle of the request
        return ahead_ms if abs(ahead_ms) > max(took_ms, LEAST_AHEAD_MS) else 0

    def _server_time_ms(self, body: bytes) -> int:
        """Read the venue's time in the response to a ping; 0 if it has none."""
        return 0
