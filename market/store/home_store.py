"""Reads every symbol's klines, each from the folder of its home venue."""

from collections.abc import Sequence
from pathlib import Path

from klines.klines import Klines
from market.store.home import home_of
from market.store.kline_store import KlineStore


class HomeStore:
    """Reads each symbol's klines from its home venue's folder, ``root/VENUE/SYMBOL-1m``.

    Args:
        root: ``DATA_DIR/klines``.
        line: venues, best first: the home of a symbol that ``homes.json`` does not name.
    """

    def __init__(self, root: Path, line: Sequence[str] = ()) -> None:
        self.root = root
        self._line = tuple(line)
        self._stores: dict[str, KlineStore] = {}

    def of(self, venue: str) -> KlineStore:
        """One venue's folder."""
        return self._stores.setdefault(venue, KlineStore(self.root / venue))

    def folders(self) -> list[KlineStore]:
        """The folder of each venue that has one, by name."""
        venues = {path.parent.name for path in self.root.glob("*/*-*") if path.is_dir()}
        return [self.of(venue) for venue in sorted(venues)]

    def home(self, symbol: str) -> str:
        """The home venue of a symbol; the first of MARKET_VENUES for a symbol without klines."""
        return home_of(self.root, symbol, self._line) or next(iter(self._line), "binance")

    def home_store(self, symbol: str) -> KlineStore:
        """The folder of a symbol's home venue."""
        return self.of(self.home(symbol))

    def series(self) -> list[tuple[str, int]]:
        """``(symbol, interval_ms)`` of each series of a home venue, by name."""
        found = ((folder, series) for folder in self.folders() for series in folder.series())
        return sorted(series for folder, series in found if self.home_store(series[0]) is folder)

    # Each as of KlineStore, in the folder of the symbol's home venue.

    def read(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        return self.home_store(symbol).read(symbol, interval_ms, start_ms, end_ms)

    def latest(self, symbol: str, interval_ms: int) -> int | None:
        return self.home_store(symbol).latest(symbol, interval_ms)

    def first(self, symbol: str, interval_ms: int) -> int | None:
        return self.home_store(symbol).first(symbol, interval_ms)
