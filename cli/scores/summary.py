"""The scores of a topic summed up: as a whole, by the version that answered, or by day."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cli.scores.record import Scores
from core.clock import DAY_MS, iso
from core.topic import Topic
from klines.klines import Floats
from model.features import Bools
from model.heads import head_of
from model.judging.skill import Skill, skill_of
from model.panels import panel_of

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


def summaries(topic: Topic, found: Scores, by: By) -> Iterator[Summary]:
    """Yield a summary for each version or day that has a row, or one for the whole topic. No row is in two of them."""
    if by is By.TOPIC:
        yield _summary(topic, found, np.ones(len(found), np.bool_), "")
        return
    if by is By.DAY:
        days = found.end_ms // DAY_MS
        for day in np.unique(days):
            yield _summary(topic, found, days == day, iso(int(day) * DAY_MS)[:10])
        return
    for version in dict.fromkeys(found.version):  # in order of their first answers
        yield _summary(topic, found, found.version == version, version)


def steps_of(topic: Topic) -> int:
    """Return the topic's horizon in candles of its panel."""
    return panel_of(topic.horizon_min).steps(head_of(topic))


def _summary(topic: Topic, found: Scores, of: Bools, name: str) -> Summary:
    scored = of & np.isfinite(found.loss) & np.isfinite(found.naive_loss)
    loss, naive_loss = found.loss[scored], found.naive_loss[scored]
    ticks = found.end_ms[scored] // panel_of(topic.horizon_min).interval_ms
    error_bp = found.error_bp[scored]
    return Summary(
        name=name,
        skill=skill_of(ticks, loss, naive_loss, steps_of(topic)),
        loss=_mean(loss),
        naive_loss=_mean(naive_loss),
        right_direction=_mean(found.right_direction[scored]),
        error_bp=_mean(error_bp),
        abs_error_bp=_mean(np.abs(error_bp)),
        not_scorable=_counted(found.reason[of & ~scored].tolist()),
    )


def _mean(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _counted(reasons: list[str]) -> dict[str, int]:
    """Count the reasons; all but the most frequent ones together."""
    counts = Counter(reasons).most_common()
    found = dict(counts[:MOST_REASONS])
    if others := sum(count for _, count in counts[MOST_REASONS:]):
        found[OTHER_REASONS] = others
    return found
