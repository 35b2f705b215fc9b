"""Set the clock of every process with this folder on PYTHONPATH ahead, by the milliseconds in the file AHEAD_FILE.

Eight bytes, the number as a little-endian integer. When it is raised, time has passed at once for all of them.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from core import clock

with Path(os.environ["AHEAD_FILE"]).open("rb") as _file:
    _ahead = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _ahead_ms() -> int:
    return int(struct.unpack("<q", _ahead[:8])[0])


class _Ahead(clock.SystemClock):
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + _ahead_ms()

    def elapsed_s(self) -> float:
        return time.monotonic() + _ahead_ms() / 1000


clock.SystemClock = _Ahead  # type: ignore[misc]
