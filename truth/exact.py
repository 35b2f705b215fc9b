"""One truth that the inferers agree on to the last digits: of losses that tell a value's distance from the truth."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

from truth.equations import DIGITS, Equation, distance

RELATIVE, ABSOLUTE = Decimal("1e-12"), Decimal("2e-15")  # of a distance, and of a value: a reputer's own arithmetic
CLEAR = Decimal("1e-8")  # of the truth, or of the nearest distance: two truths this close are one


class Point(NamedTuple):
    """One of the two truths that an inferer's loss allows."""

    number: int  # of the equation
    value: Decimal
    truth: Decimal
    within: Decimal  # of it, by the rounding of the value and the loss
    distance: Decimal

    def allows(self, other: "Point") -> bool:
        """True if the two may be the same truth."""
        return abs(self.truth - other.truth) <= self.within + other.within


class Agreed(NamedTuple):
    """A truth, and who agrees on it."""

    truth: Decimal
    error: Decimal
    numbers: tuple[int, ...]  # of the equations that agree
    is_clear: bool  # False if as many agree on another truth


def agreed(equations: Sequence[Equation], loss_name: str, is_log: bool) -> Agreed | None:
    """Return the truth that most inferers agree on: more than half of the different values, and two at least.

    Args:
        is_log: True to read the losses as base-10 logarithms.
    """
    with localcontext(prec=DIGITS):
        points = [point for number, one in enumerate(equations) for point in _points(number, one, loss_name, is_log)]
        # The most exact of those who agree tells the truth: a coarse one agrees with many that contradict each other.
        told: list[tuple[Point, list[Point]]] = []
        for point in points:
            fitting = [other for other in points if other.allows(point)]
            if point.within == min(other.within for other in fitting):
                told.append((point, fitting))
        most = max((_opinions(fitting) for _, fitting in told), default=0)
        if most < 2 or 2 * most <= len({one.value for one in equations}):
            return None
        top = [(point, fitting) for point, fitting in told if _opinions(fitting) == most]
        exact, fitting = min(top, key=lambda one: one[0].within)
        scale = max(abs(exact.truth), min(point.distance for point in fitting))
        rival = max(abs(point.truth - exact.truth) for point, _ in top)
        second = min((point for point in fitting if point.value != exact.value), key=lambda point: point.within)
        error = exact.within + abs(second.truth - exact.truth) + rival
        return Agreed(exact.truth, error, tuple(sorted({point.number for point in fitting})), rival <= CLEAR * scale)


def _points(number: int, one: Equation, loss_name: str, is_log: bool) -> list[Point]:
    far = distance(loss_name, one.plain(is_log))
    if far is None:
        return []
    within = far * (RELATIVE + one.looseness(is_log)) + abs(one.value) * ABSOLUTE
    return [Point(number, one.value, one.value + sign * far, within, far) for sign in ((-1, 1) if far else (1,))]


def _opinions(points: Sequence[Point]) -> int:
    """Return how many inferers allow a truth; those whose values are equal, or as good as equal, are one."""
    count, last = 0, None
    for point in sorted(points, key=lambda point: point.value):
        if last is None or point.value - last.value > point.within + last.within:
            count, last = count + 1, point
    return count
