"""Time as a value that is handed in, so that tests need not wait."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from core.errors import ConfigError


class Clock(Protocol):
    """The wall clock, a clock for intervals, and a sleep. Use the wall clock for ages and times of candles only."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since the epoch, UTC. The machine's clock may be set while the process runs."""

    def elapsed_s(self) -> float:
        """Seconds since an arbitrary moment; never goes back and is never set."""

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class CorrectedClock:
    """The machine's clock plus a correction, as far as the error is known. Safe to use from several threads.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead_ms = 0  # how far the true time is ahead of the machine's

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms

    def elapsed_s(self) -> float:
        return self._clock.elapsed_s()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)


SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@lru_cache(maxsize=256)  # each answer names three moments, and most answers name the same ones
def iso(ms: int) -> str:
    """Write a UTC time for people and logs.

    >>> iso(1_700_000_000_000)
    '2023-11-14T22:13:20.000Z'
    """
    seconds, millis = divmod(ms, 1_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03d}Z"


SLACK_MS = 5 * SECOND_MS  # a correction of the machine's clock is smaller than this


def is_ahead(asof_ms: int, now_ms: int) -> bool:
    """True if a moment that has passed now seems to lie ahead: the clock was set back, so ages mean nothing.

    >>> is_ahead(60_000, 55_000), is_ahead(60_000, 54_999)
    (False, True)
    """
    return asof_ms - now_ms > SLACK_MS


class Every:
    """Says at most once per span that something is due; also after a clock was set back.

    >>> every = Every(60_000)
    >>> [every.is_due(now_ms) for now_ms in (0, 59_999, 60_000, 1_000)]
    [True, False, True, True]
    """

    def __init__(self, span_ms: int) -> None:
        self._span_ms = span_ms
        self._done_ms: int | None = None

    def is_due(self, now_ms: int) -> bool:
        """True if the span is over since the last call that returned True."""
        if self._done_ms is not None and 0 <= now_ms - self._done_ms < self._span_ms:
            return False
        self._done_ms = now_ms
        return True


def moment_ms(text: str | None, option: str) -> int | None:
    """A UTC day or moment of the command line; None if not given.

    Raises:
        ConfigError: the text is neither; names the option.

    >>> moment_ms("1970-01-02", "--start"), moment_ms("1970-01-01T01:00+01:00", "--start"), moment_ms(None, "--start")
    (86400000, 0, None)
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option} must be a UTC day or moment such as 2024-01-31, was {text!r}") from error
