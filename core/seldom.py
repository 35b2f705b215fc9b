"""What may be due without end, and is wanted seldom: log lines of a fault, with a count, and repeated questions."""

import threading
import time
from collections.abc import Callable, Hashable

EVERY_S = 60.0
REMEMBERED = 10_000  # kinds


class Seldom:
    """Counts events of a kind, and decides when a log line or a question about the kind is due.

    Safe to use from several threads.

    Args:
        seconds: a clock that nobody sets.
        every_s: from one line or question of a kind to the next.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic, every_s: float = EVERY_S) -> None:
        self._seconds = seconds
        self._every_s = every_s
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # when the last was due, and how many came since

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
            said_s, unsaid = self._kinds.get(kind, (0.0, 0))
            if kind in self._kinds and now_s - said_s < self._every_s:
                self._kinds[kind] = (said_s, unsaid + count)
                return 0
            if len(self._kinds) >= REMEMBERED:
                self._kinds.clear()
            self._kinds[kind] = (now_s, 0)
            return unsaid + count
