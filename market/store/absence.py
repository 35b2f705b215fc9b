"""Ranges for which a venue had no usable rows when asked: ``absent.json`` in a series' folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import structlog

from core.clock import DAY_MS, iso
from core.files import replace_json
from klines.spans import Span, without
from market.store.disk import disk

# Venues refill holes and correct rows, so an absent row is asked for again after a day.
ABSENT_FOR_MS = DAY_MS
FILE = "absent.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gap:
    """A range without rows."""

    start_ms: int
    end_ms: int
    absent_ms: int | None = None  # when the venue had no usable rows; None if the venue was not asked
    why: str = ""  # why the venue's rows were rejected; empty if the venue sent no rows

    @property
    def span(self) -> Span:
        return self.start_ms, self.end_ms

    def less(self, spans: Sequence[Span]) -> list["Gap"]:
        """The parts of the range that lie outside some spans."""
        return [replace(self, start_ms=start, end_ms=end) for start, end in without([self.span], spans)]


def read_absent(folder: Path) -> list[Gap]:
    """Read a series' absent ranges, oldest first; skip a damaged file. Raises WorkerError if the disk refuses."""
    path = folder / FILE
    try:
        with disk(path):
            rows = json.loads(path.read_bytes())
        return [Gap(int(start), int(end), int(asked), " ".join(map(str, why))) for start, end, asked, *why in rows]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # The file only saves requests: what it says is asked for once more and written anew.
        log.warning("absent_file_skipped", file=str(path), why=str(error))
        return []


def write_absent(folder: Path, absent: Iterable[Gap]) -> None:
    """Replace the absent ranges of a series; raises OSError if the file cannot be written."""
    replace_json(folder / FILE, sorted([gap.start_ms, gap.end_ms, gap.absent_ms, gap.why] for gap in absent))


def with_asked(
    known: Iterable[Gap], spans: Sequence[Span], now_ms: int, rejected: Mapping[int, str], interval_ms: int
) -> list[Gap]:
    """The absent ranges after a request for some spans at ``now_ms``; ranges older than a day are forgotten.

    Args:
        rejected: by open time, why a row was rejected; the venue did not send the other rows.
    """
    kept = [part for gap in known if is_recent(gap, now_ms) for part in gap.less(spans)]
    for start, end in spans:
        for why, group in groupby(range(start, end, interval_ms), lambda at_ms: rejected.get(at_ms, "")):
            rows = list(group)
            kept.append(Gap(rows[0], rows[-1] + interval_ms, now_ms, why))
    return kept


def is_recent(gap: Gap, now_ms: int) -> bool:
    return gap.absent_ms is not None and now_ms - gap.absent_ms < ABSENT_FOR_MS


def rejected_words(gaps: Sequence[Gap], interval_ms: int) -> str:
    """Refused rows in words; empty without such rows."""
    if not gaps:
        return ""
    rows, first = sum(gap.end_ms - gap.start_ms for gap in gaps) // interval_ms, gaps[0]
    again = _minute(first.absent_ms + ABSENT_FOR_MS) if first.absent_ms is not None else ""
    return (
        f"{rows:,} row{'s' if rows > 1 else ''} rejected, the first of {_minute(first.start_ms)}: {first.why} "
        f"(asked for again by the first sync after {again})"
    )


def _minute(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ") + "Z"
