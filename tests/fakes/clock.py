"""Clocks of tests, and waiting for what happens in another thread."""

import threading
import time
from collections.abc import Callable

from core.clock import Clock

START_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
BASE_MS = START_MS + 30 * 60_000  # on the minute, in the middle of an hour


class FakeClock:
    """A clock whose sleep takes no time. A change of ``time_ms`` lets time pass; ``set_wall`` does not."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.time_ms = now_ms
        self._set_ms = 0  # how far the wall clock has been set ahead
        self.slept_s: list[float] = []

    def now_ms(self) -> int:
        return self.time_ms

    def elapsed_s(self) -> float:
        return (self.time_ms - self._set_ms) / 1000

    def set_wall(self, by_ms: int) -> None:
        """Set the wall clock, as a person or NTP does: no time passes."""
        self.time_ms += by_ms
        self._set_ms += by_ms

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.time_ms += round(seconds * 1000)


class RunningClock:
    """Starts ten seconds into a minute, runs like a real clock, and jumps on request."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._ahead_ms = BASE_MS + 10_000
        self._set_ms = 0  # how far the wall clock has been set ahead

    def now_ms(self) -> int:
        with self._lock:
            return self._ahead_ms + round((time.monotonic() - self._began_s) * 1000)

    def elapsed_s(self) -> float:
        return (self.now_ms() - self._set_ms) / 1000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def jump(self, by_ms: int) -> None:
        """Let time pass at once; below 0 the clock is set back, and no time passes."""
        with self._lock:
            self._ahead_ms += by_ms
            self._set_ms += min(by_ms, 0)

    def set_wall(self, by_ms: int) -> None:
        """Set the wall clock, as a person or NTP does: no time passes."""
        with self._lock:
            self._ahead_ms += by_ms
            self._set_ms += by_ms


class Skewed:
    """The machine's clock, some way from the exchange's."""

    def __init__(self, clock: Clock, by_ms: int) -> None:
        self._clock, self._by_ms = clock, by_ms

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._by_ms

    def elapsed_s(self) -> float:
        return self._clock.elapsed_s()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)


def eventually(
    condition: Callable[[], bool], timeout_s: float = 10.0, what: str = "the condition", every_s: float = 0.02
) -> None:
    """Look every ``every_s`` until ``condition`` holds; fail by name after ``timeout_s``.

    A look that takes long is followed by a longer pause: it would slow down what is waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if condition():
            return
        ended = time.monotonic()
        if ended > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s")
        time.sleep(max(every_s, min(4 * (ended - began), 0.3)))
