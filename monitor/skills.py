"""The skill of what was really answered, by topic, version and day, from the scores of the last 30 days in memory."""

import threading
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

import numpy as np

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Topic
from klines.klines import Bools, Ints
from ledger.scores import Recent, Score, ScoreBook, columns_of, joined
from model.judging.skill import Skill, skill_of

KEPT_DAYS = 30
SPANS_DAYS = (1, 7, KEPT_DAYS)
WAITING = 100  # scores of a topic that may wait for the next question as objects, which take ten times the memory


class SkillBook:
    """Skills of topics; safe to use from several threads.

    Args:
        book: where the scores are read from.
        topics: of the present config.
    """

    def __init__(self, book: ScoreBook, topics: Iterable[Topic]) -> None:
        self._book = book
        self._topics = {topic.key: topic for topic in topics}
        self._columns: dict[str, Recent] = {}  # by Topic.key
        self._new: dict[str, dict[int, Score]] = {}  # by Topic.key and height: not in ``_columns`` yet
        self._known: dict[tuple[str, int], tuple[int, Skill]] = {}  # by Topic.key and days: when it was made
        self._newest_ms = 0
        self._lock = threading.Lock()

    def load(self, now_ms: int) -> None:
        """Read the scores of the last 30 days; raises ``ledger.database.FAULTS``."""
        for key, topic in self._topics.items():
            columns = self._book.recent(topic, now_ms - KEPT_DAYS * DAY_MS)
            with self._lock:
                self._columns[key] = columns
                self._forget(key)
        self._newest_ms = now_ms

    def add(self, scores: Iterable[Score], now_ms: int) -> None:
        """Add scores that were just made, in place of those of the same answers."""
        with self._lock:
            for score in scores:
                self._new.setdefault(score.key, {})[score.height] = score
                self._forget(score.key)
            many = [key for key, new in self._new.items() if len(new) > WAITING]
        self._newest_ms = now_ms
        for key in many:
            self.of(key)

    def _forget(self, key: str) -> None:
        for days in SPANS_DAYS:
            self._known.pop((key, days), None)

    def of(self, key: str) -> Recent:
        """Return the losses of the last 30 days of a topic; none of a topic of another config."""
        with self._lock:
            known = self._columns.get(key) or columns_of(Recent, [])
            new = self._new.pop(key, {})
            oldest_ms = self._newest_ms - KEPT_DAYS * DAY_MS
            if new or (len(known) and known.end_ms[0] < oldest_ms - DAY_MS):
                stays = ~np.isin(known.height, list(new)) & (known.end_ms >= oldest_ms)
                known = _joined(
                    _where(known, stays), columns_of(Recent, [_cells(one) for one in new.values() if not one.reason])
                )
                self._columns[key] = known
        return known

    def skill(self, key: str, days: int, now_ms: int | None = None) -> Skill:
        """Return the skill of a topic's last days: the share of the naive forecast's loss that was saved.

        Args:
            days: up to 30.
            now_ms: the end of these days; None is when scores were last added.
        """
        now_ms = now_ms or self._newest_ms
        known = self._known.get((key, days))
        if known and 0 <= now_ms - known[0] < MINUTE_MS:
            return known[1]
        columns = self.of(key)
        skill = self._skill(key, columns, columns.end_ms >= now_ms - days * DAY_MS)
        if days in SPANS_DAYS:
            self._known[key, days] = now_ms, skill
        return skill

    def by_version(self, key: str) -> dict[str, Skill]:
        """Return the skill of each version that answered within 30 days, the newest first."""
        columns = self.of(key)
        versions = dict.fromkeys(reversed(columns.version.tolist()))
        return {version: self._skill(key, columns, columns.version == version) for version in versions}

    def by_day(self, key: str) -> dict[int, Skill]:
        """Return the skill of each UTC day, by the day since 1970 that the intervals ended in, oldest first."""
        columns = self.of(key)
        day = columns.end_ms // DAY_MS
        return {int(one): self._skill(key, columns, day == one) for one in np.unique(day)}

    def _skill(self, key: str, columns: Recent, rows: Bools) -> Skill:
        if key not in self._topics:
            return Skill(n=0, skill=None, low=None, high=None)
        ticks = columns.end_ms[rows] // MINUTE_MS
        return skill_of(ticks, columns.loss[rows], columns.naive_loss[rows], self._topics[key].horizon_min)


NAMES = tuple(field.name for field in fields(Recent))
_cells = attrgetter(*NAMES)


def _where(columns: Recent, rows: Bools | Ints) -> Recent:
    return Recent(**{name: cells[rows] for name, cells in zip(NAMES, _cells(columns), strict=True)})


def _joined(first: Recent, second: Recent) -> Recent:
    both = joined([first, second])
    return _where(both, np.lexsort((both.height, both.end_ms)))
