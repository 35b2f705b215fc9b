"""Candles that changed after scores were made from them: the scores are made again.

Each UTC day of candles that a score was made from has a checksum in the database. A day that only grew since is the
same day; one that lost a candle, got one in a hole, or has another price was repaired. What the store's retention
deleted says nothing: the scores stay. A symbol whose home venue changed is scored again from the new venue's candles,
and a topic whose loss changed in the new loss.
"""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import structlog

from core.clock import DAY_MS, HOUR_MS, Every
from core.losses import loss_named
from core.topic import Topic
from klines.klines import Klines
from klines.spans import month_span
from klines.truth import TRADED_ROWS
from ledger.scores import EVER_MS, CandleDay, ScoreBook
from market.store.home_store import HomeStore
from market.store.month_file import Stamp, month_file, stamps_of
from model.panels import panel_of
from monitor.candles import Candles, Series, past_days

READ_COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")  # that a score reads
ROWS_BITS = 11  # 1,440 minutes
MONTHS_A_LOOK = 4  # of minutes: 0.04 s each
TOPICS_A_LOOK = 4  # whose scores are looked through for another venue: 0.2 s each after two years

log = structlog.get_logger()


def checksum(day: Klines, is_over: bool) -> int:
    """Return the checksum of the candles of one day, with their number.

    Args:
        is_over: the series has later candles, so that a candle more would fill a hole.
    """
    crc = 0
    for name in READ_COLUMNS:
        crc = zlib.crc32(np.ascontiguousarray(getattr(day, name)).data, crc)
    return (crc << ROWS_BITS | len(day)) << 1 | is_over


def is_same(known: int, day: Klines, is_over: bool) -> bool:
    """Return whether a day of candles is the one with the checksum ``known``, or only grew since."""
    if known & 1:
        return known == checksum(day, True)
    rows = known >> 1 & (1 << ROWS_BITS) - 1
    return rows <= len(day) and known == checksum(day.rows(0, rows), False)


class Repairs:
    """Finds the scores that must be made again.

    Args:
        book: where checksums and scores are.
        homes: the kline store.
        candles: what the scores are made from.
        topics: of the present config.
    """

    def __init__(self, book: ScoreBook, homes: HomeStore, candles: Candles, topics: Iterable[Topic]) -> None:
        self._book = book
        self._homes = homes
        self._candles = candles
        self._topics = tuple(topics)
        self._due = Every(HOUR_MS)
        self._to_look: list[tuple[Series, Path]] = []
        self._seen: dict[tuple[Series, Path], tuple[Stamp, Stamp]] = {}  # of files that were looked into
        self._known: dict[Series, dict[int, int]] = {}  # checksum by day, of this step
        self._found_same: set[tuple[Series, int]] = set()  # in this step
        self._venues: dict[str, str] = {}  # by Topic.key

    def forget(self) -> None:
        """Read checksums anew from now on."""
        self._known.clear()
        self._found_same.clear()

    def check(self, series: Series, klines: Klines, days: Iterable[int]) -> tuple[list[CandleDay], list[CandleDay]]:
        """Compare days of candles with their checksums.

        Args:
            klines: of the whole days, as far as they are stored.
            days: since 1970.
        Returns:
            checksums that are new or have grown, and those of days that were repaired.
        """
        first_ms, end_ms = self._candles.span(series)
        known = self._known.get(series)
        if known is None:
            known = self._known[series] = self._book.days(*series)
        grown, repaired = [], []
        for day in days:
            start_ms = day * DAY_MS
            if (series, day) in self._found_same or start_ms >= end_ms:
                continue
            if start_ms + DAY_MS <= first_ms and day in known:  # deleted by retention
                continue
            self._found_same.add((series, day))
            candles, is_over = klines.between(start_ms, start_ms + DAY_MS), end_ms >= start_ms + DAY_MS
            found, before = CandleDay(*series, day, checksum(candles, is_over)), known.get(day)
            if before is not None and not is_same(before, candles, is_over):
                repaired.append(found)
            elif before != found.checksum:
                grown.append(found)
            known[day] = found.checksum
        return grown, repaired

    def make_again(self, repaired: Sequence[CandleDay]) -> int | None:
        """Let the scores be made again that read repaired days, and keep the days' new checksums.

        Returns:
            when the first of their answers was given; None if no score read these days.
        """
        first: list[int] = []
        for day in repaired:
            start_ms = day.day * DAY_MS
            for topic in self._topics:
                if topic.symbol != day.symbol:
                    continue
                # A score reads the horizon before its base, or the candles by which a quiet price is judged.
                end_ms = start_ms + DAY_MS + 2 * topic.horizon_ms + (TRADED_ROWS + 2) * day.interval_ms
                if loss_named(topic.loss).of_returns and panel_of(topic.horizon_min).interval_ms == day.interval_ms:
                    end_ms += past_days(topic) * DAY_MS  # or the days before, by which a large return is told
                found = self._book.make_again(topic, start_ms - day.interval_ms, end_ms, venue=day.venue)
                first += [] if found is None else [found]
            log.warning(
                "candles_repaired",
                venue=day.venue,
                symbol=day.symbol,
                day=str(np.datetime64(day.day, "D")),
                meanwhile="scores that read them are made again",
            )
        if repaired:
            self._book.write((), repaired)  # now: after a kill before, the day is found again
            self._candles.forget_deviations()
        return min(first, default=None)

    def look(self, now_ms: int) -> int | None:
        """Look at some of the months that changed since they were last looked at; begins anew once an hour.

        Returns:
            as ``make_again``.
        """
        if not self._to_look and self._due.is_due(now_ms):
            self._to_look = list(self._changed())
        repaired: list[CandleDay] = []
        for _ in range(min(MONTHS_A_LOOK, len(self._to_look))):
            series, month = self._to_look[-1]
            stamps = stamps_of(month)
            repaired += self._look_into(series, month)
            self._to_look.pop()
            self._seen[series, month] = stamps
        first = self.make_again(repaired)
        moved = self._moved()
        return min((found for found in (first, moved) if found is not None), default=None)

    def _changed(self) -> Iterable[tuple[Series, Path]]:
        """Yield the months of which scores were made, and whose files are not those that were looked into."""
        for venue, symbol, interval_ms in self._book.series():
            series = Series(venue, symbol, interval_ms)
            folder = self._homes.of(venue).folder(symbol, interval_ms)
            for name in {month_file(day * DAY_MS) for day in self._book.days(*series)}:
                if self._seen.get((series, folder / name)) != stamps_of(folder / name):
                    yield series, folder / name

    def _look_into(self, series: Series, month: Path) -> list[CandleDay]:
        start_ms = int(np.datetime64(month.name[:7], "ms").astype(np.int64))
        _, end_ms = month_span(start_ms)
        days = [day for day in self._book.days(*series) if start_ms <= day * DAY_MS < end_ms]
        klines = self._homes.of(series.venue).read(series.symbol, series.interval_ms, start_ms, end_ms)
        grown, repaired = self.check(series, klines, days)
        self._book.write((), grown)
        return repaired

    def _moved(self) -> int | None:
        """Let the scores of another venue or in another loss than today's be made again.

        As far back as today's venue has candles.
        """
        first: list[int] = []
        looked = 0
        for topic in self._topics:
            venue = self._candles.venue_of(topic)
            if looked == TOPICS_A_LOOK:
                break
            if self._venues.get(topic.key) == venue or not self._candles.told_ms(topic):
                continue
            looked += 1
            begins_ms = min(begin for begin, end in map(self._candles.span, self._candles.series_of(topic)) if end)
            found = self._book.make_again(topic, begins_ms + 2 * topic.horizon_ms, EVER_MS, but_venue=venue)
            first += [] if found is None else [found]
            self._venues[topic.key] = venue
        return min(first, default=None)
