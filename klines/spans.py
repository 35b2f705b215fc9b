"""Stretches of time: the intervals of candles, UTC months, and sets of spans."""

from collections.abc import Sequence
from datetime import UTC, datetime

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError

Span = tuple[int, int]  # (start_ms, end_ms), end excluded

# By Binance's names; the candles of each begin at multiples of its length since the epoch.
INTERVALS_MS = {f"{n}m": n * MINUTE_MS for n in (1, 3, 5, 15, 30)} | {f"{n}h": n * HOUR_MS for n in (1, 2, 4, 6, 8, 12)}
INTERVALS_MS["1d"] = DAY_MS
INTERVALS = {interval_ms: name for name, interval_ms in INTERVALS_MS.items()}


def interval_name(interval_ms: int) -> str:
    """Return the name that Binance and file names give an interval.

    Raises:
        ConfigError: there is no such interval.

    >>> interval_name(60_000)
    '1m'
    """
    if interval_ms not in INTERVALS:
        raise ConfigError(f"no klines of {interval_ms} ms: choose one of {', '.join(INTERVALS_MS)}")
    return INTERVALS[interval_ms]


def month_span(ms: int) -> Span:
    """Return the UTC month that holds a moment.

    >>> month_span(1_709_164_800_000)  # 2024-02-29
    (1706745600000, 1709251200000)
    """
    first = datetime.fromtimestamp(ms // 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()) * 1000, int(following.timestamp()) * 1000


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """Return what is left of ``spans`` outside ``holes``, in order.

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
