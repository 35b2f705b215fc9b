"""When what is to be read of a topic's epochs: by block heights, and by what the chain said of the topic."""

import math
from dataclasses import dataclass, field
from enum import IntEnum

from chain.shapes import TopicSeen
from core.topic import Topic

LATE_EPOCHS = 20  # an epoch is asked for at least once an epoch until so long after it should have settled
SECOND_LOOK = 2  # blocks before the window's end


class Want(IntEnum):
    """What is to be read of an epoch next, the most urgent first."""

    VALUE = 0  # our worker's value, while the window is open
    VALUE_AGAIN = 1  # the same just before the window's end, if it was not there
    ACTIVE_SET = 2
    NETWORK = 3  # the network's inference, before the next epoch opens
    SETTLED = 4  # losses, scores, rewards


@dataclass(slots=True)
class Due:
    """An epoch that is followed, and the height at which it is read next."""

    nonce: int
    want: Want
    height: int
    sure: bool  # False: the chain has not yet said that the epoch was opened
    told: bool = True  # False: the epoch is not written before anything of it was read
    committed: bool = False  # True: the chain said that the epoch's window is over, and had no active set
    absent_at: int = 0  # height at which the chain did not have yet what is wanted


@dataclass(slots=True)
class Track:
    """A topic that is followed."""

    topic: Topic
    seen: TopicSeen | None = None
    block_ms: float | None = None  # only a chain that schedules by the clock needs it
    newest: int = 0  # nonce of the newest epoch that is followed or was
    look: int = 0  # height at which the topic itself is read next, if nothing else has it read
    unopened: int = 0  # nonce of an epoch that was foreseen and did not open
    settles_after: int | None = None  # blocks from a nonce to its settling, as seen; None before the first
    reputers_at: int = 0  # height from which on each reputer's losses are read again
    dues: dict[int, Due] = field(default_factory=dict)  # by nonce

    def blocks(self, length: int) -> int:
        """Return a length of the topic in blocks, at least 1."""
        if self.seen and self.seen.in_seconds:
            return max(1, math.ceil(length * 1000 / (self.block_ms or 6000)))
        return max(1, length)

    @property
    def epoch(self) -> int:
        """Blocks from one nonce to the next."""
        return self.blocks(self.seen.epoch_length) if self.seen else 1

    @property
    def window(self) -> int:
        """Blocks of the submission window."""
        return self.blocks(self.seen.window) if self.seen else 1

    def last_third(self, nonce: int) -> int:
        """Return the height at which the last third of an epoch's window begins."""
        return nonce + math.ceil(self.window * 2 / 3)

    def closes(self, nonce: int) -> int:
        """Return the height at which an epoch's active set is there."""
        return nonce + self.window

    def settles(self, nonce: int) -> int:
        """Return the height at which an epoch should settle: as the last did, else a lag and an epoch later."""
        lag = self.blocks(self.seen.ground_truth_lag) if self.seen else 0
        return nonce + (self.settles_after or lag + self.epoch)

    def foresee(self, height: int) -> int | None:
        """Return the nonce that should have opened since the newest; None: the chain has to be asked.

        Epochs of one length follow one another without a gap, so no request is spent on each nonce: the next read of
        the epoch confirms it.
        """
        if self.seen is None or self.seen.in_seconds or self.newest == 0 or self.seen.is_active is False:
            return None
        nonce = self.newest + self.epoch
        return nonce if self.unopened < nonce <= height < nonce + self.epoch else None

    def begin(self, nonce: int, height: int, *, sure: bool, told: bool = True) -> Due:
        """Follow an epoch from now on; what is over by then is not read any more."""
        due = Due(nonce=nonce, want=Want.VALUE, height=self.last_third(nonce), sure=sure, told=told)
        if height >= self.closes(nonce):
            due.want, due.height = Want.ACTIVE_SET, self.closes(nonce)
        self.dues[nonce] = due
        self.newest = max(self.newest, nonce)
        return due

    def later(self, due: Due, height: int) -> int:
        """Return when to read the same again: ever later, but often while the chain may still forget the epoch."""
        planned = self.settles(due.nonce) if due.want is Want.SETTLED else self.closes(due.nonce)
        late = max(1, height - planned)
        return height + (late if late > LATE_EPOCHS * self.epoch else min(late, self.epoch))
