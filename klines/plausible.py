"""Candles that keep the rules and are hard to believe all the same: spikes and leaps."""

from dataclasses import dataclass

import numpy as np

from core.clock import MINUTE_MS
from klines.klines import Klines

# Of ln(price) within one candle, however quiet it was before: on BTC, ETH, SOL and ARB of 2022 to 2024, with the
# collapse of FTX, the largest move of a minute that stayed is 0.12, and the largest that was taken back 0.06.
LEAST_LEAP = 0.1
LEAP_RANGES = 10.0  # in units of the usual candle's range; not measured
USUAL_ROWS = 240  # candles before the batch that say which range is usual
STAYED_ROWS = 2  # candles at the new level that make a leap believable by themselves
# A level beyond twofold that no second venue confirms or denies is used once it has stayed so long: a venue corrects a
# slip of units sooner, and a new listing needs no person.
BELIEVED_AFTER_MS = 10 * MINUTE_MS
LEAPT = "more than twofold from the row before: used, and no return is made of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Candles of a batch that need a second opinion, by open time.

    ``spikes``: far from both neighbours, or with a wick as long. ``leaps``: jumps confirmed by later candles.
    ``leap_ms``: a jump in the last two candles, not confirmed yet.
    """

    spikes: tuple[int, ...] = ()
    leaps: tuple[int, ...] = ()
    leap_ms: int | None = None

    def __bool__(self) -> bool:
        return bool(self.spikes or self.leaps) or self.leap_ms is not None


def doubts_of(klines: Klines, before: Klines | None = None) -> Doubts:
    """Return the candles of a batch that need a second opinion; ``before``, believed candles, says what is usual."""
    run = klines
    if before is not None and len(klines):
        run = before.between(0, int(klines.open_time_ms[0])).tail(USUAL_ROWS).merge(klines)
    if len(run) < 2:
        return Doubts()
    step = np.diff(np.log(run.close))
    # The candles of a thin pair are flat: the steps between them say what is usual.
    usual = float(np.median(np.maximum(np.log(run.high / run.low)[1:], np.abs(step))))
    minutes = run.interval_ms / MINUTE_MS
    bound = max(LEAST_LEAP * minutes**0.25, LEAP_RANGES * usual)
    # Over a hole the bound grows as a random walk does.
    far = np.abs(step) > bound * np.sqrt(np.diff(run.open_time_ms) / run.interval_ms)
    up, down = far & (step > 0), far & (step < 0)
    spike = np.zeros(len(run), np.bool_)
    spike[1:-1] = (up[:-1] & down[1:]) | (down[:-1] & up[1:])
    top, bottom = np.maximum(run.open, run.close), np.minimum(run.open, run.close)
    spike |= np.maximum(np.log(run.high / top), np.log(bottom / run.low)) > 2 * bound
    leaps = np.flatnonzero(far & ~spike[1:] & ~spike[:-1]) + 1
    late, stayed = leaps[leaps >= len(run) - STAYED_ROWS], leaps[leaps < len(run) - STAYED_ROWS]
    new = run.open_time_ms >= klines.open_time_ms[0]
    return Doubts(
        spikes=tuple(run.open_time_ms[spike & new].tolist()),
        leaps=tuple(run.open_time_ms[stayed[new[stayed]]].tolist()),
        leap_ms=int(run.open_time_ms[late[0]]) if len(late) and new[late[0]] else None,
    )


def rows_awaited(interval_ms: int) -> int:
    """Return how many candles must follow a leap beyond ``MOST_LEAP`` that no second venue confirms.

    >>> rows_awaited(60_000), rows_awaited(3_600_000)
    (10, 2)
    """
    return max(STAYED_ROWS, BELIEVED_AFTER_MS // interval_ms)
