"""What the pages show: values that are made in the background and never change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from admission.criteria import Criterion
from core.topic import topic_key
from ledger.answers import Answer
from model.judging.skill import Skill
from model.registry.champions import Champion, Demotion
from monitor.api import AlarmShape, LastAnswer, State, TopicShape, answered_fields
from monitor.chain.words import NOT_READ
from monitor.watched import Checked, Watched
from updater.state import Verdict

NO_SCORE = Skill(n=0, skill=None, low=None, high=None)
NO_NETWORK = "-"  # stands for the network in a path, if config.json names none


class Skills(Protocol):
    """Skill by topic, of ``Topic.key``; every method answers from memory."""

    def skill(self, key: str, days: int) -> Skill: ...
    def by_day(self, key: str) -> Mapping[int, Skill]:
        """By day since 1970."""

    def by_version(self, key: str) -> Mapping[str, Skill]: ...


class AlarmSeen(Protocol):
    """An alarm that has begun and has not ended."""

    @property
    def name(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def since_ms(self) -> int: ...
    @property
    def remedy(self) -> str: ...


class LiveStanding(Protocol):
    """The criteria of admission on a topic's real record."""

    @property
    def criteria(self) -> Mapping[str, Criterion]:
        """By name; empty without answers."""

    @property
    def submitted(self) -> int:
        """Epochs that were answered."""

    @property
    def expected(self) -> int:
        """Epochs from the first answer on."""

    @property
    def missed_left(self) -> int | None:
        """Epochs that may still be missed before participation is 90 %; None: not known."""

    @property
    def since_ms(self) -> int:
        """Start of the record; 0: no answer."""

    @property
    def expected_day(self) -> date | None:
        """On which all criteria may hold; None: not to be foreseen."""

    @property
    def short(self) -> str:
        """What falls short, in words."""


class LastSeen(LastAnswer):
    """A topic's last answer, as inference's ``/topics`` has it."""

    answered_ms: int


def last_seen(answer: Answer) -> LastSeen:
    """Return a row of the ledger in that form."""
    return LastSeen(**answered_fields(answer), answered_ms=answer.answered_ms)


class TopicSeen(BaseModel):
    """What the page reads of a topic on inference's ``/topics``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    network: str | None
    topic_id: int
    token: str
    symbol: str
    target: str
    horizon: str
    loss: str
    ready: bool
    reason: str = ""
    forecast: str | None = None
    champion: str | None = None
    naive_because: str = ""
    proxy: str | None = None
    venue: str | None = None
    candles_of: str | None = None
    truth_ratio: float | None = None
    truth_fault: str = ""
    anchor_age_ms: int | None = None
    stream: str = ""
    last_answer: LastSeen | None = None

    @property
    def key(self) -> str:
        """``Topic.key``."""
        return topic_key(self.network, self.topic_id)


class Judgement(NamedTuple):
    """What the gate said of a topic after a training."""

    finished_ms: int
    version: str  # the challenger
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicView:
    """A topic as the pages show it."""

    key: str  # Topic.key
    path: str  # of its page, below /topics/
    seen: TopicSeen
    shape: TopicShape  # the same as JSON
    state: State
    why: str  # who answers or why nobody does, in a sentence
    answered_ms: int | None
    model: str  # version that answers; empty: the naive forecast
    model_ms: int | None  # when it was trained
    skills: Mapping[str, Skill]  # by WINDOWS
    by_day: Sequence[tuple[int, Skill]]  # day since 1970, oldest first
    by_version: Mapping[str, Skill]
    alarms: Sequence[AlarmShape]
    champion: Champion | None
    demotions: Sequence[Demotion]
    judgement: Judgement | None  # of the last training
    note: str  # why a skill below 0 is no fault; empty without a reason
    checked: Checked | None = None  # against the chain; None: not yet

    @property
    def name(self) -> str:
        """The question in words: ``ETH price 10m``."""
        return f"{self.seen.token} {self.seen.target.replace('_', '-')} {self.seen.horizon}"

    @property
    def chain_note(self) -> str:
        """Why what is known of the chain may be old; empty while the chain is seen."""
        return self.shape.chain.note if self.shape.chain else NOT_READ

    @property
    def judged(self) -> tuple[str, Skill]:
        """The span and the skill that say how good the topic is."""
        return judged_by(self.skills)

    @property
    def is_worse(self) -> bool:
        """True if the answers are worse than the naive forecast beyond doubt, and not on purpose."""
        return not self.note and is_worse(self.judged[1])

    @property
    def rank(self) -> tuple[int, float, str, int]:
        """Sorts the worst topic first: broken, worse than naive, with an alarm, then by skill."""
        skill = self.judged[1].skill
        kind = 0 if self.state in {State.BROKEN, State.UNKNOWN} else 1 if self.is_worse else 2 if self.alarms else 3
        return kind, 1.0 if skill is None else skill, self.seen.network or "", self.seen.topic_id


def judged_by(skills: Mapping[str, Skill]) -> tuple[str, Skill]:
    """The skill of 7 days, or else of the longest span with scores, and its span."""
    return next(((span, skills[span]) for span in ("7d", "30d", "1d") if skills[span].n), ("7d", NO_SCORE))


def is_worse(skill: Skill) -> bool:
    """True if the whole interval lies below 0."""
    return skill.high is not None and skill.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at everything; never changes."""

    watched: Watched
    alarms: Sequence[AlarmShape] = ()
    topics: Sequence[TopicView] = ()  # worst first
    faults: Mapping[str, str] = field(default_factory=dict)  # part that the monitor cannot read -> why
    by_path: Mapping[tuple[str, int], TopicView] = field(default_factory=dict)  # network or "-", topic id

    @property
    def made_ms(self) -> int:
        return self.watched.now_ms

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the topics, each once."""
        return [*dict.fromkeys(view.note for view in self.topics if view.note)]

    @property
    def chain_notes(self) -> Sequence[str]:
        """Why what is known of the chain may be old, by network where there are several; each once."""
        noted = {(view.seen.network or "", view.chain_note): None for view in self.topics}
        several = len(noted) > 1 and len({note for _, note in noted}) > 1
        said = (f"{network}: {note}" if several else note for network, note in noted if note)
        return [*dict.fromkeys(said)]

    @property
    def simulated(self) -> bool:
        return self.watched.market != "BINANCE"
