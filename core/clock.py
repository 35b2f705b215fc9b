"""Time as a value that is handed in, so that tests need not wait."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from core.errors import ConfigError


class Clock(Protocol):
    """Wall time in integer milliseconds since the epoch (UTC), and a sleep."""

    def now_ms(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class CorrectedClock:
    """Another clock, less its error as far as that is known. Safe to use from several threads.

    Args:
        clock: the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead_ms = 0  # what is added: how far the true time is ahead of the machine's

    def now_ms(self) -> int:
        """See the protocol."""
        return self._clock.now_ms() + self.ahead_ms

    def sleep(self, seconds: float) -> None:
        """See the protocol."""
        self._clock.sleep(seconds)


SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@lru_cache(maxsize=256)  # each answer says three moments, and most answers the same ones
def iso(ms: int) -> str:
    """UTC time as people and logs read it.

    >>> iso(1_700_000_000_000)
    '2023-11-14T22:13:20.000Z'
    """
    seconds, millis = divmod(ms, 1_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03d}Z"


SLACK_MS = 5 * SECOND_MS  # a clock that is being corrected goes back less far


def is_ahead(asof_ms: int, now_ms: int) -> bool:
    """Whether a moment that was once past is in the future: the machine's clock was set back, and no age says a thing.

    >>> is_ahead(60_000, 55_000), is_ahead(60_000, 54_999)
    (False, True)
    """
    return asof_ms - now_ms > SLACK_MS


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
