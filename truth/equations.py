"""What an epoch says of its truth: an equation for each inferer, between the value and the loss that it was given."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from typing import NamedTuple

DIGITS = 110  # of the arithmetic: the chain keeps 34, and a loss of 1e-50 beside 1 loses 50 of them
MOST_LOG = 300  # of a base-10 logarithm: beyond it a double is 0 or infinite, and no loss is that
LN10 = Decimal("2.302585093")
MOST_LOOSE = Decimal("1e-6")  # of a loss: what has so few digits was hardly rounded, and agrees exactly or not at all
HALF = Decimal("0.5")
WIDE = Decimal(200)  # of a log-cosh: beyond it is the distance less ln 2, to more digits than are kept


class Equation(NamedTuple):
    """One inferer's value and loss."""

    inferer: str  # address
    value: Decimal
    loss: Decimal  # as published: of the loss itself, or its base-10 logarithm
    rounding: Decimal  # half a unit of the last digit that losses are published with

    def plain(self, is_log: bool) -> Decimal:
        """Return the loss itself."""
        return Decimal(10) ** self.loss if is_log else self.loss

    def looseness(self, is_log: bool) -> Decimal:
        """Return the relative error of the loss itself that its rounding allows; coarse ones count as exact."""
        if is_log:
            return min(self.rounding * LN10, MOST_LOOSE)
        return min(self.rounding / self.loss, MOST_LOOSE) if self.loss else Decimal(0)


def equations_of(values: Mapping[str, str], losses: Mapping[str, str]) -> list[Equation]:
    """Return the inferers that have a value and a loss, both finite numbers, by address."""
    found = []
    for inferer in sorted(values.keys() & losses.keys()):
        value, loss = number_of(values[inferer]), number_of(losses[inferer])
        if value is not None and loss is not None:
            found.append(Equation(inferer, value, loss, Decimal(0)))
    # Zeros at the end are not published, so that the longest loss tells to which digit all are rounded.
    last = min((int(one.loss.as_tuple().exponent) for one in found), default=0)
    return [one._replace(rounding=HALF.scaleb(last)) for one in found]


def unsolvable(equations: Sequence[Equation], values: Mapping[str, str], losses: Mapping[str, str]) -> str:
    """Say why an epoch has no truth to be found, as far as a look can tell; empty if it may have one."""
    if not values or not losses:
        return f"the inferers' {'losses' if values else 'values'} were not read"
    if not equations:
        return "no inferer has both a value and a loss that are numbers"
    if len(equations) == 1:
        return "a single inferer: its value and its loss fit two truths"
    if all(one.loss == 0 for one in equations):
        return "every loss is exactly zero: no losses were set, or they say nothing"
    if len({one.value for one in equations}) == 1:
        return f"the {len(equations)} inferers' values are equal: they fit two truths"
    return ""


def readings(equations: Sequence[Equation]) -> list[bool]:
    """Return how the losses may be meant: True as base-10 logarithms, False as the losses themselves."""
    found = [True] if all(abs(one.loss) <= MOST_LOG for one in equations) else []
    return found if any(one.loss < 0 for one in equations) else [*found, False]


def distance(loss_name: str, loss: Decimal) -> Decimal | None:
    """Return how far a value is from the truth by its loss; None for a loss that does not tell that.

    >>> distance("mse", Decimal(9)), distance("mae", Decimal(9)), distance("huber", Decimal("2.5"))
    (Decimal('3'), Decimal('9'), Decimal('3.0'))
    >>> distance("zptae", Decimal(9)) is None
    True
    """
    if loss_name == "mse":
        return loss.sqrt()
    if loss_name == "mae":
        return loss
    if loss_name == "huber":
        return (2 * loss).sqrt() if loss <= HALF else loss + HALF
    if loss_name == "logcosh":  # cosh d = e^loss
        grown = min(loss, WIDE).exp()
        return loss + Decimal(2).ln() if loss > WIDE else (grown + (grown * grown - 1).sqrt()).ln()
    return None


def number_of(text: str) -> Decimal | None:
    """Return a decimal; None if the text is not one, not finite, or of a size that no chain keeps."""
    try:
        with localcontext(prec=DIGITS):
            number = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= MOST_LOG else None
