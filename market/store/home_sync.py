"""The sync of every symbol's klines, which chooses the symbol's home venue."""

from collections.abc import Sequence
from functools import partial

import structlog

from core.clock import DAY_MS, HOUR_MS, Clock
from core.errors import MarketUnavailable, WorkerError
from market.failover.endings import Endings
from market.quarantine import Quarantine
from market.store.home import home_of, read_homes, write_homes
from market.store.home_store import HomeStore
from market.store.sync import Progress, SyncReport, no_progress, sync_all
from market.venue import Venue

Wanted = tuple[str, int, int]  # symbol, interval_ms, start_ms
FRESH_MS = DAY_MS  # a home with an older newest kline is replaced by a venue that answers
ASK_AGAIN_MS = HOUR_MS  # between two questions to a better venue whether it could be the home
NEWEST_ROWS = 5  # asked of a venue to see that it answers

log = structlog.get_logger()


class HomeSync:
    """Syncs each symbol from its home venue, and moves the home where a better venue can fill a folder of its own.

    The home is the first venue of the line that answers and can tell as much as is wanted. A home whose klines are of
    the last day stays the home while its venue is away: its hole is filled when that venue is back.

    Args:
        store: what is synced; nobody else writes it.
        venues: best first.
        quarantine: the quarantine that the venues put rejected rows into.
        clock: for ages.
    """

    def __init__(self, store: HomeStore, venues: Sequence[Venue], quarantine: Quarantine, clock: Clock) -> None:
        self._store = store
        self._venues = {venue.info.name: venue for venue in venues}
        self._quarantine = quarantine
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
        by_symbol = {symbol: [one for one in wanted if one[0] == symbol] for symbol, _, _ in wanted}
        venues = {symbol: self._venues_of(symbol, needs, now_ms) for symbol, needs in by_symbol.items()}
        shown: dict[str, tuple[int, int]] = {}

        def show(name: str, settled: int, missing: int) -> None:
            shown[name] = settled, missing
            progress(sum(done for done, _ in shown.values()), sum(rows for _, rows in shown.values()))

        reports: list[SyncReport] = []
        for name, venue in self._venues.items():
            series = [one for symbol, needs in by_symbol.items() if name in venues[symbol] for one in needs]
            if series:
                reports += self.sync_from(venue, series, now_ms, partial(show, name))
        try:
            for symbol, names in venues.items():
                self._move_home(symbol, names[-1], by_symbol[symbol], now_ms)
        except WorkerError as error:  # a fault of the disk; series that could not be written report it too
            log.error("homes_not_kept", reason=str(error))
        # Of two reports of a series the one of its home venue counts, if there is one.
        reports.sort(key=lambda report: report.venue == self._store.home(report.symbol))
        by_series = {(report.symbol, report.interval_ms): report for report in reports}
        return [by_series[symbol, interval_ms] for symbol, interval_ms, _ in wanted]

    def sync_from(
        self, venue: Venue, wanted: Sequence[Wanted], now_ms: int, progress: Progress = no_progress
    ) -> list[SyncReport]:
        """Bring series of one venue's folder up to now, whatever their home is."""
        folder = self._store.of(venue.info.name)
        return sync_all(folder, venue, wanted, now_ms, progress, quarantine=self._quarantine, endings=self._endings)

    def _venues_of(self, symbol: str, needs: Sequence[Wanted], now_ms: int) -> list[str]:
        """The venues that a symbol is synced from: its home, and after it the venue that may become the home."""
        home = home_of(self._store.root, symbol, [*self._venues])
        found = [home] if home in self._venues else []
        for name, venue in sorted(self._venues.items(), key=lambda item: not self._is_enough(item[1], needs, now_ms)):
            if name == home and self._is_fresh(home, needs, now_ms):
                return found
            if self._answers(venue, symbol, needs, now_ms, again=bool(home)):
                return [*found, name] if name not in found else found
        having = (name for name, venue in self._venues.items() if _has(venue, needs))
        return found or [next(having, next(iter(self._venues)))]

    def _is_enough(self, venue: Venue, needs: Sequence[Wanted], now_ms: int) -> bool:
        """True if a venue's history, or the venue's folder by now, reaches as far back as wanted."""
        rows = venue.info.history_rows
        return rows is None or all(
            now_ms - start_ms <= rows * interval_ms or self._reaches(venue.info.name, symbol, interval_ms, start_ms)
            for symbol, interval_ms, start_ms in needs
        )

    def _reaches(self, name: str, symbol: str, interval_ms: int, start_ms: int) -> bool:
        """True if a venue's folder of a series begins within a day of a moment."""
        first_ms = self._store.of(name).first(symbol, interval_ms)
        return first_ms is not None and first_ms <= start_ms + DAY_MS

    def _is_fresh(self, name: str, needs: Sequence[Wanted], now_ms: int) -> bool:
        store = self._store.of(name)
        return all(now_ms - (store.latest(symbol, interval) or 0) <= FRESH_MS for symbol, interval, _ in needs)

    def _answers(self, venue: Venue, symbol: str, needs: Sequence[Wanted], now_ms: int, *, again: bool) -> bool:
        """True if a venue has the newest klines of a symbol; asked at most hourly once the symbol has a home."""
        name = venue.info.name
        if not _has(venue, needs) or name in self._away:
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
        for _, interval_ms, start_ms in needs if home in self._venues and home != name else ():
            first_ms = self._store.of(home).first(symbol, interval_ms)
            if first_ms and not self._reaches(name, symbol, interval_ms, max(start_ms, first_ms)):
                return
        homes = read_homes(self._store.root)
        if homes.get(symbol) == name:
            return
        write_homes(self._store.root, homes | {symbol: name})
        if name != home:
            remedy = "nothing; inference follows with its next start"
            log.warning("home_venue_changed", symbol=symbol, venue=name, before=home, remedy=remedy)


def _has(venue: Venue, needs: Sequence[Wanted]) -> bool:
    intervals = {interval_ms for _, interval_ms, _ in needs}
    return not venue.info.key_missing and intervals <= venue.info.intervals_ms
