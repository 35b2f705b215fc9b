"""Row checks: which rows of a batch are klines. Rows that break a rule are set apart with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.clock import iso
from core.errors import MalformedKlines
from klines.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS, Floats, Ints, Klines

Bools = npt.NDArray[np.bool_]

UNREADABLE_MS = 0  # stands for an open time that cannot be read
EARLIEST_MS = 1_230_768_000_000  # 2009-01-01, before the first bitcoin; earlier is probably a time in seconds
LATEST_MS = 253_402_300_800_000  # the year 10000, in which calendars end

# None of the shares and row counts was measured.
MOST_REFUSED = 0.5  # share of a batch; above it the whole batch is wrong, in its columns or units
SHIFTED_ROWS = 3  # rows off the grid; fewer are single mistakes
LEAST_ALONE = 0.9  # share of the rows off the grid that must be alone in their minute
STEP_ROWS = 20  # rows of another interval; fewer may be minutes with holes
# Of volumes against each other: texts of six digits and numbers of 32 bits stay below it. In 1,425,793 real candles
# with all volumes the largest excess is 4e-16 (docs/operating.md).
VOLUME_ROUNDING = 1e-5
LEAST_VOLUME = 1e-8  # the last of the eight decimals that venues write
CONTRADICTING = ("quote_volume", "taker_buy_base", "taker_buy_quote")  # become NaN where they break such a rule


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
    refused: tuple[RejectedRow, ...] = ()
    marked: tuple[RejectedRow, ...] = ()  # rows that are odd, and used


def check_rows(
    interval_ms: int, open_time_ms: Ints, columns: Mapping[str, Floats], *, now_ms: int | None = None, few: int = 0
) -> CheckedRows:
    """Return the klines of a batch, oldest first, in whatever order its rows came.

    Args:
        open_time_ms: ``(T,)`` open times, UTC.
        columns: ``(T,)`` each, by the names of ``COLUMNS``; the four prices and ``volume`` must be there, a missing
            flow column counts as NaN.
        now_ms: rows that open later are rejected; None does not check.
        few: this many rejected rows are allowed in any batch.
    Returns:
        The klines, the rejected rows, and the odd rows that are used. Odd is a row whose volumes contradict each
        other: its quote and taker volumes become NaN. Odd is also a row off the grid, where most rows are off it and
        this one is alone in its minute: it counts as the row of that minute. Equal rows of one time are one row.
    Raises:
        MalformedKlines: most rows break a rule; says how many, and names the first.
    """
    found = separate_rows(interval_ms, open_time_ms, columns, now_ms=now_ms)
    rows = len(open_time_ms)
    if len(found.refused) > max(few, MOST_REFUSED * rows):
        timed = np.argsort(open_time_ms, kind="stable")
        timed = timed[open_time_ms[timed] > 0]
        fault = _fault_of(interval_ms, open_time_ms[timed], _table(columns, rows)[timed], found.refused)
        raise MalformedKlines(f"{len(found.refused)} of {rows} rows are no klines: {fault}")
    return found


def check_closed_rows(interval_ms: int, open_time_ms: Ints, columns: Mapping[str, Floats], now_ms: int) -> CheckedRows:
    """Check the rows that have closed, as ``check_rows`` does; the running candle is dropped unchecked.

    Args:
        now_ms: the venue's time. By a clock that is a little behind, the running candle opens in the future: rows that
            open up to an interval ahead are dropped, later rows rejected.
    """
    kept = (open_time_ms <= now_ms - interval_ms) | (open_time_ms > now_ms + interval_ms)
    closed = {name: cells[kept] for name, cells in columns.items()}
    return check_rows(interval_ms, open_time_ms[kept], closed, now_ms=now_ms)


def separate_rows(
    interval_ms: int,
    open_time_ms: Ints,
    columns: Mapping[str, Floats],
    *,
    now_ms: int | None = None,
    strict: bool = False,
) -> CheckedRows:
    """Do as ``check_rows``, however many rows are rejected.

    Args:
        strict: reject a row whose volumes contradict each other.
    Raises:
        MalformedKlines: the rows are of a longer interval.
    """
    rows = len(open_time_ms)
    if not rows:
        return CheckedRows(klines=Klines.empty(interval_ms))
    order = np.argsort(open_time_ms, kind="stable")
    given_ms, table = open_time_ms[order], _table(columns, rows)[order]
    times = _on_the_grid(interval_ms, given_ms)
    _check_step(interval_ms, times[times % interval_ms == 0])
    repeated, clash = _of_one_time(times, table)

    def rows_of(reason: str, which: Bools) -> list[RejectedRow]:
        return [
            RejectedRow(
                open_time_ms=int(given_ms[row]),
                reason=reason,
                row=tuple(table[row].tolist()),
                place=int(order[row]),
            )
            for row in np.flatnonzero(which & ~repeated)
        ]

    bad, odd = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    refused: list[RejectedRow] = []
    marked: list[RejectedRow] = []
    for reason, broken in [
        *_broken_rules(interval_ms, times, table, now_ms),
        ("two different rows of one time", clash),
    ]:
        refused += rows_of(reason, broken & ~bad)
        bad |= broken
    for reason, broken in _contradictions(table):
        (refused if strict else marked).extend(rows_of(reason, broken & ~bad & ~odd))
        odd |= broken & ~bad
    if strict:
        bad |= odd
    off = np.unique((given_ms - times)[given_ms != times]).tolist()
    how = f"{off[0]} ms off the grid" if len(off) == 1 else "off the grid, not equally far in all rows"
    marked += rows_of(f"open time is {how}: taken for the minute that it lies in", (given_ms != times) & ~bad)
    good = ~bad & ~repeated
    table = np.where(odd[:, None] & np.isin(COLUMNS, CONTRADICTING), np.nan, table)
    klines = Klines.from_table(interval_ms, times[good], table[good])
    return CheckedRows(klines=klines, refused=tuple(refused), marked=tuple(marked))


def _of_one_time(times: Ints, table: Floats) -> tuple[Bools, Bools]:
    """Return which rows equal the row before them, and which share their time with a different row."""
    repeated, clash = np.zeros(len(times), np.bool_), np.zeros(len(times), np.bool_)
    twice = (times[1:] == times[:-1]) & (times[1:] >= 0)  # times below 0 could not be read
    alike = ((table[1:] == table[:-1]) | (np.isnan(table[1:]) & np.isnan(table[:-1]))).all(axis=1)
    repeated[1:] = twice & alike
    clash[1:] = twice & ~alike
    return repeated, clash | np.isin(times, times[clash])


def _fault_of(interval_ms: int, times: Ints, table: Floats, refused: Sequence[RejectedRow]) -> str:
    """Say what is wrong with a batch: the cells of the first bad row if ``Klines`` has that rule."""
    try:
        Klines.from_table(interval_ms, times, table)
    except MalformedKlines as error:
        return str(error)
    return f"{refused[0].reason}: row of {time_text(refused[0].open_time_ms)}"


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


def _table(columns: Mapping[str, Floats], rows: int) -> Floats:
    return np.stack([np.asarray(columns.get(name, np.full(rows, np.nan)), np.float64) for name in COLUMNS], axis=1)


def _broken_rules(interval_ms: int, times: Ints, table: Floats, now_ms: int | None) -> list[tuple[str, Bools]]:
    """Return each rule in words, with the rows that break it."""
    opened, high, low, close = (table[:, COLUMNS.index(name)] for name in PRICE_COLUMNS)
    prices, flows = table[:, : len(PRICE_COLUMNS)], table[:, len(PRICE_COLUMNS) :]
    with np.errstate(invalid="ignore"):
        found = [
            ("open time is not on the grid", times % interval_ms != 0),
            ("open time before 2009", times < EARLIEST_MS),
            ("a price is not finite and above 0", ~(np.isfinite(prices) & (prices > 0)).all(axis=1)),
            ("low is above open or close", np.minimum(opened, close) < low),
            ("high is below open or close", np.maximum(opened, close) > high),
            ("volume is not finite", ~np.isfinite(flows[:, FLOW_COLUMNS.index("volume")])),
            ("a flow is below 0 or infinite", ((flows < 0) | np.isinf(flows)).any(axis=1)),
        ]
    if now_ms is not None:
        found.append(("open time is in the future", times > now_ms))
    return found


def _contradictions(table: Floats) -> list[tuple[str, Bools]]:
    """Return each rule between volumes in words, with the rows that break it; NaN breaks no rule."""
    high, low = table[:, COLUMNS.index("high")], table[:, COLUMNS.index("low")]
    volume, quote, taker, taker_quote = (table[:, COLUMNS.index(name)] for name in ("volume", *CONTRADICTING))
    above, below = 1 + VOLUME_ROUNDING, 1 - VOLUME_ROUNDING
    with np.errstate(invalid="ignore", over="ignore"):
        most_quote = high * (volume + LEAST_VOLUME) * above + LEAST_VOLUME
        least_quote = low * (volume - LEAST_VOLUME) * below - LEAST_VOLUME
        return [
            ("quote volume is not between low and high times volume", (quote > most_quote) | (quote < least_quote)),
            ("taker volume is above volume", taker > volume * above + LEAST_VOLUME),
            ("taker quote volume is above quote volume", taker_quote > quote * above + LEAST_VOLUME),
        ]


def time_text(ms: int) -> str:
    """Return a time for a message, in words if no calendar has it."""
    return iso(ms) if 0 < ms < LATEST_MS else f"{ms} ms" if ms > 0 else "a time that cannot be read"
