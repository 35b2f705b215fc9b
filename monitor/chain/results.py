"""Where we stand: what epochs made of our answers, beside the other workers' and the network's own inference.

Losses are the chain's: of the loss itself, or its base-10 logarithm. A worker's score in an epoch is the network's loss
without that worker's value less the network's loss with it, so a copy of what the others say scores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from core.clock import DAY_MS
from ledger.answers import Answer
from ledger.epochs import Epoch, Inferer, Stage
from monitor.chain.filled import EpochRow, filled
from monitor.chain.outcome import outcome

SPAN_DAYS = 7  # of the epochs that are counted
MOST_SHOWN = 300  # newest epochs behind the charts of a topic's page
MOST_EPOCHS = 2_100  # so many has a topic of five minutes in that time
JUDGED = 100  # newest settled epochs behind the means
EXACT = Context(prec=120)  # more digits than the chain writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one epoch made of our answer."""

    epoch: Epoch
    answer: str | None  # as the ledger has it
    won: bool | None  # None: not known, or not over yet
    reason: str
    median_loss: str | None = None  # of all inferers
    rank: int | None = None  # of ours among the inferers: by reward, or by score where no reward was seen; 1 is best
    of: int = 0  # inferers that were ranked
    share: float | None = None  # of what the epoch paid to its inferers, 0 to 1; 0 if the epoch was lost
    above: Inferer | None = None  # one place above ours
    synthesised: bool = False  # the network's inference was not read in time, and is made by its own formula
    contribution: str | None = None  # network's loss without our value less its loss with ours: above 0 we helped

    @property
    def word(self) -> str:
        """How the epoch ended, in a word or two."""
        if self.won is None:
            return "open" if self.epoch.stage == Stage.OPEN else "not known"
        return "won" if self.won else "lost"


class Mean(NamedTuple):
    """Means over the newest settled epochs; None: not seen in any."""

    epochs: int
    loss: float | None
    median_loss: float | None
    combined_loss: float | None
    naive_loss: float | None
    rank: float | None
    of: float | None
    share: float | None  # mean of Result.share
    contribution: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChain:
    """A topic's epochs of the last SPAN_DAYS days."""

    worker: str
    won: int
    lost: int
    unknown: int  # epochs whose end is not known
    logarithms: bool | None  # True: losses are base-10 logarithms; None: it is not known
    mean: Mean
    reward: str | None  # uallo, of the epochs behind the means
    above_reward: str | None  # what the workers one place above ours were paid in the same epochs
    ranked_reward: str | None  # what ours was paid where there was a worker above


class ChainSeen(NamedTuple):
    """What the monitor knows of the chain."""

    is_read: bool = False  # False: LCD_URLS is not set
    seen_ms: Mapping[str, int] = MappingProxyType({})  # when a chain was last seen, by network; empty: not named
    topics: Mapping[str, OnChain | None] = MappingProxyType({})  # by Topic.key


def result_of(epoch: Epoch, answer: Answer | None, *, synthesised: bool = False) -> Result:
    """Return what an epoch made of our answer."""
    ended = outcome(epoch, answer)
    inferers = epoch.inside.inferers
    losses = sorted(Decimal(one.loss) for one in inferers if one.loss is not None)
    ranked = _ranked(inferers, epoch.worker)
    place = next((number for number, one in enumerate(ranked) if one.address == epoch.worker), None)
    return Result(
        epoch=epoch,
        answer=answer.value if answer else None,
        won=ended.won,
        reason=ended.reason,
        median_loss=str(_median(losses)) if losses else None,
        rank=None if place is None else place + 1,
        of=len(ranked),
        share=_share(epoch, inferers),
        above=ranked[place - 1] if place else None,
        synthesised=synthesised,
        contribution=_difference(epoch.combined_loss_without, epoch.combined_loss),
    )


def results_of(rows: Sequence[EpochRow]) -> list[Result]:
    """Return the results of a topic's epochs, newest first."""
    known, nonces = filled(rows)
    return [result_of(*row, synthesised=row[0].nonce in nonces) for row in known]


def on_chain(rows: Sequence[EpochRow], now_ms: int, *, is_log: bool | None = None) -> OnChain | None:
    """Return where a topic stands; None without an epoch in the last SPAN_DAYS days.

    Args:
        rows: newest first, as ``EpochBook.epochs_of`` returns them.
        is_log: what recovered truths say of the chain's losses; None: no truth was recovered.
    """
    rows = [row for row in rows if (row[0].block_ms or row[0].seen_ms) >= now_ms - SPAN_DAYS * DAY_MS]
    if not rows:
        return None
    ends = [outcome(*row).won for row in rows if row[0].stage != Stage.OPEN]
    settled = [result_of(*row) for row in [row for row in rows if row[0].combined_loss is not None][:JUDGED]]
    with_above = [result for result in settled if result.above and result.above.reward and result.epoch.reward]
    return OnChain(
        worker=rows[0][0].worker,
        won=ends.count(True),
        lost=ends.count(False),
        unknown=ends.count(None),
        logarithms=True if _is_below_0(settled) else is_log,
        mean=_mean(settled),
        reward=_total([result.epoch.reward for result in settled]),
        above_reward=_total([result.above.reward for result in with_above if result.above]),
        ranked_reward=_total([result.epoch.reward for result in with_above]),
    )


def _is_below_0(results: Sequence[Result]) -> bool:
    """True if one of the losses is below 0: it is a logarithm, since no loss of the network's is below 0."""
    seen = (
        loss
        for result in results
        for loss in (
            result.epoch.loss,
            result.epoch.combined_loss,
            result.epoch.naive_loss,
            *(one.loss for one in result.epoch.inside.inferers),
        )
    )
    return any(Decimal(loss) < 0 for loss in seen if loss is not None)


def _ranked(inferers: Sequence[Inferer], worker: str) -> list[Inferer]:
    """Inferers, best first: by reward if each one's was seen, else by score; empty if neither was.

    ``worker`` is the first of its equals, so that whoever stands above it had more.
    """
    for field in ("reward", "score"):
        found = [getattr(one, field) for one in inferers]
        if found and None not in found:
            return sorted(inferers, key=lambda one: (-Decimal(getattr(one, field)), one.address != worker))
    return []


def _median(values: Sequence[Decimal]) -> Decimal:
    half, odd = divmod(len(values), 2)
    return values[half] if odd else EXACT.divide(EXACT.add(values[half - 1], values[half]), Decimal(2))


def _share(epoch: Epoch, inferers: Sequence[Inferer]) -> float | None:
    rewards = {one.address: one.reward for one in inferers}
    if not rewards or None in rewards.values():
        return None
    paid = sum(Decimal(reward) for reward in rewards.values() if reward)
    return float(Decimal(rewards.get(epoch.worker) or 0) / paid) if paid else None


def _difference(minuend: str | None, subtrahend: str | None) -> str | None:
    if minuend is None or subtrahend is None:
        return None
    return str(EXACT.subtract(Decimal(minuend), Decimal(subtrahend)))


def _total(texts: Sequence[str | None]) -> str | None:
    found = [Decimal(text) for text in texts if text is not None]
    total = Decimal(0)
    for number in found:
        total = EXACT.add(total, number)
    return f"{total:f}" if found else None


def _mean(settled: Sequence[Result]) -> Mean:
    """Losses are compared over the epochs in which ours is known."""
    ours = [result for result in settled if result.epoch.loss is not None]
    ranked = [result for result in settled if result.rank is not None]
    return Mean(
        epochs=len(settled),
        loss=_average([result.epoch.loss for result in ours]),
        median_loss=_average([result.median_loss for result in ours]),
        combined_loss=_average([result.epoch.combined_loss for result in ours]),
        naive_loss=_average([result.epoch.naive_loss for result in ours]),
        rank=_average([result.rank for result in ranked]),
        of=_average([result.of for result in ranked]),
        share=_average([result.share for result in settled]),
        contribution=_average([result.contribution for result in settled]),
    )


def _average(values: Sequence[str | float | None]) -> float | None:
    found = [float(value) for value in values if value is not None]
    return fmean(found) if found else None
