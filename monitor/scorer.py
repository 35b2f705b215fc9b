"""Scores every answer once its interval is over, the oldest first, and catches up after any time away.

An answer is due while it has no score, or that of another answer or interval; so a kill at any moment costs nothing,
and nothing is scored twice. Two ways find what is due. One follows each topic: from the oldest answer that waits for
its candles up to the newest whose interval is over. The other sweeps through all answers, a day of them at a time, at
the start and once a day: it finds the rows that a journal brought in late, and the scores that must be made again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import structlog

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Every
from core.errors import WorkerError
from core.losses import loss_named
from core.seldom import Seldom
from core.topic import Topic
from klines.klines import Klines
from ledger.answers import Answer
from ledger.database import FAULTS
from ledger.schema import one_line
from ledger.scores import CandleDay, Score, ScoreBook, start_ms_of
from market.store.home_store import HomeStore
from monitor.candles import Candles, Series
from monitor.repairs import Repairs
from monitor.scoring import another_question, missing_ms, missing_words, scored, span_of, unscored
from monitor.skills import SkillBook

PAGE = 1_000  # answers read, scored and written together
ROWS_A_STEP = 8_000
DAYS_A_STEP = 20  # of answers that are gone through
# Times of blocks become known up to two hours after an answer, and move its interval; the rest is room.
LATE_MS = 3 * HOUR_MS
APART_MS = DAY_MS  # answers further apart are not scored from one reading of the candles

log = structlog.get_logger()


class Scorer:
    """Makes the scores. One thread calls ``step`` again and again; no failure of store or database leaves it.

    Args:
        book: where answers are read and scores written.
        homes: the kline store.
        topics: of the present config.
        market: BINANCE or SIMULATED; answers from the other market cannot be scored.
        skills: is told of new scores.
        truth_venue: TRUTH_VENUE; empty if there is none.
    Attributes:
        fault: why the last step failed, in a line; empty if it did not.
    """

    def __init__(
        self,
        book: ScoreBook,
        homes: HomeStore,
        topics: Iterable[Topic],
        market: str,
        skills: SkillBook | None = None,
        *,
        truth_venue: str = "",
    ) -> None:
        self.fault = ""
        self._book = book
        self._topics = {topic.key: topic for topic in topics}
        self._market = market
        self._skills = skills
        self._candles = Candles(homes, truth_venue)
        self._repairs = Repairs(book, homes, self._candles, self._topics.values())
        self._seldom = Seldom()
        self._loaded = False
        self._followed: set[tuple[int, int, tuple[str, ...]]] = set()  # groups that were gone through
        self._follow_again = Every(MINUTE_MS)  # candles that were missing come, and blocks get their times
        self._since_ms: dict[str, int] = {}  # by Topic.key: what was answered before is done with
        self._sweep_ms: int | None = None  # what was answered before was gone through; None: there is nothing to do
        self._sweep_due = Every(DAY_MS)

    def step(self, now_ms: int) -> int:
        """Score some of the answers that are due.

        Returns:
            how many scores were written; call again at once while it is above 0 or ``is_sweeping``, and else after some
            seconds.
        """
        self._candles.forget()
        self._repairs.forget()
        try:
            made = self._step(now_ms)
        except FAULTS as error:
            self._say("scores_not_made", one_line(error), "look at DATABASE_URL; it is tried again")
        except WorkerError as error:
            self._say("scores_not_made", str(error), "look at the disk of DATA_DIR; it is tried again")
        except Exception as error:  # noqa: BLE001 -- scoring must go on, whatever a look at store or database brings
            self._say("scores_not_made", repr(error), "report it; it is tried again", traceback=True)
        else:
            self.fault = ""
            return made
        finally:
            self._candles.forget()  # their memory
        return 0

    @property
    def is_sweeping(self) -> bool:
        """True while older answers are gone through: there may be more to score although a step made nothing."""
        return self._sweep_ms is not None

    def _say(self, event: str, reason: str, remedy: str, *, traceback: bool = False) -> None:
        self.fault = reason
        if count := self._seldom.due(event, reason):
            log.error(event, reason=reason, remedy=remedy, count=count, exc_info=traceback)

    def _step(self, now_ms: int) -> int:
        if self._skills and not self._loaded:
            self._skills.load(now_ms)
            self._loaded = True
        if self._skills:
            self._skills.add((), now_ms)  # its days go on also when nothing is scored
        told = {key: min(now_ms, self._candles.told_ms(topic)) for key, topic in self._topics.items()}
        told = {key: told_ms for key, told_ms in told.items() if told_ms > 0}
        if not told:
            self._sweep_ms, self._sweep_due = None, Every(DAY_MS)  # begun anew once there are candles
            return 0
        if self._sweep_due.is_due(now_ms) or told.keys() - self._since_ms.keys():
            self._sweep_ms = 0
        again_ms = self._repairs.look(now_ms)
        oldest_ms = min(told.values())
        for key in told:
            # The rows before it are those of the sweep.
            self._since_ms.setdefault(key, oldest_ms - self._topics[key].horizon_ms - LATE_MS)
        self._sweep_again(again_ms)
        if self._follow_again.is_due(now_ms):
            self._followed.clear()
        made = 0
        for (told_ms, horizon_ms), keys in _grouped(told, self._topics):
            if made >= ROWS_A_STEP:
                return made
            if (told_ms, horizon_ms, tuple(keys)) not in self._followed:
                made += self._follow(keys, told_ms, horizon_ms, now_ms, ROWS_A_STEP - made)
        for _ in range(DAYS_A_STEP):
            if self._sweep_ms is None or made >= ROWS_A_STEP:
                break
            made += self._sweep(told, now_ms)
        return made

    def _follow(self, keys: Sequence[str], told_ms: int, horizon_ms: int, now_ms: int, most: int) -> int:
        """Score what topics of one horizon have that is over; goes on next time where it ended."""
        topics = [self._topics[key] for key in keys]
        at_ms, end_ms = min(self._since_ms[key] for key in keys), told_ms - horizon_ms + LATE_MS
        made, oldest = 0, dict.fromkeys(keys, told_ms - horizon_ms - LATE_MS)
        while True:
            page = self._book.due(
                topics, told_ms, PAGE, since_ms=at_ms, until_ms=end_ms, horizon_min=horizon_ms // MINUTE_MS
            )
            found, waiting = self._score(page, now_ms)
            made += found
            for answer in waiting:
                oldest[answer.key] = min(oldest[answer.key], answer.answered_ms)
            if len(page) < PAGE:
                self._followed.add((told_ms, horizon_ms, tuple(keys)))
                break
            at_ms = max(page[-1].answered_ms, at_ms + 1)
            if made >= most:
                oldest = {key: min(since_ms, at_ms) for key, since_ms in oldest.items()}
                break
        for key, since_ms in oldest.items():
            self._since_ms[key] = max(self._since_ms[key], since_ms)
        return made

    def _sweep(self, told: Mapping[str, int], now_ms: int) -> int:
        """Score what was answered within one day and has no score yet."""
        first_ms = self._book.first_ms(self._sweep_ms or 0)
        if first_ms is None:
            self._sweep_ms = None
            return 0
        end_ms = first_ms // DAY_MS * DAY_MS + DAY_MS
        topics, newest_ms = [self._topics[key] for key in told], max(told.values())
        page = self._book.due(topics, newest_ms, PAGE, since_ms=first_ms, until_ms=end_ms)
        over = [one for one in page if start_ms_of(one) + one.horizon_min * MINUTE_MS <= told[one.key]]
        made, waiting = self._score(over, now_ms)
        for answer in waiting:
            self._since_ms[answer.key] = min(self._since_ms[answer.key], answer.answered_ms)
        self._sweep_ms = end_ms if len(page) < PAGE else max(page[-1].answered_ms, first_ms + 1)
        return made

    def _sweep_again(self, from_ms: int | None) -> None:
        if from_ms is not None:
            self._sweep_ms = from_ms if self._sweep_ms is None else min(from_ms, self._sweep_ms)

    def _score(self, page: Sequence[Answer], now_ms: int) -> tuple[int, list[Answer]]:
        """Score and write a page of answers; returns how many, and those that wait for candles."""
        found: list[Score] = []
        waiting: list[Answer] = []
        grown: list[CandleDay] = []
        repaired: list[CandleDay] = []
        for run in _runs(page):
            days: dict[Series, set[int]] = defaultdict(set)
            read: dict[tuple[str, Series], Klines] = {}
            for answer in sorted(run, key=self._symbol_of):  # Candles keeps the returns of one symbol
                score = self._score_of(answer, run, now_ms, days, read)
                if score is None:
                    waiting.append(answer)
                else:
                    found.append(score)
            for series, touched in days.items():
                klines = self._candles.read(series, min(touched) * DAY_MS, (max(touched) + 1) * DAY_MS)
                new, changed = self._repairs.check(series, klines, sorted(touched))
                grown += new
                repaired += changed
        self._book.write(found, grown)
        if self._skills and found:
            self._skills.add(found, now_ms)
        self._sweep_again(self._repairs.make_again(repaired))
        return len(found), waiting

    def _symbol_of(self, answer: Answer) -> str:
        return self._topics[answer.key].symbol

    def _score_of(
        self,
        answer: Answer,
        run: Sequence[Answer],
        now_ms: int,
        days: Mapping[Series, set[int]],
        read: dict[tuple[str, Series], Klines],
    ) -> Score | None:
        """Return an answer's score; None while its candles may still come.

        Args:
            run: the answers that are scored from the same candles.
            days: takes the days of candles that the score was made from.
            read: candles by ``Topic.key`` and series, for all of the run; takes those that were read.
        """
        topic = self._topics[answer.key]
        venue, start_ms = self._candles.venue_of(topic), start_ms_of(answer)
        if reason := another_question(topic, answer, self._market):
            return unscored(answer, now_ms, venue, reason)
        several = self._candles.series_of(topic)
        stored = [series for series in several if self._candles.span(series)[1]] or several
        reasons: list[str] = []
        for series in stored:
            if (topic.key, series) not in read:
                first_ms, _ = span_of(topic, start_ms_of(run[0]), series.interval_ms)
                _, end_ms = span_of(topic, start_ms_of(run[-1]), series.interval_ms)
                read[topic.key, series] = self._candles.read(series, first_ms, end_ms)
            klines = read[topic.key, series]
            missing = missing_ms(topic, start_ms, klines)
            if missing is not None and self._candles.comes([series, *several], missing):
                return None
            first_ms, end_ms = span_of(topic, start_ms, series.interval_ms)
            days[series].update(range(first_ms // DAY_MS, (end_ms - 1) // DAY_MS + 1))
            if missing is None:
                return self._scored(topic, answer, klines, venue, now_ms)
            reasons.append(missing_words(topic, missing, series.interval_ms, venue))
        return unscored(answer, now_ms, venue, reasons[0])

    def _scored(self, topic: Topic, answer: Answer, klines: Klines, venue: str, now_ms: int) -> Score:
        try:
            std = self._candles.deviation(topic, start_ms_of(answer)) if loss_named(topic.loss).of_returns else 1.0
            return scored(topic, answer, klines, venue, std, now_ms)
        except (WorkerError, ValueError) as error:
            return unscored(answer, now_ms, venue, str(error))


def _grouped(told: Mapping[str, int], topics: Mapping[str, Topic]) -> Iterator[tuple[tuple[int, int], list[str]]]:
    """Yield the topics that are over up to the same moment and have the same horizon."""
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, told_ms in told.items():
        groups[told_ms, topics[key].horizon_ms].append(key)
    yield from groups.items()


def _runs(page: Sequence[Answer]) -> Iterator[list[Answer]]:
    """Yield answers whose intervals begin near each other, in their order."""
    run: list[Answer] = []
    for answer in sorted(page, key=start_ms_of):
        if run and start_ms_of(answer) - start_ms_of(run[-1]) > APART_MS:
            yield run
            run = []
        run.append(answer)
    if run:
        yield run
