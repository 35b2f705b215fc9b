"""The losses of a champion's answers beside the naive forecast's, in the ways in which they can be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.clock import MINUTE_MS
from core.settings import Objective
from core.sources import NAIVE
from core.topic import Target, Topic
from klines.klines import Bools, Floats, Ints
from ledger.scores import Columns
from model.judging.comparison import Comparison, compare
from model.judging.live import why_demoted_live
from model.registry.champions import Champion
from model.stretch import Stretch, objective_of

DRIFT = 2.0  # the stretch of the last days was at most this many times the present one

Pair = tuple[Floats, Floats]  # (N,) losses of the answers, (N,) of the naive forecast


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveLosses:
    """What a champion answered, N rows."""

    ticks: Ints  # (N,) start of each interval, in minutes
    pairs: Sequence[Pair]  # losses in the topic's own loss; if answers are stretched, also without the stretch


def live_losses(
    topic: Topic, champion: Champion, columns: Columns, setting: Objective, stretch: Stretch | None = None
) -> LiveLosses:
    """Return the losses of a champion's answers; answers that were the naive forecast, stretched or not, are left out.

    Args:
        columns: of the topic, since the champion serves it.
        setting: OBJECTIVE.
        stretch: of the topic's answers now; None: not known.
    """
    rows = (
        (columns.version == champion.version)
        & (columns.forecast != NAIVE)
        & (columns.end_ms - columns.start_ms == topic.horizon_ms)
        & np.isfinite(columns.loss + columns.naive_loss)
    )
    pairs = [(columns.loss[rows], columns.naive_loss[rows])]
    if objective_of(topic, setting) is not Objective.LOSS:
        pairs.append(_unstretched(topic, columns, rows, stretch))
    return LiveLosses(ticks=columns.start_ms[rows] // MINUTE_MS, pairs=pairs)


def why_worse(topic: Topic, losses: LiveLosses) -> str:
    """Say why a champion may serve a topic no longer, by what it answered; empty if it may."""
    return why_demoted_live(losses.ticks, losses.pairs, topic.horizon_min)


def compare_live(topic: Topic, losses: LiveLosses) -> Comparison:
    """Compare the answers with the naive forecast, in the way in which they look best."""
    found = [compare(losses.ticks, *pair, topic.horizon_min) for pair in losses.pairs]
    return max(found, key=lambda one: math.inf if one.worse is None else one.worse)


def _unstretched(topic: Topic, columns: Columns, rows: Bools, stretch: Stretch | None) -> tuple[Floats, Floats]:
    """Squared errors of answers whose stretch is taken back, and of the naive forecast, which has none.

    A stretch costs loss on purpose, and the naive forecast in the champion's place would be stretched alike. How far
    each answer was stretched is not recorded. So of all factors that are possible the one counts with which the
    answers look best: a champion goes only if it is worse even then.
    """
    value, naive, truth = (column[rows] for column in (columns.value, columns.naive, columns.truth))
    if topic.target is Target.VOLATILITY:  # the expected logarithm is answered, which lies below the expectation
        low, high = 1.0, math.exp(DRIFT * max(0.0, -stretch.shift)) if stretch else math.inf
    else:
        low, high = 1 / (DRIFT * stretch.factor) if stretch else 0.0, 1.0
    if topic.target is Target.PRICE:
        base = columns.plain_naive[rows]
        value, naive, truth = np.log(value / base), np.log(naive / base), np.log(truth / base)
    power = float(value @ value)
    share = min(high, max(low, float(value @ truth) / power)) if power > 0 else 1.0
    return (truth - share * value) ** 2, (truth - naive) ** 2
