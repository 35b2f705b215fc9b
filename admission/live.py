"""How a topic's real record stands: the seven criteria on what was answered, and on the epochs that were missed."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import numpy as np

from admission.criteria import LEAST_PARTICIPATION, PATIENT_DAYS, Criterion, Record, criteria, days_needed
from admission.replay import BLOCK_MS, Epochs, epoch_ms, past_with
from admission.standing import baselines
from admission.words import criteria_words
from core.clock import DAY_MS
from core.topic import Target, Topic
from klines.klines import Floats, Ints
from ledger.scores import AnsweredRecord

RECORD_DAYS = 90  # of answers that are judged, as many as are replayed

_NEEDED = Fraction(str(LEAST_PARTICIPATION))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReadiness:
    """A topic's real record by the criteria of admission.

    What the node answered counts as submitted: whether the chain took it is not known here.
    """

    criteria: Mapping[str, Criterion]  # by name, in the order of admission.criteria; empty without answers
    submitted: int  # epochs that were answered
    expected: int  # epochs from the first answer on; the one that runs now counts once it is answered or over
    missed_left: (
        int | None
    )  # epochs that may still be missed at once: more bring participation to 90 %. None: no answer
    since_ms: int  # start of the first answer's interval; 0: no answer
    expected_day: date | None  # UTC, on which all may hold if it goes on so; None: not to be foreseen
    short: str  # what falls short, in words

    @property
    def eligible(self) -> bool:
        """True if all criteria hold now."""
        return bool(self.criteria) and all(one.passed for one in self.criteria.values())

    def to_json(self) -> dict[str, Any]:
        """For ``birnn ready --json`` and the monitor's API."""
        day = self.expected_day
        return {**asdict(self), "eligible": self.eligible, "expected_day": None if day is None else day.isoformat()}


NO_ANSWER = LiveReadiness(
    criteria={},
    submitted=0,
    expected=0,
    missed_left=None,
    since_ms=0,
    expected_day=None,
    short="nothing was answered yet",
)


def live_readiness(
    topic: Topic, record: AnsweredRecord, *, now_ms: int, block_ms: float | None = None
) -> LiveReadiness:
    """Judge the answers of a topic's last RECORD_DAYS.

    Epochs follow each other in time by the topic's epoch length; those without an answer were missed, and a second
    answer within an epoch does not count.

    Args:
        record: of ``ScoreBook.record``; answers without a truth count as submitted.
        block_ms: measured time between two blocks; None if it was not measured.
    """
    kept = np.flatnonzero(record.start_ms >= now_ms - RECORD_DAYS * DAY_MS)
    kept = kept[np.argsort(record.start_ms[kept], kind="stable")]
    length_ms = epoch_ms(topic, block_ms or BLOCK_MS)
    if not len(kept):
        return NO_ANSWER
    kept = kept[_first_of_epochs(record.start_ms[kept], length_ms)]
    start_ms = record.start_ms[kept]
    gap = _epochs_since(start_ms, length_ms)
    submitted, expected = len(kept), int(gap.sum()) + _missed_since(int(start_ms[-1]), now_ms, length_ms)
    record_of = _records(topic, record, kept, gap, length_ms)
    found = _stricter([criteria(replace(one, submitted=submitted, expected=expected)) for one in record_of])
    answered_days = float(np.isfinite(record_of[-1].truth).sum()) * length_ms / DAY_MS
    expected_day = _expected_day(found, answered_days, submitted, expected, length_ms, now_ms)
    return LiveReadiness(
        criteria=found,
        submitted=submitted,
        expected=expected,
        missed_left=missed_left(submitted, expected),
        since_ms=int(start_ms[0]),
        expected_day=expected_day,
        short=_short(found, expected_day),
    )


def missed_left(submitted: int, expected: int) -> int:
    """Return how many epochs in a row may be missed from now on with participation staying above 90 %.

    >>> missed_left(100, 100), missed_left(91, 100), missed_left(90, 100), missed_left(50, 100)
    (11, 1, 0, 0)
    """
    return max(0, math.ceil(submitted / _NEEDED) - 1 - expected)


def _first_of_epochs(start_ms: Ints, length_ms: float) -> Ints | slice:
    """Return the rows of starts half an epoch or more after the one before: a height asked by hand hides no epoch.

    >>> _first_of_epochs(np.array([0, 60, 120, 180, 240, 300, 610]), 300.0)
    array([0, 3, 6])
    """
    if _epochs_since(start_ms, length_ms).all():
        return slice(None)
    rows: list[int] = []
    last_ms = -math.inf
    for row, at_ms in enumerate(start_ms.tolist()):
        if round(min(1.0, (at_ms - last_ms) / length_ms)):
            rows.append(row)
            last_ms = at_ms
    return np.array(rows)


def _epochs_since(start_ms: Ints, length_ms: float) -> Ints:
    """``(N,)`` epochs from the start before to each start; 1 for the first, 0 for a second start within an epoch."""
    since: Ints = np.rint(np.diff(start_ms, prepend=start_ms[0] - length_ms) / length_ms).astype(np.int64)
    return since


def _missed_since(start_ms: int, now_ms: int, length_ms: float) -> int:
    """Epochs after the one that began at ``start_ms`` that are over by now."""
    return max(0, int((now_ms - start_ms) / length_ms) - 1)


def _records(topic: Topic, record: AnsweredRecord, kept: Ints, gap: Ints, length_ms: float) -> list[Record]:
    """The record in the criteria's terms; of a volatility beside each of the two baselines, the stricter last."""
    truth, value, base = record.truth[kept], record.value[kept], record.base[kept]
    ratio = max(1, round(topic.horizon_ms / length_ms))

    def of(truth: Floats, forecast: Floats) -> Record:
        # A truth without a base cannot be judged either.
        return Record(
            truth=np.where(np.isfinite(forecast), truth, np.nan),
            forecast=forecast,
            gap=gap,
            horizon_min=topic.horizon_min,
            ratio=ratio,
            submitted=0,
            expected=0,
        )

    if topic.target is Target.LOG_RETURN:
        return [of(truth, value)]
    with np.errstate(divide="ignore", invalid="ignore"):
        answer = np.log(value / base)
        if topic.target is Target.PRICE:
            return [of(np.log(truth / base), answer)]
    number = np.cumsum(gap) - 1
    every = np.arange(number[-1] + 1)
    start_ms = record.start_ms[kept[0]] + (every * length_ms).astype(np.int64)

    def spread(values: Floats) -> Floats:
        of_every = np.full(len(every), np.nan)
        of_every[number] = values
        return of_every

    past = past_with(
        topic,
        Epochs(number=every, base_ms=start_ms, length_ms=length_ms, ratio=ratio),
        row=np.zeros(len(every), np.intp),
        base=spread(base),
        came_true=spread(truth),
    )
    return [of((past.truth - baseline)[number], answer - baseline[number]) for baseline in baselines(past)]


def _stricter(several: list[Mapping[str, Criterion]]) -> Mapping[str, Criterion]:
    """Each criterion of the last, or of another one if it fails only there."""
    return {
        name: next((found[name] for found in several if last.passed and not found[name].passed), last)
        for name, last in several[-1].items()
    }


def _expected_day(
    found: Mapping[str, Criterion],
    answered_days: float,
    submitted: int,
    expected: int,
    length_ms: float,
    now_ms: int,
) -> date | None:
    more_days = 0.0
    for name, one in found.items():
        if one.passed:
            continue
        if name == "participation":  # if no epoch is missed any more
            more = (_NEEDED * expected - submitted) / (1 - _NEEDED)
            more_days = max(more_days, (math.floor(more) + 1) * length_ms / DAY_MS)
        elif name == "log_aspect":
            return None  # more of the same does not change the spread
        else:
            more_days = max(more_days, days_needed(one, answered_days) - answered_days)
    if more_days > PATIENT_DAYS:
        return None
    return datetime.fromtimestamp((now_ms + more_days * DAY_MS) / 1000, UTC).date()


def _short(found: Mapping[str, Criterion], expected_day: date | None) -> str:
    failed = [name for name, one in found.items() if not one.passed]
    if not failed:
        return "nothing is short"
    when = f"; if it goes on so, all seven hold about {expected_day.isoformat()}" if expected_day else ""
    return f"short of {criteria_words(failed)}{when}"
