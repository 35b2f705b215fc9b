"""The gate: which network may answer a topic, decided by losses on rows that none of the compared has seen.

Pure functions on losses; ``updater.judging`` brings the networks and the registry. The rules, their false-positive
rate and why they are as they are: docs/decisions/0004.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.sources import ADDS_NOTHING
from klines.klines import Floats, Ints
from model.heads import Head, head_of
from model.judging.comparison import LEAST_HORIZONS, LEVEL, Comparison, compare, compare_pooled
from model.judging.evaluation import TopicForecasts

P_VALUE_FACTOR = 3.0  # the t-test passes noise built from past returns too often (docs/decisions/0004)
OLD_H = 48.0  # a champion trained longer ago gives way to a fresh network that is not significantly worse
SCORED_TICKS = 10_000  # candles over which a champion is looked at anew before each training


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """All that the gate looks at when a challenger asks for a topic."""

    naive: Comparison  # with the naive forecast, on the judge rows and the evidence
    judged: Comparison | None = None  # likewise on the judge rows alone, where there is evidence beside them
    is_naive: bool = False  # its forecasts are the naive ones on every judge row
    pooled: Comparison | None = None  # with the naive forecast, over all symbols of its head
    champion: Comparison | None = None  # with the champion, on the judge rows; None: there is none that can be used
    champion_is_naive: bool = False
    champion_age_h: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the gate says, and the figures behind it."""

    promoted: bool
    reason: str
    p: float | None = None  # chance of such a verdict without skill; allows for P_VALUE_FACTOR and for two tests
    pooled: bool = False  # the test over all symbols carried the verdict
    effective: float = 0.0  # independent rows that the test's are worth
    won: int = 0
    blocks: int = 0


def decide(contest: Contest) -> Decision:
    """Whether a challenger serves a topic from now on.

    One that differs from the naive forecast must have beaten it significantly and in most blocks, whoever serves now:
    so whatever answers in the naive forecast's place has proven itself. Against a champion the mean decides; an old
    one also gives way to what is not significantly worse.

    >>> ticks = np.arange(1000)
    >>> def against(loss: float) -> Comparison:
    ...     return compare(ticks, np.full(1000, 0.7), np.full(1000, loss), 10)
    >>> decide(Contest(naive=against(1.0))).promoted
    True
    >>> decide(Contest(naive=against(0.7))).reason
    'no better than the naive forecast'
    >>> decide(Contest(naive=against(0.7), is_naive=True)).reason
    'naive: the network adds nothing'
    >>> decide(Contest(naive=against(1.0), champion=against(0.6))).reason
    'better than the naive forecast, but worse than the champion'
    """
    if not contest.naive.sound:
        return Decision(promoted=False, reason="no row to judge on, or a loss that is not finite")
    if contest.is_naive:
        promoted, reason = _beside_champion(contest, f"naive: {ADDS_NOTHING}")
        return Decision(promoted=promoted, reason=reason)
    found = _against_naive(contest)
    if not found.promoted:
        return found
    promoted, reason = _beside_champion(contest, found.reason)
    return replace(found, promoted=promoted, reason=reason)


def _against_naive(contest: Contest) -> Decision:
    """Whether a challenger that differs from the naive forecast is better; ``promoted`` says so."""
    own, pooled = contest.naive, contest.pooled
    in_question = [own]
    if pooled and pooled.sound and own.no_higher:  # what helps the others must at least not harm here
        in_question.append(pooled)
    best = min(in_question, key=lambda one: 2.0 if one.better is None else one.better)
    p = best.better
    if p is not None:
        p = min(1.0, p * P_VALUE_FACTOR * (2 if pooled else 1))  # with a pooled test it has two chances

    def say(reason: str, promoted: bool = False) -> Decision:
        return Decision(
            promoted=promoted,
            reason=reason,
            p=p,
            pooled=best is pooled,
            effective=best.effective,
            won=best.won,
            blocks=best.blocks,
        )

    if not own.lower:
        return say("no better than the naive forecast" if own.no_higher else "worse than the naive forecast")
    if p is None:
        return say(
            f"too little time to tell it from the naive forecast: {own.horizons:.1f} horizons, "
            f"at least {LEAST_HORIZONS} are needed"
        )
    if p >= LEVEL:
        return say(f"better than the naive forecast, but that may be chance: p {p:.3f}, needed is below {LEVEL}")
    if contest.judged and contest.judged.surely_worse:
        return say(f"worse than the naive forecast on the newest rows: p {contest.judged.worse:.3f}")
    if 2 * best.won <= best.blocks:
        return say(f"better than the naive forecast in only {best.won} of {best.blocks} blocks of time")
    return say("better than the naive forecast", promoted=True)


def _beside_champion(contest: Contest, merit: str) -> tuple[bool, str]:
    """True if a challenger of some merit takes a champion's place, and why."""
    champion = contest.champion
    if champion is None or not champion.sound:
        return True, merit if contest.is_naive else f"{merit}; there was no champion"
    if contest.champion_is_naive:
        return True, merit if contest.is_naive else f"{merit}, which the champion is equal to"
    if champion.no_higher:
        return True, f"{merit}, and no worse than the champion"
    age = f"the champion is {contest.champion_age_h:.0f} h old"
    if contest.champion_age_h > OLD_H and champion.worse is not None and not champion.surely_worse:
        return True, f"{merit}, and not significantly worse than the champion: {age}"
    return False, f"{merit}, but worse than the champion"


def why_demoted(scored: Comparison) -> str:
    """Why a champion may serve no longer, from its losses beside the naive forecast's; empty while it may.

    >>> ticks = np.arange(1000)
    >>> why_demoted(compare(ticks, np.full(1000, 1.1), np.full(1000, 1.0), 10))
    'worse than the naive forecast on its last 1000 rows: p 0.000, mean loss +0.1'
    >>> why_demoted(compare(ticks, np.full(1000, 1.0), np.full(1000, 1.0), 10))
    ''
    """
    if not scored.surely_worse:
        return ""
    return (
        f"worse than the naive forecast on its last {scored.rows} rows: p {scored.worse:.3f}, "
        f"mean loss {scored.mean:+.3g}"
    )


def scored_from(ticks: Ints, served_from: int, steps: int) -> int:
    """From which tick on a champion's rows count for its demotion: those after it began to serve, for the ones before
    have chosen it; where they are too few, all of them. Never more than the newest SCORED_TICKS candles.

    Args:
        ticks: ``(N,)`` of the rows after all that it was trained on, rising; at least one.
        served_from: the tick at which it was promoted.
    """
    oldest = int(ticks[-1]) + 1 - SCORED_TICKS
    enough = (int(ticks[-1]) + 1 - served_from) / steps >= LEAST_HORIZONS
    return max(oldest, served_from) if enough else oldest


def judge_topics(
    ours: Sequence[TopicForecasts],
    champions: Mapping[str, tuple[TopicForecasts, float]],
    interval_ms: int,
    evidence: Sequence[TopicForecasts] = (),
) -> dict[str, Decision]:
    """Decide for every topic that a challenger has forecasts of.

    Args:
        ours: its forecasts of the judge rows.
        champions: by ``Topic.key``, the champion's forecasts of the same rows and its age in hours.
        interval_ms: of a candle.
        evidence: what trainings of earlier moments would have served then, with truths that were known before the
            first judge row. It joins the judge rows against the naive forecast; beside a champion they alone count.
    """
    earlier: dict[str, list[TopicForecasts]] = {}
    for one in evidence:
        earlier.setdefault(one.topic.key, []).append(one)
    judged = {one.topic.key: _losses([one], interval_ms) for one in ours}
    losses = judged | {
        one.topic.key: _losses([*earlier[one.topic.key], one], interval_ms) for one in ours if one.topic.key in earlier
    }
    pooled = _pooled(ours, losses, interval_ms)
    decisions = {}
    for one in ours:
        key, steps = one.topic.key, one.topic.horizon_ms // interval_ms
        its, age_h = champions.get(key, (None, 0.0))
        ticks, our_losses, _ = judged[key]
        decisions[key] = decide(
            Contest(
                naive=compare(*losses[key], steps),
                judged=compare(*judged[key], steps) if key in earlier else None,
                is_naive=_is_naive(one),
                pooled=pooled.get(head_of(one.topic)),
                champion=None if its is None else compare(ticks, our_losses, its.losses, steps),
                champion_is_naive=its is not None and _is_naive(its),
                champion_age_h=age_h,
            )
        )
    return decisions


def _is_naive(one: TopicForecasts) -> bool:
    return bool(np.array_equal(one.forecast, one.naive))


def _losses(several: Sequence[TopicForecasts], interval_ms: int) -> tuple[Ints, Floats, Floats]:
    """Ticks, model losses and naive losses of them all, in the order given, which is that of time."""
    return (
        np.concatenate([one.open_time_ms // interval_ms for one in several]),
        np.concatenate([one.losses for one in several]),
        np.concatenate([one.naive_losses for one in several]),
    )


def _pooled(
    ours: Sequence[TopicForecasts], losses: Mapping[str, tuple[Ints, Floats, Floats]], interval_ms: int
) -> dict[Head, Comparison]:
    """By head, over each symbol once, however many topics ask the same of it."""
    of_head: dict[Head, dict[str, TopicForecasts]] = {}
    for one in ours:
        of_head.setdefault(head_of(one.topic), {}).setdefault(one.topic.symbol, one)
    found = {}
    for head, symbols in of_head.items():
        parts = symbols.values()
        steps = next(iter(parts)).topic.horizon_ms // interval_ms
        if comparison := compare_pooled((losses[one.topic.key] for one in parts), steps):
            found[head] = comparison
    return found
