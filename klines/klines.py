"""Klines: what a venue says happened in each interval, in columns, and the rules they keep."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.clock import MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.spans import Span

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PRICE_COLUMNS = ("open", "high", "low", "close")
FLOW_COLUMNS = ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
COLUMNS = PRICE_COLUMNS + FLOW_COLUMNS

MOST_LEAP = float(np.log(2))  # of ln(close) within a minute; the bound grows with time as a random walk does
WIDEST_LEAP = float(np.log(20))  # over any hole: price units differ by factors of a hundred
LATEST_MS = 253_402_300_800_000  # the year 10000, in which calendars end


def broken_rules(interval_ms: int, open_time_ms: Ints, columns: Iterable[Floats]) -> list[tuple[str, Bools]]:
    """Return each rule that a row keeps by itself, in words, and which rows ``(T,)`` break it.

    Args:
        columns: in the order of ``COLUMNS``.
    """
    opened, high, low, close, *flows = columns
    with np.errstate(invalid="ignore"):
        usable = [np.isfinite(price) & (price > 0) for price in (opened, high, low, close)]
        return [
            ("open time is not on the grid", open_time_ms % interval_ms != 0),
            ("a price is not finite and above 0", ~np.all(usable, axis=0)),
            ("low is above open or close", np.minimum(opened, close) < low),
            ("high is below open or close", np.maximum(opened, close) > high),
            ("volume is not finite", ~np.isfinite(flows[0])),
            ("a flow is below 0 or infinite", np.any([(flow < 0) | np.isinf(flow) for flow in flows], axis=0)),
        ]


def time_text(ms: int) -> str:
    """Return a time for a message, in words if no calendar has it."""
    return iso(ms) if 0 < ms < LATEST_MS else f"{ms} ms" if ms > 0 else "a time that cannot be read"


def row_text(open_time_ms: int, cells: Sequence[float]) -> str:
    """Return a row, whose cells are in the order of ``COLUMNS``, for a message."""
    named = (f"{name} {cell}" for name, cell in zip(COLUMNS, cells, strict=True))
    return f"kline at {time_text(open_time_ms)} has {', '.join(named)}"


def alike(left: Floats, right: Floats) -> Bools:
    """Return which cells are equal, or not known on both sides."""
    same: Bools = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Klines:
    """A run of klines of one symbol and interval, oldest first; a missing kline is a gap, never a filled row.

    Invariants: ``open_time_ms`` rises strictly, and no row's prices or volume break a rule of ``broken_rules``. The
    constructor checks them; every operation below keeps them. A flow column that the venue does not have is NaN. Do not
    write to the arrays.

    Raises:
        MalformedKlines: names the first row that breaks a rule.
    """

    interval_ms: int
    open_time_ms: Ints  # (T,) UTC
    open: Floats  # (T,) quote currency
    high: Floats
    low: Floats
    close: Floats
    volume: Floats  # (T,) base asset
    quote_volume: Floats  # (T,) quote currency, or NaN
    trades: Floats  # (T,) count, or NaN
    taker_buy_base: Floats  # (T,) base asset, or NaN
    taker_buy_quote: Floats  # (T,) quote currency, or NaN

    def __post_init__(self) -> None:
        time = self.open_time_ms
        if self.interval_ms <= 0:
            raise MalformedKlines(f"interval_ms must be above 0, was {self.interval_ms}")
        for name in COLUMNS:
            column = getattr(self, name)
            if column.shape != time.shape or column.ndim != 1:
                raise MalformedKlines(f"{name} has shape {column.shape}, open_time_ms {time.shape}")
        self._require_rising_times()
        # Volume is the only flow here: stores of earlier releases may have others that are below 0.
        for rule, broken in broken_rules(self.interval_ms, time, self._columns[: COLUMNS.index("volume") + 1]):
            self._refuse(rule, broken)

    def _require_rising_times(self) -> None:
        time = self.open_time_ms
        self._refuse("open times must rise strictly", np.diff(time, prepend=time[:1] - 1) <= 0)

    def _refuse(self, rule: str, broken: Bools) -> None:
        """Raise MalformedKlines if a row breaks a rule."""
        if broken.any():
            row = int(np.argmax(broken))
            cells = [float(column[row]) for column in self._columns]
            raise MalformedKlines(f"{rule}: {row_text(int(self.open_time_ms[row]), cells)}")

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @classmethod
    def _trusted(cls, interval_ms: int, open_time_ms: Ints, columns: Iterable[Floats]) -> "Klines":
        """Build from rows that kept the rules already: checking 1,500 rows takes 450 us, a slice of them 5."""
        klines = object.__new__(cls)
        cells = zip(COLUMNS, columns, strict=True)
        for name, value in (("interval_ms", interval_ms), ("open_time_ms", open_time_ms), *cells):
            object.__setattr__(klines, name, value)
        return klines

    @classmethod
    def from_table(cls, interval_ms: int, open_time_ms: Ints, table: Floats) -> "Klines":
        """Return klines of a table ``(T, 9)`` with its columns as ``COLUMNS``; raises as the constructor."""
        columns = {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(COLUMNS)}
        return cls(interval_ms=interval_ms, open_time_ms=open_time_ms, **columns)

    def table(self) -> Floats:
        """Return the inverse of ``from_table``."""
        return np.stack(self._columns, axis=1)

    @property
    def _columns(self) -> list[Floats]:
        return [getattr(self, name) for name in COLUMNS]

    @classmethod
    def empty(cls, interval_ms: int) -> "Klines":
        """Return no klines of this interval."""
        return cls._trusted(interval_ms, np.empty(0, np.int64), [np.empty(0)] * len(COLUMNS))

    @classmethod
    def joined(cls, interval_ms: int, runs: "Sequence[Klines]") -> "Klines":
        """Return runs of this interval that follow each other as one run.

        Raises:
            MalformedKlines: a run does not begin after the run before it, or has another interval.
        """
        whole = cls._in_turn(interval_ms, runs)
        whole._require_rising_times()
        return whole

    @classmethod
    def _in_turn(cls, interval_ms: int, runs: "Sequence[Klines]") -> "Klines":
        cls._require_interval(interval_ms, runs)
        runs = [cls.empty(interval_ms), *runs]
        columns = zip(*(run._columns for run in runs), strict=True)
        times = np.concatenate([run.open_time_ms for run in runs])
        return cls._trusted(interval_ms, times, [np.concatenate(parts) for parts in columns])

    @staticmethod
    def _require_interval(interval_ms: int, runs: "Sequence[Klines]") -> None:
        for run in runs:
            if run.interval_ms != interval_ms:
                raise MalformedKlines(f"intervals differ: {interval_ms} ms and {run.interval_ms} ms")

    @property
    def end_ms(self) -> int:
        """The open time of the next kline; 0 when empty."""
        return int(self.open_time_ms[-1]) + self.interval_ms if len(self) else 0

    def between(self, start_ms: int, end_ms: int) -> "Klines":
        """Return the rows with ``start_ms <= open_time_ms < end_ms``."""
        first, last = np.searchsorted(self.open_time_ms, [start_ms, end_ms])
        return self.rows(int(first), int(last))

    def rows(self, first: int, last: int) -> "Klines":
        """Return rows by their number, ``last`` excluded."""
        return self.where(slice(first, last))

    def where(self, kept: slice | Bools | Ints) -> "Klines":
        """Return the rows of a slice, of a mask ``(T,)``, or by their numbers."""
        return self._trusted(self.interval_ms, self.open_time_ms[kept], [column[kept] for column in self._columns])

    def common(self, other: "Klines") -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the row numbers here and in ``other`` of the open times that both have."""
        times = self.open_time_ms, other.open_time_ms
        _, here, there = np.intersect1d(*times, assume_unique=True, return_indices=True)
        return here, there

    def not_in(self, known: "Klines") -> "Klines":
        """Return the rows that are missing in ``known`` or differ there."""
        here, there = self.common(known)
        pairs = zip(self._columns, known._columns, strict=True)
        same = np.all([alike(mine[here], theirs[there]) for mine, theirs in pairs], axis=0)
        return self.where(~np.isin(np.arange(len(self)), here[same]))

    def tail(self, rows: int) -> "Klines":
        """Return the newest ``rows`` klines, or all when there are fewer."""
        return self.rows(max(0, len(self) - rows), len(self))

    def closed(self, now_ms: int) -> "Klines":
        """Return the rows whose interval has ended at ``now_ms``; an unfinished kline is left out."""
        return self.between(-(2**62), now_ms - self.interval_ms + 1)

    def merge(self, newer: "Klines") -> "Klines":
        """Return both runs as one; where both have a row of the same time, the row of ``newer`` stays.

        Raises:
            MalformedKlines: the intervals differ.
        """
        self._require_interval(self.interval_ms, [newer])
        if not len(self) or not len(newer):
            return newer if len(newer) else self
        if self.open_time_ms[-1] < newer.open_time_ms[0]:
            return self._in_turn(self.interval_ms, [self, newer])
        both = self._in_turn(self.interval_ms, [newer, self])
        _, rows = np.unique(both.open_time_ms, return_index=True)  # the first of equal times, which is the newer row
        return both.where(rows)

    def gaps(self) -> Iterator[Span]:
        """Yield the holes between the first and the last kline."""
        steps = np.diff(self.open_time_ms)
        for row in np.flatnonzero(steps != self.interval_ms):
            yield int(self.open_time_ms[row]) + self.interval_ms, int(self.open_time_ms[row + 1])

    def run_length(self) -> Ints:
        """``(T,)``: the number of klines that end at each row, itself included, without a hole or a unit leap."""
        begins = np.diff(self.open_time_ms, prepend=-(2**62)) != self.interval_ms
        begins[unit_leaps(self)] = True
        starts = np.flatnonzero(begins)
        rows = np.arange(len(self))
        return rows - starts[np.searchsorted(starts, rows, side="right") - 1] + 1 if len(self) else rows

    def resample(self, interval_ms: int) -> "Klines":
        """Return longer klines made of whole groups; a group with a missing kline is left out.

        Raises:
            MalformedKlines: ``interval_ms`` is not a multiple of this interval.
        """
        if interval_ms % self.interval_ms:
            raise MalformedKlines(f"{interval_ms} ms is not a multiple of {self.interval_ms} ms")
        group = self.open_time_ms // interval_ms
        first = np.flatnonzero(np.diff(group, prepend=-1) != 0)
        counts = np.diff(np.append(first, len(self)))
        whole = counts == interval_ms // self.interval_ms
        if not whole.any():
            return Klines.empty(interval_ms)
        rows, last = first[whole], first[whole] + counts[whole] - 1
        columns = [
            self.open[rows],
            np.maximum.reduceat(self.high, first)[whole],
            np.minimum.reduceat(self.low, first)[whole],
            self.close[last],
            *(np.add.reduceat(getattr(self, name), first)[whole] for name in FLOW_COLUMNS),
        ]
        return self.from_table(interval_ms, group[rows] * interval_ms, np.stack(columns, axis=1))


def unit_leaps(klines: Klines) -> list[int]:
    """Return the rows whose close is so far from the close before that no return may be made of the two.

    The price unit or the asset changed there, or the pair was listed, halted or redenominated: nobody could have
    forecast such a move.
    """
    rows = np.diff(klines.open_time_ms) / klines.interval_ms
    bound = np.minimum(MOST_LEAP * (klines.interval_ms / MINUTE_MS) ** 0.25 * np.sqrt(rows), WIDEST_LEAP)
    return (np.flatnonzero(np.abs(np.diff(np.log(klines.close))) > bound) + 1).tolist()
