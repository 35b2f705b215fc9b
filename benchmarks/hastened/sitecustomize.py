"""On PYTHONPATH this hastens the clock of every process of ours, by FAST_CLOCK="BASE_MS BEGAN_S SPEED"."""

import os
import time

from core import clock

_base_ms, _began_s, _speed = map(float, os.environ["FAST_CLOCK"].split())


def _now_ms(_: clock.SystemClock) -> int:
    return round(_base_ms + (time.monotonic() - _began_s) * _speed * 1000)


def _sleep(_: clock.SystemClock, seconds: float) -> None:
    time.sleep(seconds / _speed)


clock.SystemClock.now_ms = _now_ms  # type: ignore[method-assign]
clock.SystemClock.sleep = _sleep  # type: ignore[method-assign]
