"""What left a wallet and what came in, told from its balance and its rewards: the chain has no list of fees."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import median

from core.clock import MINUTE_MS

LATE_MS = 10 * MINUTE_MS  # a reward is seen and the balance with it is read at most so far apart
LOOK_MS = 4 * MINUTE_MS  # between two looks at a balance
MOST_FEES = 50  # more than so many times what usually leaves between two looks is no fee by its size
LEAST_STEPS = 5  # that tell what usually leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of a balance, in uallo."""

    from_ms: int  # when the balance before was read
    to_ms: int
    fees: Decimal = Decimal(0)
    sent: Decimal = Decimal(0)  # what left and is no fee by its size
    came: Decimal = Decimal(0)  # beside the rewards that were seen


def steps_of(balances: Sequence[tuple[int, str]], rewards: Sequence[tuple[int, str]]) -> list[Step]:
    """Return the changes of a balance without the rewards.

    Args:
        balances: when each was read and how much it was, oldest first; read every LOOK_MS and kept when it changed.
        rewards: when each was seen and how much it was, in any order.

    >>> steps_of([(0, "1000"), (240_000, "990"), (480_000, "1085")], [(300_000, "100.9")])[1].fees
    Decimal('5')
    """
    left = [(seen_ms, Decimal(int(Decimal(amount)))) for seen_ms, amount in sorted(rewards)]  # whole uallo are paid
    if balances:
        left = left[bisect_right(left, (balances[0][0] - LATE_MS, Decimal("Infinity"))) :]
    found: list[Step] = []
    for (from_ms, before), (to_ms, after) in zip(balances, balances[1:], strict=False):
        change, paid = Decimal(after) - Decimal(before), Decimal(0)
        while left and (left[0][0] <= to_ms - LATE_MS or (paid < change and left[0][0] <= to_ms + LATE_MS)):
            paid += left.pop(0)[1]
        out = paid - change
        found.append(Step(from_ms=from_ms, to_ms=to_ms, fees=max(out, Decimal(0)), came=max(-out, Decimal(0))))
    return _transfers(_netted(found))


def _netted(steps: list[Step]) -> list[Step]:
    """Take off what came in from what left in the next or the last step: a reward that was counted in the wrong one."""
    for place, step in enumerate(steps):
        for other in (place - 1, place + 1):
            step = steps[place]
            if not step.came or not 0 <= other < len(steps) or not _are_near(step, steps[other]):
                continue
            both = min(step.came, steps[other].fees)
            steps[place] = replace(step, came=step.came - both)
            steps[other] = replace(steps[other], fees=steps[other].fees - both)
    return steps


def _are_near(one: Step, other: Step) -> bool:
    return abs(one.to_ms - other.to_ms) <= 2 * LATE_MS


def _transfers(steps: Sequence[Step]) -> list[Step]:
    usual = [step.fees for step in steps if step.fees]
    if len(usual) < LEAST_STEPS:
        return list(steps)
    most = MOST_FEES * median(usual)
    found = []
    for step in steps:
        looks = max(Decimal(1), Decimal(step.to_ms - step.from_ms) / LOOK_MS)  # nobody looked for longer
        found.append(replace(step, fees=Decimal(0), sent=step.fees) if step.fees > most * looks else step)
    return found
