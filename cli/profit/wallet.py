"""What left a wallet and what came in, told from its balance and its rewards: the chain has no list of fees."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from statistics import median

from core.clock import MINUTE_MS

LATE_MS = MINUTE_MS // 2  # the time of a payment, and that at which a host knows of it, differ by so much at most
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
        rewards: when each was paid and how much it was, in any order.

    >>> steps_of([(0, "1000"), (240_000, "990"), (480_000, "1085")], [(300_000, "100.9")])[1].fees
    Decimal('5')
    """
    left = [(paid_ms, Decimal(int(Decimal(amount)))) for paid_ms, amount in sorted(rewards)]  # whole uallo are paid
    if balances:
        left = left[bisect_right(left, (balances[0][0], Decimal("Infinity"))) :]
    found: list[Step] = []
    for (from_ms, before), (to_ms, after) in pairwise(balances):
        change = Decimal(after) - Decimal(before)
        count = _paid_with(left, change, to_ms)
        out = sum((amount for _, amount in left[:count]), Decimal(0)) - change
        left = left[count:]
        found.append(Step(from_ms=from_ms, to_ms=to_ms, fees=max(out, Decimal(0)), came=max(-out, Decimal(0))))
    return _transfers(_netted(found))


def _paid_with(left: Sequence[tuple[int, Decimal]], change: Decimal, to_ms: int) -> int:
    """Return how many of the rewards that are left came with a change: as few as explain it.

    A reward is paid up to LATE_MS before or after the reading of the balance that has it. Rewards that are paid later
    than the reading count only if they explain the change.
    """
    paid, of_now = Decimal(0), 0
    for count, (paid_ms, amount) in enumerate(left):
        if paid_ms > to_ms - LATE_MS and paid >= change:
            return count
        if paid_ms > to_ms + LATE_MS:
            return of_now
        paid += amount
        of_now = count + 1 if paid_ms <= to_ms else of_now
    return len(left) if paid >= change else of_now


def _netted(steps: list[Step]) -> list[Step]:
    """Take off what came in from what left in the next or the last step: a reward that was counted in the wrong one."""
    for place in range(len(steps)):
        for other in (place - 1, place + 1):
            if not 0 <= other < len(steps) or not _are_near(steps[place], steps[other]):
                continue
            both = min(steps[place].came, steps[other].fees)
            steps[place] = replace(steps[place], came=steps[place].came - both)
            steps[other] = replace(steps[other], fees=steps[other].fees - both)
    return steps


def _are_near(one: Step, other: Step) -> bool:
    return abs(one.to_ms - other.to_ms) <= 2 * LOOK_MS


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
