"""The JSON of the monitor: the shapes under ``/api/``, as OpenAPI documents them. Numbers are finite or null."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from pydantic import Field

from core.clock import iso
from ledger.answers import Answer
from model.judging.skill import Skill
from monitor.chain.api import ChainShape
from monitor.shape import Number, Shape

WINDOWS = {"1d": 1, "7d": 7, "30d": 30}  # the spans of a skill, in days


class ScoreSeen(Protocol):
    """What the page reads of a score: columns of the ledger's table ``scores``."""

    @property
    def end_ms(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def venue(self) -> str: ...
    @property
    def truth(self) -> float | None: ...
    @property
    def truth_sd(self) -> float | None: ...
    @property
    def naive(self) -> float | None: ...
    @property
    def plain_naive(self) -> float | None: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def naive_loss(self) -> float | None: ...
    @property
    def plain_naive_loss(self) -> float | None: ...
    @property
    def right_direction(self) -> bool | None: ...
    @property
    def error_bp(self) -> float | None: ...


Row = tuple[Answer, ScoreSeen | None]  # an answer, and its score once its interval is over


class State(StrEnum):
    """How a topic is answered."""

    NETWORK = "network"
    NAIVE = "naive"  # by the naive forecast
    BROKEN = "broken"  # it is not answered: 503
    UNKNOWN = "unknown"  # inference does not answer the monitor


class LastAnswer(Shape):
    """The newest answer of a topic."""

    height: int | None = Field(description="nonce: the height that the question named; null if it named no height")
    value: str = Field(description="the decimal as it was sent, to the letter")
    answered: str = Field(description="when, UTC, ISO 8601")
    version: str = Field(description="of the network that answered, or persistence for the naive forecast")
    forecast: str = Field(description="network or naive; empty in rows of old releases")


class SkillShape(Shape):
    """Skill: the share of the naive forecast's loss that the answers save; below 0 they lose more than naive."""

    n: int = Field(description="scored answers")
    skill: Number = Field(description="1 - mean loss / mean naive loss; 0.12 is 12 % better; null without a score")
    low: Number = Field(description="lower end of the 95 % interval; null if the answers cover too little time")
    high: Number = Field(description="upper end of that interval")

    @classmethod
    def of(cls, skill: Skill) -> "SkillShape":
        return cls(n=skill.n, skill=skill.skill, low=skill.low, high=skill.high)


class CriterionShape(Shape):
    """A criterion of admission to mainnet."""

    value: Number
    bound: Number = Field(description="the end of the confidence interval that decides")
    passed: bool


class LiveShape(Shape):
    """The criteria on the real record of answers."""

    eligible: bool = Field(description="all criteria hold now")
    since: str | None = Field(description="when the record begins, UTC, ISO 8601; null without an answer")
    answered: int = Field(description="epochs that were answered")
    expected: int = Field(description="epochs since the record began")
    criteria: Mapping[str, CriterionShape] = Field(description="on the real record, by name")
    missed_left: int | None = Field(description="epochs that may still be missed before participation is 90 %")
    expected_day: str | None = Field(description="the day on which all criteria are expected to hold, YYYY-MM-DD")
    words: str = Field(description="what falls short; empty if nothing does")


class AdmissionShape(Shape):
    """Whether the network would admit this topic's answers to mainnet."""

    eligible: bool = Field(description="all criteria hold on the replay")
    words: str = Field(description="the replay's result in one sentence")
    criteria: Mapping[str, CriterionShape] = Field(description="on the replay, by name")
    note: str = Field(description="why a skill below 0 is no fault, where answers are stretched; else empty")
    live: LiveShape | None = Field(description="the same on the real record; null while there is none")


class TopicShape(Shape):
    """A topic, worst first in a list."""

    network: str | None = Field(description='chain id; null if config.json names none ("-" in a path)')
    topic_id: int
    token: str
    target: str = Field(description="price, log_return or volatility")
    horizon: str = Field(description="10m, 8h, 7d")
    state: State
    remedy: str = Field(description="what to do; empty if there is nothing to do")
    last_answer: LastAnswer | None
    skill: Mapping[str, SkillShape] = Field(description='by span: "1d", "7d", "30d"; see the note of admission')
    admission: AdmissionShape | None = Field(description="null until the updater has looked at the topic")
    chain: ChainShape | None = Field(description="null where the chain is not read (LCD_URLS) and never was")


def answered_fields(answer: Answer) -> dict[str, Any]:
    """Return the fields of ``LastAnswer`` from a row of the ledger."""
    return {
        "height": answer.height,
        "value": answer.value,
        "answered": iso(answer.answered_ms),
        "version": answer.version,
        "forecast": answer.forecast,
    }


class AnswerShape(LastAnswer):
    """An answer and, once its interval is over, its score."""

    base: str = Field(description="when the answer's interval begins, UTC, ISO 8601")
    scored: bool = Field(description="true if the truth is known and the losses are there")
    reason: str = Field(description="why the answer cannot be scored; empty if it is, or is not due yet")
    ended: str | None = Field(description="when the interval ended; null while the answer has no score")
    venue: str | None = Field(description="of the truth")
    truth: Number
    truth_sd: Number = Field(description="standard error of the truth")
    naive: Number = Field(description="the naive forecast that knows what the answer knew")
    loss: Number = Field(description="the topic's own loss")
    naive_loss: Number = Field(description="of the naive forecast that knows what the answer knew")
    plain_naive_loss: Number = Field(description="of the naive forecast made at the base")
    right_direction: bool | None = Field(description="null if the answer or the truth did not move from the base")
    error_bp: Number = Field(description="error in basis points")

    @classmethod
    def of(cls, answer: Answer, score: ScoreSeen | None) -> "AnswerShape":
        return cls(
            **answered_fields(answer),
            base=iso(answer.base_ms),
            scored=score is not None and score.loss is not None,
            reason=score.reason if score else "",
            ended=iso(score.end_ms) if score else None,
            venue=(score.venue or None) if score else None,
            truth=score.truth if score else None,
            truth_sd=score.truth_sd if score else None,
            naive=score.naive if score else None,
            loss=score.loss if score else None,
            naive_loss=score.naive_loss if score else None,
            plain_naive_loss=score.plain_naive_loss if score else None,
            right_direction=score.right_direction if score else None,
            error_bp=score.error_bp if score else None,
        )


class AlarmShape(Shape):
    """Something that is wrong now."""

    name: str = Field(description="inference, topic, anchor, champion, training, demotion, skill, ...")
    subject: str = Field(description="what it is about: a topic, a symbol, a panel; empty: the node")
    what: str
    since: str = Field(description="UTC, ISO 8601")
    remedy: str


Topics = Sequence[TopicShape]
