"""What ``birnn status`` shows: the updater's state file, the champions, and the running endpoint's own view."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from rich.box import SIMPLE
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from cli.place import place_of
from core.clock import SystemClock, iso
from core.errors import WorkerError
from core.settings import Settings
from model.registry import Registry
from research.words import p_text
from updater.state import read_state

ALIVE_WITHIN_MS = 60_000


def status_report(settings: Settings) -> dict[str, Any]:
    """Everything as JSON: the endpoint, and the data folder in use unless no updater has run on it."""
    place = place_of(settings)
    folders = [(place.market.value.upper(), place.folder)]
    return {
        "place": place.sentence,
        "endpoint": _endpoint(f"http://{settings.host}:{settings.port}"),
        "folders": [
            {"folder": str(folder), "market": market, **_folder(folder)}
            for market, folder in folders
            if (folder / "updater.json").exists() or (folder / "champions.json").exists()
        ],
    }


def _endpoint(url: str) -> dict[str, Any]:
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment does not lead to this machine
            answer = session.get(f"{url}/topics", timeout=2)
        answer.raise_for_status()
        return {"url": url, "answers": True, "topics": answer.json()}
    except (requests.RequestException, ValueError) as error:
        return {"url": url, "answers": False, "reason": type(error).__name__}


def _folder(folder: Path) -> dict[str, Any]:
    state = read_state(folder)
    report: dict[str, Any] = {"updater": None if state is None else state.model_dump(mode="json")}
    report |= {"champions": {}, "demotions": {}}
    if state is not None:
        report["updater_alive"] = SystemClock().now_ms() - state.heartbeat_ms < ALIVE_WITHIN_MS
    try:
        registry = Registry(folder)
        report["champions"] = {key: champion.model_dump() for key, champion in registry.champions().items()}
        report["demotions"] = {
            key: [one.model_dump(mode="json") for one in several] for key, several in registry.demotions().items()
        }
    except WorkerError as error:
        report["champions_refused"] = str(error)
    return report


def status_tables(report: dict[str, Any]) -> Iterator[RenderableType]:
    """The report as people read it."""
    endpoint = report["endpoint"]
    if not endpoint["answers"]:
        yield f"inference at {endpoint['url']}: no answer ({endpoint['reason']})"
    else:
        table = _table("inference", "topic", "token", "target", "horizon", "answered by", "last value", "ready")
        several = len({topic["network"] for topic in endpoint["topics"]}) > 1
        for topic in endpoint["topics"]:
            name = f"{topic['network']}/{topic['topic_id']}" if several else str(topic["topic_id"])
            token = f"{topic['token']} ({topic['proxy']})" if topic.get("proxy") else topic["token"]
            asked = (name, token, topic["target"], topic["horizon"])
            by = topic["champion"] if not topic["persistence"] else f"persistence: {topic['persistence']}"
            value = (topic["last_answer"] or {}).get("value", "")
            table.add_row(*asked, by, value, "yes" if topic["ready"] else f"no: {topic['reason']}")
        yield table
    if not report["folders"]:
        yield f"no updater has run here yet: {report['place']}; scripts/run starts everything"
    for folder in report["folders"]:
        yield from _folder_tables(folder)


def _folder_tables(folder: dict[str, Any]) -> Iterator[RenderableType]:
    yield f"{folder['market']} data in {folder['folder']}"
    if "champions_refused" in folder:
        yield f"champions refused: {folder['champions_refused']}"
    state = folder["updater"]
    if state is None:
        yield "updater: no readable state"
        return
    seen = _when(state["heartbeat_ms"])
    yield f"updater: {'alive' if folder['updater_alive'] else 'not running'}, last seen {seen}"
    panels = _table("training", "panel", "now", "last round", "version", "failures", "next")
    scores = _table("judged", "topic", "forecasts", "loss", "rows", "/ naive", "p", "/ champion", "serves")
    notes: list[str] = []
    judged = [
        verdict["topic"]
        for panel in state["panels"].values()
        for verdict in (panel["outcome"] or {}).get("verdicts", ())
    ]
    several = len({key.rpartition("/")[0] for key in judged}) > 1
    for name, panel in state["panels"].items():
        outcome = panel["outcome"] or {}
        ended = (
            "none yet"
            if not outcome
            else f"{'ok' if outcome['ok'] else outcome['reason']} {_when(outcome['finished_ms'])}"
        )
        upcoming = panel["next_try_ms"] or panel["next_run_ms"]
        panels.add_row(
            name,
            panel["progress"] or ("training" if panel["running_since_ms"] else "idle"),
            ended,
            outcome.get("version") or "",
            str(panel["failures"]),
            _when(upcoming) if upcoming else "",
        )
        if panel["training"]:
            knobs = ", ".join(f"{knob} {value}" for knob, value in sorted(panel["training"].items()))
            notes.append(escape(f"{name} panel: trained with {knobs}; other settings at their defaults"))
        if outcome.get("training_fault"):
            notes.append(escape(f"{name} panel: training settings not heeded: {outcome['training_fault']}"))
        for verdict in outcome.get("verdicts", ()):
            scores.add_row(
                verdict["topic"] if several else verdict["topic"].rpartition("/")[2],
                f"{verdict['symbol']} {verdict['head']}",
                verdict["loss"],
                str(verdict["rows"]),
                _ratio(verdict["challenger"], verdict["naive"]),
                p_text(verdict["p"]),
                _ratio(verdict["challenger"], verdict["champion"]),
                "yes" if verdict["promoted"] else f"no: {verdict['reason']}",
            )
    yield panels
    yield from notes
    yield scores
    if folder["demotions"]:
        gone = _table("last demotion", "topic", "version", "when", "gave way to", "why")
        for key, demotions in sorted(folder["demotions"].items()):
            last = demotions[-1]
            gone.add_row(
                key if several else key.rpartition("/")[2],
                last["champion"]["version"],
                _when(last["demoted_ms"]),
                last["successor"] or "the naive forecast",
                escape(last["reason"]),
            )
        yield gone
    series = _table("kline store", "series", "newest kline", "gaps", "last sync", "failure")
    for name, entry in state["series"].items():
        newest = _when(entry["newest_ms"]) if entry["newest_ms"] else "none"
        series.add_row(name, newest, str(entry["gaps"]), _when(entry["synced_ms"]), entry["reason"])
    yield series


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a version's id is only of use whole
    return table


def _when(ms: int) -> str:
    """To the minute: a table has to fit a terminal."""
    return iso(ms)[:16].replace("T", " ") + "Z"


def _ratio(loss: float | None, beside: float | None) -> str:
    return "" if loss is None or not beside else f"{loss / beside:.4f}"
