"""The checks of ``birnn doctor``, one after the other."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import RenderableType
from rich.text import Text

from cli.adoptions import resolved
from cli.doctor.chain import chain_checks
from cli.doctor.check import Check, State, not_looked_at, warning, well, wrong
from cli.doctor.venues import TIMEOUT_S, Finding, examine, unserved
from cli.place import endpoint_of, ledger_url, page_of, place_of
from cli.scores.record import NothingAnswered, reading
from cli.screen import Column, table_of
from cli.status.report import endpoint_report, status_report
from cli.status.tables import headline
from cli.verbs import EXAMPLE_CONFIG
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, iso
from core.errors import ConfigError, WorkerError
from core.settings import Settings, settings_warnings
from core.topic import Topic
from inference.probe import ask
from klines.spans import INTERVALS_MS
from market.quarantine import Quarantine
from market.venues.registry import venue_from
from node.config_file import read_config
from node.versions import NodeVersions
from updater.keeper import LEAST_FREE_MB

COMFORTABLE_MB = 2048  # a year of two symbols' klines, a ledger and ten networks fit into it
LATE_MS = 15 * MINUTE_MS  # three of the updater's syncs
TELLING_MS = 1000  # a clock that is off by less is corrected in silence
WRONG_CLOCK_MS = 10 * MINUTE_MS  # more than that no process corrects
START = "scripts/run starts everything (with Docker: docker compose up -d)"


@dataclass(slots=True, kw_only=True)
class Subject:
    """The settings under examination, and results of earlier checks."""

    settings: Settings
    clock: Clock
    topics: tuple[Topic, ...] = ()
    nodes: Mapping[str | None, NodeVersions] = field(default_factory=dict)  # the official nodes, by network
    findings: list[Finding] = field(default_factory=list)  # of the venues
    report: dict[str, Any] = field(default_factory=dict)  # as birnn status has it

    @property
    def folder(self) -> dict[str, Any] | None:
        """The data folder in use; None if no updater has run on it."""
        return next((folder for folder in self.report["folders"] if folder["updater"]), None)

    @property
    def invented(self) -> bool:
        """True if the node on this machine uses the simulated exchange."""
        topics = self.report["endpoint"].get("topics") or [{}]
        return "SIMULATED" in {self.report["market"], topics[0].get("market")}


def _config(subject: Subject) -> Iterator[Check]:
    files = subject.settings.config_files
    if "config_file" not in subject.settings.model_fields_set and not files[0].exists() and EXAMPLE_CONFIG.exists():
        files = (EXAMPLE_CONFIG,)
        yield warning(
            f"there is no config.json here; {EXAMPLE_CONFIG} stands for it",
            f"cp {EXAMPLE_CONFIG} config.json, and choose your topics there",
        )
    names = ", ".join(map(str, files))
    try:
        read = read_config(
            *files,
            node_version=subject.settings.node_version,
            own=subject.settings.address,
            workers=subject.settings.workers,
        )
    except ConfigError as error:
        yield wrong(str(error), "nothing starts before that is mended")
        return
    subject.topics, subject.nodes = read.topics, read.nodes
    yield from map(warning, read.warnings)
    yield well(f"{names}: {len(subject.topics)} topics")


def _settings(subject: Subject) -> Iterator[Check]:
    yield from map(warning, settings_warnings())
    given = sorted(name.upper() for name in subject.settings.model_fields_set)
    yield well(f"set: {', '.join(given)}; the rest at their defaults" if given else "all at their defaults")
    yield from map(well, subject.report.get("adoption_words", ()))
    if refused := subject.report.get("adoptions_refused"):
        yield warning(f"what was adopted is not known: {refused}", "nothing else depends on it: mend the ledger")
    subject.settings = resolved(subject.settings)


def _folder(subject: Subject) -> Iterator[Check]:
    folder = subject.settings.data_dir.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return  # reported when the state was read
    fault = ""
    if not os.access(there, os.W_OK | os.X_OK):
        fault = "cannot be written to"
        remedy = "choose another DATA_DIR, or give this user the right to write there"
    elif not shutil.disk_usage(there).total:  # such as /proc
        fault, remedy = "is on no disk, so that nothing can be kept there", "choose another DATA_DIR"
    if fault:
        yield wrong(f"{there}: {fault}", remedy)
        return
    words = str(folder) if folder == there else f"{folder} (is made by the first start)"
    free_mb = shutil.disk_usage(there).free // 1_000_000
    state: State = "wrong" if free_mb < LEAST_FREE_MB else "warning" if free_mb < COMFORTABLE_MB else "well"
    remedy = "" if state == "well" else f"make room: below {LEAST_FREE_MB} MB trainings and the ledger stop"
    yield Check(state, f"{words}: {free_mb:,} MB free", remedy)


def _venues(subject: Subject) -> Iterator[Check]:
    settings = subject.settings
    symbols = list(dict.fromkeys(topic.symbol for topic in subject.topics))
    if not symbols or subject.invented:
        why = (
            "prices are simulated: no venue is asked (birnn doctor --market asks them)"
            if subject.invented
            else "there are no topics to ask for"
        )
        yield not_looked_at(why)
        return
    subject.findings = examine(settings, symbols, subject.topics, subject.clock)
    lacking = unserved(subject.findings, settings)
    of_what: dict[str, list[str]] = {}
    for line in lacking:
        symbol, _, what = line.partition(": ")
        of_what.setdefault(what, []).append(symbol)
    for what, those in of_what.items():
        said, _, remedy = what.partition("; ")
        yield wrong(f"{', '.join(those)}: {said}", remedy)
    used = [finding for finding in subject.findings if finding.role]
    failing = list(dict.fromkeys(finding.venue for finding in used if finding.state != "well"))
    if failing and not lacking:
        yield warning(f"not well: {', '.join(failing)}; the others stand in, and the table below says why")
    elif not failing and not lacking:
        yield well(f"{', '.join(dict.fromkeys(finding.venue for finding in used))} answer for {', '.join(symbols)}")


def _clock(subject: Subject) -> Iterator[Check]:
    if subject.invented:
        yield not_looked_at("prices are simulated: no venue tells the time")
        return
    for name in subject.settings.venues:
        try:
            venue = venue_from(
                name, subject.settings, subject.clock, Quarantine(), topics=(), timeout_s=TIMEOUT_S, patience_s=0
            )
            if not venue.info.tells_time:
                continue
            ahead_ms = venue.clock_ahead_ms()
        except WorkerError:
            continue
        off_ms = abs(ahead_ms)
        state: State = "wrong" if off_ms > WRONG_CLOCK_MS else "warning" if off_ms > TELLING_MS else "well"
        side = "behind" if ahead_ms > 0 else "ahead of"
        words = f"{off_ms / 1000:.1f} s {side} {name}'s"
        remedy = "" if state == "well" else "set this machine's clock (NTP)"
        yield Check(state, words, remedy)
        return
    yield not_looked_at("no venue in use told the time")


def _inference(subject: Subject) -> Iterator[Check]:
    endpoint = subject.report["endpoint"]
    if not endpoint["answers"]:
        yield wrong(f"{endpoint['url']}: no answer ({endpoint['reason']})", START)
        return
    ready, said = ask(f"{endpoint['url']}/readyz")
    line = f"{endpoint['url']}: {headline(endpoint)}"
    if ready:
        yield well(line)
    else:
        yield wrong(f"{line}; {said}", "birnn status says more")


def _updater(subject: Subject) -> Iterator[Check]:
    folder = subject.folder
    if folder is None:
        yield wrong(f"no updater has run here yet; {subject.report['place']}", START)
        return
    state = folder["updater"]
    at = f"{iso(state['heartbeat_ms'])[:19].replace('T', ' ')}Z"
    seen = f"{folder['folder']}: last seen {at}"
    if not folder["updater_alive"]:
        yield wrong(f"does not run; {seen}" if state["pid"] else f"{folder['folder']}: is stopped since {at}", START)
    else:
        yield well(f"alive; {seen}")
    for name, panel in state["panels"].items():
        outcome = panel["outcome"] or {}
        if panel["failures"]:
            reason = outcome.get("reason") or f"left out: {', '.join(outcome.get('missing', ()))}"
            count = f"{panel['failures']} failures in a row" if panel["failures"] > 1 else "the last training failed"
            yield warning(f"{name} panel: {count}: {reason}", "birnn status says when it tries again")


def _monitor(subject: Subject) -> Iterator[Check]:
    url = subject.report["page"]
    if not (subject.report["endpoint"]["answers"] or (subject.folder and subject.folder["updater_alive"])):
        yield not_looked_at("neither inference nor the updater runs here, so no monitor is meant to")
        return
    answers, said = ask(f"{url}/healthz")
    if answers:
        yield well(f"{url}/: the status page answers")
    else:
        yield warning(f"{said}: answers are given, but nothing is scored and no alarm is sent", START)


def _klines(subject: Subject) -> Iterator[Check]:
    folder = subject.folder
    series = folder["updater"]["series"] if folder else {}
    if not series:
        yield not_looked_at("no series has been synced yet")
        return
    late = 0
    for name, entry in series.items():
        interval_ms, newest_ms = INTERVALS_MS.get(name.rpartition("-")[2], HOUR_MS), entry["newest_ms"]
        age_ms = None if newest_ms is None else subject.clock.now_ms() - newest_ms - interval_ms
        if age_ms is not None and age_ms <= interval_ms + LATE_MS:
            continue
        late += 1
        words = "no klines" if newest_ms is None else f"newest kline is of {iso(newest_ms)[:16].replace('T', ' ')}Z"
        why = f": {entry['reason']}" if entry["reason"] else ""
        state: State = "wrong" if age_ms is None or age_ms > DAY_MS else "warning"
        remedy = "birnn data sync fetches what is missing, where no updater runs"
        yield Check(state, f"{name}: {words}{why}", remedy)
    if not late:
        gaps = sum(entry["gaps"] for entry in series.values())
        yield well(f"{len(series)} series are up to date; {gaps} gaps")


def _ledger(subject: Subject) -> Iterator[Check]:
    try:
        url = ledger_url(subject.settings, place_of(subject.settings))
        with reading(url):
            yield well(f"{sa.make_url(url).render_as_string()} can be read")
    except NothingAnswered:
        yield not_looked_at("nothing has been answered here yet")
    except WorkerError as error:
        line, _, remedy = str(error).partition("; ")
        yield wrong(line, remedy)


def _chain(subject: Subject) -> Iterator[Check]:
    settings = subject.settings
    if subject.folder:
        settings = settings.model_copy(update={"data_dir": Path(subject.folder["folder"])})
    yield from chain_checks(settings, subject.topics, subject.nodes, subject.report["market"], subject.clock)


CHECKS: tuple[tuple[str, Callable[[Subject], Iterator[Check]]], ...] = (
    ("settings", _settings),
    ("config", _config),
    ("data folder", _folder),
    ("inference", _inference),
    ("updater", _updater),
    ("monitor", _monitor),
    ("klines", _klines),
    ("ledger", _ledger),
    ("clock", _clock),
    ("chain", _chain),
    ("venues", _venues),
)
"""All checks, in the order in which they run: later checks read the results of earlier checks."""


def all_checks(subject: Subject, announce: Callable[[str], None]) -> list[Check]:
    """Run every check.

    Args:
        announce: called with each check's name before it runs.
    """
    announce("state")
    found: list[Check] = []
    try:
        subject.report = status_report(subject.settings)
    except WorkerError as error:  # DATA_DIR is a file, or the folder of the last run is gone
        line, _, remedy = str(error).partition("; ")
        found.append(replace(wrong(line, remedy), name="data folder"))
        url = endpoint_of(subject.settings, None)
        subject.report = {"endpoint": endpoint_report(url), "place": str(subject.settings.data_dir), "folders": []}
        subject.report["page"] = page_of(subject.settings, None)
        subject.report["market"] = subject.settings.market.value.upper()
    for name, check in CHECKS:
        announce(name)
        found += (replace(result, name=name) for result in check(subject))
    return found


def verdict(checks: Sequence[Check]) -> str:
    """The result of all checks in one sentence.

    >>> clock, updater = Check("well", "", name="clock"), Check("wrong", "does not run", name="updater")
    >>> verdict([clock]), verdict([clock, updater])
    ('all is well: clock', 'wrong: updater; 1 other check is well')
    """
    states: tuple[State, ...] = ("wrong", "warning", "well")
    names = {state: list(dict.fromkeys(check.name for check in checks if check.state == state)) for state in states}
    labels: tuple[tuple[State, str], ...] = (("wrong", "wrong"), ("warning", "to heed"))
    bad = [f"{label}: {', '.join(names[state])}" for state, label in labels if names[state]]
    good = [name for name in names["well"] if name not in names["wrong"] + names["warning"]]
    if not bad:
        return f"all is well: {', '.join(good)}"
    others = "other check is well" if len(good) == 1 else "other checks are well"
    return f"{'; '.join(bad)}; {len(good)} {others}"


def checks_table(checks: Sequence[Check], width: int) -> RenderableType:
    """The checks as a table."""
    styles = {"well": "green", "warning": "yellow", "wrong": "bold red", "not looked at": "dim"}
    columns = (Column(heading="check"), Column(heading="state"), Column(heading="finding", wraps=True))
    rows = [
        (
            check.name,
            Text(check.state, style=styles[check.state]),
            f"{check.line}\nTo do: {check.remedy}" if check.remedy else check.line,
        )
        for check in checks
    ]
    return table_of(columns, rows, width)
