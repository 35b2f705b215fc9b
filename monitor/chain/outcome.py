"""Won, lost or not known: what became of an epoch for our worker, and why."""

from typing import NamedTuple

from ledger.answers import Answer
from ledger.epochs import Arrival, Epoch, Stage

NO_ADDRESS = "WORKER_ADDRESS is not set"
NOT_OVER = "the submission window is open"
NOT_SEEN = "the chain was not seen"
WON = "in the active set"
NOT_ASKED = "not asked, or not answered"
NOT_SUBMITTED = "answered and not submitted"
OTHER_VALUE = "another value on chain"
NO_ANSWER = "on chain without an answer in the ledger"
NOT_SETTLED = "in the active set, and not seen to be settled"
NOT_ACTIVE = "submitted and not in the active set"
NOT_KNOWN_WHY = "not in the active set; the chain was not seen while the window was open"


class Outcome(NamedTuple):
    """What became of an epoch."""

    won: bool | None  # None: not known, or not over
    reason: str


def outcome(epoch: Epoch, answer: Answer | None) -> Outcome:
    """Return what became of an epoch for our worker.

    An epoch is won if our value is in its active set: those values are scored and paid.

    Args:
        answer: ours to the epoch's nonce; None if the ledger has none.

    >>> outcome(Epoch("net-1", 1, 537, None, 0, "closed", worker="allo1", arrival="absent", active=False), None)
    Outcome(won=False, reason='not asked, or not answered')
    """
    if not epoch.worker or epoch.stage == Stage.OPEN:
        return Outcome(None, NOT_OVER if epoch.worker else NO_ADDRESS)
    if epoch.arrival == Arrival.OTHER:
        return Outcome(False, OTHER_VALUE) if answer else Outcome(epoch.active, NO_ANSWER)
    if epoch.active is None and epoch.arrival != Arrival.ABSENT:
        return Outcome(None, NOT_SEEN)
    if epoch.active:
        is_lost_sight_of = epoch.stage == Stage.GONE and epoch.score is None  # or the reputers never settled it
        return Outcome(None, NOT_SETTLED) if is_lost_sight_of else Outcome(True, WON)
    unsubmitted = NOT_SUBMITTED if epoch.arrival == Arrival.ABSENT else NOT_KNOWN_WHY
    lost = NOT_ACTIVE if epoch.arrival == Arrival.EQUAL else NOT_ASKED if answer is None else unsubmitted
    return Outcome(False, lost)
