"""What ``birnn status`` adds from the ledger and from admission.json: skill and admission of each topic."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from admission.readiness import Readiness, read_admission
from cli.place import ledger_url, place_of
from cli.ready import admission_words
from cli.scores.chain import chain_parts, chain_shapes, upgrade_notices
from cli.scores.record import NothingAnswered, reading
from cli.scores.tables import skill_cells, topic_fields
from cli.screen import Column, plain, table_of
from cli.verbs import config_as_far_as_known
from core.clock import DAY_MS, MINUTE_MS, SystemClock
from core.errors import IncompatibleModel, WorkerError
from core.settings import Settings
from core.topic import parse_horizon, topic_key
from ledger.scores import ScoreBook
from model.judging.skill import Skill, skill_of
from monitor.api import WINDOWS, SkillShape
from monitor.chain.api import ChainShape

NOTHING = Skill(n=0, skill=None, low=None, high=None)
OF_TOPIC = ("network", "topic_id", "token", "target", "horizon")
TITLE = "skill: the share of the naive forecast's loss that the answers saved"


def skill_report(settings: Settings, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``topics`` by the names of the monitor's ``/api/topics``, and why no skill is known if none is.

    ``upgrades`` are lines about upgrades of the networks' chains and about APIs that the official node does not speak.

    Args:
        endpoint: as ``status_report`` has it: the topics are its, or those of config.json if inference does not answer.
    """
    place = place_of(settings)
    topics = [{name: topic[name] for name in OF_TOPIC} for topic in endpoint.get("topics", ())]
    topics = topics or _configured(settings)
    topics.sort(key=lambda topic: (topic["network"] or "", topic["topic_id"]))
    report: dict[str, Any] = {"topics": topics, "upgrades": []}
    skills: dict[str, Mapping[str, Skill]] = {}
    chain: dict[str, ChainShape | None] = {}
    try:
        with reading(ledger_url(settings, place)) as record:
            for topic in topics:
                key = topic_key(topic["network"], topic["topic_id"])
                skills[key] = _skills(record.book, key, parse_horizon(topic["horizon"]))
            chain = chain_shapes(ledger_url(settings, place), settings, list(skills))
            networks = sorted({topic["network"] or "" for topic in topics})
            report["upgrades"] = upgrade_notices(ledger_url(settings, place), settings, networks)
    except NothingAnswered:
        report["skill_refused"] = "nothing has been answered here yet"
    except WorkerError as error:
        report["skill_refused"] = str(error)
    admission = _admission(place.folder)
    for topic in topics:
        key = topic_key(topic["network"], topic["topic_id"])
        topic["skill"] = {span: SkillShape.of(skills.get(key, {}).get(span, NOTHING)).model_dump() for span in WINDOWS}
        seen = chain.get(key)
        topic["chain"] = seen and seen.model_dump()
        one = admission.get(key)
        topic["admission"] = one and {
            "eligible": one.standing.eligible,
            "words": admission_words(one),
            "criteria": {name: asdict(criterion) for name, criterion in one.standing.criteria.items()},
        }
    return report


def _configured(settings: Settings) -> list[dict[str, Any]]:
    return [topic_fields(topic) for topic in config_as_far_as_known(settings, example=True)[0].topics]


def _skills(book: ScoreBook, key: str, horizon_min: int) -> dict[str, Skill]:
    now_ms = SystemClock().now_ms()
    found = book.recent(key, now_ms - max(WINDOWS.values()) * DAY_MS)
    rows = {span: found.end_ms >= now_ms - days * DAY_MS for span, days in WINDOWS.items()}
    return {
        span: skill_of(found.end_ms[of] // MINUTE_MS, found.loss[of], found.naive_loss[of], horizon_min)
        for span, of in rows.items()
    }


def _admission(folder: Path) -> Mapping[str, Readiness]:
    try:
        return read_admission(folder)[1]
    except IncompatibleModel:  # the updater's part of the status says so
        return {}


def skill_parts(report: Mapping[str, Any], width: int) -> Iterator[RenderableType]:
    """The skills as people read them.

    Args:
        report: of ``skill_report``.
        width: of the screen, in columns.
    """
    if "skill_refused" in report:
        yield Text(plain(f"skill unknown: {report['skill_refused']}"))
        return
    topics = report["topics"]
    yield from (Text(plain(line)) for line in report["upgrades"])
    yield from chain_parts(
        {
            topic_key(topic["network"], topic["topic_id"]): topic["chain"] and ChainShape(**topic["chain"])
            for topic in topics
        },
        brief=True,
    )
    if not any(topic["skill"]["30d"]["n"] for topic in topics):
        yield Text("skill unknown: nothing was scored within 30 days (birnn scores says why)")
        return
    several = len({topic["network"] for topic in topics}) > 1
    columns = (
        Column(heading="topic"),
        *(Column(heading=heading, wraps=True) for heading in ("today", "7 days", "30 days")),
        Column(heading="scored", right=True),
        Column(heading="admitted", wraps=True),
    )
    rows: list[tuple[str | Text, ...]] = [
        (
            topic_key(topic["network"] if several else None, topic["topic_id"]),
            *(_cell(Skill(**topic["skill"][span])) for span in WINDOWS),
            f"{topic['skill']['30d']['n']:,}",
            _admitted(topic["admission"]),
        )
        for topic in topics
    ]
    yield table_of(columns, rows, width, title=TITLE)


def _cell(skill: Skill) -> Text:
    number, interval = skill_cells(skill)
    return Text.assemble(number, " (", interval, ")") if skill.skill is not None else Text("none")


def _admitted(admission: Mapping[str, Any] | None) -> str:
    return "" if admission is None else "yes" if admission["eligible"] else "no"
