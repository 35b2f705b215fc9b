"""The rule by which a champion is demoted for what it really answered.

It may be asked at any time: the answers are judged when they cover LEAST_HORIZONS of time, and again whenever they
cover GROWTH times as much. In between, the newest of these looks stands, so asking every few minutes is no new look and
does not raise the rate at which chance demotes. docs/decisions/0004 has that rate.
"""

from collections.abc import Sequence

import numpy as np

from klines.klines import Floats, Ints
from model.judging.comparison import LEAST_HORIZONS, compare
from model.judging.significance import horizons_so_far

GROWTH = 1.5  # of the covered time, from one look to the next
# Of a single look. A week of five-minute horizons has ten looks, and losses of forecasts that follow the past are
# skewed so that the test finds them worse too often: with this level all looks together stay below 5 %.
LIVE_LEVEL = 0.0025

ROUNDING = 1e-9  # of a horizon


def looks(ticks: Ints, steps: int) -> list[int]:
    """Return how many of the oldest rows each look reads, the first look first.

    >>> looks(np.arange(899), 10), looks(np.arange(900), 10), looks(np.arange(399), 10)
    ([400, 600], [400, 600, 900], [])
    """
    covered = horizons_so_far(ticks, steps)
    found, due = [], float(LEAST_HORIZONS)
    while len(covered) and covered[-1] >= due - ROUNDING:
        found.append(int(np.searchsorted(covered, due - ROUNDING)) + 1)
        due *= GROWTH
    return found


def why_demoted_live(ticks: Ints, pairs: Sequence[tuple[Floats, Floats]], steps: int) -> str:
    """Say why a champion may serve no longer, by the losses of its answers; empty if it may.

    Args:
        ticks: ``(N,)`` place in time of each answer's interval, rising.
        pairs: one or more times ``(N,)`` losses of the answers and of what would have been answered without the
            champion. The answers must be significantly worse by every pair. The message has the figures of the first.
        steps: the horizon in ticks.

    >>> ticks = np.arange(1000)
    >>> why_demoted_live(ticks, [(np.full(1000, 1.1), np.full(1000, 1.0))], 10)
    'worse than the naive forecast on what it answered: 900 answers in 90 horizons, p 0.0000, mean loss +0.1'
    >>> why_demoted_live(ticks, [(np.full(1000, 1.0), np.full(1000, 1.0))], 10)
    ''
    """
    if not (of_looks := looks(ticks, steps)):
        return ""
    rows = of_looks[-1]
    found = [compare(ticks[:rows], ours[:rows], theirs[:rows], steps) for ours, theirs in pairs]
    if not all(one.worse is not None and one.worse < LIVE_LEVEL and not one.no_higher for one in found):
        return ""
    p = max(one.worse or 0.0 for one in found)
    return (
        f"worse than the naive forecast on what it answered: {rows} answers in {found[0].horizons:.0f} horizons, "
        f"p {p:.4f}, mean loss {found[0].mean:+.3g}"
    )
