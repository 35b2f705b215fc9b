"""Parts candles at leaps beyond ``MOST_LEAP`` into stretches of one price level, and decides which are used."""

from collections.abc import Sequence

import numpy as np

from core.clock import iso
from core.errors import MalformedKlines
from klines.activity import ROUNDING
from klines.klines import MOST_LEAP, Klines, unit_leaps
from klines.plausible import rows_awaited

ALIKE = MOST_LEAP / 2  # of ln(price): prices so near are at one level
KNOWN_VISITS = 3  # a level that comes so often is the market's, and no slip of a unit


class Case:
    """Candles of a symbol to decide about, with known ones before them.

    Attributes:
        recent: candles that were confirmed before.
        leaps: rows that leap beyond ``MOST_LEAP``.
        visited: those of them to a level that comes ``KNOWN_VISITS`` times.
    """

    def __init__(self, symbol: str, run: Klines, recent: Klines) -> None:
        self.symbol, self.run, self.recent = symbol, run, recent
        self.leaps = unit_leaps(run)
        levels = np.log(run.close[[0, *self.leaps]]) if self.leaps else np.empty(0)
        visits = [(np.abs(level - levels) <= ALIKE).sum() for level in levels[1:]]
        self.visited = {row for row, count in zip(self.leaps, visits, strict=True) if count >= KNOWN_VISITS}

    def time(self, row: int) -> int:
        return int(self.run.open_time_ms[row])

    def rows(self, times_ms: Sequence[int]) -> list[int]:
        rows: list[int] = np.searchsorted(self.run.open_time_ms, times_ms).tolist()
        return rows

    def is_known(self, row: int) -> bool:
        """True if the candle of a row was confirmed before with the same close."""
        same = self.recent.between(self.time(row), self.time(row) + 1).close
        return any(abs(close / self.run.close[row] - 1) < ROUNDING for close in same)

    def is_alike(self, row: int, level: float) -> bool:
        return abs(float(np.log(self.run.close[row] / level))) <= ALIKE

    def leap(self, row: int) -> str:
        percent = 100 * (self.run.close[row] / self.run.close[row - 1] - 1)
        return f"{self.symbol} leaps by {percent:+.0f} % at {iso(self.time(row))}"


def sorted_stretches(
    case: Case, leaps: Sequence[int], is_right: Sequence[bool | None]
) -> tuple[list[int], list[int], int | None]:
    """Decide which stretches are used.

    Where a second venue has candles of that time, its level decides. Where none has, a level that was left for another
    and comes back is right, and a new one is used when it has stayed for ``BELIEVED_AFTER_MS`` or comes for the third
    time.

    Args:
        leaps: rows at which stretches begin, after the first one.
        is_right: for each stretch, True if a second venue is at its level; None if no venue says.
    Returns:
        The rows that are not used; the first rows of new levels that are used; and the row that waits with all later
        rows, or None.
    Raises:
        MalformedKlines: the newest stretch is not at a second venue's level: all is to be asked of that venue.
    """
    odd: list[int] = []
    marked: list[int] = []
    level, number = 0.0, 0
    starts, ends = [0, *leaps], [*leaps, len(case.run)]
    while number < len(starts):
        first = starts[number]
        if is_right[number] is False:
            odd += range(first, ends[number])
            number += 1
            continue
        is_new = level > 0 and not case.is_alike(first, level)
        if is_new and not is_right[number] and first not in case.visited:  # no venue says
            later = range(number + 1, len(starts))
            back = next((n for n in later if is_right[n] is not False and case.is_alike(starts[n], level)), None)
            if back is not None and 2 * (starts[back] - first) < len(case.run):
                odd += range(first, starts[back])
                number = back
                continue
            if len(case.run) - 1 - first < rows_awaited(case.run.interval_ms):
                return odd, marked, first
        marked += [first] if is_new else []
        level = float(case.run.close[ends[number] - 1])
        number += 1
    if len(case.run) - 1 in odd:
        raise MalformedKlines(f"{case.leap(starts[-1])}, and another venue has no such move")
    return odd, marked, None
