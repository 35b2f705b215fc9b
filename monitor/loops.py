"""Threads that do the same again and again, and outlast every failure."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from core.backoff import backoff
from core.errors import WorkerError
from core.heap import give_back_heap
from core.seldom import Seldom
from ledger.database import FAULTS
from ledger.schema import one_line

LONGEST_PAUSE_S = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a loop does."""

    name: str  # the key of its fault in ``Watched.faults``, such as "ledger"
    run: Callable[[], object]  # True: there is more to do at once
    every_s: float


class Loops:
    """Runs each step in a thread of its own. A step that fails is tried again, ever more slowly."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._faults: dict[str, str] = {}
        self._seldom = Seldom()

    def start(self, step: Step) -> None:
        """Begin to run a step."""
        thread = threading.Thread(target=self._run, args=(step,), daemon=True, name=f"monitor-{step.name}")
        self._threads.append(thread)
        thread.start()

    @property
    def faults(self) -> dict[str, str]:
        """Why steps fail now, by name."""
        return dict(self._faults)

    def stop(self, patience_s: float) -> None:
        """End the loops; a step that still runs after ``patience_s`` is left behind."""
        self._ending.set()
        for thread in self._threads:
            thread.join(patience_s / len(self._threads))

    def _run(self, step: Step) -> None:
        failures = 0
        while not self._ending.is_set():
            try:
                more = step.run()
            except Exception as error:
                failures += 1
                said = one_line(error)
                self._faults[step.name] = said
                if count := self._seldom.due(step.name, said):
                    if isinstance(error, (*FAULTS, WorkerError)):
                        log.warning("step_failed", step=step.name, reason=said, times=count)
                    else:
                        log.exception("step_failed", step=step.name, times=count)
                self._ending.wait(backoff(failures, step.every_s, max(step.every_s, LONGEST_PAUSE_S)))
                continue
            failures = 0
            self._faults.pop(step.name, None)
            give_back_heap()
            if more is not True:
                self._ending.wait(step.every_s)
