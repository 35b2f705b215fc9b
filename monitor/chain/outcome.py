"""Whether an epoch was won: our value is in its active set, so it is scored and paid."""

from typing import NamedTuple

from ledger.answers import Answer
from ledger.epochs import Arrival, Epoch, Stage

NOT_OVER = "the submission window is open"


class Outcome(NamedTuple):
    """How an epoch ended for us."""

    won: bool | None  # None: not known, or not over yet
    reason: str  # in words


def outcome(epoch: Epoch, answer: Answer | None) -> Outcome:
    """Say whether an epoch was won or lost, and why.

    Args:
        answer: ours to the epoch's nonce; None: none was given.
    """
    arrived = epoch.arrival in {Arrival.EQUAL, Arrival.OTHER}
    if epoch.arrival == Arrival.OTHER and answer is not None:
        return Outcome(False, "another value of our worker is on chain")
    if epoch.active:
        return Outcome(True, "in the active set")
    if epoch.stage == Stage.OPEN:
        return Outcome(None, NOT_OVER)
    if epoch.active is False and arrived:
        return Outcome(False, "submitted and not in the active set")
    if answer is None and epoch.arrival != Arrival.UNKNOWN:
        return Outcome(False, "not asked: the ledger has no answer")
    if epoch.arrival == Arrival.ABSENT:
        return Outcome(False, "answered and not submitted")
    return Outcome(None, "the chain was not seen in time")
