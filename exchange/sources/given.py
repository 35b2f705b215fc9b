"""Candles that a caller gives: the exchange of a test or a benchmark that knows which candles it wants."""

from collections.abc import Mapping

import numpy as np

from exchange.sources.source import Source
from klines.klines import Klines


class Given(Source):
    """Given candles. Intervals without candles of their own are made of the symbol's shortest.

    Args:
        series: candles by (symbol, interval_ms).
        prices: tickers that are told as they stand, in place of the newest trade.
    """

    name = "given"

    def __init__(self, series: Mapping[tuple[str, int], Klines], prices: Mapping[str, str] | None = None) -> None:
        self.series, self._prices = series, prices or {}
        self._steps: dict[str, int] = {}
        for symbol, interval_ms in series:
            self._steps[symbol] = min(interval_ms, self._steps.get(symbol, interval_ms))
        self.symbols = tuple(sorted(self._steps.keys() | self._prices.keys()))

    def first_ms(self, symbol: str) -> int:
        known = [klines for (name, _), klines in self.series.items() if name == symbol and len(klines)]
        return min((int(klines.open_time_ms[0]) for klines in known), default=0)

    def step_ms(self, symbol: str) -> int:
        return self._steps[symbol]

    def decimals(self, symbol: str) -> int:
        close = self.series[symbol, self.step_ms(symbol)].close[-2_000:]
        return next((digits for digits in range(8) if (np.round(close, digits) == close).all()), 8)

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        own = self.series.get((symbol, interval_ms))
        if own is not None:
            return own.between(start_ms, end_ms)
        step = self._steps.get(symbol, 0)
        if not step or interval_ms % step:
            return Klines.empty(interval_ms)
        whole_end_ms = -(-end_ms // interval_ms) * interval_ms
        return self.series[symbol, step].between(start_ms, whole_end_ms).resample(interval_ms)

    def ticker(self, symbol: str, now_ms: int) -> str | None:
        return self._prices.get(symbol) or super().ticker(symbol, now_ms)
