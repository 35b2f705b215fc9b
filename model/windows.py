"""Feature tables to training and judging windows, without copying overlapping rows; purged splits in time order."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from core.clock import iso
from core.errors import TrainingFailed
from klines.klines import Floats, Ints, Klines
from model.features import Bools, Floats32, compute, describe
from model.panels import LEADER, PanelPlan
from model.targets import encode, naive, truth

Rows = npt.NDArray[np.intp]

TRAIN_SHARE, VALIDATE_SHARE = 0.78, 0.10  # of the usable time; the newest rest is for judging
SPREAD_ROWS = 8
LEAST_ROWS = 16  # in each part of a split


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Three half-open spans of time, in order; a window belongs where its last candle opens.

    Between two parts lies at least the longest horizon, so no label of a part reads into the next part.
    A window may read candles of an earlier part, as it will in service.
    """

    train_start_ms: int
    train_end_ms: int
    validate_start_ms: int
    validate_end_ms: int
    judge_start_ms: int
    judge_end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """All windows of a panel's symbols. R rows, one per candle, symbol after symbol; F features; O heads.

    The window of a row is ``x[row - lookback + 1 : row + 1]`` with the panel's lookback. If the row is ``usable``, the
    window lies within one symbol and has no hole.
    """

    plan: PanelPlan
    x: Floats32  # (R, F)
    target: Floats32  # (R, O) labels of the network; NaN where the future has a hole or is not here yet
    truth: Floats  # (R, O) in the head's unit, NaN likewise
    naive: Floats  # (R, O) in the head's unit
    scale: Floats  # (R,) volatility of one candle
    close: Floats  # (R,) quote currency
    open_time_ms: Ints  # (R,)
    symbol: Ints  # (R,) index into plan.symbols
    usable: Bools  # (R,)

    def rows(self, start_ms: int, end_ms: int, *, stride: int = 1, phase: int = 0) -> Rows:
        """Usable rows with a truth for some head, ``start_ms <= open_time_ms < end_ms``.

        Args:
            stride: takes every ``stride``-th candle of the clock, the same for all symbols.
            phase: 0 to ``stride - 1``: which candles of the clock are taken.
        """
        tick = self.open_time_ms // self.plan.panel.interval_ms
        return np.flatnonzero(
            self.usable
            & (self.open_time_ms >= start_ms)
            & (self.open_time_ms < end_ms)
            & ((tick + phase) % stride == 0)
            & np.isfinite(self.truth).any(axis=1)
        )

    def gather(self, rows: Rows) -> Floats32:
        """``(B, L, F)``: the windows that end at ``rows``."""
        windows: Floats32 = self.x[rows[:, None] + np.arange(1 - self.plan.panel.lookback, 1)]
        return windows

    def reading(self, lookback: int) -> "Windows":
        """The same rows with windows of another length; a row stays usable if it is usable with both lengths.

        Raises:
            ConfigError: no panel may have this lookback.
        """
        plan, usable = self.plan.reading(lookback), self.usable
        if (longer := lookback - self.plan.panel.lookback) > 0:
            # A row is usable for a longer window if the rows before it are usable: no hole lies between them. The
            # first rows of a symbol never are.
            row = np.arange(len(usable))
            usable = row - np.maximum.accumulate(np.where(usable, -1, row)) > longer
        return replace(self, plan=plan, usable=usable)


def build(plan: PanelPlan, klines: Mapping[str, Klines]) -> Windows:
    """The windows of every symbol of the plan.

    Args:
        plan: symbols, heads and panel.
        klines: the panel's candles by symbol; a symbol without candles has no rows.
    """
    panel = plan.panel
    leader = klines[LEADER]
    runs = [klines[symbol] for symbol in plan.symbols]
    led = describe(leader, panel.memory)
    tables = [compute(run, leader, panel, led=led) for run in runs]
    truths = [_by_head([truth(run, panel, head) for head in plan.heads]) for run in runs]
    targets = [
        _by_head([encode(true[:, column], table.scale, panel, head) for column, head in enumerate(plan.heads)])
        for true, table in zip(truths, tables, strict=True)
    ]
    return Windows(
        plan=plan,
        x=np.concatenate([table.x for table in tables]),
        target=np.concatenate(targets).astype(np.float32),
        truth=np.concatenate(truths),
        naive=np.concatenate([_by_head([naive(run, panel, head) for head in plan.heads]) for run in runs]),
        scale=np.concatenate([table.scale for table in tables]),
        close=np.concatenate([table.close for table in tables]),
        open_time_ms=np.concatenate([table.open_time_ms for table in tables]),
        symbol=np.concatenate([np.full(len(run), index, np.int64) for index, run in enumerate(runs)]),
        usable=np.concatenate([table.usable for table in tables]),
    )


def _by_head(columns: list[Floats]) -> Floats:
    return np.stack(columns, axis=1)


def purged_split(windows: Windows) -> Split:
    """Train, validate and judge in time order, cut at the same moments for every symbol.

    Two gaps of the longest horizon are taken off the usable time; TRAIN_SHARE and VALIDATE_SHARE divide the rest, and
    the newest remainder is for judging.

    Raises:
        TrainingFailed: a part has fewer than LEAST_ROWS windows, with all counts.
    """
    every = windows.rows(0, 2**62)
    interval_ms, gap_ms = windows.plan.panel.interval_ms, windows.plan.gap_ms
    if not len(every):
        raise TrainingFailed(
            f"{windows.plan.panel.name} panel: no window without a hole in {len(windows.usable)} candles; "
            "raise TRAINING_DAYS or wait for the sync to fill the holes"
        )
    times = windows.open_time_ms[every]
    start, end = int(times.min()), int(times.max()) + interval_ms
    usable = max(0, end - start - 2 * gap_ms) // interval_ms
    train, validate = int(usable * TRAIN_SHARE) * interval_ms, int(usable * VALIDATE_SHARE) * interval_ms
    split = Split(
        train_start_ms=start,
        train_end_ms=start + train,
        validate_start_ms=start + train + gap_ms,
        validate_end_ms=start + train + gap_ms + validate,
        judge_start_ms=start + train + validate + 2 * gap_ms,
        judge_end_ms=end,
    )
    counts = {
        "train": len(windows.rows(split.train_start_ms, split.train_end_ms)),
        "validate": len(windows.rows(split.validate_start_ms, split.validate_end_ms)),
        "judge": len(windows.rows(split.judge_start_ms, split.judge_end_ms)),
    }
    if min(counts.values()) < LEAST_ROWS:
        raise TrainingFailed(
            f"{windows.plan.panel.name} panel: too few windows between {iso(start)} and {iso(end)}: "
            + ", ".join(f"{count} to {part}" for part, count in counts.items())
            + f"; each needs {LEAST_ROWS}: raise TRAINING_DAYS"
        )
    return split


def spread(rows: Rows) -> Rows:
    """About SPREAD_ROWS of the rows, evenly spread."""
    return rows[:: max(1, len(rows) // SPREAD_ROWS)]
