"""The answers that were given, so that a question asked again gets the same answer, also after a restart.

The first answer to (network, topic, height) stands. Asking looks into memory alone. An answer is in the journal, and
so with the operating system, before it is sent; a thread writes it into the database within milliseconds. The database
is read at the start, and for questions older than memory. While the disk is full or read-only, or PostgreSQL is away,
at the start or later, answers stay in memory and in the journal, and are written as soon as the database takes them. A
damaged SQLite file is set aside, at the start or whenever the damage is met, and the answers in memory are written
into a new file. All answers of a large file are read for that in the background, once after the start.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from core.clock import Clock
from core.errors import ConfigError, WorkerError
from core.seldom import Seldom
from core.topic import Topic
from ledger.answers import Answer
from ledger.background_writer import BackgroundWriter
from ledger.database import FAULTS, Database
from ledger.journal import Journal, remove
from ledger.schema import QUESTION, OlderSchema, is_away, is_damaged, one_line

RECENT = 128  # answers kept in memory per topic: a day of ten-minute epochs
READS_CLOSE_S = 0.2  # when the ledger is closed, no question waits for a read
READ_S = 1.0  # for the database to return an older answer; the node would wait without end
READS_WAITING = 1_000  # older answers that may be waited for: about as many as the database returns in READ_S
# Answers of this long are committed together. A commit takes Python's lock and the event loop's core for a while: under
# load two hundred commits a second cost a tenth of all answers.
GATHER_S, BUSY_GATHER_S = 0.005, 0.1

log = structlog.get_logger()


class Ledger:
    """The answers of the configured topics.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        topics: whose newest answers are held in memory.
        market: BINANCE or SIMULATED; answers from the other market do not count.
        clock: for the name under which a damaged file is set aside.
        folder: of the journal.
        recent: answers per topic held in memory.
    Raises:
        ConfigError: the database cannot be used, and the reason is not a full or read-only disk, or a server that is
            away. One line with the database and the remedy.
    """

    def __init__(
        self, url: str, topics: Iterable[Topic], market: str, clock: Clock, folder: Path, *, recent: int = RECENT
    ) -> None:
        self.failures = 0  # writes and reads that failed
        self.dropped = 0  # answers that could not be queued for writing
        self.unjournalled = 0  # answers that a kill before they are in the database would lose
        self._market = market
        self._capacity = recent
        self._recent: dict[str, dict[int, Answer]] = {}  # Topic.key -> height -> answer, oldest entry first
        self._elsewhere: dict[str, int] = {}  # Topic.key -> greatest height that only the database may know
        self._unwritten: dict[tuple[str, int], Answer] = {}  # queued for the database
        self._seldom = Seldom()
        self._remembering = threading.Lock()  # held for a few dictionary operations and a write to the page cache
        self._topics = tuple(topics)
        self._database = Database(url, clock)
        self._journal = Journal(folder)
        self._begun = False  # True once the tables are there and memory has the newest rows
        self._filing = threading.Lock()  # held while answers are written or a file is set aside
        self._set_aside = 0  # files, since the start
        if self._database.refusal:
            self._count_failure("ledger_not_written", self._database.refusal)
        try:
            self._begin()
        except (*FAULTS, OlderSchema) as error:  # a disk that refuses cannot be upgraded either
            if is_away(error):
                self._count_failure("ledger_not_written", one_line(error))
            elif not self._database.refusal:
                raise (error if isinstance(error, ConfigError) else self._database.unusable(error)) from error
            self._load_unwritable()
        self._writer = BackgroundWriter[Answer]("ledger", self._write, gather_s=GATHER_S, busy_gather_s=BUSY_GATHER_S)
        self._reading_since_s: float | None = None  # when the present read began
        self._reader = BackgroundWriter[tuple[Topic, int, Future[None]]](
            "ledger-reads", self._look_up, capacity=READS_WAITING
        )
        if self._database.is_large:
            threading.Thread(target=self._check, name="ledger-check", daemon=True).start()

    def recall(self, topic: Topic, height: int) -> Answer | None:
        """Return the answer to this question if memory has it."""
        key = (topic.key, height)
        answer = self._recent.get(topic.key, {}).get(height) or self._unwritten.get(key)
        return answer if answer and answer.answers(topic, self._market) else None

    def newest(self, topic: Topic) -> Answer | None:
        """Return the last answer to the topic's present question that memory has."""
        known = [answer for answer in self._recent.get(topic.key, {}).values() if answer.answers(topic, self._market)]
        return max(known, key=lambda answer: answer.answered_ms, default=None)

    def look_up(self, topic: Topic, height: int) -> "Future[None]":
        """Run ``fetch`` in the ledger's reading thread.

        Returns:
            a future that is done after ``fetch``; cancel it after ``READ_S``.
        Raises:
            WorkerError: the database hangs in an earlier question, or too many questions are waiting.
        """
        done: Future[None] = Future()
        began_s = self._reading_since_s
        hangs = began_s is not None and time.monotonic() - began_s > READ_S
        if hangs or not self._reader.put((topic, height, done)):
            raise silent(topic, height)
        return done

    def _look_up(self, batch: Sequence[tuple[Topic, int, "Future[None]"]]) -> Sequence[Any]:
        for topic, height, done in batch:
            if not done.set_running_or_notify_cancel():
                continue
            self._reading_since_s = time.monotonic()
            try:
                self.fetch(topic, height)
            except Exception as error:  # noqa: BLE001 -- raised where the future is awaited
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                self._reading_since_s = None
        return ()

    def may_be_elsewhere(self, topic: Topic, height: int) -> bool:
        """True if the database may have an answer that memory lacks: call ``fetch`` before a new answer is made."""
        if height > self._elsewhere.get(topic.key, -1):
            return False
        return height not in self._recent.get(topic.key, {}) and (topic.key, height) not in self._unwritten

    def fetch(self, topic: Topic, height: int) -> None:
        """Bring an answer from the database into memory, if there is one. Waits: not for the event loop.

        A database that cannot be read is logged and counted; the question is then answered anew.
        """
        try:
            answer = self._database.find(topic, height)
        except FAULTS as error:
            self._count_failure("ledger_not_read", one_line(error))
            return
        if answer and answer.answers(topic, self._market):
            with self._remembering:
                self._remember(answer, (topic.key, height))

    def keep(self, answer: Answer) -> Answer:
        """Record an answer, unless its question has one already.

        Returns:
            the answer that stands: ``answer``, or an earlier answer to the question.
        """
        if answer.height is None:
            return answer
        key = (answer.key, answer.height)
        try:
            with self._remembering:
                standing = self._remember(answer, key)
                if standing is not answer:
                    return standing
                self._unwritten[key] = answer
                self._journal.append(answer)
        except OSError as error:  # of the disk, which answers do not need
            self.unjournalled += 1
            self._say("answer_not_journalled", error.strerror or str(error))
        if not self._writer.put(answer):
            self.dropped += 1
            self._unwritten.pop(key, None)
        return answer

    def note_block_times(self, time_of: Callable[[Topic, int], int | None], since_ms: int) -> None:
        """Fill in block times that became known after their questions were answered. Waits: not for the event loop.

        Args:
            time_of: returns a block's time in ms; None while it is not known.
            since_ms: older answers are left as they are.
        """
        for topic in self._topics:
            for height, answer in list(self._recent.get(topic.key, {}).items()):
                if (
                    answer.block_ms is not None
                    or answer.answered_ms < since_ms
                    or (answer.key, height) in self._unwritten
                ):
                    continue
                if (block_ms := time_of(topic, height)) is not None:
                    self._note_block_time(answer, height, block_ms)

    def _note_block_time(self, answer: Answer, height: int, block_ms: int) -> None:
        try:
            self._database.note_block_time(answer, block_ms)
        except FAULTS as error:
            self._count_failure("ledger_not_written", one_line(error))
            return
        with self._remembering:
            self._recent[answer.key][height] = answer._replace(block_ms=block_ms)

    @property
    def unwritten(self) -> int:
        """Number of answers that the database does not have yet."""
        return len(self._unwritten)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write the queued answers and close the database."""
        self._reader.close(min(timeout_s, READS_CLOSE_S))
        if left := self._writer.close(timeout_s):
            log.error("ledger_closed_early", answers_in_journal_alone=left)
        with self._remembering:  # while a file is set aside, another thread begins the journal anew
            self._journal.close(all_written=self._begun and not self._unwritten and not self.dropped)
        self._database.disconnect()

    def _remember(self, answer: Answer, key: tuple[str, int]) -> Answer:
        topic, height = key
        known = self._recent.setdefault(topic, {})
        standing = known.get(height) or self._unwritten.get(key)
        if standing and _same_question(standing, answer):
            return standing
        known[height] = answer
        if len(known) > self._capacity:
            oldest = next(iter(known))
            self._elsewhere[topic] = max(oldest, self._elsewhere.get(topic, -1))
            del known[oldest]
        return answer

    def _begin(self) -> None:
        """Make the database ready and load its newest answers; tried again later if that fails at the start."""
        try:
            try:
                self._fill()
            except FAULTS as error:
                if not is_damaged(error):
                    raise
                self._database.set_aside(error)
                self._fill()
        except BaseException:
            self._database.disconnect()
            raise
        self._journal.forget_left()
        self._begun = True

    def _fill(self) -> None:
        """Write what the database may lack, and load its newest answers."""
        self._database.make_ready()
        with self._remembering:  # of a file that was set aside since the start
            known = [answer for answers in self._recent.values() for answer in answers.values()]
        if lacking := [*self._journal.left, *known]:
            self._database.write(lacking)
        if self._journal.left:
            log.info("journal_replayed", answers=len(self._journal.left))
        self._load(self._database.newest(self._topics, self._capacity))

    def _check(self) -> None:
        """Read all answers of a large file, behind everything else that this machine does."""
        before = self._set_aside
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread, on Linux
        try:
            self._database.check()
        except FAULTS as error:
            with self._filing:
                if is_damaged(error) and self._set_aside == before:
                    self._begin_anew(error)
                elif not is_damaged(error):
                    self._say("ledger_not_checked", one_line(error))
        else:
            log.info("ledger_checked")

    def _begin_anew(self, damage: Exception) -> None:
        """Set a file aside that was found damaged; what memory knows is written into a new one, now or once it can."""
        self._begun = False
        self._shorten_journal()  # to all answers in memory: a kill would lose them while the new file is empty
        try:
            self._database.set_aside(damage)
            self._set_aside += 1
            self._begin()
        except (*FAULTS, ConfigError) as error:
            self._count_failure("ledger_not_begun_anew", one_line(error))

    def _load_unwritable(self) -> None:
        self._load(self._database.newest_unwritable(self._topics, self._capacity))
        known = sum(map(len, self._recent.values()))
        with self._remembering:
            for answer in self._journal.left:
                self._remember(answer, (answer.key, answer.height or 0))
        log.warning(
            "ledger_waits",
            answers_known=known + len(self._journal.left),
            meanwhile="answers are kept in memory; after a restart before they are written, a question may get another",
        )

    def _load(self, newest: Mapping[str, Sequence[Answer]]) -> None:
        for key, rows in newest.items():
            found = {answer.height: answer for answer in rows if answer.height is not None}
            with self._remembering:
                # In front of the answers that this process gave while the database could not be read.
                self._recent[key] = found | self._recent.get(key, {})
                if len(found) == self._capacity:
                    self._elsewhere[key] = max(min(found) - 1, self._elsewhere.get(key, -1))

    def _write(self, batch: Sequence[Answer]) -> Sequence[Answer]:
        if self._journal.is_long:
            self._shorten_journal()
        with self._filing:
            try:
                if not self._begun:
                    self._begin()
                self._database.write(batch)
            except (*FAULTS, ConfigError) as error:
                self._count_failure("ledger_not_written", one_line(error), answers=len(batch))
                self._database.disconnect()
                if is_damaged(error):
                    self._begin_anew(error)
                return batch
        for answer in batch:
            self._unwritten.pop((answer.key, answer.height or 0), None)
        return ()

    def _shorten_journal(self) -> None:
        """Begin the journal anew with the answers that the database may lack."""
        try:
            with self._remembering:
                lacking = dict(self._unwritten)
                if not self._begun:
                    for topic, known in self._recent.items():
                        lacking |= {(topic, height): answer for height, answer in known.items()}
                before = self._journal.begin_anew(lacking.values())
        except OSError as error:
            self._say("journal_not_shortened", error.strerror or str(error))
        else:
            remove(before)  # outside the lock: no answer is to wait for megabytes

    def _count_failure(self, event: str, reason: str, **more: object) -> None:
        self.failures += 1
        self._say(event, reason, **more)

    def _say(self, event: str, reason: str, **more: object) -> None:
        if count := self._seldom.due(event):
            log.error(event, reason=reason, count=count, **self._database.remedy, **more)


def silent(topic: Topic, height: int) -> WorkerError:
    """Return the error for a question whose older answer the database does not return in time."""
    return WorkerError(
        f"topic {topic.key}: whether height {height} was answered before is not known: the ledger's database does not "
        f"answer within {READ_S:g} s; look at DATABASE_URL and the disk of DATA_DIR"
    )


def _same_question(first: Answer, second: Answer) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in ("network", *QUESTION))
