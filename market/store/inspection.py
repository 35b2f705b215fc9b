"""Inspect a stored series: the files, the warm-start file, and the holes."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from core.clock import iso
from klines.spans import without
from market.store.absence import Gap, read_absent
from market.store.kline_store import TAIL_BEHIND_MS, KlineStore
from market.store.month_file import Damaged, journal_of, unpacked
from market.store.warm_start import TAIL_ROWS, read_tail, tail_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """One file of a series."""

    path: Path
    rows: int = 0
    fault: str = ""  # why the file cannot be used; empty if it can be used


def inspect(store: KlineStore, symbol: str, interval_ms: int) -> list[FileState]:
    """Read every file of a series, also the files found sound before."""
    found = []
    for month in store.files(symbol, interval_ms):
        for path in filter(Path.exists, (month, journal_of(month))):
            try:
                found.append(FileState(path=path, rows=len(unpacked(path, interval_ms))))
            except Damaged as error:
                store.forget(month)
                found.append(FileState(path=path, fault=str(error)))
    return found


def gaps(store: KlineStore, symbol: str, interval_ms: int) -> list[Gap]:
    """The holes between the first and the last kline, oldest first, cut where the venue's answer differs."""
    holes = [(a[1], b[0]) for a, b in pairwise(store.runs(symbol, interval_ms).tolist()) if a[1] < b[0]]
    absent = read_absent(store.folder(symbol, interval_ms))
    known = [part for gap in absent for part in gap.less(without([gap.span], holes))]
    unknown = [Gap(*span) for span in without(holes, [gap.span for gap in known])]
    return sorted([*known, *unknown], key=lambda gap: gap.start_ms)


def tail_fault(store: KlineStore, symbol: str, interval_ms: int) -> str:
    """The difference between a series' warm-start file and months, in words; empty if they agree or it is missing."""
    tail = read_tail(store.root, symbol, interval_ms)
    if not len(tail):
        return "cannot be read" if tail_path(store.root, symbol, interval_ms).exists() else ""
    newest_ms = store.end_ms(symbol, interval_ms)
    oldest_ms = max(newest_ms - TAIL_ROWS * interval_ms, 0)
    held, tail = store.read(symbol, interval_ms, oldest_ms, tail.end_ms), tail.between(oldest_ms, tail.end_ms)
    if len(differing := tail.not_in(held)):
        return f"{len(differing)} rows are not as in the months, the first of {iso(int(differing.open_time_ms[0]))}"
    if len(held) > len(tail):
        return f"{len(held) - len(tail)} rows of the months are not in it"
    if newest_ms - tail.end_ms > TAIL_BEHIND_MS + interval_ms:
        return f"ends at {iso(tail.end_ms)}, the months at {iso(newest_ms)}"
    return ""
