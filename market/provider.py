"""What the rest of the project may ask of a venue, and what it may count on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from market.klines import Klines


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The newest trade price of a symbol."""

    price: float  # quote currency per unit of base; finite and above 0
    asof_ms: int  # our clock just before the venue was asked: the price is at least as new as this


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
