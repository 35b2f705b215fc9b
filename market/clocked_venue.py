"""What the venues share that need no key and tell their time."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from core.clock import Clock
from core.errors import ConfigError, WorkerError
from market.hosts import Hosts
from market.klines import INTERVALS, Klines
from market.provider import Offer, Venue
from market.quality import Aside

LEAST_AHEAD_MS = 100  # clocks that agree this well need no correction


class ClockedVenue(Venue):
    """A venue without keys and archive files, with a clock. Safe to use from several threads.

    Args:
        urls: hosts in the order they are tried.
        clock: for waiting, for telling closed klines from the unfinished one, and for the age of prices.
        aside: takes the rows that are no klines.
        timeout_s, patience_s: as ``Hosts`` has them.
    """

    OFFER: ClassVar[Offer]

    def __init__(
        self, urls: Sequence[str], clock: Clock, aside: Aside, *, timeout_s: float = 10.0, patience_s: float = 60.0
    ) -> None:
        self._clock = clock
        self._aside = aside
        self._ahead_ms = 0
        self._hosts = Hosts(
            [url.rstrip("/") for url in urls],
            clock,
            timeout_s=timeout_s,
            patience_s=patience_s,
            remedy=f"check the network, or set {self.OFFER.name.upper()}_REST_URLS",
            requests_a_minute=self.OFFER.requests_a_minute,
        )

    @property
    def offer(self) -> Offer:
        """See the protocol."""
        return self.OFFER

    @property
    def hosts(self) -> Hosts:
        """See the protocol."""
        return self._hosts

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """None: there are no archive files."""
        return None

    def clock_ahead_ms(self) -> int:
        """See the protocol. The answer is taken to be of the middle between question and answer."""
        asked_ms = self._clock.now_ms()
        venue_ms = self._hosts.ask(self.OFFER.ping, {}, self._time)
        took_ms = self._clock.now_ms() - asked_ms
        ahead_ms = venue_ms - asked_ms - took_ms // 2
        least_ms = max(took_ms, LEAST_AHEAD_MS)
        self._ahead_ms = ahead_ms if abs(ahead_ms) > least_ms else 0
        return self._ahead_ms

    @abstractmethod
    def _time(self, body: bytes) -> int:
        """The venue's time in an answer to ``OFFER.ping``, in ms."""

    def _closed_by_ms(self, interval_ms: int) -> int:
        """Where the candle opens that has not closed, by the venue's clock as far as it is known.

        Raises:
            ConfigError: the venue has no candles of that interval.
        """
        if interval_ms not in self.OFFER.intervals_ms:
            has = ", ".join(INTERVALS[interval] for interval in sorted(self.OFFER.intervals_ms))
            raise ConfigError(f"{self.OFFER.name} has no klines of {interval_ms} ms: choose one of {has}")
        return (self._clock.now_ms() + self._ahead_ms) // interval_ms * interval_ms

    def _unknown(self, symbol: str, error: WorkerError) -> ConfigError:
        return ConfigError(
            f"unknown symbol {symbol!r}: {error}; set parameters.Symbol of this worker in config.json to a symbol that "
            f"{self.OFFER.name} trades, or leave {self.OFFER.name} out of MARKET_VENUES"
        )
