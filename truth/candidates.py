"""What our stored candles say came true: for each venue, moment within the minute, base and volatility's definition."""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from core.clock import MINUTE_MS
from core.settings import BaseRule
from core.topic import Target, Topic, Volatility
from klines.klines import Floats, Klines
from ledger.answers import Answer
from ledger.epochs import Epoch
from market.store.home_store import HomeStore

Row = tuple[Epoch, Answer | None]  # of ``EpochBook.epochs_of``
BASES = (BaseRule.MINUTE, BaseRule.ASKED)


class Moment(StrEnum):
    """Which price of a minute a truth is made of."""

    CLOSE = "close"  # of the minute's candle: the price when the minute ends
    OPEN = "open"  # of the minute's candle: its first trade
    BEFORE = "before"  # close of the candle before: the last trade before the minute, what networks are trained on


class Candidate(NamedTuple):
    """One way to make a truth from candles."""

    venue: str
    moment: Moment
    base: BaseRule
    volatility: Volatility | None = None  # None for a topic of another target

    @property
    def name(self) -> str:
        """The parts, separated by blanks.

        >>> Candidate("binance", Moment.CLOSE, BaseRule.MINUTE, Volatility.STD_HORIZON).name
        'binance close minute std_horizon'
        """
        return " ".join(part for part in self if part)


def candidates(topic: Topic, homes: HomeStore, rows: Sequence[Row]) -> dict[Candidate, list[float | None]]:
    """Return each candidate's value for each epoch; None: its candles are not stored, or its base is not known."""
    starts = {base: [_base_ms(base, *row) for row in rows] for base in BASES}
    known = [start for found in starts.values() for start in found if start is not None]
    values: dict[Candidate, list[float | None]] = {}
    if not known:
        return values
    first_ms, end_ms = min(known) - MINUTE_MS, max(known) + topic.horizon_ms + MINUTE_MS
    for folder in homes.folders():
        klines = folder.read(topic.symbol, MINUTE_MS, first_ms, end_ms)
        if not len(klines):
            continue
        for moment in Moment:
            minutes, prices = _prices(klines, moment)
            for base, found in starts.items():
                told = [{} if ms is None else dict(_told(topic, minutes, prices, ms)) for ms in found]
                for definition in {key: None for one in told for key in one}:
                    candidate = Candidate(folder.root.name, moment, base, definition)
                    values[candidate] = [one.get(definition) for one in told]
    return values


def _base_ms(base: BaseRule, epoch: Epoch, answer: Answer | None) -> int | None:
    """Return when an epoch's interval begins, cut down to the minute."""
    moment_ms = epoch.block_ms
    if base is BaseRule.ASKED:
        moment_ms = answer.answered_ms if answer else None
    elif moment_ms is None and answer:
        moment_ms = answer.block_ms
    return None if moment_ms is None else moment_ms // MINUTE_MS * MINUTE_MS


def _prices(klines: Klines, moment: Moment) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]:
    """Return the minutes that have a price, oldest first, and the prices."""
    if moment is Moment.BEFORE:
        return klines.open_time_ms + MINUTE_MS, klines.close
    return klines.open_time_ms, klines.open if moment is Moment.OPEN else klines.close


def _told(
    topic: Topic, minutes: np.ndarray[tuple[int], np.dtype[np.int64]], prices: Floats, base_ms: int
) -> Iterator[tuple[Volatility | None, float]]:
    """Yield the truths that one venue's prices tell, by definition; none where a minute is missing."""
    ends = np.array([base_ms, base_ms + topic.horizon_ms])
    first, last = (int(row) for row in np.searchsorted(minutes, ends))
    if last >= len(minutes) or minutes[last] != ends[1]:
        return
    if topic.target is Target.PRICE:
        yield None, float(prices[last])
        return
    if minutes[first] != ends[0]:
        return
    if topic.target is Target.LOG_RETURN:
        yield None, math.log(prices[last] / prices[first])
        return
    if last - first != topic.horizon_min:
        return
    returns = np.diff(np.log(prices[first : last + 1]))
    for definition, spread in _spreads(returns).items():
        yield definition, spread * definition.factor(topic.horizon_min)


def _spreads(returns: Floats) -> Mapping[Volatility, float]:
    """Return the volatility a minute by definition."""
    rms = float(np.sqrt(np.mean(returns**2)))
    std = float(np.std(returns, ddof=1)) if len(returns) > 1 else math.nan
    found = {definition: rms if definition.about_zero else std for definition in Volatility}
    return {definition: spread for definition, spread in found.items() if math.isfinite(spread)}
