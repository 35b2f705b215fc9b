"""Row checks: which rows of a batch are klines. Rows that break a rule are set apart with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.errors import MalformedKlines
from klines.klines import COLUMNS, Bools, Floats, Ints, Klines, alike, broken_rules, row_text

EARLIEST_MS = 1_230_768_000_000  # 2009-01-01, before the first bitcoin; earlier is probably a time in seconds

# None of the shares and row counts was measured.
MOST_REJECTED = 0.5  # share of a batch; above it the whole batch is wrong, in its columns or units
SHIFTED_ROWS = 3  # rows off the grid; fewer are single mistakes
LEAST_ALONE = 0.9  # share of the rows off the grid that must be alone in their minute
STEP_ROWS = 20  # rows of another interval; fewer may be minutes with holes
# Of volumes against each other: texts of six digits and numbers of 32 bits stay below it. In 1,425,793 real candles
# with all volumes the largest excess is 4e-16 (docs/operating.md).
VOLUME_ROUNDING = 1e-5
LEAST_VOLUME = 1e-8  # the last of the eight decimals that venues write
CONTRADICTING = ("quote_volume", "taker_buy_base", "taker_buy_quote")  # become NaN where they break such a rule

Rules = list[tuple[str, Bools]]  # each rule in words, and which rows break it


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A row that breaks a rule, or is hard to believe."""

    open_time_ms: int  # 0 or below when it could not be read
    reason: str  # a rule, in a few words; the same text for every row that breaks it
    row: tuple[float, ...]  # as COLUMNS
    place: int = 0  # of the row in its batch, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """A batch after the row checks."""

    klines: Klines
    rejected: tuple[RejectedRow, ...] = ()
    marked: tuple[RejectedRow, ...] = ()  # rows that are odd, and used


def check_rows(
    interval_ms: int,
    open_time_ms: Ints,
    columns: Mapping[str, Floats],
    *,
    now_ms: int | None = None,
    few: int = 0,
    strict: bool = False,
) -> CheckedRows:
    """Return the klines of a batch, oldest first, in whatever order its rows came; equal rows of one time are one row.

    Odd rows, which are used and marked: rows whose volumes contradict each other (their quote and taker volumes become
    NaN), and rows off the grid where most rows are off it (each that is alone in its minute counts as the row of that
    minute).

    Args:
        open_time_ms: ``(T,)`` open times, UTC.
        columns: ``(T,)`` each, by the names of ``COLUMNS``; the four prices and ``volume`` must be there, a missing
            flow column counts as NaN.
        now_ms: rows that open later are rejected; None does not check.
        few: this many rejected rows are allowed in any batch.
        strict: reject a row whose volumes contradict each other.
    Raises:
        MalformedKlines: most rows break a rule; says how many, and names the first. Or they are of a longer interval.
    """
    if not len(open_time_ms):
        return CheckedRows(klines=Klines.empty(interval_ms))
    order = np.argsort(open_time_ms, kind="stable")
    missing = np.full(len(order), np.nan)
    table = np.stack([np.asarray(columns.get(name, missing), np.float64)[order] for name in COLUMNS], axis=1)
    given_ms = open_time_ms[order]
    times = _on_the_grid(interval_ms, given_ms)
    _check_step(interval_ms, times[times % interval_ms == 0])
    twice = (np.diff(times, prepend=-1) == 0) & (times >= 0)  # times below 0 could not be read
    same = np.append(False, alike(table[1:], table[:-1]).all(axis=1))
    repeated, clash = twice & same, twice & ~same

    def first_broken(rules: Rules, among: Bools) -> tuple[tuple[RejectedRow, ...], Bools]:
        """Return the rows of a mask that break a rule, each with the first rule that it breaks, and their mask."""
        found: list[RejectedRow] = []
        left = among.copy()
        for reason, broken in rules:
            found += [
                RejectedRow(
                    open_time_ms=int(given_ms[row]),
                    reason=reason,
                    row=tuple(table[row].tolist()),
                    place=int(order[row]),
                )
                for row in np.flatnonzero(broken & left)
            ]
            left &= ~broken
        return tuple(found), among & ~left

    contradictions = _contradictions(table)
    rules = broken_rules(interval_ms, times, table.T)
    rules.insert(1, ("open time before 2009", times < EARLIEST_MS))  # without a time nothing else in a row matters
    if now_ms is not None:
        rules.append(("open time is in the future", times > now_ms))
    rules.append(("two different rows of one time", clash | np.isin(times, times[clash])))
    rejected, bad = first_broken(rules + contradictions if strict else rules, ~repeated)
    if len(rejected) > max(few, MOST_REJECTED * len(order)):
        first = rejected[0]
        fault = f"{first.reason}: {row_text(first.open_time_ms, first.row)}"
        raise MalformedKlines(f"{len(rejected)} of {len(order)} rows are no klines: {fault}")
    good = ~repeated & ~bad
    marked, odd = first_broken(contradictions, good)
    off = np.unique((given_ms - times)[given_ms != times]).tolist()
    how = f"{off[0]} ms off the grid" if len(off) == 1 else "off the grid, not equally far in all rows"
    moved, _ = first_broken([(f"open time is {how}: taken for the minute that it lies in", given_ms != times)], good)
    table = np.where(odd[:, None] & np.isin(COLUMNS, CONTRADICTING), np.nan, table)
    klines = Klines.from_table(interval_ms, times[good], table[good])
    return CheckedRows(klines=klines, rejected=rejected, marked=marked + moved)


def check_closed_rows(interval_ms: int, open_time_ms: Ints, columns: Mapping[str, Floats], now_ms: int) -> CheckedRows:
    """Check the rows that have closed, as ``check_rows`` does; the running candle is dropped unchecked.

    By a clock that is a little behind the venue's, the running candle opens in the future: rows that open up to an
    interval ahead are dropped, later rows rejected.
    """
    kept = (open_time_ms <= now_ms - interval_ms) | (open_time_ms > now_ms + interval_ms)
    closed = {name: cells[kept] for name, cells in columns.items()}
    return check_rows(interval_ms, open_time_ms[kept], closed, now_ms=now_ms)


def _on_the_grid(interval_ms: int, times: Ints) -> Ints:
    """Move open times down to the grid where most lie off it, each that is alone in its minute.

    A venue's minutes may begin at another second, or a program noted when it read each candle: there is one row for
    each minute all the same. Single rows off the grid are slips, and are asked for again.
    """
    down = times // interval_ms * interval_ms
    minutes, claims = np.unique(np.unique(times) // interval_ms * interval_ms, return_counts=True)
    off = (times != down) & (times >= EARLIEST_MS)
    alone = off & np.isin(down, minutes[claims == 1])
    if off.sum() < max(SHIFTED_ROWS, len(times) // 2 + 1) or alone.sum() < LEAST_ALONE * off.sum():
        return times
    return np.where(alone, down, times)


def _check_step(interval_ms: int, times: Ints) -> None:
    """Raise MalformedKlines if the rows lie on the grid of a longer interval; a few may by chance."""
    if len(times) >= STEP_ROWS:
        step_ms = int(np.gcd.reduce(np.diff(times)))
        if step_ms > interval_ms and step_ms % interval_ms == 0:
            raise MalformedKlines(
                f"rows must be {interval_ms // 1000} s apart, and all {len(times)} are multiples of "
                f"{step_ms // 1000} s apart: another interval"
            )


def _contradictions(table: Floats) -> Rules:
    """Return each rule between volumes in words, with the rows that break it; NaN breaks no rule."""
    _, high, low, _, volume, quote, _, taker, taker_quote = table.T
    above, below = 1 + VOLUME_ROUNDING, 1 - VOLUME_ROUNDING
    with np.errstate(invalid="ignore", over="ignore"):
        most_quote = high * (volume + LEAST_VOLUME) * above + LEAST_VOLUME
        least_quote = low * (volume - LEAST_VOLUME) * below - LEAST_VOLUME
        return [
            ("quote volume is not between low and high times volume", (quote > most_quote) | (quote < least_quote)),
            ("taker volume is above volume", taker > volume * above + LEAST_VOLUME),
            ("taker quote volume is above quote volume", taker_quote > quote * above + LEAST_VOLUME),
        ]
