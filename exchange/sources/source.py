"""The port of the simulated exchange to its candles, and how far the candle of this moment has come."""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.clock import DAY_MS
from klines.klines import FLOW_COLUMNS, Floats, Klines

POINTS = 60  # prices inside one candle: one a second in a minute


class Traits(NamedTuple):
    """What a source knows of a symbol."""

    first_ms: int  # open time of the first candle
    step_ms: int  # shortest interval of the candles
    decimals: int  # digits of a price behind the point


class Source(ABC):
    """All candles of some symbols, past and future, in wall-clock time. Safe to call from several threads.

    A source also knows the candles that the wall clock has not reached yet: the exchange decides which it shows.
    """

    name: str  # where the prices come from, for people
    note: str = ""  # why these candles are played as they are; empty when there is nothing to say
    symbols: Mapping[str, Traits]

    @abstractmethod
    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Return candles with ``start_ms <= open_time_ms < end_ms``; holes stay holes.

        The answer is empty for an interval that cannot be made of the shortest candles.
        """

    def at(self, now_ms: int) -> "Source":
        """Return the source to play now: itself, or its successor if it has run out."""
        return self

    def unfinished(self, symbol: str, interval_ms: int, now_ms: int) -> Klines:
        """Return the candle that is open at ``now_ms``, as far as it has come; empty while the market stands still.

        At the last point of its last minute it equals the closed candle.
        """
        step = self.symbols[symbol].step_ms
        if interval_ms % step:
            return Klines.empty(interval_ms)
        open_ms, step_open_ms = now_ms // interval_ms * interval_ms, now_ms // step * step
        rows = self.klines(symbol, step, open_ms, step_open_ms)
        now = self.klines(symbol, step, step_open_ms, step_open_ms + 1)
        if len(now):
            rows = rows.merge(self._so_far(symbol, now, now_ms))
        if not len(rows):
            return Klines.empty(interval_ms)
        return Klines(
            interval_ms=interval_ms,
            open_time_ms=np.array([open_ms]),
            open=rows.open[:1],
            high=rows.high.max(keepdims=True),
            low=rows.low.min(keepdims=True),
            close=rows.close[-1:],
            **{name: getattr(rows, name).sum(keepdims=True) for name in FLOW_COLUMNS},
        )

    def price_at(self, symbol: str, now_ms: int) -> float | None:
        """Return the newest trade price; while the market stands still the last price within two days, else None."""
        step = self.symbols[symbol].step_ms
        now = self.unfinished(symbol, step, now_ms)
        last = now if len(now) else self.klines(symbol, step, now_ms - 2 * DAY_MS, now_ms)
        return float(last.close[-1]) if len(last) else None

    def ticker(self, symbol: str, now_ms: int) -> str | None:
        """Return ``price_at`` as Binance writes it."""
        price = self.price_at(symbol, now_ms)
        return None if price is None else f"{price:.8f}"

    def _so_far(self, symbol: str, candle: Klines, now_ms: int) -> Klines:
        points = (now_ms - int(candle.open_time_ms[0])) * POINTS // candle.interval_ms + 1
        if points == POINTS:
            return candle
        path = path_inside(candle, self.symbols[symbol].decimals, zlib.crc32(symbol.encode()))[:points]
        flows = {name: np.round(getattr(candle, name) * points / POINTS, 5) for name in FLOW_COLUMNS}
        flows["trades"] = np.floor(flows["trades"])
        high, low = path.max(keepdims=True), path.min(keepdims=True)
        return replace(candle, high=high, low=low, close=path[-1:].copy(), **flows)


def path_inside(candle: Klines, decimals: int, key: int) -> Floats:
    """Return ``(60,)`` prices that lead from a candle's open to its close and touch its high and its low on the way.

    ``key`` chooses one of all such paths, together with the candle's open time.
    """
    opened, high, low, close = (float(getattr(candle, name)[0]) for name in ("open", "high", "low", "close"))
    rng = np.random.default_rng((key, int(candle.open_time_ms[0])))
    time = np.linspace(0.0, 1.0, POINTS)
    walk = np.append(0.0, np.cumsum(rng.standard_normal(POINTS - 1)))
    path = opened + (close - opened) * time + (walk - walk[-1] * time) * 0.8 * (high - low) / math.sqrt(POINTS)
    for sign, extreme, inner in ((1.0, high, max(opened, close)), (-1.0, low, min(opened, close))):
        beyond = np.maximum(sign * (path - inner), 0.0)  # how far the walk leaves the span of open and close
        furthest = float(beyond.max())
        path -= sign * beyond
        if furthest > 0:  # stretched so that the furthest point is the extreme itself
            path += sign * beyond * (sign * (extreme - inner) / furthest)
        elif extreme != inner:
            path[1 + int(np.argmax(sign * path[1:-1]))] = extreme
    path = np.asarray(np.clip(np.round(path, decimals), low, high))
    path[0], path[-1] = opened, close
    return path
