"""Ranges for which a venue had no usable rows when asked: ``absent.json`` in a series' folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import structlog

from core.clock import DAY_MS, iso
from core.errors import WorkerError
from core.files import replace_json
from klines.spans import Span, without

# Venues refill holes and correct rows, so an absent row is asked for again after a day.
ABSENT_FOR_MS = DAY_MS
FILE = "absent.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, order=True)
class Absent:
    """A range for which a venue had no usable rows when asked."""

    start_ms: int
    end_ms: int
    asked_ms: int
    why: str = ""  # why the rows were refused; empty if the venue sent no rows

    def less(self, spans: Sequence[Span]) -> list["Absent"]:
        """The parts of the range that lie outside some spans."""
        rest = without([(self.start_ms, self.end_ms)], spans)
        return [Absent(start, end, self.asked_ms, self.why) for start, end in rest]


def read_absent(folder: Path) -> list[Absent]:
    """The absent ranges of a series, oldest first; a damaged file is skipped.

    Raises:
        WorkerError: the file cannot be read.
    """
    path = folder / FILE
    try:
        return [
            Absent(int(start), int(end), int(asked), " ".join(map(str, why)))
            for start, end, asked, *why in json.loads(path.read_bytes())
        ]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # The file only saves requests: what it says is asked for once more and written anew.
        log.warning("absent_file_skipped", file=str(path), why=str(error))
        return []
    except OSError as error:
        raise WorkerError(
            f"{path}: cannot be read: {error.strerror}; check the owner and mode of its folder"
        ) from error


def write_absent(folder: Path, absent: Iterable[Absent]) -> None:
    """Replace the absent ranges of a series.

    Raises:
        OSError: the file cannot be written.
    """
    rows = [[one.start_ms, one.end_ms, one.asked_ms, one.why] for one in sorted(absent)]
    replace_json(folder / FILE, rows)


def with_asked(
    known: Iterable[Absent], spans: Sequence[Span], now_ms: int, refused: Mapping[int, str], interval_ms: int
) -> list[Absent]:
    """The absent ranges after a request for some spans at ``now_ms``; ranges older than a day are forgotten.

    Args:
        refused: by open time, why a row was refused; the venue did not send the other rows.
    """
    kept = [part for one in known if now_ms - one.asked_ms < ABSENT_FOR_MS for part in one.less(spans)]
    for start, end in spans:
        for why, group in groupby(range(start, end, interval_ms), lambda at_ms: refused.get(at_ms, "")):
            rows = list(group)
            kept.append(Absent(rows[0], rows[-1] + interval_ms, now_ms, why))
    return kept


def refused_words(absent: Iterable[Absent], stored: Sequence[Span], interval_ms: int) -> str:
    """The refused rows of a series that are not stored, in words; empty without such rows."""
    spans = [part for one in sorted(absent) if one.why for part in one.less(stored)]
    if not spans:
        return ""
    rows = sum(one.end_ms - one.start_ms for one in spans) // interval_ms
    first = spans[0]
    return (
        f"{rows:,} row{'s' if rows > 1 else ''} refused, the first of {_minute(first.start_ms)}: {first.why} "
        f"(asked for again by the first sync after {_minute(first.asked_ms + ABSENT_FOR_MS)})"
    )


def _minute(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ") + "Z"
