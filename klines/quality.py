"""Which rows of a batch are klines: what breaks a rule is kept aside with the reason, and the others are used."""

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

from core.clock import MINUTE_MS, iso
from core.errors import MalformedKlines
from core.seldom import Seldom
from klines.klines import (
    COLUMNS,
    FLOW_COLUMNS,
    PRICE_COLUMNS,
    Floats,
    Ints,
    Klines,
)

# More of a batch than this: it is not rows that are wrong but the batch, with other columns or units.
MOST_REFUSED = 0.5
SHIFTED_ROWS = 3  # fewer rows off the grid are single slips
LEAST_ALONE = 0.9  # of the rows off the grid: where more share their minute with another, no time says whose it is
STEP_ROWS = 20  # of another interval are not taken for minutes with holes
REMEMBERED = 100_000  # rows, so that one that is sent again and again counts once
KEPT_BYTES = 1 << 20  # of rows kept aside; the file before it is kept as well
FILE = "refused.jsonl"
# Of ln(price) within one candle, however quiet it was before: on BTC, ETH, SOL and ARB of 2022 to 2024, the collapse of
# FTX among them, the largest move of a minute that then stayed is 0.12, and of one that was taken back 0.06.
LEAST_LEAP = 0.1
LEAP_RANGES = 10.0  # in units of the usual candle's range
USUAL_ROWS = 240
ROUNDING = 1e-6  # of a price, between a venue's candles and its ticker
# Of volumes against each other: texts of six digits and numbers of 32 bits stay below it. In 1,425,793 real candles
# with all volumes the largest excess is 4e-16, so none breaks a rule (docs/operating.md).
VOLUME_ROUNDING = 1e-5
LEAST_VOLUME = 1e-8  # the last of the eight decimals that venues write
CONTRADICTING = ("quote_volume", "taker_buy_base", "taker_buy_quote")  # not known where they break such a rule
STAYED_ROWS = 2  # candles at the new level that make a leap believable by themselves
# A level beyond twofold that no second venue confirms or denies is used when it has stayed so long, and two candles at
# least: a unit that a venue changed by a slip is set right sooner, and a new listing needs no person.
BELIEVED_AFTER_MS = 10 * MINUTE_MS
LEAPT = "more than twofold from the row before: used, and no return is made of it"

Bools = npt.NDArray[np.bool_]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row that is no kline, or not to be believed."""

    open_time_ms: int  # 0 or below where there is none
    reason: str  # a rule, in a few words; the same text for every row that breaks it
    row: tuple[float, ...]  # as COLUMNS
    place: int = 0  # of the row in its batch, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """A batch, sorted out."""

    klines: Klines
    refused: tuple[RefusedRow, ...] = ()
    marked: tuple[RefusedRow, ...] = ()  # rows that are odd, and used


def sift(
    interval_ms: int, open_time_ms: Ints, columns: Mapping[str, Floats], *, now_ms: int | None = None, few: int = 0
) -> Sifted:
    """The rows of one answer that are klines, oldest first, in whatever order they came.

    Args:
        open_time_ms: ``(T,)`` open times, UTC.
        columns: ``(T,)`` each, by the names of ``COLUMNS``; the four prices and ``volume`` must be there, the other
            flow columns count as NaN where they are not.
        now_ms: rows that open later are of the future; None does not ask.
        few: so many refused rows say nothing of the batch, which is part of one.
    Returns:
        The klines, the rows that break a rule, and those that are odd and used: a row whose prices keep the rules and
        whose volumes contradict each other, without its quote and taker volumes; and where most rows lie off the grid,
        each that is alone in its minute, taken for the minute that it began in. Equal rows of one time are one row.
    Raises:
        MalformedKlines: most rows break a rule, so the batch is something else; says how many, and names the first.
    """
    found = sorted_out(interval_ms, open_time_ms, columns, now_ms=now_ms)
    rows = len(open_time_ms)
    if len(found.refused) > max(few, MOST_REFUSED * rows):
        timed = np.argsort(open_time_ms, kind="stable")
        timed = timed[open_time_ms[timed] > 0]
        said = _said(interval_ms, open_time_ms[timed], _table(columns, rows)[timed], found.refused)
        raise MalformedKlines(f"{len(found.refused)} of {rows} rows are no klines: {said}")
    return found


def sorted_out(
    interval_ms: int,
    open_time_ms: Ints,
    columns: Mapping[str, Floats],
    *,
    now_ms: int | None = None,
    strict: bool = False,
) -> Sifted:
    """``sift`` however many rows break a rule; raises MalformedKlines for another interval alone.

    Args:
        strict: a row whose volumes contradict each other is no kline.
    """
    rows = len(open_time_ms)
    if not rows:
        return Sifted(klines=Klines.empty(interval_ms))
    table = _table(columns, rows)
    order = np.argsort(open_time_ms, kind="stable")
    told_ms, table = open_time_ms[order], table[order]
    times = _on_the_grid(interval_ms, told_ms)
    same = np.zeros(rows, np.bool_)  # as the row before
    clash = np.zeros(rows, np.bool_)
    if rows > 1:
        twice = (times[1:] == times[:-1]) & (times[1:] >= 0)  # below 0 is none at all
        alike = ((table[1:] == table[:-1]) | (np.isnan(table[1:]) & np.isnan(table[:-1]))).all(axis=1)
        same[1:] = twice & alike
        clash[1:] = twice & ~alike
        clash[:-1] |= twice & ~alike
        clash |= np.isin(times, times[clash])
    _check_step(interval_ms, times[times % interval_ms == 0])

    def rows_of(reason: str, which: Bools) -> list[RefusedRow]:
        return [
            RefusedRow(
                open_time_ms=int(told_ms[row]),
                reason=reason,
                row=tuple(table[row].tolist()),
                place=int(order[row]),
            )
            for row in np.flatnonzero(which & ~same)
        ]

    bad, odd = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    refused: list[RefusedRow] = []
    marked: list[RefusedRow] = []
    for reason, broken in [*_reasons(interval_ms, times, table, now_ms), ("two different rows of one time", clash)]:
        refused += rows_of(reason, broken & ~bad)
        bad |= broken
    for reason, broken in _contradictions(table):
        (refused if strict else marked).extend(rows_of(reason, broken & ~bad & ~odd))
        odd |= broken & ~bad
    if strict:
        bad |= odd
    off = np.unique((told_ms - times)[told_ms != times]).tolist()
    how = f"{off[0]} ms off the grid" if len(off) == 1 else "off the grid, not equally far in all rows"
    marked += rows_of(f"open time is {how}: taken for the minute that it lies in", (told_ms != times) & ~bad)
    good = ~bad & ~same
    table = np.where(odd[:, None] & np.isin(COLUMNS, CONTRADICTING), np.nan, table)
    klines = Klines(interval_ms=interval_ms, open_time_ms=times[good], **_columns(table[good]))
    return Sifted(klines=klines, refused=tuple(refused), marked=tuple(marked))


def _said(interval_ms: int, times: Ints, table: Floats, refused: Sequence[RefusedRow]) -> str:
    """What is wrong with a batch: the first row's cells where a rule of ``Klines`` names them."""
    try:
        Klines(interval_ms=interval_ms, open_time_ms=times, **_columns(table))
    except MalformedKlines as error:
        return str(error)
    return f"{refused[0].reason}: row of {_time(refused[0].open_time_ms)}"


def _on_the_grid(interval_ms: int, times: Ints) -> Ints:
    """Open times, each taken down to the grid that is alone in its minute, where most lie off the grid.

    A venue whose minutes begin at another second, or a program that noted when it read a candle, tells minutes all the
    same, one row for each. Single rows off the grid are slips, which the next question or another venue sets right.
    """
    down = times // interval_ms * interval_ms
    minutes, claims = np.unique(np.unique(times) // interval_ms * interval_ms, return_counts=True)
    off = (times != down) & (times >= EARLIEST_MS)
    taken = off & np.isin(down, minutes[claims == 1])
    if off.sum() < max(SHIFTED_ROWS, len(times) // 2 + 1) or taken.sum() < LEAST_ALONE * off.sum():
        return times
    return np.where(taken, down, times)


def _check_step(interval_ms: int, times: Ints) -> None:
    """Raises MalformedKlines where rows lie on the grid of a longer interval; a few may by chance."""
    if len(times) >= STEP_ROWS:
        step_ms = int(np.gcd.reduce(np.diff(times)))
        if step_ms > interval_ms and step_ms % interval_ms == 0:
            raise MalformedKlines(
                f"rows must be {interval_ms // 1000} s apart, and all {len(times)} are multiples of "
                f"{step_ms // 1000} s apart: another interval"
            )


def sift_closed(interval_ms: int, open_time_ms: Ints, columns: Mapping[str, Floats], now_ms: int) -> Sifted:
    """``sift``, without the candle that has not ended by ``now_ms``, the venue's own time, whatever it says.

    By a clock that is a little behind, the running candle has not begun; what opens later than that is refused.
    """
    kept = (open_time_ms <= now_ms - interval_ms) | (open_time_ms > now_ms + interval_ms)
    return sift(interval_ms, open_time_ms[kept], {name: cells[kept] for name, cells in columns.items()}, now_ms=now_ms)


def _table(columns: Mapping[str, Floats], rows: int) -> Floats:
    return np.stack([np.asarray(columns.get(name, np.full(rows, np.nan)), np.float64) for name in COLUMNS], axis=1)


def _columns(table: Floats) -> dict[str, Floats]:
    return {name: np.ascontiguousarray(table[:, number]) for number, name in enumerate(COLUMNS)}


def _reasons(interval_ms: int, times: Ints, table: Floats, now_ms: int | None) -> list[tuple[str, Bools]]:
    """Each rule in words, and the rows that break it."""
    opened, high, low, close = (table[:, COLUMNS.index(name)] for name in PRICE_COLUMNS)
    prices = table[:, : len(PRICE_COLUMNS)]
    flow = table[:, len(PRICE_COLUMNS) :]
    with np.errstate(invalid="ignore"):
        found = [
            ("open time is not on the grid", times % interval_ms != 0),
            ("open time before 2009", times < EARLIEST_MS),
            ("a price is not finite and above 0", ~(np.isfinite(prices) & (prices > 0)).all(axis=1)),
            ("low is above open or close", np.minimum(opened, close) < low),
            ("high is below open or close", np.maximum(opened, close) > high),
            ("volume is not finite", ~np.isfinite(flow[:, FLOW_COLUMNS.index("volume")])),
            ("a flow is below 0 or infinite", ((flow < 0) | np.isinf(flow)).any(axis=1)),
        ]
    if now_ms is not None:
        found.append(("open time is in the future", times > now_ms))
    return found


def _contradictions(table: Floats) -> list[tuple[str, Bools]]:
    """Each rule that volumes keep among themselves, in words, and the rows that break it; NaN breaks none."""
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


UNREADABLE_MS = 0  # in the place of an open time that cannot be read
EARLIEST_MS = 1_230_768_000_000  # 2009-01-01, before the first bitcoin: a time in seconds, or none at all


def _time(ms: int) -> str:
    """A time for a message; in words where it is none that a calendar has."""
    return iso(ms) if 0 < ms < 253_402_300_800_000 else f"{ms} ms" if ms > 0 else "a time that cannot be read"


class Aside:
    """Counts refused rows, and keeps them in a file where a person can look at them. Safe to use from several threads.

    Args:
        folder: where ``refused.jsonl`` is; None only counts.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._marks: Counter[tuple[str, str, str]] = Counter()
        self._seen: set[tuple[str, str, int, int, str]] = set()
        self._seldom = Seldom()

    @property
    def counts(self) -> dict[tuple[str, str, str], int]:
        """How many rows so far, by (venue, symbol, reason)."""
        with self._lock:
            return dict(self._counts)

    @property
    def marks(self) -> dict[tuple[str, str, str], int]:
        """How many odd rows were used so far, by (venue, symbol, what is odd)."""
        with self._lock:
            return dict(self._marks)

    def refused(self, symbol: str, interval_ms: int) -> dict[int, str]:
        """By open time, as a venue told it: why the row was refused; as many as are remembered."""
        with self._lock:
            return {
                at_ms: reason
                for venue, its, interval, at_ms, reason in self._seen
                if (its, interval) == (symbol, interval_ms) and (venue, its, reason) in self._counts
            }

    def take(self, venue: str, symbol: str, interval_ms: int, sifted: Sifted, now_ms: int) -> None:
        """``put`` the refused rows of a batch and ``mark`` the odd ones."""
        self.put(venue, symbol, interval_ms, sifted.refused, now_ms)
        self.mark(venue, symbol, interval_ms, sifted.marked)

    def put(self, venue: str, symbol: str, interval_ms: int, refused: Sequence[RefusedRow], now_ms: int) -> None:
        """Count and keep rows; one that was refused before, for the same reason, is not kept again."""
        fresh = self._unseen(venue, symbol, interval_ms, refused, self._counts)
        if not fresh:
            return
        self._say("rows_refused", venue, symbol, interval_ms, fresh)
        if self._folder is not None:
            said = {"refused": iso(now_ms), "venue": venue, "symbol": symbol, "interval_ms": interval_ms}
            _keep(self._folder / FILE, [json.dumps(said | _as_json(row)) for row in fresh])

    def mark(self, venue: str, symbol: str, interval_ms: int, odd: Sequence[RefusedRow]) -> None:
        """Count odd rows that are used; one that was marked before, for the same reason, does not count again."""
        if fresh := self._unseen(venue, symbol, interval_ms, odd, self._marks):
            self._say("rows_marked", venue, symbol, interval_ms, fresh)

    def _unseen(
        self,
        venue: str,
        symbol: str,
        interval_ms: int,
        rows: Sequence[RefusedRow],
        counts: "Counter[tuple[str, str, str]]",
    ) -> list[RefusedRow]:
        fresh = []
        with self._lock:
            if len(self._seen) > REMEMBERED:
                self._seen.clear()
            for row in rows:
                seen = (venue, symbol, interval_ms, row.open_time_ms, row.reason)
                if seen not in self._seen:
                    self._seen.add(seen)
                    counts[venue, symbol, row.reason] += 1
                    fresh.append(row)
        return fresh

    def _say(self, event: str, venue: str, symbol: str, interval_ms: int, rows: Sequence[RefusedRow]) -> None:
        if count := self._seldom.due(event, venue, symbol, interval_ms, count=len(rows)):
            log.warning(
                event,
                venue=venue,
                symbol=symbol,
                interval_ms=interval_ms,
                rows=count,
                reason=rows[0].reason,
                first=_time(rows[0].open_time_ms),
            )


def _keep(path: Path, lines: Sequence[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > KEPT_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a") as handle:  # several processes write here: one write each, and whole lines
            handle.write("\n".join(lines) + "\n")
    except OSError as error:  # what is wrong with the disk is said by whoever needs it
        log.warning("refused_rows_not_kept", file=str(path), why=error.strerror)


def _as_json(row: RefusedRow) -> dict[str, str | int | None]:
    """Numbers as texts: JSON has no infinity."""
    cells = {name: None if np.isnan(cell) else repr(cell) for name, cell in zip(COLUMNS, row.row, strict=True)}
    return {"open_time_ms": row.open_time_ms if row.open_time_ms > 0 else None, "reason": row.reason, **cells}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Rows of a batch that keep the rules and are hard to believe all the same."""

    spikes: tuple[int, ...] = ()  # open times of candles far from both neighbours, or with a wick as long
    # Open times of candles far from the one before: that others followed at the new level, and one that too few follow.
    leaps: tuple[int, ...] = ()
    leap_ms: int | None = None

    def __bool__(self) -> bool:
        return bool(self.spikes or self.leaps) or self.leap_ms is not None


def doubts_of(klines: Klines, before: Klines | None = None) -> Doubts:
    """What of a batch wants a second opinion.

    Args:
        klines: the batch.
        before: candles that were believed, older ones or the same; they say what is usual.
    """
    if not len(klines):
        return Doubts()
    run = klines
    if before is not None and len(known := before.between(0, int(klines.open_time_ms[0])).tail(USUAL_ROWS)):
        run = known.merge(klines)
    if len(run) < 2:
        return Doubts()
    step = np.diff(np.log(run.close))
    # Of a thin pair, whose candles are flat, the steps between them say what is usual.
    usual = float(np.median(np.maximum(np.log(run.high / run.low)[1:], np.abs(step))))
    minutes = run.interval_ms / MINUTE_MS
    bound = max(LEAST_LEAP * minutes**0.25, LEAP_RANGES * usual)
    # Over a hole it may go as much farther as a random walk does.
    far = np.abs(step) > bound * np.sqrt(np.diff(run.open_time_ms) / run.interval_ms)
    up, down = far & (step > 0), far & (step < 0)
    spike = np.zeros(len(run), np.bool_)
    spike[1:-1] = (up[:-1] & down[1:]) | (down[:-1] & up[1:])
    top, bottom = np.maximum(run.open, run.close), np.minimum(run.open, run.close)
    spike |= np.maximum(np.log(run.high / top), np.log(bottom / run.low)) > 2 * bound
    leaps = np.flatnonzero(far & ~spike[1:] & ~spike[:-1]) + 1
    late, stayed = leaps[leaps >= len(run) - STAYED_ROWS], leaps[leaps < len(run) - STAYED_ROWS]
    new = run.open_time_ms >= klines.open_time_ms[0]
    return Doubts(
        spikes=tuple(run.open_time_ms[spike & new].tolist()),
        leaps=tuple(run.open_time_ms[stayed[new[stayed]]].tolist()),
        leap_ms=int(run.open_time_ms[late[0]]) if len(late) and new[late[0]] else None,
    )


def rows_awaited(interval_ms: int) -> int:
    """How many candles must follow a leap beyond ``MOST_LEAP`` that nobody confirms.

    >>> rows_awaited(60_000), rows_awaited(3_600_000)
    (10, 2)
    """
    return max(STAYED_ROWS, BELIEVED_AFTER_MS // interval_ms)


def traded_in(klines: Klines) -> Bools:
    """``(T,)`` whether candles have a trade. One that repeats the one before, volume and all, has none."""
    table = np.stack([getattr(klines, name) for name in (*PRICE_COLUMNS, "volume")], axis=1)
    traded = klines.volume > 0
    traded[1:] &= (table[1:] != table[:-1]).any(axis=1)
    return traded


def quiet_rows(klines: Klines, end_ms: int) -> float:
    """How many candles before a moment have no trade, missing ones among them; infinitely many without any trade."""
    traded_ms = klines.open_time_ms[traded_in(klines)]
    return (end_ms - int(traded_ms[-1])) // klines.interval_ms - 1 if len(traded_ms) else float("inf")


def longest_quiet(klines: Klines) -> int:
    """The longest stretch without a trade between two candles that have one, missing candles among it."""
    traded_ms = klines.open_time_ms[traded_in(klines)]
    return int(np.diff(traded_ms).max()) // klines.interval_ms - 1 if len(traded_ms) > 1 else 0


def has_left(price: float, klines: Klines | None, since_ms: int) -> bool:
    """Whether the newest candle with a trade, of those that began at a moment or later, has none at a price."""
    if klines is None:
        return False
    later = klines.between(since_ms, klines.end_ms)
    traded = np.flatnonzero(later.volume > 0)
    if not len(traded):
        return False
    return not later.low[traded[-1]] * (1 - ROUNDING) <= price <= later.high[traded[-1]] * (1 + ROUNDING)


def extent_of(klines: Klines, at_ms: int) -> float:
    """How far a candle goes, from the close before it or within it."""
    pair = klines.between(at_ms - klines.interval_ms, at_ms + klines.interval_ms)
    within = float(np.log(pair.high[-1] / pair.low[-1]))
    return max(within, abs(float(np.log(pair.close[-1] / pair.close[0]))))
