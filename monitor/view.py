"""A snapshot of everything that the front page shows, made in the background: a request only renders it."""

import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from admission.criteria import Criterion
from admission.readiness import Readiness
from admission.words import standing_words
from core.clock import DAY_MS, iso
from core.sources import NETWORK
from core.topic import topic_key
from model.judging.skill import Skill
from model.registry.champions import Champion, Demotion
from monitor.api import (
    WINDOWS,
    AdmissionShape,
    AlarmShape,
    CriterionShape,
    LastAnswer,
    LiveShape,
    SkillShape,
    State,
    TopicShape,
)
from monitor.watched import Watched
from updater.state import Verdict

NO_SCORE = Skill(n=0, skill=None, low=None, high=None)
NO_NETWORK = "-"  # stands for the network in a path, if config.json names none
SPARK_DAYS = 30
INFERENCE_REMEDY = "start it: docker compose up --detach inference, or birnn run; its log says why it ended"
BROKEN_REMEDY = "see the row of its symbol under Prices; birnn doctor checks venues, clock and models"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStanding:
    """The criteria of admission on a topic's real record."""

    days: float  # length of the record
    criteria: Mapping[str, Criterion]
    missed_left: int | None  # epochs that may still be missed before participation is 90 %; None: not known
    expected_day: str | None  # "2026-12-24"; None: not known
    words: str  # in one sentence


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
    last_answer: dict[str, Any] | None = None


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

    @property
    def name(self) -> str:
        """The question in words: ``ETH price 10m``."""
        return f"{self.seen.token} {self.seen.target.replace('_', '-')} {self.seen.horizon}"

    @property
    def judged(self) -> tuple[str, Skill]:
        """The skill that says how good the topic is: of 7 days, or else the longest span with scores."""
        return next(
            ((span, self.skills[span]) for span in ("7d", "30d", "1d") if self.skills[span].n), ("7d", NO_SCORE)
        )

    @property
    def is_worse(self) -> bool:
        """True if the answers are worse than the naive forecast beyond doubt."""
        high = self.judged[1].high
        return high is not None and high < 0

    @property
    def rank(self) -> tuple[int, float, str, int]:
        """Sorts the worst topic first: broken, worse than naive, with an alarm, then by skill."""
        skill = self.judged[1].skill
        kind = 0 if self.state in {State.BROKEN, State.UNKNOWN} else 1 if self.is_worse else 2 if self.alarms else 3
        return kind, 1.0 if skill is None else skill, self.seen.network or "", self.seen.topic_id


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
    def simulated(self) -> bool:
        return self.watched.market != "BINANCE"


def build(
    watched: Watched,
    skills: Skills,
    alarms: Sequence[AlarmSeen],
    live: Mapping[str, LiveStanding] | None = None,
) -> Snapshot:
    """Make the snapshot.

    Args:
        alarms: those that are on, in any order.
        live: standing on the real record, by ``Topic.key``.
    """
    faults = dict(watched.faults)
    shown = [
        AlarmShape(name=one.name, subject=one.subject, what=one.what, since=iso(one.since_ms), remedy=one.remedy)
        for one in sorted(alarms, key=lambda alarm: alarm.since_ms)
    ]
    views = []
    for entry in watched.inference.topics:
        try:
            seen = TopicSeen.model_validate(entry)
        except ValidationError as error:
            fault = error.errors()[0]
            faults["inference"] = f"/topics has a topic that this release cannot read: {fault['loc']} {fault['msg']}"
            continue
        views.append(_view(seen, watched, skills, shown, (live or {}).get(topic_key(seen.network, seen.topic_id))))
    views.sort(key=lambda view: view.rank)
    return Snapshot(
        watched=watched,
        alarms=shown,
        topics=views,
        faults=faults,
        by_path={(view.seen.network or NO_NETWORK, view.seen.topic_id): view for view in views},
    )


def _view(
    seen: TopicSeen, watched: Watched, skills: Skills, alarms: Sequence[AlarmShape], live: LiveStanding | None
) -> TopicView:
    key = topic_key(seen.network, seen.topic_id)
    own = [alarm for alarm in alarms if alarm.subject == key]
    by_span = {span: skills.skill(key, days) for span, days in WINDOWS.items()}
    state, why = _state(seen, watched)
    today = watched.now_ms // DAY_MS
    by_day = skills.by_day(key)
    last = seen.last_answer
    model = (seen.champion or "") if seen.forecast == NETWORK else ""
    return TopicView(
        key=key,
        path=f"{quote(seen.network or NO_NETWORK, safe='')}/{seen.topic_id}",
        seen=seen,
        shape=TopicShape(
            network=seen.network,
            topic_id=seen.topic_id,
            token=seen.token,
            target=seen.target,
            horizon=seen.horizon,
            state=state,
            remedy=_remedy(state, own),
            last_answer=LastAnswer(**{name: last[name] for name in LastAnswer.model_fields}) if last else None,
            skill={span: SkillShape.of(skill) for span, skill in by_span.items()},
            admission=_admission(watched.admission.get(key), live),
        ),
        state=state,
        why=why,
        answered_ms=last["answered_ms"] if last else None,
        model=model,
        model_ms=trained_ms(model),
        skills=by_span,
        by_day=[(day, by_day.get(day, NO_SCORE)) for day in range(today - SPARK_DAYS + 1, today + 1)],
        by_version=skills.by_version(key),
        alarms=own,
        champion=watched.champions.get(key),
        demotions=watched.demotions.get(key, ()),
        judgement=_judgement(key, watched),
    )


def _state(seen: TopicSeen, watched: Watched) -> tuple[State, str]:
    if not watched.inference.answers:
        return State.UNKNOWN, f"inference does not answer: {watched.inference.fault}"
    if not seen.ready:
        return State.BROKEN, f"not answered: {seen.reason or 'it is starting'}"
    if seen.forecast == NETWORK:
        return State.NETWORK, "a network answers"
    return State.NAIVE, f"the naive forecast answers: {seen.naive_because or 'it is starting'}"


def _remedy(state: State, alarms: Sequence[AlarmShape]) -> str:
    if alarms:
        return alarms[0].remedy
    return {State.UNKNOWN: INFERENCE_REMEDY, State.BROKEN: BROKEN_REMEDY}.get(state, "")


def _judgement(key: str, watched: Watched) -> Judgement | None:
    for panel in watched.updater.panels.values() if watched.updater else ():
        for verdict in panel.outcome.verdicts if panel.outcome else ():
            if panel.outcome and verdict.topic == key:
                return Judgement(panel.outcome.finished_ms, panel.outcome.version or "", verdict)
    return None


def _admission(one: Readiness | None, live: LiveStanding | None) -> AdmissionShape | None:
    if one is None:
        return None
    standing = one.standing
    failed = [name for name, criterion in standing.criteria.items() if not criterion.passed]
    return AdmissionShape(
        eligible=standing.eligible,
        words=standing_words(standing, failed, one.short),
        criteria=_criteria(standing.criteria),
        live=LiveShape(
            days=live.days,
            criteria=_criteria(live.criteria),
            missed_left=live.missed_left,
            expected_day=live.expected_day,
            words=live.words,
        )
        if live
        else None,
    )


def _criteria(criteria: Mapping[str, Criterion]) -> Mapping[str, CriterionShape]:
    return {name: CriterionShape(value=one.value, bound=one.bound, passed=one.passed) for name, one in criteria.items()}


def trained_ms(version: str) -> int | None:
    """Return the time in a version's id; None if the id has none.

    >>> trained_ms("minute-20261122T084500Z-1a2b3c"), trained_ms("persistence"), trained_ms("")
    (1795337100000, None, None)
    """
    try:
        return timegm(time.strptime(version.split("-")[1], "%Y%m%dT%H%M%SZ")) * 1000
    except (IndexError, ValueError):
        return None
