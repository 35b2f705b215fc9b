"""Inference by a clock faster than the wall's: ``python -m benchmarks.tools.fast_clock BASE_MS BEGAN_S SPEED``."""

import sys
import time

from core.settings import load_settings
from inference.__main__ import serve
from inference.memory import keep_heap_whole


class FastClock:
    """A clock ``speed`` times as fast as the wall's; equal in all processes with the same arguments.

    Args:
        base_ms: the clock's time at ``began_s``.
        began_s: a moment of ``time.monotonic``, which the processes of a machine share.
    """

    def __init__(self, base_ms: int, began_s: float, speed: float) -> None:
        self._base_ms, self._began_s, self._speed = base_ms, began_s, speed

    def now_ms(self) -> int:
        return self._base_ms + round((time.monotonic() - self._began_s) * self._speed * 1000)

    def elapsed_s(self) -> float:
        return (time.monotonic() - self._began_s) * self._speed

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self._speed)


if __name__ == "__main__":
    keep_heap_whole()
    base_ms, began_s, speed = sys.argv[1:]
    sys.exit(serve(load_settings(), FastClock(int(base_ms), float(began_s), float(speed))))
