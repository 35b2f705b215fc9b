"""The truth that an epoch's reputers scored against, solved for from what the chain publishes.

The chain publishes each inferer's value and loss: the loss itself, or its base-10 logarithm; both readings are tried.
A truth is told only where the inferers agree on it, so that a wrong loss, a wrong reading, values that were not the
scored ones and losses that were floored or clipped give a sentence and no number. In this order:

1. each reputer's own losses, where the chain tells them: a truth for each, and of those the weighted median;
2. one truth, to the last digits (``truth.exact``);
3. two truths and a weight, where reputers disagree or one lies (``truth.fit``): that of the greater weight;
4. one truth as far as the inferers agree, with the error that their disagreement allows.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from core.errors import ConfigError
from core.losses import loss_named
from ledger.epochs import Detail
from truth.equations import Equation, distance, equations_of, number_of, readings, unsolvable
from truth.exact import agreed
from truth.fit import Fit, Problem, fits

MAJORITY = 0.55  # of the weight: below it no one can say which of two truths is the network's
CHANCE = 1e-6, 1e-11  # of one truth and of two: that a residual as small comes by chance, with one equation to spare
MOST_RESIDUAL = 2e-3  # in base-10 logarithms, with any number to spare
EXACT = 1e-9  # a residual that leaves no doubt about the reading of the losses
RIVAL = 1e3  # times the best residual: what another truth must have to be told from the best
SAME = 1e-7  # of a truth, or of the values' spread: closer truths are the same
NEGLIGIBLE = 2e-6  # of a truth: a disagreement that moves the mean by less is averaged
FARTHEST = 1e4  # of a truth from the values, in units of their spread
INWARD = 1e-6  # of the distance to the other truth; see ``_of_fit``

LEAST_WITHOUT, MOST_WITHOUT = 5, 12  # inferers, of whom one may be left out


class Recovered(NamedTuple):
    """A truth that the inferers agree on."""

    truth: Decimal
    error: Decimal  # how far it may be off
    inferers: tuple[str, ...]  # the addresses that it follows from
    is_log: bool  # True if the published losses are base-10 logarithms
    std: float | None = None  # of past returns, if it was solved for


def recover(
    values: Mapping[str, str], losses: Mapping[str, str], loss_name: str, *, std: float | None = None
) -> Recovered | str:
    """Return the truth of an epoch, or a sentence that says why it cannot be told.

    Args:
        values: a decimal for each inferer, by address.
        losses: as published, by address; inferers without either are left out.
        loss_name: of the topic, any of the network's spellings.
        std: of past returns over the horizon, for the losses that need it; None to solve for it too.
    """
    try:
        loss = loss_named(loss_name.lower())
    except ConfigError:
        return f"the loss {loss_name!r} is not known here, so it cannot be solved"
    equations = equations_of(values, losses)
    if reason := unsolvable(equations, values, losses):
        return reason
    if loss.of_returns:
        told = _fitted(equations, loss.name, None)
        # Ours is of other returns than the reputers', so that it counts only where it fits exactly.
        return told if isinstance(told, Recovered) or std is None else _fitted(equations, loss.name, std)
    found = [
        (one, is_log) for is_log in readings(equations) if (one := agreed(equations, loss.name, is_log)) is not None
    ]
    if found:
        one, is_log = max(found, key=lambda item: len(item[0].numbers))
        truths = {item[0].truth for item in found if len(item[0].numbers) == len(one.numbers)}
        if not one.is_clear or len(truths) > 1:
            return "the inferers agree on two truths: their values are too few, or too far off, to tell which"
        names = tuple(equations[number].inferer for number in one.numbers)
        return Recovered(one.truth, one.error, names, is_log)
    return _fitted(equations, loss.name, 1.0)


def recover_epoch(detail: Detail, loss_name: str, *, std: float | None = None) -> Recovered | str:
    """Return the truth of an epoch of the ledger, as ``recover`` does; from each reputer's losses if they are kept."""
    values = {one.address: one.value for one in detail.inferers if one.value is not None}
    losses = {one.address: one.loss for one in detail.inferers if one.loss is not None}
    if len(detail.reputers) > 1:
        told = _of_reputers(values, detail, loss_name, std)
        if isinstance(told, Recovered):
            return told
    return recover(values, losses, loss_name, std=std)


def _of_reputers(values: Mapping[str, str], detail: Detail, loss_name: str, std: float | None) -> Recovered | str:
    """Return the weighted median of the reputers' truths, if those around it have the greater part of the stakes."""
    total, known = Decimal(0), []
    for reputer, losses in detail.reputers.items():
        stake = number_of(detail.stakes.get(reputer, "1"))
        stake = stake if stake is not None and stake > 0 else Decimal(0)
        total += stake
        one = recover(values, losses, loss_name, std=std)
        if isinstance(one, Recovered) and stake:
            known.append((one, stake))
    known.sort(key=lambda item: item[0].truth)
    if 2 * sum((stake for _, stake in known), Decimal(0)) <= total:
        return "the truths of the reputers with the greater part of the stakes cannot be solved for"
    below, middle = Decimal(0), known[0][0]
    for one, stake in known:
        if 2 * (below + stake) >= sum((each for _, each in known), Decimal(0)):
            middle = one
            break
        below += stake
    near, held, error = sorted(known, key=lambda item: abs(item[0].truth - middle.truth)), Decimal(0), middle.error
    for one, stake in near:
        held, error = held + stake, max(error, abs(one.truth - middle.truth))
        if 2 * held > total:
            break
    return middle._replace(error=error)


def _fitted(equations: Sequence[Equation], loss_name: str, std: float | None) -> Recovered | str:
    """Return the truth as doubles tell it: where the inferers do not agree to the last digits, or the loss needs it."""
    reasons = []
    for number, kept in enumerate(_choices(equations)):
        found: list[tuple[Fit, Problem, Decimal]] = []
        for is_log in readings(kept):
            problem, middle = _problem(kept, loss_name, is_log, std)
            for two in (False, True)[: 1 if number else 2]:
                told = _told(problem, two=two)
                if isinstance(told, Fit):
                    found.append((told, problem, middle))
                    if told.residual <= EXACT:
                        break
                else:
                    reasons.append(told)
        if found:
            best, problem, middle = min(found, key=lambda item: max(item[0].residual, EXACT))
            return _of_fit(best, problem, middle, tuple(one.inferer for one in kept))
    known = [reason for reason in reasons if reason]
    few = len({one.value for one in equations}) - 1 - (loss_named(loss_name).of_returns and std is None) < 1
    if few:
        return "the inferers with different values are too few for this loss"
    return known[0] if known else "the inferers' values and losses do not agree on a truth"


def _choices(equations: Sequence[Equation]) -> list[Sequence[Equation]]:
    """Return all equations, and where there are enough all but each."""
    fewer = [[*equations[:number], *equations[number + 1 :]] for number in range(len(equations))]
    return [equations, *(fewer if LEAST_WITHOUT <= len(equations) <= MOST_WITHOUT else [])]


def _problem(equations: Sequence[Equation], loss_name: str, is_log: bool, std: float | None) -> tuple[Problem, Decimal]:
    """Return what to fit, and the value that counts as 0: losses of differences allow one that keeps digits."""
    middle = Decimal(0)
    if distance(loss_name, Decimal(1)) is not None:
        middle = sorted(one.value for one in equations)[len(equations) // 2]
    values = np.array([float(one.value - middle) for one in equations])
    losses = np.array([float(one.loss) for one in equations])
    return Problem(values=values, losses=losses, loss_name=loss_name, is_log=is_log, std=std), middle


def _told(problem: Problem, *, two: bool) -> Fit | str:
    """Return the fit that the losses prove; else why not, empty if nothing fits."""
    spare = problem.informed - problem.unknowns - 2 * two
    if spare < 1:
        return ""
    most = EXACT if loss_named(problem.loss_name).of_returns and problem.std is not None else MOST_RESIDUAL
    most = min(CHANCE[two] ** (1 / spare), most)
    # From very far all values look the same, and agree on nothing.
    middle = float(np.median(problem.values))
    found = [
        fit
        for fit in fits(problem, two=two)
        if fit.residual <= most and abs(fit.truth - middle) < FARTHEST * problem.spread
    ]
    if not found:
        return ""
    best = found[0]
    if two and best.weight < MAJORITY:
        return "the reputers score against two truths of about equal weight"
    for rival in found[1:]:
        apart = abs(rival.truth - best.truth) > max(SAME * abs(best.truth), 1e-3 * problem.spread)
        if apart and rival.residual < RIVAL * max(best.residual, 1e-13):
            return "the reputers disagree, and the inferers' losses fit more than one truth"
    return best


def _of_fit(fit: Fit, problem: Problem, middle: Decimal, inferers: tuple[str, ...]) -> Recovered:
    gap = fit.other - fit.truth
    size = abs(float(middle) + fit.truth)
    nearest = float(np.median(np.abs(problem.values - fit.truth)))
    # Reputers who disagree leave a residual of about the square of their distance from each other over the inferers'.
    error = nearest * min(1.0, (10 * fit.residual) ** 0.5)
    if fit.weight == 1.0:
        moved = 0.0
    elif (1 - fit.weight) * abs(gap) <= NEGLIGIBLE * size:
        moved = (1 - fit.weight) * gap
        error = abs(moved)
    else:
        moved = INWARD * gap  # between the two truths, and not beyond one by a rounding
        error = abs(moved) + 1e3 * fit.residual * nearest
    truth = middle + Decimal(fit.truth + moved)
    std = fit.std if problem.std is None else None
    return Recovered(truth, Decimal(error), inferers, problem.is_log, std)
