"""Where the simulated exchange's prices come from, and those that are invented by seed (recorded ones: replay.py).

A tape knows every candle of its whole length, also those that the wall clock has not reached yet; who plays it decides
how much of it anybody may see. ``unfinished`` and ``price_at`` say how far the candle of this moment has come.
"""

import math
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from klines.klines import COLUMNS, FLOW_COLUMNS, Floats, Klines

INTERVALS_MS: Mapping[str, int] = {
    **{f"{n}m": n * MINUTE_MS for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * HOUR_MS for n in (1, 2, 4)},
    "1d": DAY_MS,
}


class Tape(Protocol):
    """All candles of some symbols, past and future, in wall-clock time. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """What people are told about where these prices come from."""

    @property
    def note(self) -> str:
        """Why it is played as it is; empty when there is nothing to say."""

    @property
    def symbols(self) -> Sequence[str]: ...

    def __hash__(self) -> int: ...

    def first_ms(self, symbol: str) -> int:
        """Open time of the symbol's first candle."""

    def step_ms(self, symbol: str) -> int:
        """The shortest interval there is of this symbol."""

    def decimals(self, symbol: str) -> int:
        """Digits behind the point of the symbol's prices."""

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Candles with ``start_ms <= open_time_ms < end_ms``; holes stay holes; none when shorter than ``step_ms``."""

    def at(self, now_ms: int) -> "Tape":
        """The tape to play at this moment: itself, or one that begins anew where this one has run out."""


# -- the candle of this moment ----------------------------------------------------------------------------------------

POINTS = 60  # prices inside one candle: one a second in a minute


def path_inside(candle: Klines, decimals: int, key: int) -> Floats:
    """``(60,)`` prices that lead from a candle's open to its close and touch its high and its low on the way.

    Args:
        candle: one row.
        decimals: prices are rounded to so many digits.
        key: with the candle's open time it decides which of all such paths.
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


def unfinished(tape: Tape, symbol: str, interval_ms: int, now_ms: int) -> Klines:
    """The candle that is open at ``now_ms``, as far as it has come; none while the market stands still.

    At the last point of its last minute it equals the closed candle.
    """
    step = tape.step_ms(symbol)
    if interval_ms % step:
        return Klines.empty(interval_ms)
    open_ms, step_open_ms = now_ms // interval_ms * interval_ms, now_ms // step * step
    rows = tape.klines(symbol, step, open_ms, step_open_ms)
    now = tape.klines(symbol, step, step_open_ms, step_open_ms + 1)
    if len(now):
        rows = rows.merge(_so_far(tape, symbol, now, now_ms))
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


def price_at(tape: Tape, symbol: str, now_ms: int) -> float | None:
    """The newest trade price; the last one within two days while the market stands still; else None."""
    step = tape.step_ms(symbol)
    now = tape.klines(symbol, step, now_ms // step * step, now_ms // step * step + 1)
    if len(now):
        return float(_so_far(tape, symbol, now, now_ms).close[0])
    last = tape.klines(symbol, step, now_ms - 2 * DAY_MS, now_ms)
    return float(last.close[-1]) if len(last) else None


def _so_far(tape: Tape, symbol: str, candle: Klines, now_ms: int) -> Klines:
    points = (now_ms - int(candle.open_time_ms[0])) * POINTS // candle.interval_ms + 1
    if points == POINTS:
        return candle
    path = path_inside(candle, tape.decimals(symbol), zlib.crc32(symbol.encode()))[:points]
    flows = {name: np.round(getattr(candle, name) * points / POINTS, 5) for name in FLOW_COLUMNS}
    flows["trades"] = np.floor(flows["trades"])
    return replace(candle, high=path.max(keepdims=True), low=path.min(keepdims=True), close=path[-1:].copy(), **flows)


# -- invented ---------------------------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """What an invented symbol looks like."""

    price: float  # quote currency, at REFERENCE_DAY
    decimals: int
    turnover: float  # quote currency traded in an ordinary minute
    beta: float  # how far it follows the leader


LEADER = "BTCUSDT"
LISTINGS: Mapping[str, Listing] = {
    LEADER: Listing(65_000.0, 2, 1_500_000.0, 1.0),
    "ETHUSDT": Listing(2_600.0, 2, 900_000.0, 1.05),
    "SOLUSDT": Listing(140.0, 3, 400_000.0, 1.1),
    "BNBUSDT": Listing(600.0, 2, 150_000.0, 0.8),
    "XRPUSDT": Listing(1.5, 5, 200_000.0, 0.9),
    "NEARUSDT": Listing(3.0, 4, 40_000.0, 1.1),
    "ARBUSDT": Listing(0.8, 5, 30_000.0, 1.1),
    "BERAUSDT": Listing(4.0, 4, 20_000.0, 1.0),
    "PAXGUSDT": Listing(3_000.0, 2, 60_000.0, 0.1),
    "XAGUSDT": Listing(35.0, 4, 30_000.0, 0.1),
    "WTIUSDT": Listing(70.0, 3, 30_000.0, 0.1),
}

EPOCH_DAY = 18_262  # 2020-01-01, in days since 1970
REFERENCE_DAY = 20_454 - EPOCH_DAY  # 2026-01-01: here every symbol has the price of its listing
DAYS = 7_305  # twenty years; all day totals are drawn at once, so that no start time changes them
MINUTES = 1_440

YEARLY_SIGMA = {True: 0.45, False: 0.30}  # of the leader; of what the others add to it
DAY_MEMORY, DAY_SPREAD = 0.95, 0.30  # log-volatility from day to day
MINUTE_MEMORY, MINUTE_SPREAD = 0.5 ** (1 / 45), 0.40  # within the day: half forgotten after 45 minutes

_STEPS = np.arange(1, MINUTES + 1)
_DECAY = MINUTE_MEMORY**_STEPS
_INNOVATION = MINUTE_SPREAD * math.sqrt(1 - MINUTE_MEMORY**2)
# Share of a miss at midnight that each minute before it takes on: cov(a_i, a_end) / var(a_end) of an AR(1).
_BRIDGE = MINUTE_MEMORY ** (MINUTES - _STEPS) * (1 - _DECAY**2) / (1 - _DECAY[-1] ** 2)
_TIME_OF_DAY = 0.25 * np.cos(2 * np.pi * (_STEPS / MINUTES - 14.5 / 24))  # busiest at 14:30 UTC


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Days:
    """One driving factor, day by day."""

    log_sigma: Floats  # (DAYS + 1,) around 0
    anchor: Floats  # (DAYS + 1,) the minutes' log-volatility at each midnight
    sigma: Floats  # (DAYS,) of the day's whole return
    total: Floats  # (DAYS,) the day's whole return


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Day:
    """One driving factor within a day."""

    path: Floats  # (MINUTES,) sum of the log-returns since midnight
    sigma: Floats  # (MINUTES,) standard deviation of each log-return


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hours:
    """A symbol's hourly candles as far as they were asked for."""

    columns: Floats  # (DAYS, 24, columns); memory is taken where it is written only
    ready: "np.ndarray[tuple[int], np.dtype[np.bool_]]"  # (DAYS,)


class RandomTape:
    """Prices that cannot be foreseen and volatility that can, the same for equal (seed, symbol, minute) at any start.

    Log-returns are independent given the volatility, with mean 0: a driftless walk, of the leader's factor and an own
    one. Log-volatility is an AR(1) over days plus an AR(1) over minutes plus the time of day. Each day's whole return
    is drawn first and its minutes as a Gaussian bridge to it: no minute of an earlier day need be known for a price.
    Highs and lows are maxima of Brownian bridges (Karatzas and Shreve, Brownian Motion, section 4.3.C).
    """

    note = ""

    def __init__(self, seed: int = 0, symbols: Iterable[str] | None = None) -> None:
        self.symbols: tuple[str, ...] = tuple(LISTINGS if symbols is None else symbols)
        for symbol in self.symbols:
            if symbol not in LISTINGS:
                raise ConfigError(f"symbol {symbol!r} is not invented here; give some of {','.join(LISTINGS)}")
        self.name = f"random, seed {seed}"
        self._seed = seed
        self._days = lru_cache(maxsize=None)(self._draw_days)
        self._day = lru_cache(maxsize=64)(self._draw_day)
        self._minutes = lru_cache(maxsize=160)(self._make_minutes)
        self._hours: dict[str, _Hours] = {}
        self._lock = threading.Lock()

    def first_ms(self, symbol: str) -> int:
        return EPOCH_DAY * DAY_MS

    def step_ms(self, symbol: str) -> int:
        return MINUTE_MS

    def decimals(self, symbol: str) -> int:
        return LISTINGS[symbol].decimals

    def at(self, now_ms: int) -> Self:
        return self

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        base = HOUR_MS if interval_ms % HOUR_MS == 0 else MINUTE_MS
        first = -(-start_ms // interval_ms) * interval_ms
        last = -(-end_ms // interval_ms) * interval_ms
        days = range(max(first // DAY_MS - EPOCH_DAY, 0), min(-(-last // DAY_MS) - EPOCH_DAY, DAYS))
        if first >= last or not days:
            return Klines.empty(interval_ms)
        times = np.arange(EPOCH_DAY + days.start, EPOCH_DAY + days.stop)[:, None] * DAY_MS + np.arange(0, DAY_MS, base)
        if base == HOUR_MS:
            table = self._hourly(symbol, days)
        else:
            table = np.concatenate([self._minutes(symbol, day) for day in days])
        inside = slice(*np.searchsorted(times.ravel(), [first, last]))
        rows = Klines(interval_ms=base, open_time_ms=times.ravel()[inside], **_columns(table[inside]))
        return rows if base == interval_ms else rows.resample(interval_ms)

    def _hourly(self, symbol: str, days: range) -> Floats:
        """``(len(days) * 24, columns)``."""
        with self._lock:
            empty = _Hours(columns=np.zeros((DAYS, 24, len(COLUMNS))), ready=np.zeros(DAYS, dtype=np.bool_))
            hours = self._hours.setdefault(symbol, empty)
            for day in days:
                if not hours.ready[day]:
                    # Not by way of the cache of minutes: two years of hours would push everything else out of it.
                    minutes = Klines(
                        interval_ms=MINUTE_MS,
                        open_time_ms=np.arange(MINUTES) * MINUTE_MS,
                        **_columns(self._make_minutes(symbol, day)),
                    )
                    hour = minutes.resample(HOUR_MS)
                    hours.columns[day] = np.stack([getattr(hour, name) for name in COLUMNS], axis=1)
                    hours.ready[day] = True
            return hours.columns[days.start : days.stop].reshape(-1, len(COLUMNS)).copy()

    def _rng(self, symbol: str, purpose: str, day: int = 0) -> np.random.Generator:
        return np.random.default_rng((self._seed, zlib.crc32(f"{symbol} {purpose}".encode()), day))

    def _draw_days(self, symbol: str) -> _Days:
        rng = self._rng(symbol, "whole days")
        shocks = DAY_SPREAD * math.sqrt(1 - DAY_MEMORY**2) * rng.standard_normal(DAYS + 1)
        log_sigma, level = np.empty(DAYS + 1), DAY_SPREAD * float(rng.standard_normal())
        for day, shock in enumerate(shocks):
            log_sigma[day] = level = DAY_MEMORY * level + shock
        usual = YEARLY_SIGMA[symbol == LEADER] / math.sqrt(365)
        sigma = usual * np.exp((log_sigma[:-1] + log_sigma[1:]) / 2 - DAY_SPREAD**2)
        anchor = MINUTE_SPREAD * rng.standard_normal(DAYS + 1)
        return _Days(log_sigma=log_sigma, anchor=anchor, sigma=sigma, total=sigma * rng.standard_normal(DAYS))

    def _draw_day(self, symbol: str, day: int) -> _Day:
        days = self._days(symbol)
        rng = self._rng(symbol, "moves", day)
        shocks, moves = rng.standard_normal((2, MINUTES))
        clustering = _DECAY * (days.anchor[day] + np.cumsum(_INNOVATION * shocks / _DECAY))
        clustering += _BRIDGE * (days.anchor[day + 1] - clustering[-1])
        trend = (days.log_sigma[day + 1] - days.log_sigma[day]) * _STEPS / MINUTES
        weight = np.exp(2 * (clustering + trend + _TIME_OF_DAY))
        weight /= weight.sum()
        sigma = days.sigma[day] * np.sqrt(weight)
        path = np.cumsum(sigma * moves)
        path += np.cumsum(weight) * (days.total[day] - path[-1])
        return _Day(path=path, sigma=sigma)

    def _make_minutes(self, symbol: str, day: int) -> Floats:
        """``(MINUTES, columns)`` of one UTC day."""
        listing, leader = LISTINGS[symbol], self._day(LEADER, day)
        level, path, sigma = self._levels(symbol)[day : day + 2], leader.path, leader.sigma
        if symbol != LEADER:
            own = self._draw_day(symbol, day)
            path = listing.beta * path + own.path
            sigma = np.hypot(listing.beta * sigma, own.sigma)
        # Both ends come from the totals, so that the day's close is the next day's open to the last digit.
        log_price = np.concatenate([level[:1], level[0] + path[:-1], level[1:]])
        rng = self._rng(symbol, "ranges and flows", day)
        move = np.diff(log_price)
        up, down = (np.sqrt(move**2 - 2 * sigma**2 * np.log(1 - u)) for u in rng.random((2, MINUTES)))
        price = np.round(np.exp(log_price), listing.decimals)
        high = np.round(np.exp(log_price[:-1] + (move + up) / 2), listing.decimals)
        low = np.round(np.exp(log_price[:-1] + (move - down) / 2), listing.decimals)
        opened, close = price[:-1], price[1:]
        busy, size, side = rng.standard_normal((3, MINUTES))
        usual = math.hypot(listing.beta * YEARLY_SIGMA[True], YEARLY_SIGMA[False]) / math.sqrt(365 * MINUTES)
        strength = np.abs(move) / sigma
        turnover = listing.turnover * (sigma / usual) ** 1.2 * (0.5 + 0.6 * strength) * np.exp(0.5 * busy - 0.125)
        average = (opened + close) / 2
        volume = np.maximum(np.round(turnover / average, 5), 1e-5)
        taker = np.round(volume * np.clip(0.5 + 0.1 * np.tanh(move / sigma) + 0.08 * side, 0.02, 0.98), 5)
        columns = {
            "open": opened,
            "high": np.maximum(high, np.maximum(opened, close)),
            "low": np.minimum(low, np.minimum(opened, close)),
            "close": close,
            "volume": volume,
            "quote_volume": np.round(volume * average, 8),
            "trades": np.maximum(np.round(turnover / 900 * np.exp(0.2 * size)), 1),
            "taker_buy_base": taker,
            "taker_buy_quote": np.round(taker * average, 8),
        }
        return np.stack([columns[name] for name in COLUMNS], axis=1)

    def _levels(self, symbol: str) -> Floats:
        """``(DAYS + 1,)`` log-price at each midnight."""
        listing, total = LISTINGS[symbol], self._days(LEADER).total
        if symbol != LEADER:
            total = listing.beta * total + self._days(symbol).total
        level: Floats = np.append(0.0, np.cumsum(total))
        level += math.log(listing.price) - level[REFERENCE_DAY]
        return level


def _columns(table: Floats) -> dict[str, Floats]:
    return {name: np.ascontiguousarray(table[:, column]) for column, name in enumerate(COLUMNS)}
