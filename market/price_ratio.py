"""How far apart two venues' prices of one symbol are: the running ratio of their levels.

Dollars against USDT, a perpetual against spot: venues differ by a few hundredths of a percent for hours. The ratio
brings a fallback venue's candles and prices to the level that a series was begun at, so that the difference never
becomes a return, and a price forecast to the level of the feed that it is scored by. ``python -m
benchmarks.studies.price_ratio`` shows what that gains and what the settings below rest on.
"""

import math
import threading
from dataclasses import dataclass

import numpy as np

from core.clock import MINUTE_MS, SLACK_MS
from core.errors import MalformedKlines
from klines.klines import Floats, Ints, Klines

# By python -m benchmarks.studies.price_ratio, whose section each one names.
KEPT = 180  # newest minutes of each venue and symbol
# Of a minute's weight in the median. "error of the basis": shorter follows a basis that moves and keeps more of its
# noise; of all tried this is the least above the best one under whichever law, 14 % at worst. A median of 60 minutes is
# 62 % above it, a mean more than that as soon as minutes are wrong. Wrong ones move it when they have half the weight:
# every one of the last seven minutes, or more of older ones.
HALF_LIFE_MIN = 7.0
MIN_MINUTES = 10  # "from few minutes": of fewer, wrong ones make up half the weight too often
# "by the age": up to here every law, and the real hours, are better off with the ratio than with none, even where there
# is no steady offset; at four hours the fastest law no longer is.
MOST_AGE_MS = 120 * MINUTE_MS
# Of ln(ratio), "spread": the ratio itself then errs by 6 basis points, about what having none costs. Two assets it does
# not tell apart, for they too move together for half an hour; that is for MOST_APART.
MOST_SPREAD = 0.0015
# Of ln(ratio). More than ten times as far as the real pair's furthest hour, and nearer than another asset or unit. A
# currency that has lost its peg by so much is another one too: which of the two the network means, no ratio can say.
MOST_APART = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One venue's level over another's: a price of the other times ``value`` is at the one's level. Unitless."""

    value: float
    minutes: int  # that both venues have and that it was measured on
    newest_ms: int  # close of the newest of them
    spread: float  # median distance of their ln(ratio) from that of ``value``


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Closes:
    """Newest minutes of one venue and symbol. Never written to: whoever reads it has it whole."""

    close_ms: Ints  # (T,) rising
    log_close: Floats  # (T,) NaN where nothing was traded


class Basis:
    """Closes of the newest minutes by venue and symbol, and their ratios.

    Several threads may tell it candles; whoever asks for a ratio never waits.
    """

    def __init__(self) -> None:
        self._closes: dict[tuple[str, str], _Closes] = {}
        self._learning = threading.Lock()

    def learn(self, symbol: str, venue: str, klines: Klines) -> None:
        """Take in minutes, in any order; one that is known already is replaced, and the newest ``KEPT`` stay.

        Args:
            klines: closed ones. A candle without a trade says nothing of the level: its close is an old one.
        Raises:
            MalformedKlines: they are not of one minute.
        """
        if klines.interval_ms != MINUTE_MS:
            raise MalformedKlines(f"{venue}: a basis needs klines of {MINUTE_MS} ms, was {klines.interval_ms} ms")
        newest = klines.tail(KEPT)
        if not len(newest):
            return
        close_ms = newest.open_time_ms + MINUTE_MS
        log_close = np.where(newest.volume > 0, np.log(newest.close), np.nan)
        with self._learning:
            known = self._closes.get((symbol, venue))
            if known is not None:
                close_ms, rows = np.unique(np.concatenate([close_ms, known.close_ms]), return_index=True)
                log_close = np.concatenate([log_close, known.log_close])[rows]  # the first of equals: newer
            self._closes[symbol, venue] = _Closes(close_ms=close_ms[-KEPT:], log_close=log_close[-KEPT:])

    def ratio(self, symbol: str, *, of: str, to: str, now_ms: int) -> Ratio | None:
        """The level of venue ``of`` over that of venue ``to``: a price of ``to`` times it is at the level of ``of``.

        It is the median of the common minutes' ratios of closes, each with a weight that halves with its age.

        Args:
            now_ms: by our clock; minutes that end later do not count.
        Returns:
            None where it cannot be told: too few common minutes, too old ones, ones that do not move together, or two
            prices that are not of the same thing.
        """
        one, other = self._closes.get((symbol, of)), self._closes.get((symbol, to))
        if one is None or other is None:
            return None
        close_ms, rows, others = np.intersect1d(one.close_ms, other.close_ms, assume_unique=True, return_indices=True)
        log_ratio = one.log_close[rows] - other.log_close[others]
        recent = (close_ms > now_ms - KEPT * MINUTE_MS) & (close_ms <= now_ms + SLACK_MS)
        counts = np.isfinite(log_ratio) & recent
        close_ms, log_ratio = close_ms[counts], log_ratio[counts]
        if len(close_ms) < MIN_MINUTES or now_ms - int(close_ms[-1]) > MOST_AGE_MS:
            return None
        weights = 0.5 ** ((close_ms[-1] - close_ms) / (HALF_LIFE_MIN * MINUTE_MS))
        level = _median(log_ratio, weights)
        spread = _median(np.abs(log_ratio - level), weights)
        if spread > MOST_SPREAD or abs(level) > MOST_APART:
            return None
        return Ratio(value=math.exp(level), minutes=len(close_ms), newest_ms=int(close_ms[-1]), spread=spread)


def _median(values: Floats, weights: Floats) -> float:
    """The value at which half the weight is reached, from the smallest on."""
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(passed, passed[-1] / 2)]])
