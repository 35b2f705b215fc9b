"""What venues that are asked over REST share: hosts, the difference of clocks, a key."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, TypeVar

from core.clock import Clock
from core.errors import SYMBOL_SETTING, ConfigError, UnknownSymbol, WorkerError
from core.settings import urls_setting
from core.topic import split_symbol
from klines.checks import CheckedRows
from klines.klines import Klines
from klines.spans import INTERVALS
from market.http.client import Blocked, Hosts, Refused
from market.quarantine import Quarantine
from market.venue import Listing, Offer, Price, Venue

T = TypeVar("T")

NO_TOKENS: Mapping[str, str] = MappingProxyType({})
LEAST_AHEAD_MS = 100  # clocks that agree this well need no correction
# What a 403 says when it is about the key, and not about our address or a proxy; up to the first ";" it is the venue's.
ABOUT_A_KEY = re.compile(r"HTTP 403 to [^;]*\b(api[ _-]?key|token|tag|dataset|permission|credential|authenticat)", re.I)


class RestVenue(Venue):
    """A venue with interchangeable hosts. Safe to use from several threads.

    Args:
        urls: hosts in the order they are tried.
        clock: for waiting, for telling closed klines from the unfinished one, and for the age of prices.
        aside: takes the rows that are no klines.
        tokens: of each configured symbol, what it is a pair of; where a symbol is missing its text decides.
        offer: what it has, where that is not what its class always has.
        timeout_s, patience_s, headers: as ``Hosts`` has them.
    """

    OFFER: ClassVar[Offer]

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        aside: Quarantine,
        *,
        tokens: Mapping[str, str] = NO_TOKENS,
        offer: Offer | None = None,
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._offer = offer or self.OFFER
        setting = urls_setting(self._offer.name)
        self._clock = clock
        self._aside = aside
        self._tokens = tokens
        self._hosts = Hosts(
            [url.rstrip("/") for url in urls],
            clock,
            timeout_s=timeout_s,
            patience_s=patience_s,
            remedy=f"check the network, or set {setting} to hosts that can be reached from here",
            requests_a_minute=self._offer.requests_a_minute,
            headers=headers,
        )

    @property
    def offer(self) -> Offer:
        """See the protocol."""
        return self._offer

    @property
    def hosts(self) -> Hosts:
        """See the protocol."""
        return self._hosts

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """None: there are no archive files."""
        return None

    def listing(self, symbol: str) -> Listing | None:
        """None, after a price of the symbol was told; see the protocol."""
        self.prices([symbol])
        return None

    def _usd_base(self, symbol: str) -> str:
        """The base asset of a pair in any dollar, for a venue that quotes in USD.

        Raises:
            UnknownSymbol: its prices are in something else, or it is not a symbol.
        """
        name = self._offer.name
        base, quote = split_symbol(symbol, self._tokens.get(symbol, ""))
        if not quote or not re.fullmatch(r"[A-Z0-9]+", base):
            raise UnknownSymbol(
                f"{name} has prices in USD, and {symbol!r} is not a symbol in USDT, USDC or USD: set {SYMBOL_SETTING} "
                f'to one such as "ETHUSDT", or leave {name} out of MARKET_VENUES'
            )
        return base

    def _ahead_ms(self, time_of: Callable[[bytes], int]) -> int:
        """How far a venue is ahead whose ping tells its time; that is taken to be of the middle between both ways.

        Args:
            time_of: reads that answer, in ms; raises MalformedKlines where it is none.
        """
        asked_ms = self._clock.now_ms()
        venue_ms = self._hosts.ask(self._offer.ping, {}, time_of)
        took_ms = self._clock.now_ms() - asked_ms
        ahead_ms = venue_ms - asked_ms - took_ms // 2
        return ahead_ms if abs(ahead_ms) > max(took_ms, LEAST_AHEAD_MS) else 0

    def _check(self, interval_ms: int) -> None:
        """Raises ConfigError when the venue has no klines of that interval."""
        if interval_ms not in self._offer.intervals_ms:
            has = ", ".join(INTERVALS[interval] for interval in sorted(self._offer.intervals_ms))
            raise ConfigError(
                f"{self._offer.name} has no klines of {interval_ms} ms: choose one of {has}, or another venue"
            )

    def _unknown(self, symbol: str, error: WorkerError) -> UnknownSymbol:
        name = self._offer.name
        return UnknownSymbol(
            f"unknown symbol {symbol!r}: {error}; set {SYMBOL_SETTING} to a symbol that {name} trades, or "
            f"leave {name} out of MARKET_VENUES"
        )


class KeyedVenue(RestVenue):
    """A venue that takes a key in a header, is asked for klines in spans, and does not tell its time.

    A key is in the header of a request and nowhere else: what a venue tells back of it is hidden.

    Args:
        urls, clock, aside, tokens, timeout_s, patience_s: as ``RestVenue`` has them.
        key: empty where there is none; a venue that wants one says so when it is asked for something.
    """

    KEY: ClassVar[str]  # environment variable of the key, also where it may do without
    HEADER: ClassVar[str]
    SCHEME: ClassVar[str] = ""  # before the key in the header
    ADVICE: ClassVar[Mapping[int, str]]  # HTTP status -> what to do, where it is the configuration that is wrong
    SETTLES_MS: ClassVar[int] = 0  # how long after its end a kline may still change

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        aside: Quarantine,
        *,
        tokens: Mapping[str, str] = NO_TOKENS,
        key: str = "",
        timeout_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        self._key = key.strip()
        self._is_key = bool(re.fullmatch(r"[!-~]{8,}", self._key))  # anything else cannot be sent, or hidden
        offer = self._offered(has_key=bool(self._key))
        headers = {self.HEADER: self.SCHEME + self._key} if self._is_key else None
        waits = {"timeout_s": timeout_s, "patience_s": patience_s}
        super().__init__(urls, clock, aside, tokens=tokens, offer=offer, headers=headers, **waits)

    @classmethod
    def _offered(cls, *, has_key: bool) -> Offer:
        """What is to be had with a key, or without one."""
        return replace(cls.OFFER, key_missing=bool(cls.OFFER.key) and not has_key)

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines of the range, asked for in spans that one request may have; see the protocol.

        Raises:
            ConfigError: also when the venue has no klines of that interval.
        """
        self._check(interval_ms)
        name = self.name_of(symbol)
        now_ms = self._clock.now_ms()
        end_ms = min(end_ms, (now_ms - self.SETTLES_MS) // interval_ms * interval_ms)
        runs: list[Klines] = []
        for first_ms in range(-(-start_ms // interval_ms) * interval_ms, end_ms, self._span_ms(interval_ms)):
            last_ms = min(first_ms + self._span_ms(interval_ms), end_ms)
            sifted = self._span(name, interval_ms, first_ms, last_ms, now_ms)
            self._aside.take(self.offer.name, symbol, interval_ms, sifted, now_ms)
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
    def _span(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> CheckedRows:
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
        try:
            return self._hosts.ask(path, params, parse)
        except WorkerError as error:
            status = error.status if isinstance(error, Refused) else 0
            if isinstance(error, Blocked) and ABOUT_A_KEY.search(str(error)):
                status = 403
            if status in self.ADVICE:
                raise ConfigError(f"{error}; {self.ADVICE[status]}") from error
            raise
