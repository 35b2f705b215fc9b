"""Work that must not be waited for: put on a queue here, done in batches by a thread of its own."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from core.seldom import Seldom

Item = TypeVar("Item")

MANY = 8
LONGEST_PAUSE_S = 60.0  # a full disk stays full for long, and each failure is a line in the log

log = structlog.get_logger()


class BackgroundWriter(Generic[Item]):
    """Hands what is put to ``take``, in order and in batches.

    Args:
        name: of the thread.
        take: does the work in the writer's thread; returns what could not be done and is to be tried again.
        gather_s: how long to wait for more after the first item. 0 works at once.
        busy_gather_s: likewise, after a batch of ``MANY`` items or more; as ``gather_s`` where it is not given.
        retry_s: pause before what was returned is tried again; it doubles with each failure in a row, up to a minute.
        capacity: how many may wait; more are refused.
    """

    def __init__(
        self,
        name: str,
        take: Callable[[Sequence[Item]], Sequence[Item]],
        *,
        gather_s: float = 0.0,
        busy_gather_s: float | None = None,
        retry_s: float = 1.0,
        capacity: int = 10_000,
    ) -> None:
        self._take = take
        self._gather_s = gather_s
        self._busy_gather_s = gather_s if busy_gather_s is None else busy_gather_s
        self._many = False  # whether the last batch was large
        self._retry_s = retry_s
        self._capacity = capacity
        self._waiting: deque[Item] = deque()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._seldom = Seldom()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Queue ``item`` without waiting; False when too many are waiting, and it is not taken."""
        if len(self._waiting) >= self._capacity:
            return False
        self._waiting.append(item)
        if not self._work.is_set():
            self._work.set()
        return True

    @property
    def waiting(self) -> int:
        """How many items nobody has begun with."""
        return len(self._waiting)

    def close(self, timeout_s: float = 2.0) -> int:
        """Do what is left, then end; how many items could not be done within ``timeout_s``."""
        self._closing.set()
        self._work.set()
        self._thread.join(timeout_s)
        return len(self._waiting)

    def _run(self) -> None:
        pause_s = self._retry_s
        while not self._closing.is_set():
            self._work.wait()
            self._closing.wait(self._busy_gather_s if self._many else self._gather_s)
            self._work.clear()
            if self._step():
                pause_s = self._retry_s
                continue
            self._closing.wait(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
            self._work.set()
        deadline = time.monotonic() + self._retry_s
        while self._waiting and not self._step() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _step(self) -> bool:
        """Do all that waits; False when some of it must be tried again."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._many = len(batch) >= MANY
        if not batch:
            return True
        try:
            left = self._take(batch)
        except Exception:
            if count := self._seldom.due("background_work_failed"):
                log.exception("background_work_failed", thread=self._thread.name, items=len(batch), count=count)
            return True
        self._waiting.extendleft(reversed(left))
        return not left
