"""How often a venue may be asked: a budget for each minute, and the rests that the venue itself asks for."""

import threading
from collections import deque

from core.clock import Clock
from core.errors import MarketUnavailable

MINUTE_S = 60.0


class Limits:
    """Counts the requests to a venue, all hosts together. Safe to use from several threads.

    Args:
        name: the venue's first host, for messages.
        requests_a_minute: the budget; None is without limit.
    """

    def __init__(self, name: str, clock: Clock, requests_a_minute: int | None) -> None:
        self.requests_a_minute = requests_a_minute
        self._name = name
        self._clock = clock
        self._asked_s: deque[float] = deque()  # requests of the last minute
        self._rest_until_s = float("-inf")
        self._lock = threading.Lock()

    @property
    def asked_last_minute(self) -> int:
        """Requests within the last minute."""
        with self._lock:
            return self._count(self._clock.elapsed_s())

    def spend(self) -> None:
        """Count a request.

        Raises:
            MarketUnavailable: a rate limit or ban lasts, or the budget of the last minute is used up.
        """
        now_s = self._clock.elapsed_s()
        with self._lock:
            rest_s = self._rest_until_s - now_s
            if rest_s > 0:
                raise MarketUnavailable(f"rate limited by {self._name}: left alone for {rest_s:.0f} s", rest_s)
            if self.requests_a_minute is not None and self._count(now_s) >= self.requests_a_minute:
                wait_s = self._asked_s[0] + MINUTE_S - now_s
                raise MarketUnavailable(
                    f"{self._name}: the budget of {self.requests_a_minute} requests a minute is used up; free again in "
                    f"{wait_s:.0f} s",
                    wait_s,
                )
            self._asked_s.append(now_s)

    def rest(self, seconds: float) -> None:
        """Ask no host for so long: a rate limit counts by our address."""
        with self._lock:
            self._rest_until_s = max(self._rest_until_s, self._clock.elapsed_s() + seconds)

    def _count(self, now_s: float) -> int:
        while self._asked_s and now_s - self._asked_s[0] >= MINUTE_S:
            self._asked_s.popleft()
        return len(self._asked_s)
