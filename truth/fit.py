"""Fits one truth, or two that reputers disagree on, to the losses of an epoch: in doubles, for every loss.

The chain averages what the reputers sent, weighted by their stakes. Where all but one of them agree, an inferer's
published loss is ``weight * loss(truth) + (1 - weight) * loss(other truth)``, of losses or of their logarithms, so that
four inferers tell truth, other truth and weight, and each further one checks them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from core.losses import loss_named
from klines.klines import Floats

SIDE, NEAREST, FARTHEST = 20, 1e-4, 3.0  # points on a side of a value, and their distances in units of the spread
OTHERS = 15  # times as many points, where other truths are searched alone
MOST_VALUES = 8  # whose surroundings are searched
STDS = np.geomspace(0.02, 50, 40)  # searched if std is not known, in units of the values' size
STARTS, STEPS = 300, 60
LAST, LAST_STEPS = 24, 200
FAR = 30.0  # times the usual distance: an inferer this far off cannot tell one truth from the other
TINY = 1e-300
WORST, STEEPEST = 1e6, 1e150  # of a difference and a slope, so that their squares are numbers
DONE = 1e-14  # a residual below which doubles tell no better
LEAST_DAMPING, MOST_DAMPING = 1e-13, 1e12  # below, two slopes that are alike could not be told apart


class Fit(NamedTuple):
    """A way to make the published losses."""

    truth: float
    other: float  # of the reputers who disagree; the truth itself if none does
    weight: float  # of those who scored against the truth
    std: float
    residual: float  # root mean square, of base-10 logarithms of losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The losses of an epoch.

    Args:
        values: ``(K,)`` of the inferers.
        losses: ``(K,)`` as published: base-10 logarithms if ``is_log``.
        std: of past returns, for the losses that need it; None to solve for it too.
    """

    values: Floats
    losses: Floats
    loss_name: str
    is_log: bool
    std: float | None = 1.0

    @property
    def unknowns(self) -> int:
        """How many numbers one truth takes; two take two more."""
        return 1 + (self.std is None)

    @property
    def spread(self) -> float:
        """The usual distance of the values from each other."""
        return max(float(np.median(np.abs(self.values - np.median(self.values)))), TINY)

    @property
    def informed(self) -> int:
        """How many inferers can tell truths apart: different values, not far beyond the others."""
        near = np.abs(self.values - np.median(self.values)) <= FAR * self.spread
        return len(np.unique(self.values[near]))

    def made(self, truth: Floats, std: Floats) -> Floats:
        """Return what reputers with these truths ``(...)`` publish for each inferer ``(..., K)``, as ``target``."""
        loss: Any = loss_named(self.loss_name)
        with np.errstate(all="ignore"):
            plain = loss(np, truth[..., None], self.values, std[..., None])
            found = np.log10(np.maximum(plain, TINY)) if self.is_log else plain / np.maximum(self.losses, TINY) / LN10
        return np.asarray(np.clip(np.nan_to_num(found, nan=WORST, posinf=WORST, neginf=-WORST), -WORST, WORST))

    @property
    def target(self) -> Floats:
        """``(K,)`` the published losses, in units in which a difference is one of base-10 logarithms."""
        return self.losses if self.is_log else np.full(len(self.losses), 1 / LN10)


LN10 = float(np.log(10))


@np.errstate(all="ignore")
def fits(problem: Problem, *, two: bool) -> list[Fit]:
    """Return the ways to make the published losses, the best first; with ``two``, that of two truths."""
    starts = _starts(problem, two=two)
    if two and problem.std is not None:
        starts = np.concatenate([starts, _starts_beside(problem, fits(problem, two=False)[0])])
    found, residuals = _refined(problem, starts, STEPS, two=two)
    if two:  # few come near a narrow valley's end in time
        best = np.argsort(residuals)[:LAST]
        found, residuals = _refined(problem, found[best], LAST_STEPS, two=two)
    order = np.argsort(residuals)
    result = []
    for row, residual in zip(found[order], residuals[order], strict=True):
        truth, other, weight = (row[0], row[1], row[2]) if two else (row[0], row[0], 1.0)
        if not (0.0 <= weight <= 1.0 and np.isfinite(residual)):
            continue
        if weight < 0.5:
            truth, other, weight = other, truth, 1 - weight
        std = float(np.exp(np.clip(row[-1], -300, 300))) if problem.std is None else problem.std
        result.append(Fit(float(truth), float(other), float(weight), std, float(residual)))
    return result


def _places(problem: Problem, dense: int = 1) -> Floats:
    """Return truths to try: dense near each value, where a loss changes fast."""
    values = np.unique(problem.values)
    values = values[np.abs(values - np.median(problem.values)) <= FAR * problem.spread]
    if len(values) > MOST_VALUES:
        values = np.quantile(values, np.linspace(0, 1, MOST_VALUES))
    reach = max(float(np.ptp(values)), problem.spread)
    offsets = reach * np.geomspace(NEAREST, FARTHEST, SIDE * dense)
    return np.unique((values[:, None] + np.concatenate([-offsets, offsets])).ravel())


def _stds(problem: Problem) -> Floats:
    if problem.std is not None:
        return np.array([problem.std])
    size = max(float(np.median(np.abs(problem.values))), problem.spread)
    return size * STDS


def _starts(problem: Problem, *, two: bool) -> Floats:
    """Return the best points of a grid, ``(S, unknowns)``."""
    places, target, rows = _places(problem), problem.target, []
    for std in _stds(problem):
        made = problem.made(places, np.full(len(places), std))  # (T, K)
        off = made - target
        if two:
            between = made[:, None] - made  # (T, O, K): truth less other
            with np.errstate(all="ignore"):
                weight = -(between * off).sum(axis=-1) / (between**2).sum(axis=-1)
            weight = np.clip(np.nan_to_num(weight, nan=1.0), 0.5, 1.0)
            errors = _rms(weight[..., None] * between + off)
            everyone = np.arange(len(places))
            pairs = {
                *zip(everyone, errors.argmin(axis=1), strict=True),
                *zip(errors.argmin(axis=0), everyone, strict=True),
            }
            rows += [[places[t], places[o], weight[t, o], np.log(std), errors[t, o]] for t, o in sorted(pairs)]
        else:
            rows += [[place, np.log(std), error] for place, error in zip(places, _rms(off), strict=True)]
    table = np.array(rows)
    table = table[np.argsort(table[:, -1])][:STARTS]
    return table[:, : -1 if problem.std is None else -2]


def _starts_beside(problem: Problem, one: Fit) -> Floats:
    """Return starts for reputers of little weight who disagree: the truth is then near the one that fits alone.

    Moving the truth a little and adding a little of any other truth change the losses in proportion, so that the best
    of both follows from the other truth alone.
    """
    others = _places(problem, dense=OTHERS)
    std = np.full(len(others), one.std)
    step = 1e-5 * np.abs(one.truth - problem.values).min()
    below, here, above = problem.made(one.truth + step * np.array([-1.0, 0.0, 1.0]), std[:3])
    slope = (above - below) / 2
    slope = slope / max(float(np.linalg.norm(slope)), TINY)
    off = problem.target - here
    toward = problem.made(others, std) - here  # (O, K)
    freely, rest = toward - np.outer(toward @ slope, slope), off - (off @ slope) * slope
    weight = (freely @ rest) / np.maximum((freely**2).sum(axis=1), TINY)
    errors = _rms(rest - weight[:, None] * freely)
    errors[(weight < 0) | (weight > 0.5)] = np.inf
    inner = np.flatnonzero((errors[1:-1] <= errors[:-2]) & (errors[1:-1] <= errors[2:]) & np.isfinite(errors[1:-1])) + 1
    moved = (
        ((off - weight[:, None] * toward) @ slope)[inner] / max(float(np.linalg.norm((above - below) / 2)), TINY) * step
    )
    return np.stack([one.truth + moved, others[inner], 1 - weight[inner]], axis=1)


def _rms(off: Floats) -> Floats:
    return np.asarray(np.sqrt(np.mean(off**2, axis=-1)))


def _off(problem: Problem, rows: Floats, *, two: bool) -> Floats:
    """Return what is made too much, ``(S, K)``, by unknowns ``(S, P)``."""
    std = np.exp(np.clip(rows[:, -1], -300, 300)) if problem.std is None else np.full(len(rows), problem.std)
    made = problem.made(rows[:, 0], std)
    if two:
        made = rows[:, 2:3] * made + (1 - rows[:, 2:3]) * problem.made(rows[:, 1], std)
    return made - problem.target


@np.errstate(all="ignore")  # a start that leads beyond a double's range is not taken up
def _refined(problem: Problem, rows: Floats, steps: int, *, two: bool) -> tuple[Floats, Floats]:
    """Return unknowns and residuals after Levenberg and Marquardt's steps, all starts at once."""
    unknowns = rows.shape[1]
    damping = np.full(len(rows), 1e-3)
    off = _off(problem, rows, two=two)
    for _ in range(steps):
        slopes = np.empty((len(rows), len(problem.values), unknowns))
        for column in range(unknowns):
            step = np.zeros_like(rows)
            # A truth is moved by a part of its distance from the nearest value: the loss bends there.
            near = np.abs(rows[:, column, None] - problem.values).min(axis=1) if column <= two else np.ones(len(rows))
            step[:, column] = 1e-6 * np.maximum(near, 1e-9 * problem.spread if column <= two else 1)
            up, down = _off(problem, rows + step, two=two), _off(problem, rows - step, two=two)
            slope = (up - down) / np.maximum(2 * step[:, column, None], TINY)
            slopes[..., column] = np.clip(slope, -STEEPEST, STEEPEST)
        square = np.einsum("ski,skj->sij", slopes, slopes)
        size = np.sqrt(np.maximum(np.einsum("sii->si", square), TINY))
        square = square / size[:, :, None] / size[:, None, :]
        pull = np.einsum("ski,sk->si", slopes, off) / size
        square += damping[:, None, None] * np.eye(unknowns)
        moved = rows - np.linalg.solve(square, pull[..., None])[..., 0] / size
        after = _off(problem, moved, two=two)
        better = _rms(after) < _rms(off)
        rows, off = np.where(better[:, None], moved, rows), np.where(better[:, None], after, off)
        if _rms(off).min() < DONE or damping[better].size + (damping < MOST_DAMPING).sum() == 0:
            break
        damping = np.clip(np.where(better, damping / 10, damping * 10), LEAST_DAMPING, MOST_DAMPING)
    return rows, _rms(off)
