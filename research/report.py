"""What a walk comes to: ``report.json`` with everything, ``report.html`` to look at, and a table for the terminal."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.table import Table

from core.clock import iso
from core.files import replace_file
from research.backtest import fingerprint
from research.baselines import BASELINES
from research.data import Recording, span_text
from research.folder import Folder, StepRecord
from research.page import page
from research.scores import NEWEST, SERVED, Scored, decisions, pooled_directions, scored_topics, topic_report
from research.walk import Walk
from research.words import label, p_text, ratio_text

JSON_FILE, HTML_FILE = "report.json", "report.html"
SHORT = {"volatility": "vol", "log_return": "return"}
TABLE_WIDTH = 132  # columns of the table with everything


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
        command: that gives this report.
        notes: sentences that whoever reads the figures should know.
    Returns:
        what is in the JSON file.
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
        "simulated": recording.simulated,
        "quick": walk.quick,
        "fingerprint": dict(fingerprint(walk, recording)),
        "baselines": {name: BASELINES[name].about for name in walk.baselines},
        "topics": [topic_report(one) for one in scored],
        "pooled_directions": pooled_directions(scored),
        "decisions": decisions(records, walk),
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
    """Counts in words."""
    counts = Counter(one["decision"] for one in decisions)
    demoted = sum(bool(one["demoted"]) for one in decisions)
    return (
        f"{len(decisions)} decisions; {counts['promoted']} promoted, {counts['kept']} kept, {counts['naive']} left to "
        f"the naive forecast; {demoted} champions demoted"
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
    """JSON without numbers that JSON cannot carry."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def tables(report: Mapping[str, Any], folder: Path, width: int = TABLE_WIDTH) -> list[Table | str]:
    """What the terminal shows, part by part.

    Args:
        width: of the screen, in columns; below TABLE_WIDTH the baselines are a table of their own.
    """
    baselines = list(report["baselines"])
    asked = ("topic", "question", "loss", "rows")
    ours, forge = ("served", "DM p", "newest"), ("Forge",)
    rows = []
    for one in report["topics"]:
        ratios = one["ratio_to_naive"]
        cells = {
            "topic": one["topic"].rpartition("/")[2] if not one["unseen"] else "unseen",
            "question": f"{one['symbol'].removesuffix('USDT')} {SHORT.get(one['target'], one['target'])} "
            f"{one['horizon']}",
            "loss": one["loss"],
            "rows": f"{one['rows']:,}",
            "served": ratio_text(ratios[SERVED]),
            "DM p": p_text(one["against"][SERVED]["naive"]["dm_p"]),
            "newest": ratio_text(ratios[NEWEST]),
            "Forge": f"{one['forge'][SERVED]['count']}/7",
        }
        rows.append(cells | {name: ratio_text(ratios.get(name)) for name in baselines})
    if width >= TABLE_WIDTH or not baselines:
        shown = [_columns(rows, (*asked, *ours, *baselines, *forge))]
    else:
        shown = [_columns(rows, (*asked, *ours, *forge)), _columns(rows, ("topic", "question", *baselines))]
    said: list[Table | str] = [
        *(["SIMULATED: these prices are invented"] if report["simulated"] else []),
        f"{report['span']['words']}; loss over the naive forecast's on the same rows, below 1 is better",
        *shown,
    ]
    for group in report["pooled_directions"]:
        top = group["most_confident_fifth"]
        symbols = ", ".join(symbol.removesuffix("USDT") for symbol in group["symbols"])
        said.append(
            f"direction {'/'.join(group['horizons'])} of {symbols}, most confident fifth: {100 * top['rate']:.2f} % "
            f"right in {top['rows']:,} rows worth {top['effective']:,.0f}, p {p_text(top['p'])}"
        )
    if report["decisions"]:
        said.append(f"the gate: {_decided(report['decisions'])}")
    said += [f"note: {note}" for note in report["notes"]]
    said.append(f"report: {folder / HTML_FILE} and {JSON_FILE} beside it; docs/backtest.md says how to read them")
    return said


def _columns(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for name in names:
        justify: Literal["left", "right"] = "left" if name in {"topic", "question", "loss"} else "right"
        table.add_column(label(name) if name != "newest" else name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table
