"""Two forecasters' losses on the same rows: which mean is lower, and how surely."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from klines.klines import Floats, Ints
from model.judging.significance import mean_over_time

LEVEL = 0.05  # a difference that chance makes this large so often or more counts as none
LEAST_HORIZONS = 40  # of time below which there is no verdict
BLOCKS = 5  # disjoint, with a horizon between them
TOLERANCE = 1e-9  # relative: equal losses may differ in the last digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The losses of one forecaster against another's on the same rows.

    After Diebold and Mariano, J. Business & Economic Statistics 13(3), 1995, with the standard error and small-sample
    distribution of ``model.judging.significance``.
    """

    rows: int
    mean: float  # its loss less the other's, in the unit of the loss; NaN without rows or where a loss is not finite
    close: float  # below this size a mean is rounding
    better: float | None  # chance of such a mean or a lower one if both were equally good; None: too little time
    worse: float | None  # likewise of such a mean or a higher one
    horizons: float  # of time that the rows cover
    effective: float  # independent rows that they are worth
    won: int  # blocks in which its loss is the lower one
    blocks: int  # that have rows on which the two do not lose the same

    @property
    def sound(self) -> bool:
        """Whether there are rows, and every loss is finite."""
        return math.isfinite(self.mean)

    @property
    def lower(self) -> bool:
        """Lower in the mean."""
        return self.mean < -self.close

    @property
    def no_higher(self) -> bool:
        """As low in the mean, or lower."""
        return self.mean <= self.close

    @property
    def surely_worse(self) -> bool:
        """Significantly so."""
        return self.worse is not None and self.worse < LEVEL and not self.no_higher


def compare(ticks: Ints, ours: Floats, theirs: Floats, steps: int) -> Comparison:
    """Whether one forecaster has the lower expected loss.

    Args:
        ticks: ``(N,)`` place of each row in time, in candles, rising.
        ours, theirs: ``(N,)`` losses.
        steps: the horizon in candles.

    >>> noise = np.random.default_rng(0).standard_normal((2, 3000))
    >>> same = compare(np.arange(3000), noise[0] ** 2, noise[1] ** 2, 1)
    >>> better = compare(np.arange(3000), 0.8 * noise[0] ** 2, noise[1] ** 2, 1)
    >>> same.better > 0.05, better.better < 0.01, better.won
    (True, True, 5)
    """
    finite = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    lead = ours - theirs if finite else np.full(len(ours), math.nan)
    over_time = mean_over_time(lead, ticks, steps)
    blocks = [part for part in _blocks(ticks, steps) if lead[part].any()]
    enough = over_time.horizons >= LEAST_HORIZONS and math.isfinite(over_time.error)
    return Comparison(
        rows=len(lead),
        mean=over_time.value,
        close=TOLERANCE * float(np.mean(np.abs(theirs))) if len(theirs) and finite else 0.0,
        better=over_time.p_below if enough else None,
        worse=over_time.p_above if enough else None,
        horizons=over_time.horizons,
        effective=over_time.effective,
        won=sum(float(lead[part].mean()) < 0 for part in blocks),
        blocks=len(blocks),
    )


def compare_pooled(several: Iterable[tuple[Ints, Floats, Floats]], steps: int) -> Comparison | None:
    """``compare`` over several symbols at once: differences in units of each symbol's mean loss of the other, averaged
    over the symbols of a candle. Symbols move together, so a candle is one observation however many there are.

    Args:
        several: of each symbol ``(N,)`` ticks, our losses and theirs.
    Returns:
        None without at least two symbols that have rows, finite losses and a loss to measure by.
    """
    parts = [
        (ticks, (ours - theirs) / float(np.mean(theirs)))
        for ticks, ours, theirs in several
        if len(ticks) and np.isfinite(ours).all() and np.isfinite(theirs).all() and np.mean(theirs) > 0
    ]
    if len(parts) < 2:
        return None
    ticks, leads = np.concatenate([ticks for ticks, _ in parts]), np.concatenate([lead for _, lead in parts])
    first = int(ticks.min())
    count = np.bincount(ticks - first)
    there = np.flatnonzero(count)
    lead = np.bincount(ticks - first, weights=leads)[there] / count[there]
    return compare(first + there, 1.0 + lead, np.ones(len(there)), steps)


def _blocks(ticks: Ints, steps: int) -> list[slice]:
    """The rows of BLOCKS stretches of equal time, with a horizon between them; some may be empty."""
    if not len(ticks):
        return []
    first, end = int(ticks[0]), int(ticks[-1]) + 1
    length = (end - first - (BLOCKS - 1) * steps) // BLOCKS
    starts = [first + number * (length + steps) for number in range(BLOCKS)]
    edges = [(np.searchsorted(ticks, start), np.searchsorted(ticks, start + max(length, 0))) for start in starts]
    return [slice(int(start), int(stop)) for start, stop in edges]
