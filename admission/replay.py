"""A topic's epochs replayed on past klines: the answers that would have been given, from nothing later than they.

Klines hold whole minutes: an epoch is replayed as if it had been answered when so many of its minutes were known.
Every series is in the terms of the network's criteria: ln(price at the target / base price), of a return and a price
alike; of volatility ln(volatility of the interval / that of the window of the same length that ends at the base).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Topic
from klines.klines import Floats, Ints, Klines
from klines.returns import candle_returns, rolling_sum
from model.features import Bools
from model.heads import Head, head_of
from model.known import Known
from model.panels import MINUTE
from model.targets import naive, truth
from model.windows import Rows

BLOCK_MS = 5000  # between two blocks, if it was not measured
FIT_DAYS = 7  # of epochs that the trailing fit of a volatility's change is made on
LEAST_TARGETS = 20  # intervals that do not overlap, below which there is no trailing fit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Epochs:
    """A topic's E epochs, evenly spaced in time and numbered without a hole."""

    number: Ints  # (E,) rising by 1
    base_ms: Ints  # (E,) where the interval begins: the nonce block's time cut down to the minute
    length_ms: float
    ratio: int  # epochs that a horizon overlaps with

    def of(self, span_ms: float) -> int:
        """The number of epochs that begin in a span, at least 1."""
        return max(1, round(span_ms / self.length_ms))


def epoch_ms(topic: Topic, block_ms: float = BLOCK_MS) -> float:
    """Length of the topic's epochs; the horizon if the epoch length is not known."""
    return topic.epoch_length_blocks * block_ms if topic.epoch_length_blocks else float(topic.horizon_ms)


def epochs_between(topic: Topic, start_ms: int, end_ms: int, block_ms: float = BLOCK_MS, nonce_ms: int = 0) -> Epochs:
    """The epochs whose base lies in ``[start_ms, end_ms)``.

    Args:
        block_ms: measured time between two blocks.
        nonce_ms: time of any of the topic's nonce blocks, from which the epochs are counted.

    >>> from core.topic import Target
    >>> topic = Topic(topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=20)
    >>> epochs = epochs_between(topic, 0, 3_600_000)
    >>> epochs.base_ms.tolist(), epochs.ratio
    ([0, 1200000, 2400000], 1)
    """
    length_ms = epoch_ms(topic, block_ms)
    number = np.arange(math.ceil((start_ms - nonce_ms) / length_ms), math.ceil((end_ms - nonce_ms) / length_ms))
    base_ms = (nonce_ms + number * length_ms).astype(np.int64) // MINUTE_MS * MINUTE_MS
    late = base_ms >= start_ms  # a base that was cut down may lie before
    ratio = max(1, round(topic.horizon_ms / length_ms))
    return Epochs(number=number[late], base_ms=base_ms[late], length_ms=length_ms, ratio=ratio)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """Truth and base of each epoch. NaN: a candle is missing, or nothing moved."""

    topic: Topic
    epochs: Epochs
    truth: Floats  # (E,) in the criteria's terms
    base: Floats  # (E,) base price; of volatility the base volatility, per minute
    row: Rows  # (E,) of the klines: the candle that closes at the base; -1 if it is missing
    back: Floats  # (E,) volatility only, else 0: the change back to the last day's mean
    fitted: Floats  # (E,) volatility only, else 0: the change by the trailing fit
    intercept: Floats  # (E,) of the trailing fit, else 0
    slope: Floats  # (E,) of the trailing fit by dev = -back, else 0

    @property
    def head(self) -> Head:
        """The head that answers the topic."""
        return head_of(self.topic)

    def ended_before(self, moment_ms: int) -> int:
        """The number of epochs, from the oldest on, whose interval had ended by a moment."""
        return int(np.searchsorted(self.epochs.base_ms + self.topic.horizon_ms, moment_ms, side="right"))


def past_of(topic: Topic, klines: Klines, epochs: Epochs) -> Past:
    """Truths and bases of a topic.

    Args:
        klines: of one minute, of the topic's symbol.
    """
    head, row = head_of(topic), row_of(klines, epochs.base_ms)
    base = naive(klines, MINUTE, head) if head.kind.is_volatility else klines.close
    return past_with(topic, epochs, row=row, base=_at(base, row), came_true=_at(truth(klines, MINUTE, head), row))


def past_with(topic: Topic, epochs: Epochs, *, row: Rows, base: Floats, came_true: Floats) -> Past:
    """``past_of`` for bases and truths that are known already.

    Args:
        row: ``(E,)`` as in ``Past``.
        base: ``(E,)`` as in ``Past``.
        came_true: ``(E,)`` in the head's unit.
    """
    zeros = np.zeros(len(epochs.number))
    if not head_of(topic).kind.is_volatility:
        return Past(
            topic=topic,
            epochs=epochs,
            truth=came_true,
            base=base,
            row=row,
            back=zeros,
            fitted=zeros,
            intercept=zeros,
            slope=zeros,
        )
    base, came_true = (np.where(values > 0, values, np.nan) for values in (base, came_true))
    now, change = np.log(base), np.log(came_true / base)
    dev = now - _trailing_mean(now, epochs.of(DAY_MS))
    lag = math.ceil(topic.horizon_ms / epochs.length_ms)
    intercept, slope = _trailing_fit(dev, change, epochs.of(FIT_DAYS * DAY_MS), lag, LEAST_TARGETS * epochs.ratio)
    return Past(
        topic=topic,
        epochs=epochs,
        truth=change,
        base=base,
        row=row,
        back=-dev,
        fitted=intercept + slope * dev,
        intercept=intercept,
        slope=slope,
    )


def answers(past: Past, klines: Klines, rest: Floats | None, known_min: int) -> Floats:
    """The unstretched answers if ``known_min`` whole minutes of each interval are known.

    Args:
        past: of ``klines``.
        rest: ``(T,)`` each candle's newest forecast when it closed, in the head's unit: the log-return of a whole
            horizon, or the volatility per minute. NaN: no forecast, so the naive forecast answers. None: the naive
            forecast answers everywhere, with the known minutes.
    Returns:
        ``(E,)`` in the criteria's terms; for volatility the logarithm of the expectation. NaN: no answer.
    """
    head, horizon_min = past.head, past.topic.horizon_min
    nothing = np.zeros(len(klines)) if not head.kind.is_volatility else naive(klines, MINUTE, head)
    forecast = nothing if rest is None else np.where(np.isfinite(rest), rest, nothing)
    asked = row_of(klines, past.epochs.base_ms + known_min * MINUTE_MS)  # the newest candle that has closed by then
    known = _known(klines, asked, known_min)
    whole = np.asarray(head.kind.measure.whole(known, _at(forecast, asked), horizon_min))
    if not head.kind.is_volatility:
        return whole
    whole[~(whole > 0)] = np.nan
    change: Floats = np.log(whole / past.base)
    return change


def held(values: Floats, close_ms: Ints, klines: Klines, longest_ms: int) -> Floats:
    """``(T,)`` for each minute candle the newest forecast that was made by its close.

    Args:
        values: ``(N,)`` forecasts, for example of the hour panel.
        close_ms: ``(N,)`` rising: the close of the candle that each forecast was made after.
        longest_ms: forecasts older than this are not used.
    """
    if not len(values):
        return np.full(len(klines), np.nan)
    moment_ms = klines.open_time_ms + klines.interval_ms
    newest = np.searchsorted(close_ms, moment_ms, side="right") - 1
    there = (newest >= 0) & (moment_ms - close_ms[newest] <= longest_ms)
    result: Floats = np.where(there, values[newest], np.nan)
    return result


def row_of(klines: Klines, moment_ms: Ints) -> Rows:
    """``(E,)`` the row of the candle that closes at each moment; -1 if it is missing."""
    opened_ms = moment_ms - klines.interval_ms
    row = np.minimum(np.searchsorted(klines.open_time_ms, opened_ms), max(len(klines) - 1, 0))
    return np.where(klines.open_time_ms[row] == opened_ms, row, -1) if len(klines) else np.full(len(row), -1)


def _at(values: Floats, row: Rows) -> Floats:
    found: Floats = np.where(row >= 0, values[row], np.nan)
    return found


def _known(klines: Klines, row: Rows, minutes: int) -> Known:
    """The last ``minutes`` minutes up to each row; NaN if a minute is missing."""
    if not minutes:
        return Known(total=np.zeros(len(row)), squares=np.zeros(len(row)), running=np.zeros(len(row)))
    returns = candle_returns(klines)
    return Known(
        elapsed_ms=minutes * MINUTE_MS,
        minutes=minutes,
        total=_at(rolling_sum(returns, minutes), row),
        squares=_at(rolling_sum(returns**2, minutes), row),
        running=np.zeros(len(row)),
    )


def running(columns: Sequence[Floats], there: Bools) -> Floats:
    """``(E + 1, C)`` totals of the columns over the rows before each row that are ``there``."""
    rows = np.stack([np.where(there, column, 0.0) for column in columns], axis=1)
    totals: Floats = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    return totals


def _trailing_mean(values: Floats, rows: int) -> Floats:
    """Mean of the known values among each row and the ``rows - 1`` before it."""
    totals = running([np.ones(len(values)), values], np.isfinite(values))
    last = np.arange(1, len(values) + 1)
    count, total = (totals[last] - totals[np.maximum(last - rows, 0)]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = total / count
    return mean


def _trailing_fit(x: Floats, y: Floats, rows: int, lag: int, least: int) -> tuple[Floats, Floats]:
    """Intercept and slope of least squares of ``y`` on ``x`` over the ``rows`` rows that end ``lag`` before each."""
    totals = running([np.ones(len(x)), x, y, x * x, x * y], np.isfinite(x) & np.isfinite(y))
    end = np.maximum(np.arange(len(x)) - lag + 1, 0)
    count, sx, sy, sxx, sxy = (totals[end] - totals[np.maximum(end - rows, 0)]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        about = sxx - sx * sx / count
        slope = np.where(about > 0, (sxy - sx * sy / count) / about, 0.0)
        intercept = (sy - slope * sx) / count
    enough = count >= least
    return np.where(enough, intercept, np.nan), np.where(enough, slope, np.nan)
