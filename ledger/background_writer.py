"""A queue whose items a thread of its own handles in batches, so that the caller does not wait."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from core.seldom import Seldom

Item = TypeVar("Item")

MANY = 8  # items of a large batch
LONGEST_PAUSE_S = 60.0  # between retries: a full disk stays full for long

log = structlog.get_logger()


class BackgroundWriter(Generic[Item]):
    """Hands the queued items to ``take``, in order and in batches.

    Args:
        name: of the thread.
        take: does the work in the writer's thread; returns the items to try again.
        gather_s: how long to wait for more items after the first one.
        busy_gather_s: the same after a batch of ``MANY`` items or more; None is ``gather_s``.
        retry_s: pause before returned items are tried again; it doubles with each failure in a row, up to a minute.
        capacity: most items in the queue; more are refused.
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
        self._many = False  # True if the last batch was large
        self._retry_s = retry_s
        self._capacity = capacity
        self._waiting: deque[Item] = deque()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._seldom = Seldom()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Queue ``item`` without waiting; return False if the queue is full and the item is refused."""
        if len(self._waiting) >= self._capacity:
            return False
        self._waiting.append(item)
        if not self._work.is_set():
            self._work.set()
        return True

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        return len(self._waiting)

    def close(self, timeout_s: float = 2.0) -> int:
        """Handle what is queued, then end; return how many items are left after ``timeout_s``."""
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
        """Handle the queue; return False if some of it must be tried again."""
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
