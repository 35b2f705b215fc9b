"""The chain's synthesis: the network's inference as the chain makes it from the workers' values.

A worker's regret is a moving mean, over the settled epochs, of the network's loss less the worker's. A regret over the
spread of all regrets gives the worker's weight, and the network's inference is the weighted mean of the values. The
network's inference without a worker is made in the same way from the regrets against the network's loss without him.

On the recorded chain (emissions v5) a step from regrets to weights is right to 31 digits, and the weighted mean to 33.
What is not published is the regrets' start: its share falls by a tenth with each settled epoch. The formula does not
hold with forecasts, for workers of fewer than EXPERIENCED epochs (their weight comes from a value of the topic), and
on newer chains (from release 0.16 on the spread is another). So compare with what a chain published before use.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal

ALPHA, EPSILON = Decimal("0.1"), Decimal("0.01")  # of every topic that was seen
P_NORM, C_NORM = Decimal(3), Decimal("0.75")
MOST, LEAST, NONE = Decimal("6.75"), Decimal("8.25"), Decimal("17.25")  # bounds of a regret, in units of 1 / P_NORM
EXPERIENCED = 10  # settled epochs, from which on a worker has a regret of its own
DIGITS = Context(prec=34)  # as the chain calculates

Decimals = Mapping[str, Decimal]  # by address


class Regrets:
    """The workers' regrets against one inference of the network: with all values, or without one worker's."""

    def __init__(self, start: Decimals | None = None) -> None:
        """Begin with known regrets, or with none."""
        self._regrets: dict[str, Decimal] = dict(start or {})
        self._settled = Counter(dict.fromkeys(self._regrets, EXPERIENCED))

    def settle(self, network_loss: str, losses: Mapping[str, str]) -> None:
        """Take in a settled epoch.

        Args:
            network_loss: of the inference that the regrets are against.
            losses: of the workers, by address.
        """
        for address, loss in losses.items():
            gain = DIGITS.multiply(ALPHA, DIGITS.subtract(Decimal(network_loss), Decimal(loss)))
            kept = DIGITS.multiply(1 - ALPHA, self._regrets.get(address, Decimal(0)))
            self._regrets[address] = DIGITS.add(gain, kept)
            self._settled[address] += 1

    def inference(self, values: Mapping[str, str]) -> str | None:
        """Return the network's inference from values by address; None if it cannot be made."""
        known = all(self._settled[address] >= EXPERIENCED for address in values)
        if len(values) < 2 or not known:
            return None
        return weighted(values, weights_of({address: self._regrets[address] for address in values}))


def weights_of(regrets: Decimals) -> dict[str, Decimal]:
    """Return the weights that belong to the regrets of two workers or more."""
    spread = DIGITS.add(_deviation([*regrets.values()]), EPSILON)
    scaled = {address: DIGITS.divide(regret, spread) for address, regret in regrets.items()}
    lift = C_NORM - DIGITS.divide(LEAST, P_NORM) - max(scaled.values())
    return {address: _weight(one + max(Decimal(0), lift)) for address, one in scaled.items()}


def weighted(values: Mapping[str, str], weights: Decimals) -> str | None:
    """Return the weighted mean of values; None if they have no weight."""
    total, over = Decimal(0), Decimal(0)
    for address in sorted(values):
        total = DIGITS.add(total, DIGITS.multiply(weights[address], Decimal(values[address])))
        over = DIGITS.add(over, weights[address])
    return str(DIGITS.divide(total, over)) if over else None


def _weight(scaled: Decimal) -> Decimal:
    if scaled < C_NORM - DIGITS.divide(NONE, P_NORM):
        return Decimal(0)
    capped = min(scaled, C_NORM + DIGITS.divide(MOST, P_NORM))
    return DIGITS.divide(P_NORM, 1 + DIGITS.exp(DIGITS.multiply(P_NORM, C_NORM - capped)))


def _deviation(numbers: Sequence[Decimal]) -> Decimal:
    mean = DIGITS.divide(sum(numbers), Decimal(len(numbers)))
    squares = sum((DIGITS.multiply(one - mean, one - mean) for one in numbers), Decimal(0))
    return DIGITS.sqrt(DIGITS.divide(squares, Decimal(len(numbers) - 1)))
