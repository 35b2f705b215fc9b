"""Klines: what a venue says happened in each interval, in columns, and the rules they keep."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Span = tuple[int, int]  # (start_ms, end_ms), end excluded

PRICE_COLUMNS = ("open", "high", "low", "close")
FLOW_COLUMNS = ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
COLUMNS = PRICE_COLUMNS + FLOW_COLUMNS

MOST_LEAP = float(np.log(2))  # of ln(close) within a minute, as much more over longer ones as a random walk goes
WIDEST_LEAP = float(np.log(20))  # likewise over any hole: units are a hundredfold apart

# Intervals whose grid begins at the epoch, as Binance writes them.
INTERVALS = {n * MINUTE_MS: f"{n}m" for n in (1, 3, 5, 15, 30)} | {n * HOUR_MS: f"{n}h" for n in (1, 2, 4, 6, 8, 12)}
INTERVALS[DAY_MS] = "1d"


def interval_name(interval_ms: int) -> str:
    """An interval as Binance and file names write it.

    Raises:
        ConfigError: there is no such interval.

    >>> interval_name(60_000)
    '1m'
    """
    if interval_ms not in INTERVALS:
        raise ConfigError(f"no klines of {interval_ms} ms: choose one of {', '.join(INTERVALS.values())}")
    return INTERVALS[interval_ms]


def month_span(ms: int) -> tuple[int, int]:
    """First millisecond of the UTC month that holds ``ms``, and of the next one.

    >>> [iso(edge)[:10] for edge in month_span(1_709_164_800_000)]
    ['2024-02-01', '2024-03-01']
    """
    first = datetime.fromtimestamp(ms // 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()) * 1000, int(following.timestamp()) * 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Klines:
    """A run of klines of one symbol and interval, oldest first; a missing kline is a gap, never a filled row.

    Invariants: ``open_time_ms`` rises strictly and lies on the interval's grid; prices are finite, above 0,
    and ``low <= open, close <= high``; volume is finite and not negative; flow columns the venue does not
    have are NaN. Arrays are not to be written to.

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
        if len(time) == 0:
            return
        self._require(time % self.interval_ms == 0, f"open_time_ms is not on the grid of {self.interval_ms} ms")
        self._require(np.diff(time, prepend=time[0] - 1) > 0, "open_time_ms must rise strictly")
        for name in PRICE_COLUMNS:
            column = getattr(self, name)
            self._require(np.isfinite(column) & (column > 0), f"{name} must be finite and above 0")
        self._require(np.minimum(self.open, self.close) >= self.low, "low must not be above open or close")
        self._require(np.maximum(self.open, self.close) <= self.high, "high must not be below open or close")
        self._require(np.isfinite(self.volume) & (self.volume >= 0), "volume must be finite and not negative")

    def _require(self, holds: npt.NDArray[np.bool_], rule: str) -> None:
        if not holds.all():
            row = int(np.argmin(holds))
            raise MalformedKlines(
                f"{rule}: kline at {iso(int(self.open_time_ms[row]))} has open {self.open[row]}, "
                f"high {self.high[row]}, low {self.low[row]}, close {self.close[row]}, volume {self.volume[row]}"
            )

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @classmethod
    def empty(cls, interval_ms: int) -> "Klines":
        """No klines of this interval."""
        none = np.empty(0)
        return cls(interval_ms=interval_ms, open_time_ms=np.empty(0, np.int64), **dict.fromkeys(COLUMNS, none))

    @classmethod
    def joined(cls, interval_ms: int, runs: "Sequence[Klines]") -> "Klines":
        """Runs of this interval that follow each other, as one.

        Raises:
            MalformedKlines: a run does not begin after the one before it.
        """
        if not runs:
            return cls.empty(interval_ms)
        times = np.concatenate([run.open_time_ms for run in runs])
        columns = {name: np.concatenate([getattr(run, name) for run in runs]) for name in COLUMNS}
        return cls(interval_ms=interval_ms, open_time_ms=times, **columns)

    @property
    def end_ms(self) -> int:
        """Where the next kline would open; 0 when empty."""
        return int(self.open_time_ms[-1]) + self.interval_ms if len(self) else 0

    def _take(self, rows: "slice | npt.NDArray[np.intp]") -> "Klines":
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "interval_ms"}
        return Klines(interval_ms=self.interval_ms, **columns)

    def between(self, start_ms: int, end_ms: int) -> "Klines":
        """Rows with ``start_ms <= open_time_ms < end_ms``."""
        first, last = np.searchsorted(self.open_time_ms, [start_ms, end_ms])
        return self._take(slice(int(first), int(last)))

    def rows(self, first: int, last: int) -> "Klines":
        """Rows by their number, ``last`` excluded."""
        return self._take(slice(first, last))

    def tail(self, rows: int) -> "Klines":
        """The newest ``rows`` klines, or all when there are fewer."""
        return self._take(slice(max(0, len(self) - rows), None))

    def closed(self, now_ms: int) -> "Klines":
        """Rows whose interval has ended at ``now_ms``; an unfinished kline is no kline."""
        return self.between(-(2**62), now_ms - self.interval_ms + 1)

    def merge(self, newer: "Klines") -> "Klines":
        """Both runs as one; where both have an ``open_time_ms``, the row of ``newer`` stays.

        Raises:
            MalformedKlines: the intervals differ.
        """
        if newer.interval_ms != self.interval_ms:
            raise MalformedKlines(f"intervals differ: {self.interval_ms} ms and {newer.interval_ms} ms")
        if not len(newer):
            return self
        if not len(self):
            return newer
        times = np.concatenate([newer.open_time_ms, self.open_time_ms])
        unique, rows = np.unique(times, return_index=True)  # the first of equals: newer
        columns = {n: np.concatenate([getattr(newer, n), getattr(self, n)])[rows] for n in COLUMNS}
        return Klines(interval_ms=self.interval_ms, open_time_ms=unique, **columns)

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Holes between the first and the last kline as ``(start_ms, end_ms)``, end excluded."""
        steps = np.diff(self.open_time_ms)
        for row in np.flatnonzero(steps != self.interval_ms):
            yield int(self.open_time_ms[row]) + self.interval_ms, int(self.open_time_ms[row + 1])

    def run_length(self) -> Ints:
        """``(T,)`` how many klines without a hole or a leap of ``unit_leaps`` end at each row, itself included."""
        begins = np.diff(self.open_time_ms, prepend=-(2**62)) != self.interval_ms
        begins[unit_leaps(self)] = True
        starts = np.flatnonzero(begins)
        rows = np.arange(len(self))
        return rows - starts[np.searchsorted(starts, rows, side="right") - 1] + 1 if len(self) else rows

    def resample(self, interval_ms: int) -> "Klines":
        """Longer klines from whole groups; a group with a missing kline is left out.

        Args:
            interval_ms: a multiple of this interval.
        Raises:
            MalformedKlines: it is not a multiple.
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
        sums = {n: np.add.reduceat(getattr(self, n), first)[whole] for n in FLOW_COLUMNS}
        return Klines(
            interval_ms=interval_ms,
            open_time_ms=group[rows] * interval_ms,
            open=self.open[rows],
            high=np.maximum.reduceat(self.high, first)[whole],
            low=np.minimum.reduceat(self.low, first)[whole],
            close=self.close[last],
            **sums,
        )


def unit_leaps(klines: Klines) -> list[int]:
    """The rows whose close is so far from the one before that no return may be made of the two.

    One of them is of another unit or asset, or the pair was listed, halted or redenominated: none of it is a move that
    anybody could have forecast.
    """
    rows = np.diff(klines.open_time_ms) / klines.interval_ms
    bound = np.minimum(MOST_LEAP * (klines.interval_ms / MINUTE_MS) ** 0.25 * np.sqrt(rows), WIDEST_LEAP)
    return (np.flatnonzero(np.abs(np.diff(np.log(klines.close))) > bound) + 1).tolist()


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, with those that touch made one.

    >>> joined([(20, 30), (0, 10), (10, 15)])
    ((0, 15), (20, 30))
    """
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            first, last = found.pop()
            found.append((first, max(last, end)))
        else:
            found.append((start, end))
    return tuple(found)


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """``spans`` less ``holes``, in order.

    >>> without([(0, 10), (20, 30)], [(2, 4), (8, 22)])
    [(0, 2), (4, 8), (22, 30)]
    """
    rest = list(spans)
    for hole_start, hole_end in holes:
        rest = [
            piece
            for start, end in rest
            for piece in ((start, min(end, hole_start)), (max(start, hole_end), end))
            if piece[0] < piece[1]
        ]
    return rest
