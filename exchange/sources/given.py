"""Candles that a caller gives: the exchange of a test or a benchmark that knows which candles it wants."""

from collections.abc import Mapping

import numpy as np

from core.clock import MINUTE_MS
from exchange.sources.source import Source, Traits
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
        names = {symbol for symbol, _ in series} | self._prices.keys()
        self.symbols = {symbol: self._traits(symbol) for symbol in sorted(names)}

    def _traits(self, symbol: str) -> Traits:
        own = {interval_ms: klines for (name, interval_ms), klines in self.series.items() if name == symbol}
        if not own:
            return Traits(first_ms=0, step_ms=MINUTE_MS, decimals=8)
        close = own[min(own)].close[-2_000:]
        return Traits(
            first_ms=min((int(klines.open_time_ms[0]) for klines in own.values() if len(klines)), default=0),
            step_ms=min(own),
            decimals=next((digits for digits in range(8) if (np.round(close, digits) == close).all()), 8),
        )

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        own = self.series.get((symbol, interval_ms))
        if own is not None:
            return own.between(start_ms, end_ms)
        step_ms = self.symbols[symbol].step_ms
        shortest = self.series.get((symbol, step_ms))
        if shortest is None or interval_ms % step_ms:
            return Klines.empty(interval_ms)
        whole_end_ms = -(-end_ms // interval_ms) * interval_ms
        return shortest.between(start_ms, whole_end_ms).resample(interval_ms)

    def ticker(self, symbol: str, now_ms: int) -> str | None:
        return self._prices.get(symbol) or super().ticker(symbol, now_ms)
