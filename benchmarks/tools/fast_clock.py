"""Run inference on a fast clock: ``python -m benchmarks.tools.fast_clock BASE_MS BEGAN_S SPEED``."""

import sys
import time

from core.heap import keep_heap_whole
from core.settings import load_settings
from inference.__main__ import serve


class FastClock:
    """A clock ``speed`` times as fast as the wall clock. All processes with the same arguments read the same time.

    Args:
        base_ms: the time that this clock shows at ``began_s``.
        began_s: a reading of ``time.monotonic``, which all processes of a machine share.
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
