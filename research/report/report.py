"""The report of a walk: ``report.json`` with everything, ``report.html`` to look at, tables for the terminal."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from admission.words import CRITERIA, ONE_NAIVE
from core.clock import SystemClock, iso
from core.files import replace_file
from core.show.progress import Show
from core.show.words import p_text, ratio_text
from core.topic import split_symbol
from research.backtest.backtest import fingerprint, run
from research.backtest.baselines import BASELINES
from research.backtest.command import Asked
from research.backtest.folder import Folder, StepRecord
from research.backtest.walk import Walk, short_history
from research.data import Recording, span_text
from research.report.page import page
from research.report.scores import NEWEST, SERVED, Scored, decisions, pooled_directions, scored_topics, topic_report
from research.words import AT_THE_BASE, criteria_met, label, topic_words

JSON_FILE, HTML_FILE = "report.json", "report.html"
SHORT = {"volatility": "vol", "log_return": "return"}


def walk_and_report(asked: Asked, walk: Walk, recording: Recording, folder: Folder, show: Show) -> list[RenderableType]:
    """Walk and write the report; return the parts that the terminal shows."""
    records = run(walk, recording, folder, show)
    show(1, 1, "report")
    report = write_report(
        walk,
        recording,
        folder,
        records,
        command=asked.command,
        made_ms=SystemClock().now_ms(),
        notes=short_history(recording, walk),
    )
    return tables(report, folder.root)


def write_report(
    walk: Walk,
    recording: Recording,
    folder: Folder,
    records: Sequence[StepRecord],
    *,
    command: str,
    made_ms: int,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute and write both files.

    Args:
        records: every step of the walk.
        command: that repeats this report.
        notes: sentences about the figures.
    Returns:
        the content of the JSON file.
    """
    scored = scored_topics(walk, folder, records)
    about = {"command": command, "made": iso(made_ms), "notes": [*notes, *_without_rows(walk, scored)]}
    report: dict[str, Any] = _plain(_report(walk, recording, records, scored) | about)
    replace_file(folder.root / JSON_FILE, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    replace_file(folder.root / HTML_FILE, page(report, scored).encode())
    return report


def _report(
    walk: Walk, recording: Recording, records: Sequence[StepRecord], scored: Sequence[Scored]
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "span": {"start": iso(walk.start_ms), "end": iso(walk.end_ms), "words": span_text(walk.start_ms, walk.end_ms)},
        "source": recording.source,
        "simulated": bool(recording.simulated),
        "prices": recording.simulated,
        "quick": walk.quick,
        "fingerprint": dict(fingerprint(walk, recording)),
        "baselines": {name: BASELINES[name].about for name in walk.baselines},
        "topics": [topic_report(one) for one in scored],
        "pooled_directions": pooled_directions(scored),
        "decisions": decisions(records, walk, scored),
        "steps": [
            {
                "panel": record.panel,
                "from": iso(record.from_ms),
                "to": iso(record.to_ms),
                "version": record.version,
                "rows": record.rows,
                "took_s": record.took_s,
            }
            for record in records
        ],
        "took_s": round(sum(record.took_s for record in records), 1),
    }


def _decided(decisions: Sequence[Mapping[str, Any]]) -> str:
    """Decisions counted in words; a network equal to the naive forecast counts as naive."""
    counts = Counter("naive" if one["naive"] else one["decision"] for one in decisions)
    demoted = sum(bool(one["demoted"]) for one in decisions)
    return (
        f"{len(decisions)} decisions; {counts['promoted']} promoted, {counts['kept']} kept, {counts['naive']} naive; "
        f"{demoted} champions demoted"
    )


def _without_rows(walk: Walk, scored: Sequence[Scored]) -> list[str]:
    have = {one.topic.key for one in scored}
    return [
        f"topic {topic.key} ({topic.symbol} {topic.target.value} {topic.horizon}) has no row in the span: "
        "its klines, or those its horizon reaches, are missing there"
        for topic in walk.topics
        if topic.key not in have
    ]


def _plain(value: Any) -> Any:
    """The value with null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def tables(report: Mapping[str, Any], folder: Path) -> list[RenderableType]:
    """The parts that the terminal shows."""
    baselines = list(report["baselines"])
    table = _table("loss", "rows", "served", "DM p", "newest", "criteria")
    beside = _table("served", *(label(name) for name in baselines))
    for one in report["topics"]:
        asked = (
            one["topic"].rpartition("/")[2] if not one["unseen"] else "unseen",
            f"{split_symbol(one['symbol'], '')[0]} {SHORT.get(one['target'], one['target'])} {one['horizon']}",
        )
        ratios = {
            name: ratio_text(ratio, is_naive=name in one["equal_to_naive"])
            for name, ratio in one["ratio_to_naive"].items()
        }
        p = p_text(one["against"][SERVED]["naive"]["dm_p"]) if SERVED not in one["equal_to_naive"] else ""
        met = f"{criteria_met(one, SERVED)}/{len(CRITERIA)}"
        table.add_row(*asked, one["loss"], f"{one['rows']:,}", ratios[SERVED], p, ratios[NEWEST], met)
        beside.add_row(*asked, ratios[SERVED], *(ratios.get(name, "") for name in baselines))
    said: list[RenderableType] = [
        *([report["prices"]] if report["simulated"] else []),
        report["span"]["words"],
        *(f"{topic_words(one)}: {one['verdict']['words']}" for one in report["topics"]),
        *([Text(f"\nadmission to mainnet of what was served, {AT_THE_BASE}")] if report["topics"] else []),
        *(Text(f"{topic_words(one)}: {one['admission']['words']}") for one in report["topics"]),
        "\nloss over the naive forecast's on the same rows, below 1 is better",
        table,
        ONE_NAIVE,
    ]
    if baselines:
        said += ["the same beside the baselines", beside]
    for group in report["pooled_directions"]:
        top = group["most_confident_fifth"]
        symbols = ", ".join(split_symbol(symbol, "")[0] for symbol in group["symbols"])
        said.append(
            f"direction {'/'.join(group['horizons'])} of {symbols} before calibration, most confident fifth: "
            f"{100 * top['rate']:.2f} % right in {top['rows']:,} rows "
            f"worth {top['effective']:,.0f}, p {p_text(top['p'])}"
        )
    if report["decisions"]:
        said.append(f"the gate: {_decided(report['decisions'])}")
    said += [f"note: {note}" for note in report["notes"]]
    said.append(f"report: {folder / HTML_FILE} and {JSON_FILE} beside it; docs/backtest.md says how to read them")
    return said


def _table(*figures: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for heading in ("topic", "question", *figures):
        table.add_column(heading, justify="left" if heading in ("topic", "question", "loss") else "right", no_wrap=True)
    return table
