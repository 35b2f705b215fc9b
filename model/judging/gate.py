"""The gate: which network may answer a topic, decided by losses on rows that no compared network has seen.

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

P_VALUE_FACTOR = 3.0  # on p: the t-test passes noise built from past returns too often (docs/decisions/0004)
OLD_H = 48.0  # a champion trained longer ago gives way to a fresh network that is not significantly worse
SCORED_TICKS = 10_000  # candles over which a champion is looked at anew before each training


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The comparisons that decide whether a challenger serves a topic."""

    naive: Comparison  # with the naive forecast, on the judge rows and the evidence
    judged: Comparison | None = None  # with the naive forecast on the judge rows alone; None without evidence
    is_naive: bool = False  # True if its forecasts are the naive forecast on every judge row
    pooled: Comparison | None = None  # with the naive forecast, over all symbols of the topic's head
    champion: Comparison | None = None  # with the champion, on the judge rows; None: no champion can be used
    champion_is_naive: bool = False
    champion_age_h: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The gate's verdict, and the figures behind it."""

    promoted: bool
    reason: str
    p: float | None = None  # chance of such a verdict without skill; allows for P_VALUE_FACTOR and for two tests
    pooled: bool = False  # True if the test over all symbols carried the verdict
    effective: float = 0.0  # independent rows that the test's rows are worth
    won: int = 0
    blocks: int = 0


def decide(contest: Contest) -> Decision:
    """Decide whether a challenger serves a topic from now on.

    A challenger that differs from the naive forecast must have beaten it significantly and in most blocks, whatever
    serves now: so every network that answers has proven itself. Against a champion the mean decides; an old champion
    also gives way to a challenger that is not significantly worse.

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
    """``promoted`` is True if a challenger that differs from the naive forecast is better than it."""
    own, pooled = contest.naive, contest.pooled
    in_question = [own]
    if pooled and pooled.sound and own.no_higher:  # an edge of the other symbols must not harm this topic
        in_question.append(pooled)
    best = min(in_question, key=lambda test: 2.0 if test.better is None else test.better)
    p = best.better
    if p is not None:
        p = min(1.0, p * P_VALUE_FACTOR * (2 if pooled else 1))  # with a pooled test it has two chances

    def decision(reason: str, promoted: bool = False) -> Decision:
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
        return decision("no better than the naive forecast" if own.no_higher else "worse than the naive forecast")
    if p is None:
        return decision(
            f"too little time to tell it from the naive forecast: {own.horizons:.1f} horizons, "
            f"at least {LEAST_HORIZONS} are needed"
        )
    if p >= LEVEL:
        return decision(f"better than the naive forecast, but that may be chance: p {p:.3f}, needed is below {LEVEL}")
    if contest.judged and contest.judged.surely_worse:
        return decision(f"worse than the naive forecast on the newest rows: p {contest.judged.worse:.3f}")
    if 2 * best.won <= best.blocks:
        return decision(f"better than the naive forecast in only {best.won} of {best.blocks} blocks of time")
    return decision("better than the naive forecast", promoted=True)


def _beside_champion(contest: Contest, merit: str) -> tuple[bool, str]:
    """True if a challenger of some merit takes the champion's place, and the reason."""
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
    """Say why a champion may serve no longer, by the losses of champion and naive forecast; empty if it may.

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
    """The tick from which on a champion's rows count for its demotion.

    Rows count after it began to serve, because the earlier rows have chosen it; if they are too few, all rows count.
    Never more than the newest SCORED_TICKS candles.

    Args:
        ticks: ``(N,)`` of the rows after the champion's training, rising; at least one row.
        served_from: the tick at which the champion was promoted.
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
    """Decide for every topic that a challenger forecasts.

    Args:
        ours: the challenger's forecasts of the judge rows.
        champions: by ``Topic.key``, the champion's forecasts of the same rows and the champion's age in hours.
        interval_ms: of a candle.
        evidence: forecasts that trainings of earlier moments would have served, with truths known before the first
            judge row. Against the naive forecast they join the judge rows; against a champion judge rows alone count.
    """
    earlier: dict[str, list[TopicForecasts]] = {}
    for forecasts in evidence:
        earlier.setdefault(forecasts.topic.key, []).append(forecasts)
    judged = {forecasts.topic.key: _losses([forecasts], interval_ms) for forecasts in ours}
    losses = judged | {
        forecasts.topic.key: _losses([*earlier[forecasts.topic.key], forecasts], interval_ms)
        for forecasts in ours
        if forecasts.topic.key in earlier
    }
    pooled = _pooled(ours, losses, interval_ms)
    decisions = {}
    for forecasts in ours:
        key, steps = forecasts.topic.key, forecasts.topic.horizon_ms // interval_ms
        champion, age_h = champions.get(key, (None, 0.0))
        ticks, our_losses, _ = judged[key]
        decisions[key] = decide(
            Contest(
                naive=compare(*losses[key], steps),
                judged=compare(*judged[key], steps) if key in earlier else None,
                is_naive=_is_naive(forecasts),
                pooled=pooled.get(head_of(forecasts.topic)),
                champion=None if champion is None else compare(ticks, our_losses, champion.losses, steps),
                champion_is_naive=champion is not None and _is_naive(champion),
                champion_age_h=age_h,
            )
        )
    return decisions


def _is_naive(forecasts: TopicForecasts) -> bool:
    return bool(np.array_equal(forecasts.forecast, forecasts.naive))


def _losses(several: Sequence[TopicForecasts], interval_ms: int) -> tuple[Ints, Floats, Floats]:
    """Ticks, model losses and naive losses of all, in the given order, which must be that of time."""
    return (
        np.concatenate([forecasts.open_time_ms // interval_ms for forecasts in several]),
        np.concatenate([forecasts.losses for forecasts in several]),
        np.concatenate([forecasts.naive_losses for forecasts in several]),
    )


def _pooled(
    ours: Sequence[TopicForecasts], losses: Mapping[str, tuple[Ints, Floats, Floats]], interval_ms: int
) -> dict[Head, Comparison]:
    """The comparison over all symbols by head; a symbol counts once, however many topics ask for it."""
    of_head: dict[Head, dict[str, TopicForecasts]] = {}
    for forecasts in ours:
        of_head.setdefault(head_of(forecasts.topic), {}).setdefault(forecasts.topic.symbol, forecasts)
    found = {}
    for head, symbols in of_head.items():
        parts = symbols.values()
        steps = next(iter(parts)).topic.horizon_ms // interval_ms
        if comparison := compare_pooled((losses[forecasts.topic.key] for forecasts in parts), steps):
            found[head] = comparison
    return found
