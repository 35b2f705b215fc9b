"""Makes the snapshots that the pages show, from what the monitor has seen."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from admission.criteria import Criterion
from admission.readiness import Readiness
from admission.words import standing_words
from core.clock import DAY_MS, iso
from core.sources import NETWORK
from core.topic import Topic
from model.judging.skill import Skill
from model.registry.artefact import is_version_id, made_ms
from model.stretch import STRETCH_COSTS
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
from monitor.chain.results import ChainSeen
from monitor.chain.words import chain_shape
from monitor.snapshot import (
    NO_NETWORK,
    NO_SCORE,
    AlarmSeen,
    Judgement,
    LastSeen,
    LiveStanding,
    Skills,
    Snapshot,
    TopicSeen,
    TopicView,
    is_worse,
    judged_by,
)
from monitor.watched import Watched

SPARK_DAYS = 30
INFERENCE_REMEDY = "start it: docker compose up --detach inference, or birnn run; its log says why it ended"
BROKEN_REMEDY = "see the row of its symbol under Prices; birnn doctor checks venues, clock and models"
WORSE_REMEDY = "nothing to do yet: the gate reads these scores before the next training"


class Trends(NamedTuple):
    """Skills of many parts of a topic's record, which take some 20 ms to compute."""

    made: int  # number of the snapshot
    by_day: Mapping[int, Skill]
    by_version: Mapping[str, Skill]


class View:
    """Makes the snapshots; use it from a single thread.

    Of one topic at a time the trends are made anew, the oldest: so 55 topics cost no more processor time than one.
    """

    def __init__(self, skills: Skills, stretched: Collection[str] = ()) -> None:
        """Take what is shown of every snapshot.

        Args:
            stretched: ``Topic.key`` of the topics whose answers are made for admission.
        """
        self._skills = skills
        self._stretched = stretched
        self._trends: dict[str, Trends] = {}
        self._made = 0

    def build(
        self,
        watched: Watched,
        alarms: Sequence[AlarmSeen] = (),
        live: Mapping[str, LiveStanding] | None = None,
        chain: ChainSeen = ChainSeen(),  # noqa: B008 -- a value that does not change
        newest: Mapping[str, LastSeen] = MappingProxyType({}),
    ) -> Snapshot:
        """Make a snapshot.

        Args:
            alarms: those that are on, in any order.
            live: standing on the real record, by ``Topic.key``.
            newest: the ledger's newest answers, likewise, for a page that has not seen inference.
        """
        faults = dict(watched.faults)
        shown = [
            AlarmShape(name=one.name, subject=one.subject, what=one.what, since=iso(one.since_ms), remedy=one.remedy)
            for one in sorted(alarms, key=lambda alarm: alarm.since_ms)
        ]
        # Before inference was ever seen the topics are the config's.
        topics = [_configured(topic, newest.get(topic.key)) for topic in watched.topics if not watched.inference.topics]
        for entry in watched.inference.topics:
            try:
                topics.append(TopicSeen.model_validate(entry))
            except ValidationError as error:
                fault = error.errors()[0]
                faults["inference"] = f"/topics has what this release cannot read: {fault['loc']} {fault['msg']}"
        self._renew_trends([topic.key for topic in topics])
        views = [
            _view(
                topic,
                watched,
                self._skills,
                self._trends[topic.key],
                shown,
                (live or {}).get(topic.key),
                STRETCH_COSTS if topic.key in self._stretched else "",
                chain,
            )
            for topic in topics
        ]
        views.sort(key=lambda view: view.rank)
        return Snapshot(
            watched=watched,
            alarms=shown,
            topics=views,
            faults=faults,
            by_path={(view.seen.network or NO_NETWORK, view.seen.topic_id): view for view in views},
        )

    def _renew_trends(self, keys: Sequence[str]) -> None:
        self._made += 1
        self._trends = {key: trends for key, trends in self._trends.items() if key in keys}
        oldest = min(self._trends, key=lambda key: self._trends[key].made, default=None)
        for key in keys:
            if key == oldest or key not in self._trends:
                self._trends[key] = Trends(self._made, self._skills.by_day(key), self._skills.by_version(key))


def _configured(topic: Topic, last_answer: LastSeen | None) -> TopicSeen:
    return TopicSeen(
        network=topic.network,
        topic_id=topic.topic_id,
        token=topic.token,
        symbol=topic.symbol,
        target=topic.target.value,
        horizon=topic.horizon,
        loss=topic.loss,
        ready=False,
        last_answer=last_answer,
    )


def _view(
    seen: TopicSeen,
    watched: Watched,
    skills: Skills,
    trends: Trends,
    alarms: Sequence[AlarmShape],
    live: LiveStanding | None,
    note: str,
    chain: ChainSeen,
) -> TopicView:
    key = seen.key
    own = [alarm for alarm in alarms if alarm.subject == key]
    by_span = {span: skills.skill(key, days) for span, days in WINDOWS.items()}
    state, why = _state(seen, watched)
    today = watched.now_ms // DAY_MS
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
            remedy=_remedy(state, own, worse=not note and is_worse(judged_by(by_span)[1])),
            last_answer=LastAnswer(**last.model_dump(exclude={"answered_ms"})) if last else None,
            skill={span: SkillShape.of(skill) for span, skill in by_span.items()},
            admission=_admission(watched.admission.get(key), live, note),
            chain=chain_shape(chain, key, watched.now_ms),
        ),
        state=state,
        why=why,
        answered_ms=last.answered_ms if last else None,
        model=model,
        model_ms=made_ms(model) if is_version_id(model) else None,
        skills=by_span,
        by_day=[(day, trends.by_day.get(day, NO_SCORE)) for day in range(today - SPARK_DAYS + 1, today + 1)],
        by_version=trends.by_version,
        alarms=own,
        champion=watched.champions.get(key),
        demotions=watched.demotions.get(key, ()),
        judgement=_judgement(key, watched),
        note=note,
        checked=watched.chain.get(key),
    )


def _state(seen: TopicSeen, watched: Watched) -> tuple[State, str]:
    if not watched.inference.answers:
        return State.UNKNOWN, f"inference does not answer: {watched.inference.fault}"
    if not seen.ready:
        return State.BROKEN, f"not answered: {seen.reason or 'it is starting'}"
    if seen.forecast == NETWORK:
        return State.NETWORK, "a network answers"
    return State.NAIVE, f"the naive forecast answers: {seen.naive_because or 'it is starting'}"


def _remedy(state: State, alarms: Sequence[AlarmShape], worse: bool) -> str:
    if state is State.UNKNOWN:
        return INFERENCE_REMEDY
    if state is State.BROKEN:  # what mends a skill or a record of answers brings no answer
        return next((alarm.remedy for alarm in alarms if alarm.name == "topic"), BROKEN_REMEDY)
    return alarms[0].remedy if alarms else WORSE_REMEDY if worse else ""


def _judgement(key: str, watched: Watched) -> Judgement | None:
    for panel in watched.updater.panels.values() if watched.updater else ():
        for verdict in panel.outcome.verdicts if panel.outcome else ():
            if panel.outcome and verdict.topic == key:
                return Judgement(panel.outcome.finished_ms, panel.outcome.version or "", verdict)
    return None


def _admission(one: Readiness | None, live: LiveStanding | None, note: str) -> AdmissionShape | None:
    if one is None:
        return None
    standing = one.standing
    failed = [name for name, criterion in standing.criteria.items() if not criterion.passed]
    return AdmissionShape(
        eligible=standing.eligible,
        words=standing_words(standing, failed, one.short),
        criteria=_criteria(standing.criteria),
        note=note,
        live=LiveShape(
            eligible=bool(live.criteria) and all(one.passed for one in live.criteria.values()),
            since=iso(live.since_ms) if live.since_ms else None,
            answered=live.submitted,
            expected=live.expected,
            criteria=_criteria(live.criteria),
            missed_left=live.missed_left,
            expected_day=live.expected_day.isoformat() if live.expected_day else None,
            words=live.short,
        )
        if live
        else None,
    )


def _criteria(criteria: Mapping[str, Criterion]) -> Mapping[str, CriterionShape]:
    return {name: CriterionShape(value=one.value, bound=one.bound, passed=one.passed) for name, one in criteria.items()}
