"""Klines to the network's inputs: scale-free, causal numbers with a finite memory.

A row is a function of the ``WARMUP`` candles up to it, of the symbol and of the leader, and of the symbol's
``panel.memory`` last candles, and of nothing else: a live tail and the stored history give the same row. Only the
``WARMUP`` candles must be without a hole; a hole further back shortens the mean that it lies in.
A change of a column's meaning or of a panel's memory must raise ``FEATURE_VERSION``.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import Floats, Ints, Klines
from klines.returns import candle_returns, rolling_sum
from model.panels import Panel

FEATURE_VERSION = 2
SPANS = (5, 15, 60, 240)  # candles
MOVE_SPANS, TAKER_SPANS, TRADED_SPANS = (2, *SPANS), (5, 15, 60), (5, 15)
WARMUP = 241  # candles without a hole that one row reads, itself included: each return needs the close before it

FLAT = 1e-6  # per candle: the least volatility a market is taken to have
BLOCK = 16_384  # rows worked on at once: their doubles stay in the processor's cache, and no page is new to it
WEEK_MS = 7 * DAY_MS
LIMIT = 8.0  # features are clipped here: beyond it the size carries no more information
LEAST_SPREAD = 0.05  # standard deviation below which a feature does not vary; of real markets the least is 0.099

_OWN = (
    "return",
    "range",
    "close_place",
    "volume",
    "trades",
    "taker_share",
    *(f"volatility_{span}" for span in (*SPANS, "memory")),
    *(f"range_{span}" for span in (*SPANS, "memory")),
    *(f"move_{span}" for span in MOVE_SPANS),
    *(f"taker_{span}" for span in TAKER_SPANS),
    *(f"traded_move_{span}" for span in TRADED_SPANS),
)
_LEADER = (
    "return",
    "range",
    "volume",
    "volatility_5",
    "volatility_15",
    "volatility_60",
    "move_5",
    "move_15",
    "taker_15",
)
_CALENDAR = ("day_sin", "day_cos", "half_day_sin", "half_day_cos", "hour_sin", "hour_cos", "week_sin", "week_cos")
FEATURES: tuple[str, ...] = (*_OWN, *(f"leader_{name}" for name in _LEADER), *_CALENDAR)
SIGNED = tuple(
    name for name in FEATURES if any(part in name for part in ("return", "move", "taker", "close_place"))
)  # these change their sign, and no other feature changes, in a market with rises and falls exchanged


def _limit(name: str) -> float:
    if name in _CALENDAR or name in {"close_place", "taker_share"}:
        return 1.0
    return float(name.rpartition("_")[2]) ** 0.5 if "taker_" in name else LIMIT


LIMITS: tuple[float, ...] = tuple(_limit(name) for name in FEATURES)  # in size, that each feature can be

Floats32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """One row per kline of a symbol, oldest first. T rows, F features."""

    open_time_ms: Ints  # (T,) of the row's own candle
    x: Floats32  # (T, F), columns as FEATURES; meaningless where a hole lies in the row's memory
    scale: Floats  # (T,) volatility of one candle, never below FLAT
    close: Floats  # (T,) quote currency
    usable: Bools  # (T,) the window of ``lookback`` rows that ends here saw no hole in symbol or leader


def rows_needed(panel: Panel) -> int:
    """Candles of a symbol that the features of one window read, the window's own included."""
    return panel.rows_needed


def unbroken_needed(panel: Panel) -> int:
    """The number of newest candles, of the symbol and of the leader, that must have no hole."""
    return WARMUP + panel.lookback - 1


def compute(
    klines: Klines, leader: Klines, panel: Panel, *, led: "Described | None" = None, newest: int | None = None
) -> FeatureTable:
    """The features of the candles of ``klines``.

    Args:
        klines: the symbol's candles of the panel's interval, oldest first; gaps are gaps.
        leader: the leader's candles over the same time; they are matched by ``open_time_ms``.
        panel: its lookback and memory decide which rows are usable.
        led: ``describe`` of the leader, if several symbols share it.
        newest: how many rows are wanted, counted from the end; None for all.
    Returns:
        A row per candle, oldest first. NaN in a flow column (a venue without flows) makes a neutral feature, 0.
    """
    first = max(0, len(klines) - (len(klines) if newest is None else newest))
    open_time_ms = klines.open_time_ms[first:]
    place = np.searchsorted(leader.open_time_ms, open_time_ms)
    matched = np.isin(open_time_ms, leader.open_time_ms, assume_unique=True)
    place[~matched] = 0
    led_run = np.where(matched, leader.run_length()[place], 0) if len(leader) else np.zeros(len(open_time_ms), np.int64)
    x_TF = np.empty((len(open_time_ms), len(FEATURES)), np.float32)
    scale = np.empty(len(open_time_ms))
    for start in range(0, len(open_time_ms), BLOCK):
        block = slice(start, min(start + BLOCK, len(open_time_ms)))
        own, scale[block] = _described(klines, first + block.start, first + block.stop, panel.memory)
        known = matched[block]
        if led is not None:
            leaders, at = led[0], place[block][known]
        elif leader is klines:
            leaders, at = own, place[block][known] - (first + block.start)
        elif known.any():
            low, high = int(place[block][known][0]), int(place[block][known][-1]) + 1
            leaders, at = _described(leader, low, high, panel.memory)[0], place[block][known] - low
        else:
            leaders, at = own, np.empty(0, np.intp)
        columns = [own[name] for name in _OWN]
        for name in _LEADER:
            column = np.zeros(block.stop - block.start)
            column[known] = leaders[name][at]
            columns.append(column)
        _fill(x_TF[block], [*columns, *_calendar(open_time_ms[block])])
    unbroken = np.minimum(klines.run_length()[first:], led_run) >= unbroken_needed(panel)
    return FeatureTable(
        open_time_ms=open_time_ms,
        x=x_TF,
        scale=scale,
        close=klines.close[first:],
        usable=unbroken & (np.arange(first, len(klines)) >= rows_needed(panel) - 1),
    )


def _described(klines: Klines, first: int, last: int, memory: int) -> "Described":
    """``describe`` of the rows from ``first`` to before ``last``, from these rows and the memory before them."""
    context = min(first, max(memory, WARMUP) + 1)
    columns, scale = describe(klines.rows(first - context, last), memory)
    return {name: column[context:] for name, column in columns.items()}, scale[context:]


def _fill(x_TF: Floats32, columns: list[Floats]) -> None:
    """Write the columns, clipped to LIMITS and with 0 for NaN."""
    table, limits_F1 = np.array(columns), np.array(LIMITS)[:, None]
    np.clip(table, -limits_F1, limits_F1, out=table)
    table[np.isnan(table)] = 0.0
    x_TF[:] = table.T


def varying(x_NF: Floats | Floats32) -> Bools:
    """``(F,)``: True for features that vary over the rows; False for constants and rounding noise.

    Nothing can be learnt from a constant, and a weight fitted to noise of 1e-10 would blow a feature up 1e10 times
    when it begins to move.
    """
    if not len(x_NF):
        return np.zeros(x_NF.shape[1], np.bool_)
    spread: Bools = np.std(x_NF, axis=0, dtype=np.float64) >= LEAST_SPREAD
    return spread


def present_scale(klines: Klines) -> float:
    """``FeatureTable.scale`` of the last candle; the last ``WARMUP`` candles must have no hole."""
    squares = candle_returns(klines.tail(WARMUP))[1:] ** 2
    blend = float(np.mean([squares[-15:].mean(), squares[-60:].mean(), squares[-240:].mean()]))
    return float(np.sqrt(blend + FLAT**2))


def stands_still(klines: Klines, candles: int) -> bool:
    """True if at least half of the last candles moved by FLAT or less: a volatility of 0 may follow."""
    moves = np.abs(candle_returns(klines.tail(candles + 1))[1:])
    return bool(len(moves)) and float(np.mean(moves <= FLAT)) >= 0.5


Described = tuple[dict[str, Floats], Floats]


def describe(klines: Klines, memory: int) -> Described:
    """Columns by name, NaN at holes and at undefined numbers; and the scale."""
    returns = candle_returns(klines)
    spread = np.log(klines.high / klines.low)
    squares, spread_squares = returns**2, spread**2 / (4 * np.log(2))  # Parkinson, J. Business 53(1), 1980
    power = {span: rolling_sum(squares, span) / span for span in SPANS}
    blend = (power[15] + power[60] + power[240]) / 3
    scale = np.sqrt(np.where(np.isfinite(blend), blend, 0.0) + FLAT**2)
    # in a flat market 0 / 0 is a close in the middle, and no trade is no preference
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "return": returns / scale,
            "range": spread / scale,
            "close_place": (2 * klines.close - klines.high - klines.low) / (klines.high - klines.low),
            "volume": _against_usual(klines.volume),
            "trades": _against_usual(klines.trades),
            "taker_share": 2 * klines.taker_buy_base / klines.volume - 1,
            "volatility_memory": _log_ratio(_remembered(squares, memory), scale),
            "range_memory": _log_ratio(_remembered(spread_squares, memory), scale),
        }
    for span in SPANS:
        columns[f"volatility_{span}"] = _log_ratio(power[span], scale)
        columns[f"range_{span}"] = _log_ratio(rolling_sum(spread_squares, span) / span, scale)
    for span in MOVE_SPANS:
        columns[f"move_{span}"] = rolling_sum(returns, span) / (scale * span**0.5)
    usual = _remembered(klines.volume, memory)
    with np.errstate(divide="ignore", invalid="ignore"):
        for span in TAKER_SPANS:  # of independent preferences each would be as large
            share = 2 * rolling_sum(klines.taker_buy_base, span) / rolling_sum(klines.volume, span) - 1
            columns[f"taker_{span}"] = share * span**0.5
        for span in TRADED_SPANS:  # each return counts by its candle's volume over the usual one
            moved = rolling_sum(returns * klines.volume, span) / usual
            columns[f"traded_move_{span}"] = moved / (scale * span**0.5)
    return columns, scale


def _remembered(values: Floats, memory: int) -> Floats:
    """Mean over the known numbers of the last ``memory`` candles; NaN if no number is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return rolling_sum(np.where(known, values, 0.0), memory) / rolling_sum(known.astype(np.float64), memory)


def _log_ratio(power: Floats, scale: Floats) -> Floats:
    """Logarithm of a volatility over the scale, with a floor of a hundredth of the scale."""
    ratio: Floats = 0.5 * np.log(power / scale**2 + 1e-4)
    return ratio


def _against_usual(flow: Floats, span: int = 240) -> Floats:
    """Logarithm of a flow over its mean of the last ``span`` candles, floored at a hundredth of it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(flow / (rolling_sum(flow, span) / span) + 0.01)


def _calendar(open_time_ms: Ints) -> list[Floats]:
    """Sine and cosine of the place in the day, half day, hour and week (UTC)."""
    return list(_week()[:, open_time_ms % WEEK_MS // MINUTE_MS])


@cache
def _week() -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """``_calendar`` of each minute of a week from the epoch: a look-up takes an eighth of a sine's time."""
    rows = []
    minutes_ms = np.arange(0, WEEK_MS, MINUTE_MS)
    for period_ms in (DAY_MS, DAY_MS // 2, HOUR_MS, WEEK_MS):
        phase = 2 * np.pi * (minutes_ms % period_ms) / period_ms
        rows += [np.sin(phase), np.cos(phase)]
    return np.array(rows)
