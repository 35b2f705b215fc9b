"""What the rest of the project may ask of a venue, what a venue tells by itself, and what may be counted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from market.klines import Klines


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The newest trade price of a symbol."""

    price: float  # quote currency per unit of base; finite and above 0
    # By our clock: of a polled price just before the venue was asked, as it is at least as new as that; of one from
    # the stream the venue's own time of the trade.
    asof_ms: int


class MarketData(Protocol):
    """A venue. Implementations are safe to call from several threads."""

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines, ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps.

        Raises:
            MarketUnavailable: no host could be asked, or all refused.
            MalformedKlines: the answer is not klines.
            ConfigError: the venue does not know the symbol.
        """

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """One archive file: the UTC day that begins at ``day_ms``, or with ``month`` its whole month.

        Returns:
            Its klines, or None when the venue has no such file (yet).
        Raises:
            MarketUnavailable, MalformedKlines: as above; a wrong checksum is MalformedKlines.
        """

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade price of each symbol.

        Raises: as ``klines``.
        """

    def clock_ahead_ms(self) -> int:
        """How far the venue's clock is ahead of ours; 0 when the two cannot be told apart, or the venue has none.

        Raises: as ``klines``.
        """
        return 0


class StreamReader(Protocol):
    """Whoever a stream tells what it hears. Called in the stream's thread; none of it may wait."""

    def stream_up(self, host: str) -> None:
        """Data has come over a new connection; what was said before it was open is not told again."""

    def stream_down(self, reason: str) -> None:
        """Nothing comes any more, or no connection could be had; a line that says why."""

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """A price, finite and above 0, and the venue's time of it. May come late, twice or out of order."""

    def candle_closed(self, symbol: str, kline: Klines) -> None:
        """One candle that the venue calls closed. May come late, twice, out of order, or not at all."""


class MarketStream(Protocol):
    """What a venue tells without being asked, kept up by a thread of its own."""

    def start(self, reader: StreamReader) -> None:
        """Begin to listen; returns at once."""

    def stop(self, timeout_s: float) -> None:
        """End the thread; one that does not end in time is left behind."""
