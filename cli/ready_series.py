"""``birnn ready --series``: the criteria of any record, from a file."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from admission.criteria import Record, criteria
from admission.words import criteria_words
from cli.ready import criteria_table
from cli.series import read_series
from core.errors import ConfigError
from core.show.words import counted
from core.topic import parse_horizon


def series_record(
    path: Path | None, horizon: str | None, ratio: int | None, submitted: int | None, expected: int | None
) -> Record:
    """The record of ``--series`` and of the options beside it.

    Raises:
        ConfigError: an option is missing or cannot be meant, or the file is wrong.
    """
    if path is None or horizon is None or ratio is None:
        raise ConfigError("--series FILE, --horizon such as 20m and --ratio such as 4 go together: give all three")
    if (submitted is None) != (expected is None):
        raise ConfigError("--submitted and --expected go together: give both, or leave both out")
    try:
        horizon_min = parse_horizon(horizon)
    except ConfigError as error:
        raise ConfigError(f"--horizon {horizon}: {error}") from error
    return read_series(path, horizon_min=horizon_min, ratio=ratio, submitted=submitted, expected=expected)


def series_report(record: Record) -> dict[str, Any]:
    """The criteria of a series; JSON."""
    found = criteria(record)
    return {
        "eligible": all(one.passed for one in found.values()),
        "criteria": {name: asdict(one) for name, one in found.items()},
    }


def series_parts(record: Record, width: int) -> Iterator[RenderableType]:
    """The same as people read it."""
    found = criteria(record)
    short = [name for name, one in found.items() if not one.passed]
    words = f"would not be admitted: short of {criteria_words(short)}" if short else "would be admitted: all seven hold"
    about = f"{counted(len(record.truth), 'row')}, {record.submitted:,} of {record.expected:,} epochs answered"
    yield Text(f"{words} ({about})", style="bold")
    yield criteria_table(found, width)
