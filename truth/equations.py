"""What an epoch says of its truth: an equation for each inferer, between the value and the loss that it was given."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from typing import NamedTuple

DIGITS = 110  # of the arithmetic: the chain keeps 34, and a loss of 1e-50 beside 1 loses 50 of them
MOST_LOG = 300  # of a base-10 logarithm: beyond it a double is 0 or infinite, and no loss is that
HALF = Decimal("0.5")


class Equation(NamedTuple):
    """One inferer's value and loss."""

    inferer: str  # address
    value: Decimal
    loss: Decimal  # as published: of the loss itself, or its base-10 logarithm
    rounding: Decimal  # half a unit of the published loss's last digit

    def plain(self, is_log: bool) -> Decimal:
        """Return the loss itself."""
        return Decimal(10) ** self.loss if is_log else self.loss

    def looseness(self, is_log: bool) -> Decimal:
        """Return the relative error of the loss itself that its rounding allows."""
        if is_log:
            return self.rounding * Decimal("2.31")
        return self.rounding / self.loss if self.loss else Decimal(0)


def equations_of(values: Mapping[str, str], losses: Mapping[str, str]) -> list[Equation]:
    """Return the inferers that have a value and a loss, both finite numbers, by address."""
    found = []
    for inferer in sorted(values.keys() & losses.keys()):
        value, loss = number_of(values[inferer]), number_of(losses[inferer])
        if value is not None and loss is not None:
            exponent = loss.as_tuple().exponent
            found.append(Equation(inferer, value, loss, HALF.scaleb(int(exponent)) if loss else Decimal(0)))
    return found


def unsolvable(equations: Sequence[Equation], values: Mapping[str, str], losses: Mapping[str, str]) -> str:
    """Say why an epoch has no truth to be found, as far as a look can tell; empty if it may have one."""
    if not values:
        return "the inferers' values were not read"
    if not losses:
        return "the inferers' losses were not read"
    if not equations:
        return "no inferer has both a value and a loss that are numbers"
    if all(one.loss == 0 for one in equations):
        return "every loss is exactly zero: no losses were set, or they say nothing"
    if len(equations) == 1:
        return "a single inferer: its value and its loss fit two truths"
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
        grown = loss.exp()
        return (grown + (grown * grown - 1).sqrt()).ln() if loss < 200 else loss + Decimal(2).ln()
    return None


def number_of(text: str) -> Decimal | None:
    """Return a decimal; None if the text is not one, or not finite."""
    try:
        with localcontext(prec=DIGITS):
            number = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return number if number.is_finite() else None
