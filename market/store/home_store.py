"""Every symbol's klines, each from the folder of its home venue; and the sync that chooses that venue."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from core.clock import DAY_MS, HOUR_MS, Clock
from core.errors import MarketUnavailable, WorkerError
from klines.klines import Klines
from market.failover.endings import Endings
from market.quarantine import Quarantine
from market.store.home import home_of, read_homes, write_homes
from market.store.kline_store import KlineStore
from market.store.sync import Progress, SyncReport, no_progress, sync_all
from market.venue import Venue

Wanted = tuple[str, int, int]  # symbol, interval_ms, start_ms
FRESH_MS = DAY_MS  # a home with an older newest kline is replaced by a venue that answers
ASK_AGAIN_MS = HOUR_MS  # between two questions to a better venue whether it could be the home
NEWEST_ROWS = 5  # asked of a venue to see that it answers

log = structlog.get_logger()


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

    def venues(self) -> list[str]:
        """The venues that have a folder, by name."""
        return sorted({path.parent.name for path in self.root.glob("*/*-*") if path.is_dir()})

    def folders(self) -> list[KlineStore]:
        """The folder of each venue that has one, by name."""
        return [self.of(venue) for venue in self.venues()]

    def home(self, symbol: str) -> str:
        """The home venue of a symbol; the first of MARKET_VENUES for a symbol without klines."""
        return home_of(self.root, symbol, self._line) or next(iter(self._line), "binance")

    def home_store(self, symbol: str) -> KlineStore:
        """The folder of a symbol's home venue."""
        return self.of(self.home(symbol))

    def series(self) -> list[tuple[str, int]]:
        """``(symbol, interval_ms)`` of each series of a home venue, by name."""
        found = {
            series for venue in self.venues() for series in self.of(venue).series() if self.home(series[0]) == venue
        }
        return sorted(found)

    def read(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """As ``KlineStore.read``."""
        return self.home_store(symbol).read(symbol, interval_ms, start_ms, end_ms)

    def latest(self, symbol: str, interval_ms: int) -> int | None:
        """As ``KlineStore.latest``."""
        return self.home_store(symbol).latest(symbol, interval_ms)

    def first(self, symbol: str, interval_ms: int) -> int | None:
        """As ``KlineStore.first``."""
        return self.home_store(symbol).first(symbol, interval_ms)


class HomeSync:
    """Syncs each symbol from its home venue, and moves the home where a better venue can fill a folder of its own.

    The home is the first venue of the line that answers and can tell as much as is wanted. A home whose klines are of
    the last day stays the home while its venue is away: its hole is filled when that venue is back.

    Args:
        store: what is synced; nobody else writes it.
        venues: best first.
        aside: the quarantine that the venues put rejected rows into.
        clock: for ages.
    """

    def __init__(self, store: HomeStore, venues: Sequence[Venue], aside: Quarantine, clock: Clock) -> None:
        self._store = store
        self._venues = {venue.offer.name: venue for venue in venues}
        self._aside = aside
        self._endings = Endings(clock)
        self._asked_ms: dict[tuple[str, str], int] = {}  # by venue and symbol
        self._away: set[str] = set()  # venues that were not reached in this sync

    def sync(self, wanted: Sequence[Wanted], now_ms: int, progress: Progress = no_progress) -> list[SyncReport]:
        """Bring several series up to now.

        Returns:
            A report of each series from its home venue; a failure is in it, not raised.
        Raises:
            ConfigError: another process is writing the store.
        """
        self._away.clear()
        by_symbol: dict[str, list[Wanted]] = {}
        for series in wanted:
            by_symbol.setdefault(series[0], []).append(series)
        candidates: dict[str, str] = {}
        jobs: dict[str, list[Wanted]] = {name: [] for name in self._venues}
        for symbol, needs in by_symbol.items():
            for name in self._venues_of(symbol, needs, now_ms):
                jobs[name] += needs
                candidates[symbol] = name
        reports: dict[tuple[str, str, int], SyncReport] = {}
        done = total = 0
        for name, series_of in jobs.items():
            if not series_of:
                continue

            def show(settled: int, missing: int, before: tuple[int, int] = (done, total)) -> None:
                nonlocal done, total
                done, total = before[0] + settled, before[1] + missing
                progress(done, total)

            for report in self.sync_from(self._venues[name], series_of, now_ms, show):
                reports[name, report.symbol, report.interval_ms] = report
        try:
            for symbol, name in candidates.items():
                self._move_home(symbol, name, by_symbol[symbol], now_ms)
        except WorkerError as error:  # a fault of the disk; series that could not be written report it too
            log.error("homes_not_kept", reason=str(error))
        return [self._report(reports, symbol, interval_ms) for symbol, interval_ms, _ in wanted]

    def sync_from(
        self, venue: Venue, wanted: Sequence[Wanted], now_ms: int, progress: Progress = no_progress
    ) -> list[SyncReport]:
        """Bring series of one venue's folder up to now, whatever their home is."""
        folder = self._store.of(venue.offer.name)
        return sync_all(folder, venue, wanted, now_ms, progress, aside=self._aside, endings=self._endings)

    def _report(self, reports: dict[tuple[str, str, int], SyncReport], symbol: str, interval_ms: int) -> SyncReport:
        found = {name: report for (name, *series), report in reports.items() if series == [symbol, interval_ms]}
        return found.get(self._store.home(symbol)) or next(iter(found.values()))

    def _venues_of(self, symbol: str, needs: Sequence[Wanted], now_ms: int) -> list[str]:
        """The venues that a symbol is synced from: its home, and after it the venue that may become the home."""
        home = home_of(self._store.root, symbol, [*self._venues])
        found = [home] if home in self._venues else []
        for name, venue in sorted(self._venues.items(), key=lambda item: not self._is_enough(item[1], needs, now_ms)):
            if name == home and self._is_fresh(home, needs, now_ms):
                return found
            if self._answers(venue, symbol, needs, now_ms, again=bool(home)):
                return [*found, name] if name not in found else found
        having = (name for name, venue in self._venues.items() if self._has(venue, needs))
        return found or [next(having, next(iter(self._venues)))]

    def _has(self, venue: Venue, needs: Sequence[Wanted]) -> bool:
        intervals = {interval_ms for _, interval_ms, _ in needs}
        return not venue.offer.key_missing and intervals <= venue.offer.intervals_ms

    def _is_enough(self, venue: Venue, needs: Sequence[Wanted], now_ms: int) -> bool:
        """True if a venue's history, or the venue's folder by now, reaches as far back as wanted."""
        rows = venue.offer.history_rows
        if rows is None:
            return True
        return all(
            now_ms - start_ms <= rows * interval_ms or self._reaches(venue.offer.name, symbol, interval_ms, start_ms)
            for symbol, interval_ms, start_ms in needs
        )

    def _reaches(self, name: str, symbol: str, interval_ms: int, start_ms: int) -> bool:
        """True if a venue's folder of a series begins within a day of a moment."""
        first_ms = self._store.of(name).first(symbol, interval_ms)
        return first_ms is not None and first_ms <= start_ms + DAY_MS

    def _is_fresh(self, name: str, needs: Sequence[Wanted], now_ms: int) -> bool:
        newest = [self._store.of(name).latest(symbol, interval_ms) for symbol, interval_ms, _ in needs]
        return all(latest is not None and now_ms - latest <= FRESH_MS for latest in newest)

    def _answers(self, venue: Venue, symbol: str, needs: Sequence[Wanted], now_ms: int, *, again: bool) -> bool:
        """True if a venue has the newest klines of a symbol; asked at most hourly once the symbol has a home."""
        name = venue.offer.name
        if not self._has(venue, needs) or name in self._away:
            return False
        if again and 0 <= now_ms - self._asked_ms.get((name, symbol), 0) < ASK_AGAIN_MS:
            return False
        self._asked_ms[name, symbol] = now_ms
        interval_ms = needs[0][1]
        end_ms = now_ms // interval_ms * interval_ms
        try:
            return len(venue.klines(symbol, interval_ms, end_ms - NEWEST_ROWS * interval_ms, end_ms)) > 0
        except WorkerError as error:
            if isinstance(error, MarketUnavailable):
                self._away.add(name)
            return False

    def _move_home(self, symbol: str, name: str, needs: Sequence[Wanted], now_ms: int) -> None:
        """Make a venue the home of a symbol once its folder reaches as far back as wanted, or as that of the home."""
        home = home_of(self._store.root, symbol, [*self._venues])
        if not home or not self._is_fresh(name, needs, now_ms):
            return
        for _, interval_ms, start_ms in needs if home in self._venues else ():
            first_ms = self._store.of(home).first(symbol, interval_ms)
            if name != home and first_ms and not self._reaches(name, symbol, interval_ms, max(start_ms, first_ms)):
                return
        homes = read_homes(self._store.root)
        if homes.get(symbol) == name:
            return
        write_homes(self._store.root, homes | {symbol: name})
        if name != home:
            remedy = "nothing; inference follows with its next start"
            log.warning("home_venue_changed", symbol=symbol, venue=name, before=home, remedy=remedy)
