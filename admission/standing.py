"""How a topic's answers stand: records from each midnight on, judged by the criteria at each midnight."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from admission.readiness import Days, Standing
from admission.records import Looks, looks
from admission.replay import Past
from core.clock import DAY_MS
from klines.klines import Floats, Ints
from model.features import Bools

FOLLOWED_DAYS = 30  # that a start must be followed to count; or half of a shorter replay


def baselines(past: Past) -> Sequence[Floats]:
    """The series that the criteria take off truth and answer alike, the stricter last; volatility has two."""
    return (past.back, past.fitted) if past.head.kind.is_volatility else (past.fitted,)


def standing_of(past: Past, answered: Floats, known_s: int) -> Standing:
    """Judge answers by records from each midnight to each later midnight.

    Args:
        answered: ``(E,)`` in the criteria's terms.
    """
    judged = np.isfinite(sum(baselines(past), np.zeros(len(answered))))
    begin = int(np.argmax(judged)) if judged.any() else len(answered)
    start, look, first, last = _records(past, begin)
    if not len(first):
        nothing = Days(median=None, p90=None, never=1.0)
        return Standing(eligible=False, known_s=known_s, days=nothing, holds=None, criteria={})
    found = [
        looks(
            past.truth - baseline,
            answered - baseline,
            first,
            last,
            horizon_min=past.topic.horizon_min,
            ratio=past.epochs.ratio,
        )
        for baseline in baselines(past)
    ]
    passed = np.logical_and.reduce([_all(of_baseline) for of_baseline in found])
    days, holds = _days(start, look, passed)
    return Standing(
        eligible=bool(passed[0]),
        known_s=known_s,
        days=days,
        holds=holds,
        criteria={name: of.at(0) for name, of in found[-1].items()},
    )


def admitted_after(past: Past, answered: Floats, baseline: Floats, start_ms: int, end_ms: int) -> float:
    """Days from a start until all criteria hold at a daily look; infinite if not until ``end_ms``."""
    look_ms = np.arange(start_ms + DAY_MS, end_ms + 1, DAY_MS)
    first = np.full(len(look_ms), np.searchsorted(past.epochs.base_ms, start_ms))
    last = np.searchsorted(past.epochs.base_ms + past.topic.horizon_ms, look_ms, side="right")
    found = looks(
        past.truth - baseline,
        answered - baseline,
        first,
        np.maximum(last, first + 1),
        horizon_min=past.topic.horizon_min,
        ratio=past.epochs.ratio,
    )
    passed = _all(found)
    return float(np.argmax(passed)) + 1 if passed.any() else math.inf


def _records(past: Past, begin: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return start day, look day, first epoch and end epoch of each record, the longest record first."""
    base_ms = past.epochs.base_ms[begin:]
    nothing = np.empty(0, np.int64)
    if not len(base_ms):
        return nothing, nothing, nothing, nothing
    ended_ms = past.epochs.base_ms + past.topic.horizon_ms
    end_ms = _newest_truth_ms(past)
    starts = np.arange(-(-int(base_ms[0]) // DAY_MS), -(-end_ms // DAY_MS))
    start, look = (grid.ravel() for grid in np.meshgrid(starts, starts + 1, indexing="ij"))
    later = (look > start) & (look * DAY_MS <= end_ms)
    start, look = np.append(base_ms[0] // DAY_MS, start[later]), np.append(end_ms // DAY_MS, look[later])
    first, last = (
        np.searchsorted(past.epochs.base_ms, start * DAY_MS),
        np.searchsorted(ended_ms, look * DAY_MS, "right"),
    )
    first[0], last[0] = begin, np.searchsorted(ended_ms, end_ms, "right")
    some = last > first
    some[0] = True
    return start[some], look[some], first[some], np.maximum(last, first)[some]


def _newest_truth_ms(past: Past) -> int:
    """The end of the newest interval whose truth is known."""
    known = np.flatnonzero(np.isfinite(past.truth))
    return int(past.epochs.base_ms[known[-1]]) + past.topic.horizon_ms if len(known) else 0


def _all(found: Mapping[str, Looks]) -> Bools:
    passed: Bools = np.logical_and.reduce([of.passed for of in found.values()])
    return passed


def _days(start: Ints, look: Ints, passed: Bools) -> tuple[Days, float | None]:
    """Days to admission, and the share of later days that hold, over starts that were followed for long enough."""
    start, look, passed = start[1:], look[1:], passed[1:]  # the first record is the whole replay
    if not len(start):
        return Days(median=None, p90=None, never=1.0), None
    followed = min(FOLLOWED_DAYS, (int(look.max()) - int(start.min()) + 1) // 2)
    first_days, later, held_later = [], 0, 0
    for day in np.unique(start):
        mine = start == day
        if look.max() - day < followed:
            continue
        of_mine = passed[mine][np.argsort(look[mine])]
        if not of_mine.any():
            first_days.append(math.inf)
            continue
        at = int(np.argmax(of_mine))
        first_days.append(float(np.sort(look[mine])[at] - day))
        later, held_later = later + len(of_mine) - at - 1, held_later + int(of_mine[at + 1 :].sum())
    median, p90 = (float(np.quantile(first_days, share, method="higher")) for share in (0.5, 0.9))
    days = Days(
        median=median if math.isfinite(median) else None,
        p90=p90 if math.isfinite(p90) else None,
        never=float(np.mean(np.isinf(first_days))),
    )
    return days, held_later / later if later else None
