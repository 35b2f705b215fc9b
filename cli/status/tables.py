"""The report of ``birnn status`` as people read it."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from admission.words import ONE_NAIVE
from cli.screen import INDENT, Column, plain, table_of
from cli.status.arrival import arrival_lines
from core.clock import DAY_MS, SystemClock, iso
from core.logs import short_version
from core.show.words import duration, p_text
from core.sources import ADDS_NOTHING
from updater.state import retry_after_min

WHOLE_IDS = 140  # columns; a screen this wide shows whole ids of versions
NAIVE = f"naive: {ADDS_NOTHING}"

GOOD, BAD, DIM = "green", "red", "dim"


def headline(endpoint: Mapping[str, Any]) -> str:
    """The state of the endpoint in one sentence.

    >>> topic = {"ready": True, "network": "n", "forecast": "naive"}
    >>> rest = [topic | {"topic_id": 2, "forecast": "network"}, topic | {"topic_id": 3, "ready": False}]
    >>> headline({"answers": True, "topics": [topic | {"topic_id": 1}, *rest]})
    '2 of 3 answered: 1 by a network with skill, 1 naive; not answered: 3'
    """
    if not endpoint["answers"]:
        return f"inference at {endpoint['url']}: no answer ({endpoint['reason']}); scripts/run starts everything"
    topics = _in_order(endpoint["topics"])
    ready = [topic for topic in topics if topic["ready"]]
    by = [_forecast_of(topic) for topic in ready]
    counts = (
        ("network", "by a network with skill"),
        ("naive", "naive"),
        ("", "not forecast yet"),
    )
    parts = [f"{by.count(kind)} {words}" for kind, words in counts if by.count(kind)]
    sentence = f"{len(ready)} of {len(topics)} answered" + (f": {', '.join(parts)}" if parts else "")
    missing = [str(topic["topic_id"]) for topic in topics if not topic["ready"]]
    return sentence + (f"; not answered: {', '.join(missing)}" if missing else "")


def _forecast_of(topic: Mapping[str, Any]) -> str:
    """ "network", "naive", or empty before there is a forecast."""
    return topic["forecast"] or ""


def _in_order(topics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(topics, key=lambda topic: (topic["network"], topic["topic_id"]))


def status_tables(report: dict[str, Any], width: int = 80) -> Iterator[RenderableType]:
    """The report as people read it.

    Args:
        width: of the screen, in columns.
    """
    endpoint = report["endpoint"]
    yield _hanging(headline(endpoint), width, style="bold")
    folders = report["folders"]
    for line in report.get("adoption_words", ()):
        yield _hanging(plain(line), width)
    if refused := report.get("adoptions_refused"):
        yield _hanging(plain(f"what was adopted is not known: {refused}"), width, style=BAD)
    if folders:
        where = "; ".join(f"{folder['folder']} ({folder['market']})" for folder in folders)
        yield _hanging(f"data in {where}", width)
    if endpoint["answers"]:
        yield _topics_table(endpoint["topics"], width)
    yield from (_hanging(line, width) for line in arrival_lines(report.get("arrivals", ())))
    if not folders:
        yield _hanging(f"no updater has run here yet; scripts/run starts everything; {report.get('place', '')}", width)
    for folder in folders:
        yield from _folder_tables(folder, report.get("retrain_cron", ""), width)


def _topics_table(topics: Sequence[dict[str, Any]], width: int) -> RenderableType:
    several = len({topic["network"] for topic in topics}) > 1
    columns = (
        Column(heading="topic"),
        Column(heading="asks", wraps=True),
        Column(heading="loss", least_width=100),
        Column(heading="answered by", wraps=True),
        Column(heading="last value", right=True),
        Column(heading="given", wraps=True),
        Column(heading="price age", least_width=100, right=True),
    )
    rows = []
    for topic in _in_order(topics):
        token = f"{topic['token']} ({topic['proxy']})" if topic.get("proxy") else topic["token"]
        age_ms = topic.get("anchor_age_ms")
        rows.append(
            (
                f"{topic['network']}/{topic['topic_id']}" if several else str(topic["topic_id"]),
                f"{token} {topic['target']} {topic['horizon']}",
                topic.get("loss", ""),
                _answered_by(topic, width),
                *_last_value(topic, width),
                "" if age_ms is None else f"{age_ms / 1000:.1f} s",
            )
        )
    return table_of(columns, rows, width, title="answers")


def _last_value(topic: Mapping[str, Any], width: int) -> tuple[str, str]:
    """The last value and its time; also the forecaster of that value, if another forecaster answers now."""
    last = topic["last_answer"]
    if not last:
        return "none yet", ""
    is_old = SystemClock().now_ms() - last["answered_ms"] > DAY_MS
    when = iso(last["answered_ms"])[5:16].replace("T", " ") if is_old else iso(last["answered_ms"])[11:16]
    is_naive = last["forecast"] == "naive"
    if last["forecast"] == topic["forecast"] and (is_naive or last["version"] == topic["champion"]):
        return _value(last["value"]), f"{when}Z"
    return _value(last["value"]), f"{when}Z by {'naive' if is_naive else _version(last['version'], width)}"


def _answered_by(topic: Mapping[str, Any], width: int) -> Text:
    if not topic["ready"]:
        return Text(f"not answered: {topic.get('reason') or 'it is starting'}", style=BAD)
    kind = _forecast_of(topic)
    if kind == "network":
        return Text(f"network {_version(topic['champion'], width)}", style=GOOD)
    if kind == "naive":
        return Text(f"naive: {topic['naive_because']}")
    return Text("no forecast yet", style=DIM)


def _folder_tables(folder: dict[str, Any], cron: str, width: int) -> Iterator[RenderableType]:
    yield ""
    if "champions_refused" in folder:
        yield _hanging(f"champions refused: {folder['champions_refused']}", width, style=BAD)
    state = folder["updater"]
    if state is None:
        yield Text("updater: no readable state", style=BAD)
        return
    alive, seen = folder["updater_alive"], _when(state["heartbeat_ms"])
    gone = f"is stopped since {seen}" if not state["pid"] else f"does not run (last seen {seen})"
    said = f"the updater {gone}: nothing is trained; scripts/run starts everything"
    yield _hanging(f"updater alive, last seen {seen}" if alive else said, width, style="" if alive else BAD)
    for name, panel in state["panels"].items():
        yield from (_hanging(line, width) for line in _panel_lines(name, panel, alive, cron))
    judged = [verdict for panel in state["panels"].values() for verdict in (panel["outcome"] or {}).get("verdicts", ())]
    several = len({verdict["topic"].rpartition("/")[0] for verdict in judged}) > 1
    if judged:
        yield _verdicts_table(judged, several, width)
        yield Text(ONE_NAIVE)
    if folder["demotions"]:
        yield _demotions_table(folder["demotions"], several, width)
    if "admission_refused" in folder:
        yield Text(f"admission unknown: {folder['admission_refused']}", style=BAD)
    several = len({key.rpartition("/")[0] for key in folder["admission"]}) > 1
    for key, words in folder["admission"].items():
        yield Text(f"topic {key if several else key.rpartition('/')[2]}: {words}")
    if state["series"]:
        yield _series_table(state["series"], width)


def _hanging(line: str, width: int, style: str = "") -> Text:
    indent = " " * (len(line) - len(line.lstrip()))
    return Text(textwrap.fill(line, width, subsequent_indent=indent + INDENT, break_on_hyphens=False), style=style)


def _panel_lines(name: str, panel: Mapping[str, Any], alive: bool, cron: str) -> Iterator[str]:
    """The present, last and next work of a panel, with reasons."""
    outcome = panel["outcome"] or {}
    now = "idle" if alive else "stopped"
    if panel["running_since_ms"] and not alive:
        now = "its training was cut off"
    elif panel["running_since_ms"]:
        now = f"training ({panel['progress']})" if panel["progress"] else "training"
        if panel.get("per_cent") is not None:
            left_s = panel.get("left_s")
            left = "" if left_s is None else f", about {duration(left_s)} left"
            now = f"training, {panel['per_cent']:.0f} %{left} ({panel['progress']})"
    last = "no training has ended yet"
    if outcome:
        at, took = _when(outcome["finished_ms"]), duration(outcome.get("took_s") or 0)
        last = f"last trained {at} in {took}" if outcome["ok"] else f"the last training failed at {at}"
        last += f": {short_version(outcome['version'])}" if outcome.get("version") else ""
        last += f": {outcome['reason']}" if outcome.get("reason") else ""
    yield f"{name} panel: {now}; {last}"
    if outcome.get("missing"):
        yield f"  left out: {'; '.join(f'{symbol} ({why})' for symbol, why in outcome['missing'].items())}"
    yield f"  next: {_next(panel, alive, cron)}"
    if panel["training"]:
        knobs = ", ".join(f"{knob} {value}" for knob, value in sorted(panel["training"].items()))
        yield f"  {name} panel: trained with {knobs}; other settings at their defaults"
    if outcome.get("training_fault"):
        yield f"  {name} panel: training settings not heeded: {outcome['training_fault']}"


def _next(panel: Mapping[str, Any], alive: bool, cron: str) -> str:
    by = f"by RETRAIN_CRON ({cron}), give or take 5 min" if cron else "by RETRAIN_CRON"  # the trigger's jitter
    failures = panel["failures"]
    why = f"{failures} failures in a row" if failures > 1 else "the last training failed or left a symbol out"
    if not alive:
        later = f"within {retry_after_min(failures)} min, because {why}" if failures else by
        return f"after a start: at once if a topic has no usable champion, else {later}"
    if panel.get("due"):
        return f"at once, after the panel before it, because {panel['due']}"
    if panel["next_try_ms"]:
        return f"{_when(panel['next_try_ms'])}, a new try, because {why}"
    return f"{_when(panel['next_run_ms'])}, {by}" if panel["next_run_ms"] else "not planned yet"


def _verdicts_table(judged: Sequence[Mapping[str, Any]], several: bool, width: int) -> RenderableType:
    columns = (
        Column(heading="topic"),
        Column(heading="forecast"),
        Column(heading="loss", least_width=100),
        Column(heading="rows", least_width=100, right=True),
        Column(heading="/ naive", right=True),
        Column(heading="p", right=True),
        Column(heading="/ champion", least_width=100, right=True),
        Column(heading="verdict", wraps=True),
    )

    def by_topic(verdict: Mapping[str, Any]) -> tuple[str, int]:
        network, _, topic_id = verdict["topic"].rpartition("/")
        return network, int(topic_id) if topic_id.isdecimal() else 0

    rows = [
        (
            verdict["topic"] if several else verdict["topic"].rpartition("/")[2],
            f"{verdict['symbol']} {verdict['head']}",
            verdict["loss"],
            str(verdict["rows"]),
            _ratio(verdict["challenger"], verdict["naive"]),
            p_text(verdict["p"]),
            _ratio(verdict["challenger"], verdict["champion"]),
            _verdict_words(verdict, width),
        )
        for verdict in sorted(judged, key=by_topic)
    ]
    return table_of(columns, rows, width, title="judged in the last training")


def _verdict_words(verdict: Mapping[str, Any], width: int) -> Text:
    """Why a network serves or does not. A network with exactly the naive losses is called naive."""
    reason = verdict["reason"]
    if verdict["challenger"] is not None and verdict["challenger"] == verdict["naive"]:
        words = NAIVE if verdict["promoted"] else f"{NAIVE}; the champion stays"
        more = reason.removeprefix(f"{NAIVE}: ").removeprefix(NAIVE)
        return Text(f"{words} ({more.strip(', ')})" if more and width >= WHOLE_IDS else words)
    if verdict["promoted"]:
        return Text(f"promoted: {reason}", style=GOOD)
    return Text(f"not promoted: {reason}")


def _demotions_table(demotions: Mapping[str, Any], several: bool, width: int) -> RenderableType:
    columns = (
        Column(heading="topic"),
        Column(heading="version"),
        Column(heading="when"),
        Column(heading="gave way to", wraps=width < WHOLE_IDS),
        Column(heading="why", wraps=True),
    )
    rows = [
        (
            key if several else key.rpartition("/")[2],
            _version(last["champion"]["version"], width),
            _when(last["demoted_ms"]),
            _version(last["successor"], width) if last["successor"] else "the naive forecast",
            last["reason"],
        )
        for key, last in ((key, several_of_it[-1]) for key, several_of_it in sorted(demotions.items()))
    ]
    return table_of(columns, rows, width, title="last demotion")


def _series_table(series: Mapping[str, Any], width: int) -> RenderableType:
    columns = (
        Column(heading="series"),
        Column(heading="newest kline"),
        Column(heading="gaps", right=True),
        Column(heading="last sync"),
        Column(heading="failure, or rejected rows", wraps=True),
    )
    rows = [
        (
            name,
            _when(entry["newest_ms"]) if entry["newest_ms"] else "none",
            str(entry["gaps"]),
            _when(entry["synced_ms"]),
            Text(entry["reason"], style=BAD) if entry["reason"] else Text(entry.get("rejected", "")),
        )
        for name, entry in series.items()
    ]
    return table_of(columns, rows, width, title="kline store")


def _version(version: str, width: int) -> str:
    return version if width >= WHOLE_IDS else short_version(version)


def _value(text: str) -> str:
    """A forecast in nine digits.

    >>> _value("2780.25123456789"), _value("0.0004743215678901234"), _value("")
    ('2780.25123', '0.000474321568', '')
    """
    return f"{float(text):.9g}" if text else ""


def _when(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ") + "Z"


def _ratio(loss: float | None, beside: float | None) -> str:
    return "" if loss is None or not beside else f"{loss / beside:.4f}"
