"""Rows of an answer that cannot be of the series: single spikes, and a price more than twentyfold from its neighbour.

No second venue is asked: a folder has the rows of one venue, and what is rejected here is a hole until that venue tells
it otherwise.
"""

import numpy as np

from core.clock import iso
from core.errors import MalformedKlines
from klines.checks import CheckedRows, RejectedRow
from klines.klines import WIDEST_LEAP, Bools, Klines, unit_leaps
from klines.plausible import LEAPT, doubts_of

SPIKE = "far from both neighbours"
BREAK = "more than twentyfold from its neighbour: its file or page is not used"


class ScaleBreak(MalformedKlines):
    """A file or page of another unit or asset than the stored rows beside it."""

    def __init__(self, row: RejectedRow, factor: float) -> None:
        super().__init__(
            f"the close of {iso(row.open_time_ms)} is {factor:.3g} times the one before: another unit or asset?"
        )
        self.row, self.factor = row, factor


def checked(klines: Klines, beside: Klines) -> CheckedRows:
    """The rows of an answer without spikes, and without the newest rows after a leap that too few of them confirm.

    Args:
        beside: stored rows of that time, and on either side of it.
    Raises:
        ScaleBreak: closes are more than twentyfold apart, and one of the two is of the answer.
    """
    doubts = doubts_of(beside.merge(klines))
    is_spike = np.isin(klines.open_time_ms, doubts.spikes)
    kept = klines.where(~is_spike)
    if doubts.leap_ms is not None and doubts.leap_ms in klines.open_time_ms:
        kept = kept.between(0, doubts.leap_ms)
    return CheckedRows(klines=kept, rejected=_rows(klines, is_spike, SPIKE), marked=leaps_in(kept, beside))


def leaps_in(klines: Klines, beside: Klines) -> tuple[RejectedRow, ...]:
    """The rows of an answer whose close is more than twofold from the one before: odd, and used.

    Raises:
        ScaleBreak: closes are more than twentyfold apart, and one of the two is of the answer.
    """
    run = beside.merge(klines)
    steps = np.diff(np.log(run.close), prepend=np.nan)
    mine = np.isin(run.open_time_ms, klines.open_time_ms)
    mine[1:] |= mine[:-1]  # a step after a row of the answer counts as well
    breaks = (np.abs(steps) > WIDEST_LEAP) & mine
    if breaks.any():
        raise ScaleBreak(_rows(run, breaks, BREAK)[0], float(np.exp(steps[breaks][0])))
    return _rows(run, mine & np.isin(np.arange(len(run)), unit_leaps(run)), LEAPT)


def _rows(klines: Klines, which: Bools, reason: str) -> tuple[RejectedRow, ...]:
    found = klines.where(which)
    rows = zip(found.open_time_ms.tolist(), found.table().tolist(), strict=True)
    return tuple(RejectedRow(open_time_ms=at_ms, reason=reason, row=tuple(row)) for at_ms, row in rows)
