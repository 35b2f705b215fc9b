"""The thread that takes up new champions, stretches and adoptions, and writes block times into the ledger."""

import threading
from collections.abc import Callable

import structlog

from core.clock import SECOND_MS, Clock, Every
from core.seldom import Seldom
from inference.answering import RECALL_MS
from inference.base import Bases
from inference.forecast_cache import ForecastCache
from inference.stretches import Stretches
from ledger.answer_log import Ledger
from truth.adopted import LOOK_S

POLL_S = 0.5

log = structlog.get_logger()


class Poller:
    """Puts new champions and stretches to use, and writes block times into the ledger, every ``POLL_S``.

    Args:
        adopt: puts new adoptions to use; called every ``LOOK_S``.
    """

    def __init__(
        self,
        forecasts: ForecastCache,
        stretches: Stretches,
        ledger: Ledger,
        bases: Bases,
        clock: Clock,
        adopt: Callable[[], object] = lambda: None,
    ) -> None:
        self._forecasts = forecasts
        self._stretches = stretches
        self._ledger = ledger
        self._bases = bases
        self._clock = clock
        self._adopt = adopt
        self._adopt_due = Every(round(LOOK_S * SECOND_MS))
        self._seldom = Seldom()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to poll; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread, and wait for its end at most ``timeout_s``."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._stretches.poll()
                if self._bases.chains:  # without a chain, no block time is known
                    self._ledger.note_block_times(self._bases.block_time, self._clock.now_ms() - RECALL_MS)
                self._forecasts.choose()
                if self._adopt_due.is_due(self._clock.now_ms()):
                    self._adopt()
            except Exception:  # the thread must not end: old champions would serve for ever
                if count := self._seldom.due("champions_not_read"):
                    log.exception(
                        "champions_not_read",
                        remedy="champions, stretches and adoptions stay as they are; block times are written later",
                        count=count,
                    )
            self._stopping.wait(POLL_S)
