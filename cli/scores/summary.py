"""The scores of a topic summed up: as a whole, by the version that answered, or by day."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from cli.scores.record import NotScorable
from core.clock import DAY_MS, MINUTE_MS, iso
from core.topic import Topic
from klines.klines import Bools, Floats
from ledger.scores import Columns, Score, columns_of
from model.judging.skill import Skill, skill_of

MOST_REASONS = 5
OTHER_REASONS = "other reasons"


class By(StrEnum):
    """What a row of the table is about."""

    TOPIC = "topic"
    VERSION = "version"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Means over some scored answers of one topic; None without one."""

    name: str  # the version, or the UTC day; empty for the whole topic
    skill: Skill  # against the naive forecast that knew as much
    loss: float | None  # in the topic's own loss
    naive_loss: float | None
    right_direction: float | None  # share of the answers, among those where answer and truth moved from the base
    error_bp: float | None  # mean of the errors: above 0 the answers are too high
    abs_error_bp: float | None  # mean of their sizes
    not_scorable: Mapping[str, int]  # answers that could not be scored, by reason


def summaries(topic: Topic, found: Columns, missing: Sequence[NotScorable], by: By) -> Iterator[Summary]:
    """Yield a summary for each version or day that has an answer, or one for the whole topic; no answer is in two.

    Args:
        found: the scored answers.
        missing: the answers that cannot be scored.
    """
    if by is By.TOPIC:
        yield _summary(topic, found, np.ones(len(found), np.bool_), missing, "")
        return
    if by is By.DAY:
        days = found.end_ms // DAY_MS
        for day in sorted({*days.tolist(), *(one.day for one in missing)}):
            of = [one for one in missing if one.day == day]
            yield _summary(topic, found, days == day, of, iso(day * DAY_MS)[:10])
        return
    versions = (*found.version.tolist(), *(one.version for one in missing))
    for version in dict.fromkeys(versions):  # in order of their first answers
        of = [one for one in missing if one.version == version]
        yield _summary(topic, found, found.version == version, of, version)


def summary_of(topic: Topic, scored: Sequence[Score]) -> Summary:
    """The summary of some scored answers to a topic."""
    rows = [tuple(getattr(score, field.name) for field in fields(Columns)) for score in scored]
    return next(summaries(topic, columns_of(Columns, rows), (), By.TOPIC))


def _summary(topic: Topic, found: Columns, rows: Bools, missing: Sequence[NotScorable], name: str) -> Summary:
    loss, naive_loss, error_bp = found.loss[rows], found.naive_loss[rows], found.error_bp[rows]
    # As monitor.skills has it, so that both say the same to the last digit.
    skill = skill_of(found.end_ms[rows] // MINUTE_MS, loss, naive_loss, topic.horizon_min)
    return Summary(
        name=name,
        skill=skill,
        loss=_mean(loss),
        naive_loss=_mean(naive_loss),
        right_direction=_mean(found.right_direction[rows]),
        error_bp=_mean(error_bp),
        abs_error_bp=_mean(np.abs(error_bp)),
        not_scorable=_counted(missing),
    )


def _mean(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _counted(missing: Sequence[NotScorable]) -> dict[str, int]:
    """Count the answers by reason; all but the most frequent reasons together."""
    counts: Counter[str] = Counter()
    for one in missing:
        counts[one.reason] += one.answers
    found = dict(counts.most_common(MOST_REASONS))
    if others := counts.total() - sum(found.values()):
        found[OTHER_REASONS] = others
    return found
