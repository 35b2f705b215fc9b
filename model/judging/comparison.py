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
    """Our losses against theirs on the same rows.

    After Diebold and Mariano, J. Business & Economic Statistics 13(3), 1995, with the standard error and small-sample
    distribution of ``model.judging.significance``.
    """

    rows: int
    mean: float  # our loss less theirs, in the unit of the loss; NaN without rows or if a loss is not finite
    close: float  # below this size a mean is rounding
    better: float | None  # chance of a mean this low or lower if both were equally good; None: too little time
    worse: float | None  # chance of a mean this high or higher, likewise
    horizons: float  # of time that the rows cover
    effective: float  # independent rows that the rows are worth
    won: int  # blocks in which our loss is lower
    blocks: int  # that have rows with different losses

    @property
    def sound(self) -> bool:
        """True if there are rows and every loss is finite."""
        return math.isfinite(self.mean)

    @property
    def lower(self) -> bool:
        """True if our mean loss is lower."""
        return self.mean < -self.close

    @property
    def no_higher(self) -> bool:
        """True if our mean loss is as low or lower."""
        return self.mean <= self.close

    @property
    def surely_worse(self) -> bool:
        """True if our mean loss is significantly higher."""
        return self.worse is not None and self.worse < LEVEL and not self.no_higher


def compare(ticks: Ints, ours: Floats, theirs: Floats, steps: int) -> Comparison:
    """Compare two forecasters' expected losses.

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
    """``compare`` over several symbols at once.

    Differences are in units of each symbol's mean loss of theirs, averaged over the symbols of a candle: symbols move
    together, so a candle is a single observation however many symbols it has.

    Args:
        several: for each symbol ``(N,)`` ticks, our losses and theirs.
    Returns:
        None unless two symbols have rows, finite losses and a mean loss above 0.
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
    """The rows of BLOCKS spans of equal time, with a horizon between two; some may be empty."""
    if not len(ticks):
        return []
    first, end = int(ticks[0]), int(ticks[-1]) + 1
    length = (end - first - (BLOCKS - 1) * steps) // BLOCKS
    starts = [first + number * (length + steps) for number in range(BLOCKS)]
    edges = [(np.searchsorted(ticks, start), np.searchsorted(ticks, start + max(length, 0))) for start in starts]
    return [slice(int(start), int(stop)) for start, stop in edges]
