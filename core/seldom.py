"""Log lines that a fault may repeat without end: each kind of line at most once a minute, with a count."""

import threading
import time
from collections.abc import Callable, Hashable

EVERY_S = 60.0
REMEMBERED = 1_000  # kinds of line


class Seldom:
    """Counts events of a kind, and decides when a log line about the kind is due. Safe to use from several threads.

    Args:
        seconds: a clock that nobody sets.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # when the last line was due, and how many came since

    def due(self, *kind: Hashable, count: int = 1) -> int:
        """Return the number of events of a kind since the last line, plus ``count``; 0 while no line is due.

        >>> now = [0.0]
        >>> seldom = Seldom(lambda: now[0])
        >>> [seldom.due("bad") for _ in range(3)]
        [1, 0, 0]
        >>> now[0] = 60.0
        >>> seldom.due("bad")
        3
        """
        with self._lock:
            now_s = self._seconds()
            said_s, unsaid = self._kinds.get(kind, (-EVERY_S, 0))
            if kind in self._kinds and now_s - said_s < EVERY_S:
                self._kinds[kind] = (said_s, unsaid + count)
                return 0
            if len(self._kinds) >= REMEMBERED:
                self._kinds.clear()
            self._kinds[kind] = (now_s, 0)
            return unsaid + count
