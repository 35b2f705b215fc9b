"""The scores of answers in SQLite or PostgreSQL: the monitor writes them, and all may read them.

Every call waits for the disk or the network, and raises one of ``ledger.database.FAULTS`` if the database cannot be
used now. Each call opens a connection of its own: a file that was set aside as damaged is never read or written again.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from core.clock import MINUTE_MS
from core.topic import Topic, topic_key
from ledger.answers import Answer
from ledger.database import file_of, open_made
from ledger.places import place_of
from ledger.retention import trim
from ledger.schema import answers, candle_days, scores
from ledger.upsert import upsert

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A reader meets the pages of all topics at once; with the 256 kB of a writer a sweep took three times as long.
READ_CACHE_KB = 1_024
WRITTEN_TOGETHER = 1_000  # scores of one transaction: inference waits for its turn to write meanwhile
READ_TOGETHER = 2_000  # rows that are Python objects at the same time
TO_BE_MADE_AGAIN = 0  # in the column ``scored_ms``
EVER_MS = 2**62


class Score(NamedTuple):
    """What came of an answer. The fields are in the order of the table's columns; numbers are in the topic's unit."""

    network: str  # chain id; empty when the config does not say
    topic_id: int
    height: int
    answered_ms: int  # of the answer that was scored
    version: str
    forecast: str  # "network" or "naive"; empty in rows of older releases
    start_ms: int  # of the interval
    end_ms: int
    scored_ms: int  # 0: to be made again
    reason: str = ""  # why the answer cannot be scored; empty if it was scored
    venue: str = ""  # of the truth
    # None in a score with a reason.
    value: float | None = None
    truth: float | None = None
    truth_sd: float | None = None
    naive: float | None = None  # the naive forecast that knows what the answer knew
    plain_naive: float | None = None  # the naive forecast of the base: its price, 0, or the volatility before it
    loss: float | None = None
    naive_loss: float | None = None
    plain_naive_loss: float | None = None
    right_direction: bool | None = None  # None also if truth or answer did not move from the base
    error_bp: float | None = None
    loss_name: str = ""  # Topic.loss in which the losses are; empty if it is not known, or the score has a reason

    @property
    def key(self) -> str:
        """``Topic.key`` of the answered topic."""
        return topic_key(self.network, self.topic_id)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recent:
    """The losses of a topic's scored answers, N rows, by the end of their intervals, in the topic's loss.

    Answers that cannot be scored are left out.
    """

    height: Ints  # (N,)
    end_ms: Ints  # (N,)
    version: npt.NDArray[np.object_]  # (N,) str
    loss: Floats  # (N,)
    naive_loss: Floats  # (N,)

    def __len__(self) -> int:
        return len(self.height)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns(Recent):
    """All numbers of a topic's scored answers, in the topic's unit."""

    plain_naive_loss: Floats  # (N,)
    right_direction: Floats  # (N,) 1 or 0; NaN if truth or answer did not move from the base
    forecast: npt.NDArray[np.object_]  # (N,) str: "network" or "naive"; empty in rows of older releases
    start_ms: Ints  # (N,)
    value: Floats  # (N,)
    truth: Floats  # (N,)
    truth_sd: Floats  # (N,)
    naive: Floats  # (N,) the naive forecast that knows what the answer knew
    plain_naive: Floats  # (N,) the naive forecast of the base: its price, 0, or the volatility before it
    error_bp: Floats  # (N,)


class CandleDay(NamedTuple):
    """A checksum of the candles of one UTC day. The fields are in the order of the table's columns."""

    venue: str
    symbol: str
    interval_ms: int
    day: int  # since 1970
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredRecord:
    """Every answer to a topic's question, N rows by height, and what came true where that is known; topic's unit."""

    height: Ints  # (N,)
    start_ms: Ints  # (N,) of the interval
    value: Floats  # (N,)
    truth: Floats  # (N,) NaN: not scored yet, or not to be scored
    base: Floats  # (N,) price at the start, 0, or volatility of the window that ended there; NaN likewise


AnyColumns = TypeVar("AnyColumns", Recent, Columns, AnsweredRecord)
TEXTS = {"version", "forecast"}
TYPES = {"height": np.int64, "start_ms": np.int64, "end_ms": np.int64, **dict.fromkeys(TEXTS, np.object_)}
"""Other columns are floats."""
START_MS = sa.func.coalesce(answers.c.block_ms - answers.c.block_ms % MINUTE_MS, answers.c.base_ms)
"""When an answer's interval begins: at its block's time cut to the minute if that is known, else at the base."""
OF_ONE_QUESTION = sa.and_(*(answers.c[column.name] == scores.c[column.name] for column in scores.primary_key))


def start_ms_of(answer: Answer) -> int:
    """Return when an answer's interval begins; in SQL it is START_MS."""
    return answer.base_ms if answer.block_ms is None else answer.block_ms - answer.block_ms % MINUTE_MS


class ScoreBook:
    """Reads and writes the table of scores, and reads the answers beside it.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL; an SQLite file is never made, and only ``write`` and the calls that
            say so open it for writing.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """

    def __init__(self, url: str) -> None:
        self._readers, self._writers = open_made(url, cache_kb=READ_CACHE_KB), open_made(url, "rw")
        self._file = file_of(url)
        self._scores, self._days = (upsert(self._writers, table) for table in (scores, candle_days))

    @property
    def is_begun(self) -> bool:
        """False if the database is an SQLite file that is not there: nothing was answered yet."""
        return self._file is None or self._file.is_file()

    def due(
        self,
        topics: Iterable[Topic],
        now_ms: int,
        limit: int,
        *,
        since_ms: int = 0,
        until_ms: int = EVER_MS,
        horizon_min: int | None = None,
    ) -> list[Answer]:
        """Return answers whose interval is over and that have no score, or that of another answer or interval.

        Args:
            topics: whose answers are looked at.
            limit: most answers that are returned, the first that were given.
            since_ms, until_ms: answers that were given then, the end excluded.
            horizon_min: answers of this horizon alone; None is all.
        """
        pairs = [place_of(topic) for topic in topics]
        where = [
            answers.c.answered_ms >= since_ms,
            answers.c.answered_ms < until_ms,
            sa.tuple_(answers.c.network, answers.c.topic_id).in_(pairs),
            START_MS + answers.c.horizon_min * MINUTE_MS <= now_ms,
            sa.or_(
                scores.c.height.is_(None),
                scores.c.answered_ms != answers.c.answered_ms,
                scores.c.start_ms != START_MS,
                scores.c.scored_ms == TO_BE_MADE_AGAIN,
            ),
        ]
        if horizon_min is not None:
            where.append(answers.c.horizon_min == horizon_min)
        query = sa.select(answers).outerjoin(scores, OF_ONE_QUESTION).where(*where)
        with self._readers.connect() as connection:
            return [Answer(*row) for row in connection.execute(query.order_by(answers.c.answered_ms).limit(limit))]

    def first_ms(self, since_ms: int = 0) -> int | None:
        """Return when the first answer since a moment was given; None without answers."""
        first = sa.select(sa.func.min(answers.c.answered_ms)).where(answers.c.answered_ms >= since_ms)
        with self._readers.connect() as connection:
            found: int | None = connection.execute(first).scalar_one()
        return found

    def write(self, found: Sequence[Score], days: Iterable[CandleDay] = ()) -> None:
        """Write scores and checksums, in place of those with the same keys; opens the database for writing.

        The checksums are written with the last of the scores: after a kill before that nothing says that the others
        were made from these candles, and the candles are compared again.
        """
        days = list(days)
        for first in range(0, max(1, len(found)), WRITTEN_TOGETHER):
            some = found[first : first + WRITTEN_TOGETHER]
            with self._writers.begin() as connection:
                if some:
                    _insert(connection, self._scores, some)
                if days and first + WRITTEN_TOGETHER >= len(found):
                    _insert(connection, self._days, days)

    def days(self, venue: str, symbol: str, interval_ms: int) -> dict[int, int]:
        """Return the checksum of each day of a series that scores were made from, by the day since 1970."""
        of = candle_days.c
        query = sa.select(of.day, of.checksum).where(
            of.venue == venue, of.symbol == symbol, of.interval_ms == interval_ms
        )
        with self._readers.connect() as connection:
            return {row.day: row.checksum for row in connection.execute(query)}

    def series(self) -> list[tuple[str, str, int]]:
        """Return ``(venue, symbol, interval_ms)`` of each series that has checksums."""
        of = candle_days.c
        with self._readers.connect() as connection:
            rows = connection.execute(sa.select(of.venue, of.symbol, of.interval_ms).distinct()).all()
        return [(venue, symbol, interval_ms) for venue, symbol, interval_ms in rows]

    def make_again(
        self, topic: Topic, start_ms: int, end_ms: int, *, venue: str = "", but_venue: str = ""
    ) -> int | None:
        """Let the scores be made again whose intervals end in ``[start_ms, end_ms)``; opens the database for writing.

        Args:
            venue: only scores of this venue; empty is any.
            but_venue: scores of this venue in the topic's present loss stay; empty is none.
        Returns:
            when the first of their answers was given; None if there are no such scores.
        """
        network, topic_id = place_of(topic)
        where = sa.and_(
            scores.c.network == network,
            scores.c.topic_id == topic_id,
            scores.c.end_ms >= start_ms,
            scores.c.end_ms < end_ms,
            scores.c.venue == venue if venue else sa.true(),
            sa.or_(scores.c.venue != but_venue, _is_of_another_loss(topic)) if but_venue else sa.true(),
        )
        with self._writers.begin() as connection:
            first: int | None = connection.execute(sa.select(sa.func.min(scores.c.answered_ms)).where(where)).scalar()
            if first is not None:
                connection.execute(scores.update().where(where).values(scored_ms=TO_BE_MADE_AGAIN))
        return first

    def recent(self, topic: Topic | str, since_ms: int, until_ms: int = EVER_MS) -> Recent:
        """Return the losses of a topic's answers whose intervals end in ``[since_ms, until_ms)``.

        Args:
            topic: scores in another loss than the topic's present one are left out. Or its ``Topic.key``: all scores.
        """
        return self._columns(Recent, topic, since_ms, until_ms)

    def columns(self, topic: Topic | str, since_ms: int, until_ms: int = EVER_MS) -> Columns:
        """Do as ``recent`` with all numbers of the scored answers."""
        return self._columns(Columns, topic, since_ms, until_ms)

    def _columns(self, kind: type[AnyColumns], topic: Topic | str, since_ms: int, until_ms: int) -> AnyColumns:
        network, topic_id = place_of(topic)
        names = [field.name for field in fields(kind)]
        query = (
            sa.select(*(scores.c[name] for name in names))
            .where(
                scores.c.network == network,
                scores.c.topic_id == topic_id,
                scores.c.end_ms >= since_ms,
                scores.c.end_ms < until_ms,
                scores.c.reason == "",
                sa.not_(_is_of_another_loss(topic)) if isinstance(topic, Topic) else sa.true(),
            )
            .order_by(scores.c.end_ms, scores.c.height)
        )
        with self._readers.connect() as connection:
            parts = [columns_of(kind, rows) for rows in connection.execute(query).partitions(READ_TOGETHER)]
        return joined(parts or [columns_of(kind, [])])

    def record(self, topic: Topic, market: str, since_ms: int) -> AnsweredRecord:
        """Return the answers to the topic's present question whose intervals begin at ``since_ms`` or later.

        Args:
            market: BINANCE or SIMULATED.
        """
        network, topic_id = place_of(topic)
        of = answers.c
        query = (
            sa.select(of.height, START_MS, of.value, scores.c.truth, scores.c.plain_naive)
            .outerjoin(scores, OF_ONE_QUESTION)
            .where(of.network == network, of.topic_id == topic_id)
            .where(of.market == market, of.symbol == topic.symbol)
            .where(of.target == topic.asked, of.horizon_min == topic.horizon_min)
            .order_by(of.height.desc())
            .limit(READ_TOGETHER)
        )
        parts, below = list[AnsweredRecord](), sa.true()
        with self._readers.connect() as connection:
            while True:
                rows = connection.execute(query.where(below)).all()
                new = [row for row in reversed(rows) if row[1] >= since_ms]
                parts.append(columns_of(AnsweredRecord, new))
                if len(rows) < READ_TOGETHER or not new:  # heights rise with time: older rows need not be read
                    break
                below = of.height < rows[-1][0]
        return joined(parts[::-1])

    def answers_of(
        self, topic: Topic | str, limit: int, before_height: int | None = None
    ) -> list[tuple[Answer, Score | None]]:
        """Return the answers of the greatest heights, the newest first, each with its score; None: not scored yet.

        Args:
            topic: or its ``Topic.key``.
            before_height: only answers below this height; None is all.
        """
        network, topic_id = place_of(topic)
        where = [answers.c.network == network, answers.c.topic_id == topic_id]
        if before_height is not None:
            where.append(answers.c.height < before_height)
        query = sa.select(answers, scores).outerjoin(scores, OF_ONE_QUESTION).where(*where)
        width = len(answers.c)
        with self._readers.connect() as connection:
            rows = connection.execute(query.order_by(answers.c.height.desc()).limit(limit))
            return [(Answer(*row[:width]), None if row[width] is None else Score(*row[width:])) for row in rows]

    def stream(
        self,
        topics: Iterable[Topic | str],
        since_ms: int = 0,
        until_ms: int = EVER_MS,
        *,
        rows_together: int = READ_TOGETHER,
    ) -> Iterator[list[tuple[Answer, Score | None]]]:
        """Yield the answers that were given in ``[since_ms, until_ms)`` in batches, each answer with its score.

        One topic after the other, by height; at no time are more than ``rows_together`` rows in memory.
        """
        for network, topic_id in map(place_of, topics):
            height = -1
            while True:
                query = sa.select(answers, scores).outerjoin(scores, OF_ONE_QUESTION)
                query = query.where(
                    answers.c.network == network,
                    answers.c.topic_id == topic_id,
                    answers.c.height > height,
                    answers.c.answered_ms + 0 >= since_ms,  # a sum, so that the rows are found by their heights
                    answers.c.answered_ms + 0 < until_ms,
                )
                with self._readers.connect() as connection:
                    rows = connection.execute(query.order_by(answers.c.height).limit(rows_together)).all()
                width = len(answers.c)
                if rows:
                    yield [(Answer(*row[:width]), None if row[width] is None else Score(*row[width:])) for row in rows]
                if len(rows) < rows_together:
                    break
                height = rows[-1][2]

    def unscorable(self, topic: Topic, since_ms: int) -> int:
        """Count the answers that cannot be scored and whose intervals end at ``since_ms`` or later."""
        network, topic_id = place_of(topic)
        where = (
            scores.c.network == network,
            scores.c.topic_id == topic_id,
            scores.c.end_ms >= since_ms,
            scores.c.reason != "",
        )
        with self._readers.connect() as connection:
            count: int = connection.execute(sa.select(sa.func.count()).where(*where)).scalar_one()
        return count

    def trim(self, now_ms: int, days: int, most_rows: int) -> int:
        """Do as ``ledger.retention.trim``; opens the database for writing."""
        return trim(self._writers, now_ms, days, most_rows)

    def close(self) -> None:
        """Close all connections."""
        self._readers.dispose()
        self._writers.dispose()


def _is_of_another_loss(topic: Topic) -> sa.ColumnElement[bool]:
    """Scores from before the config gave the topic its present loss."""
    return scores.c.loss_name.not_in(["", topic.loss])


def columns_of(kind: type[AnyColumns], rows: Sequence[Sequence[Any]]) -> AnyColumns:
    """Return rows, whose cells are in the order of the columns' fields, as columns."""
    names = [field.name for field in fields(kind)]
    cells: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(names)
    return kind(**{name: _column(name, of) for name, of in zip(names, cells, strict=True)})


def joined(parts: Sequence[AnyColumns]) -> AnyColumns:
    """Return the rows of several columns, one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _column(name: str, cells: Sequence[Any]) -> npt.NDArray[Any]:
    if name in TEXTS:
        cells = [*map(sys.intern, cells)]  # the database returns a text of its own for each row
    return np.array(cells, TYPES.get(name, np.float64))  # None becomes NaN


def _insert(connection: sa.Connection, statement: sa.Insert, rows: Sequence[Score] | Sequence[CandleDay]) -> None:
    if connection.dialect.name == "sqlite":  # past SQLAlchemy, which binds row by row at four times the cost
        names = [column.name for column in statement.table.c]
        connection.exec_driver_sql(str(statement.compile(connection, column_keys=names)), [tuple(row) for row in rows])
    else:
        connection.execute(statement, [row._asdict() for row in rows])
