"""Rows that the row checks rejected: counted, logged, and kept in a file where a person can look at them."""

import json
import math
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog

from core.clock import iso
from core.seldom import Seldom
from klines.checks import CheckedRows, RejectedRow
from klines.klines import COLUMNS, time_text

REMEMBERED = 100_000  # rows, so that a row that is sent again and again counts once
KEPT_BYTES = 1 << 20  # of the file; the file before it is kept as well
FILE = "rejected.jsonl"

Counts = Counter[tuple[str, str, str]]  # by (venue, symbol, reason)

log = structlog.get_logger()


class Quarantine:
    """Counts rejected and odd rows; keeps the rejected ones if it has a folder. Safe to use from several threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._counts: dict[str, Counts] = {"rows_rejected": Counter(), "rows_marked": Counter()}
        self._seen: set[tuple[str, str, str, int, int, str]] = set()
        self._seldom = Seldom()

    @property
    def counts(self) -> Counts:
        """The number of rejected rows so far."""
        with self._lock:
            return self._counts["rows_rejected"].copy()

    @property
    def marks(self) -> Counts:
        """The number of odd rows so far, which were used."""
        with self._lock:
            return self._counts["rows_marked"].copy()

    def rejected(self, symbol: str, interval_ms: int) -> dict[int, str]:
        """Return why rows of a series were rejected, by open time, as far as they are remembered."""
        wanted = ("rows_rejected", symbol, interval_ms)
        with self._lock:
            return {
                at_ms: why for event, _, name, interval, at_ms, why in self._seen if (event, name, interval) == wanted
            }

    def take(self, venue: str, symbol: str, interval_ms: int, checked: CheckedRows, now_ms: int) -> None:
        """``put`` the rejected rows of a batch and ``mark`` the odd ones."""
        self.put(venue, symbol, interval_ms, checked.rejected, now_ms)
        self.mark(venue, symbol, interval_ms, checked.marked)

    def put(self, venue: str, symbol: str, interval_ms: int, rejected: Sequence[RejectedRow], now_ms: int) -> None:
        """Count and keep rejected rows; a row that was rejected before for the same reason does not count again."""
        rows = self._new("rows_rejected", venue, symbol, interval_ms, rejected)
        if rows and self._folder is not None:
            known = {"rejected": iso(now_ms), "venue": venue, "symbol": symbol, "interval_ms": interval_ms}
            _keep(self._folder / FILE, [json.dumps(known | _as_json(row)) for row in rows])

    def mark(self, venue: str, symbol: str, interval_ms: int, odd: Sequence[RejectedRow]) -> None:
        """Count odd rows that are used; a row that was marked before for the same reason does not count again."""
        self._new("rows_marked", venue, symbol, interval_ms, odd)

    def _new(
        self, event: str, venue: str, symbol: str, interval_ms: int, rows: Sequence[RejectedRow]
    ) -> list[RejectedRow]:
        """Count and log the rows that were not seen before, and return them."""
        if not rows:
            return []
        by_key = {(event, venue, symbol, interval_ms, row.open_time_ms, row.reason): row for row in rows}
        with self._lock:
            if len(self._seen) > REMEMBERED:
                self._seen.clear()
            new = [row for key, row in by_key.items() if key not in self._seen]
            self._seen.update(by_key)
            self._counts[event].update((venue, symbol, row.reason) for row in new)
        if new and (count := self._seldom.due(event, venue, symbol, interval_ms, count=len(new))):
            series = {"venue": venue, "symbol": symbol, "interval_ms": interval_ms}
            log.warning(event, **series, rows=count, reason=new[0].reason, first=time_text(new[0].open_time_ms))
        return new


def _keep(path: Path, lines: Sequence[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > KEPT_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a") as handle:  # several processes write here: one write each, and whole lines
            handle.write("\n".join(lines) + "\n")
    except OSError as error:  # the process goes on; what needs the disk more says what is wrong with it
        log.warning("rejected_rows_not_kept", file=str(path), why=error.strerror)


def _as_json(row: RejectedRow) -> dict[str, str | int | None]:
    """Numbers as texts: JSON has no infinity."""
    cells = {name: None if math.isnan(cell) else repr(cell) for name, cell in zip(COLUMNS, row.row, strict=True)}
    return {"open_time_ms": row.open_time_ms if row.open_time_ms > 0 else None, "reason": row.reason, **cells}
