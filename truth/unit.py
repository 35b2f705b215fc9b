"""The unit of our answers: ours against the other inferers' and the network's, in robust deviations.

A volatility in another unit, a price in place of a return or a value in per cent is taken by the chain without a word,
and only costs: nobody but the worker can see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from statistics import median
from typing import NamedTuple

from core.topic import MINUTES_A_YEAR, Target, Topic
from truth.contract import UNIT, Fault

MOST = 10.0  # robust deviations; the default of ALARM_UNIT
LEAST_EPOCHS = 3  # that must be compared before an answer counts as off
TO_MAD = 1.4826  # from the median absolute deviation to the standard deviation of normal values
# Below this the spread of the others is not taken for real: they may all copy one of them, or be a single one.
LEAST_SPREAD_OF_PRICE = 1e-4  # of a price, for each square root of a minute of the horizon
LEAST_SPREAD_OF_VOLATILITY = 0.05  # of a volatility
LEAST_SPREAD_OF_RETURN = 0.5  # of the others' typical return, as far as that is a plausible return:
PLAUSIBLE_RETURN = 1e-3  # for each square root of a minute of the horizon
# A smaller distance is an error as well if one of the known mistakes explains it and nothing else is left.
EXPLAINED_EPOCHS, EXPLAINED_FROM, EXPLAINED_LEFT = 10, 3.0, 1.5
MOSTLY = 0.8  # of the others' values are positive where values are compared by their logarithms
SMALL = 0.05  # a share of the value: no unit differs by so little


class Compared(NamedTuple):
    """What is compared in one epoch."""

    ours: float
    combined: float | None  # the network's inference; None: not seen
    others: Sequence[float]  # of the inferers without us


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How far our answers are from the others'."""

    line: str  # for people, always
    deviations: float | None = None  # median over the epochs, in robust deviations; None: nothing to compare
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Epoch:
    ours: float
    centre: float
    spread: float  # of the others, never below the least; in logarithms where all is positive
    is_log: bool

    def off(self, value: float) -> float:
        """Robust deviations between a value and the others; infinite where the value has no logarithm."""
        if self.is_log:
            return (log(value) - log(self.centre)) / self.spread if value > 0 else -inf
        return (value - self.centre) / self.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mistake:
    words: str  # what ours is and what the others' are
    mended: Callable[[float], float]  # our value as it would be without the mistake


def unit_check(
    topic: Topic,
    ours: Sequence[tuple[float, float | None, Sequence[float]]],
    base: float | None = None,
    most: float = MOST,
) -> Fault | None:
    """Return how our answers are off, with the likely cause; None if they are not, or if it cannot be told.

    Args:
        ours: an epoch each, in any order: our value, the network's combined inference (None: not seen) and the values
            of the other inferers, in the topic's unit. Values that are not finite are left out.
        base: price of the asset in those epochs, roughly; None: not known, so that a price in place of a return, or
            a return in place of a price, is not named.
        most: robust deviations that are allowed.
    """
    return unit_of(topic, ours, base, most).fault


def unit_of(
    topic: Topic,
    ours: Sequence[tuple[float, float | None, Sequence[float]]],
    base: float | None = None,
    most: float = MOST,
) -> Unit:
    """Return how far our answers are from the others', with a line for people; see ``unit_check``."""
    rows = [row for each in ours if (row := _finite(*each))]
    if not rows:
        return Unit(line="no epoch has an answer of ours and values of others")
    shared = [row for row in rows if len(row.others) >= 2]
    if len(shared) < LEAST_EPOCHS:
        return Unit(line=_too_few(rows, shared))
    epochs = _epochs(topic, shared)
    if not epochs:
        return Unit(line=f"the other inferers answered nothing but 0 in {_epochs_words(shared)}: no unit can be told")
    signed = [epoch.off(epoch.ours) for epoch in epochs]
    off = median(map(abs, signed))
    equal = all(len(set(row.others)) == 1 for row in shared)
    line = f"{_number(off)} robust deviations from the others in {_epochs_words(shared)}"
    line += ", who all answered the same" if equal else ""
    found = _explained(topic, epochs, base)
    left = found[1] if found else inf
    explained = len(epochs) >= EXPLAINED_EPOCHS and off > EXPLAINED_FROM and left < EXPLAINED_LEFT
    if off <= most and not explained:
        return Unit(line=line, deviations=off)
    cause, remedy = _cause(topic, epochs, found if left < min(EXPLAINED_FROM, off / 3) else None)
    fault = Fault(
        name=UNIT, what=f"topic {topic.key}: our answers are {line}; likely cause: {cause}", remedy=remedy, off=off
    )
    return Unit(line=f"{line}; likely cause: {cause}", deviations=off, fault=fault)


def _finite(ours: float, combined: float | None, others: Sequence[float]) -> Compared | None:
    if not isfinite(ours):
        return None
    return Compared(
        ours,
        combined if combined is not None and isfinite(combined) else None,
        [one for one in others if isfinite(one)],
    )


def _too_few(rows: Sequence[Compared], shared: Sequence[Compared]) -> str:
    most = max(len(row.others) for row in rows)
    if most == 0:
        return f"no other inferer answered in {_epochs_words(rows)}: there is nothing to compare with"
    if most == 1:
        return f"a single other inferer answered in {_epochs_words(rows)}: which of the two is off cannot be told"
    return f"{len(shared)} epochs with two other inferers or more; {LEAST_EPOCHS} are needed to tell a unit"


def _epochs_words(rows: Sequence[Compared]) -> str:
    return "the last epoch" if len(rows) == 1 else f"the last {len(rows)} epochs"


def _epochs(topic: Topic, rows: Sequence[Compared]) -> list[_Epoch]:
    """Take centre and spread of each epoch; the network's inference counts as one value more."""
    everything = [one for row in rows for one in row.others]
    typical = min(median(map(abs, everything)), PLAUSIBLE_RETURN * topic.horizon_min**0.5)
    positive = sum(one > 0 for one in everything) > MOSTLY * len(everything)
    is_log = topic.target is not Target.LOG_RETURN and positive
    if not is_log:
        least = LEAST_SPREAD_OF_RETURN * typical
    elif topic.target is Target.PRICE:
        least = LEAST_SPREAD_OF_PRICE * topic.horizon_min**0.5
    else:
        least = LEAST_SPREAD_OF_VOLATILITY
    found = []
    for row in rows:
        values = [*row.others, *([] if row.combined is None else [row.combined])]
        scaled = [log(one) for one in values if one > 0] if is_log else values
        if not scaled:
            continue
        centre = median(scaled)
        spread = max(TO_MAD * median(abs(one - centre) for one in scaled), least)
        if spread > 0:
            found.append(_Epoch(ours=row.ours, centre=exp(centre) if is_log else centre, spread=spread, is_log=is_log))
    return found


def _explained(topic: Topic, epochs: Sequence[_Epoch], base: float | None) -> tuple[_Mistake, float] | None:
    """Return the known mistake that brings ours closest to the others, and the deviations that it leaves."""
    left = [
        (mistake, median(abs(epoch.off(mistake.mended(epoch.ours))) for epoch in epochs))
        for mistake in _mistakes(topic, base)
    ]
    return min(left, key=lambda one: one[1], default=None)


def _mistakes(topic: Topic, base: float | None) -> list[_Mistake]:
    found = [_Mistake(words="the sign: ours is negative where theirs is positive", mended=lambda value: -value)]
    units = [("in per cent", "as a share", 100.0)]
    if topic.target is Target.VOLATILITY:
        horizon = float(topic.horizon_min)
        units += [
            (f"over the horizon (the square root of {horizon:g} minutes)", "per minute", horizon**0.5),
            ("annualised (the square root of a year's minutes, 725)", "per minute", MINUTES_A_YEAR**0.5),
            (
                "annualised (the square root of the horizons in a year)",
                "over the horizon",
                (MINUTES_A_YEAR / horizon) ** 0.5,
            ),
        ]
    for one, other, factor in units:
        if factor > 1:
            found.append(_factor(f"ours is {one}, theirs {other}", factor))
            found.append(_factor(f"ours is {other}, theirs {one}", 1 / factor))
    if base is not None and base > 0 and topic.target is not Target.VOLATILITY:
        found += [
            _Mistake(words="ours is a price, theirs a log-return", mended=lambda value: _log_of(value / base)),
            _Mistake(words="ours is a log-return, theirs a price", mended=lambda value: base * _exp_of(value)),
        ]
    return found


def _factor(words: str, factor: float) -> _Mistake:
    return _Mistake(words=words, mended=lambda value: value / factor)


def _log_of(ratio: float) -> float:
    return log(ratio) if ratio > 0 else inf


def _exp_of(value: float) -> float:
    return exp(value) if value < 700 else inf


def _cause(topic: Topic, epochs: Sequence[_Epoch], found: tuple[_Mistake, float] | None) -> tuple[str, str]:
    """Name the likely cause, and what to do."""
    if found:
        setting = "Volatility" if topic.target is Target.VOLATILITY else "Target"
        return found[0].words, f"correct {setting} in the topic's parameters, now {topic.asked}"
    ratios = [epoch.ours / epoch.centre for epoch in epochs if epoch.centre]
    ratio = median(ratios) if ratios else inf
    if abs(ratio - 1) <= SMALL:
        return (
            f"another venue, another quote currency or another moment (ours over theirs is {ratio:.5g})",
            "birnn truth names the venue, the moment and the definition that the reputers score against",
        )
    return (
        f"none that is known (ours over theirs is {_number(ratio)})",
        "compare Token, Target, Horizon and Volatility in the topic's parameters with the topic on chain",
    )


def _number(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1e6 else f"{value:.3g}"
