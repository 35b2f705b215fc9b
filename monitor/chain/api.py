"""The JSON of what the chain made of our answers, as OpenAPI documents it."""

from collections.abc import Sequence

from pydantic import Field

from core.clock import iso
from ledger.epochs import Inferer, Stage
from monitor.chain.results import SPAN_DAYS, OnChain, Result
from monitor.shape import Number, Shape


class ChainShape(Shape):
    """What the chain made of a topic's answers. Losses are the chain's own, and means over the newest epochs."""

    seen: str | None = Field(description="when the chain was last seen, UTC, ISO 8601; null if it never was")
    note: str = Field(description="why these numbers may be old; empty while the chain is seen")
    worker: str = Field(description="our address; empty without an epoch")
    days: int = Field(description="of the epochs that are counted in won, lost and unknown")
    won: int = Field(description="epochs with our value in the active set, which is scored and paid")
    lost: int
    unknown: int = Field(description="epochs whose end the monitor did not see")
    logarithms: bool | None = Field(description="true: losses are base-10 logarithms; null: it is not known")
    epochs: int = Field(description="newest settled epochs behind all that follows")
    loss: Number = Field(description="of our worker")
    median_loss: Number = Field(description="of all inferers, in the epochs with a loss of ours")
    combined_loss: Number = Field(description="of the network's inference, in the same epochs")
    naive_loss: Number = Field(description="of the network's naive inference, in the same epochs")
    rank: Number = Field(description="of our worker among the inferers, by reward; 1 is best")
    ranked: Number = Field(description="inferers that were ranked")
    share: Number = Field(description="of an epoch's rewards to inferers, 0 to 1; a lost epoch counts as 0")
    reward: str | None = Field(description="of our worker in these epochs together, uallo")
    above_reward: str | None = Field(description="of the worker one place above ours, where there was one, uallo")
    ranked_reward: str | None = Field(description="of our worker where there was one above, uallo")
    contribution: Number = Field(description="the network's loss without our value less its loss with our value")

    @property
    def opened(self) -> int:
        """Epochs that were open to our worker and are over."""
        return self.won + self.lost + self.unknown

    @classmethod
    def of(cls, one: OnChain | None, seen_ms: int | None, note: str) -> "ChainShape":
        mean = one.mean if one else None
        return cls(
            seen=iso(seen_ms) if seen_ms else None,
            note=note,
            worker=one.worker if one else "",
            days=SPAN_DAYS,
            won=one.won if one else 0,
            lost=one.lost if one else 0,
            unknown=one.unknown if one else 0,
            logarithms=one.logarithms if one else None,
            epochs=mean.epochs if mean else 0,
            loss=mean.loss if mean else None,
            median_loss=mean.median_loss if mean else None,
            combined_loss=mean.combined_loss if mean else None,
            naive_loss=mean.naive_loss if mean else None,
            rank=mean.rank if mean else None,
            ranked=mean.of if mean else None,
            share=mean.share if mean else None,
            reward=one.reward if one else None,
            above_reward=one.above_reward if one else None,
            ranked_reward=one.ranked_reward if one else None,
            contribution=mean.contribution if mean else None,
        )


class AboveShape(Shape):
    """The worker one place above ours in an epoch."""

    address: str
    loss: str | None
    score: str | None
    reward: str | None = Field(description="uallo")

    @classmethod
    def of(cls, one: Inferer) -> "AboveShape":
        return cls(address=one.address, loss=one.loss, score=one.score, reward=one.reward)


class EpochShape(Shape):
    """What one epoch made of our answer. Decimals are texts as the chain wrote them; null was not seen."""

    nonce: int = Field(description="height of the nonce block")
    opened: str | None = Field(description="time of the nonce block, UTC, ISO 8601")
    stage: Stage
    won: bool | None = Field(description="null: not known, or not over yet")
    reason: str
    worker: str = Field(description="our address")
    answer: str | None = Field(description="as the ledger has it; null: none was given")
    value: str | None = Field(description="of our worker on chain")
    combined: str | None = Field(description="the network's inference")
    combined_without: str | None = Field(description="the network's inference without our value")
    synthesised: bool = Field(
        description="true: the network's inference was not read in time; combined and combined_without are made from "
        "the collected losses by the chain's own formula, which gives what the chain published in other epochs"
    )
    naive: str | None = Field(description="the network's naive inference")
    loss: str | None = Field(description="of our worker; this and the other losses may be base-10 logarithms")
    median_loss: str | None = Field(description="of all inferers")
    combined_loss: str | None
    combined_loss_without: str | None = Field(description="of the network's inference without our value")
    naive_loss: str | None
    contribution: str | None = Field(description="combined_loss_without less combined_loss: above 0 we helped")
    score: str | None
    score_ema: str | None = Field(description="our smoothed score after the epoch")
    reward: str | None = Field(description="uallo")
    share: Number = Field(description="of what the epoch paid to its inferers, 0 to 1")
    rank: int | None = Field(description="among the inferers by reward, else by score; 1 is best")
    ranked: int = Field(description="inferers that were ranked")
    above: AboveShape | None = Field(description="the worker one place above ours")
    missing: Sequence[str] = Field(description="what could not be seen")

    @classmethod
    def of(cls, one: Result) -> "EpochShape":
        epoch = one.epoch
        return cls(
            nonce=epoch.nonce,
            opened=iso(epoch.block_ms) if epoch.block_ms is not None else None,
            stage=Stage(epoch.stage),
            won=one.won,
            reason=one.reason,
            worker=epoch.worker,
            answer=one.answer,
            value=epoch.value,
            combined=epoch.combined,
            combined_without=epoch.combined_without,
            synthesised=one.synthesised,
            naive=epoch.naive,
            loss=epoch.loss,
            median_loss=one.median_loss,
            combined_loss=epoch.combined_loss,
            combined_loss_without=epoch.combined_loss_without,
            naive_loss=epoch.naive_loss,
            contribution=one.contribution,
            score=epoch.score,
            score_ema=epoch.score_ema,
            reward=epoch.reward,
            share=one.share,
            rank=one.rank,
            ranked=one.of,
            above=AboveShape.of(one.above) if one.above else None,
            missing=[name for name in epoch.missing.split(",") if name],
        )
