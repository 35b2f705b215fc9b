"""Candles invented by seed: prices that cannot be foreseen, and volatility that can."""

import math
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from exchange.sources.source import Source, Traits
from klines.klines import Floats, Klines


class Listing(NamedTuple):
    """The traits of an invented symbol."""

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

YEARLY_SIGMA = {True: 0.45, False: 0.30}  # of the leader; of what another symbol adds to it
DAY_MEMORY, DAY_SPREAD = 0.95, 0.30  # log-volatility from day to day
MINUTE_MEMORY, MINUTE_SPREAD = 0.5 ** (1 / 45), 0.40  # within the day: half forgotten after 45 minutes

_STEPS = np.arange(1, MINUTES + 1)
_DECAY = MINUTE_MEMORY**_STEPS
_INNOVATION = MINUTE_SPREAD * math.sqrt(1 - MINUTE_MEMORY**2)
# Share of a miss at midnight that each minute before it takes on: cov(a_i, a_end) / var(a_end) of an AR(1).
_BRIDGE = MINUTE_MEMORY ** (MINUTES - _STEPS) * (1 - _DECAY**2) / (1 - _DECAY[-1] ** 2)
_TIME_OF_DAY = 0.25 * np.cos(2 * np.pi * (_STEPS / MINUTES - 14.5 / 24))  # busiest at 14:30 UTC


class _Days(NamedTuple):
    """One driving factor, day by day."""

    log_sigma: Floats  # (DAYS + 1,) around 0
    anchor: Floats  # (DAYS + 1,) the minutes' log-volatility at each midnight
    sigma: Floats  # (DAYS,) of the day's whole return
    total: Floats  # (DAYS,) the day's whole return


class _Day(NamedTuple):
    """One driving factor within a day."""

    path: Floats  # (MINUTES,) sum of the log-returns since midnight
    sigma: Floats  # (MINUTES,) standard deviation of each log-return


class RandomWalk(Source):
    """Invented candles, the same for equal (seed, symbol, minute) whenever the exchange starts.

    Log-returns are independent given the volatility, with mean 0: a driftless walk, of the leader's factor and an own
    one. Log-volatility is an AR(1) over days plus an AR(1) over minutes plus the time of day. Each day's whole return
    is drawn first and its minutes as a Gaussian bridge to it, so that a price needs no minute of an earlier day.
    Highs and lows are maxima of Brownian bridges (Karatzas and Shreve, Brownian Motion, section 4.3.C).
    """

    def __init__(self, seed: int = 0, symbols: Iterable[str] | None = None) -> None:
        self.symbols: dict[str, Traits] = {}
        for symbol in LISTINGS if symbols is None else symbols:
            if symbol not in LISTINGS:
                raise ConfigError(f"symbol {symbol!r} is not invented here; give some of {','.join(LISTINGS)}")
            self.symbols[symbol] = Traits(EPOCH_DAY * DAY_MS, MINUTE_MS, LISTINGS[symbol].decimals)
        self.name = f"random, seed {seed}"
        self._seed = seed
        self._days = lru_cache(maxsize=None)(self._draw_days)
        self._day = lru_cache(maxsize=64)(self._draw_day)
        self._minutes = lru_cache(maxsize=160)(self._make_minutes)
        self._hours = lru_cache(maxsize=None)(self._make_hours)

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        base, of_day = (MINUTE_MS, self._minutes) if interval_ms % HOUR_MS else (HOUR_MS, self._hours)
        first, last = (-(-ms // interval_ms) * interval_ms for ms in (start_ms, end_ms))
        days = range(max(first // DAY_MS - EPOCH_DAY, 0), min(-(-last // DAY_MS) - EPOCH_DAY, DAYS))
        rows = Klines.joined(base, [of_day(symbol, day) for day in days]).between(first, last)
        return rows if base == interval_ms else rows.resample(interval_ms)

    def _make_hours(self, symbol: str, day: int) -> Klines:
        # Past the cache of minutes: two years of hours would push everything else out of it.
        return self._make_minutes(symbol, day).resample(HOUR_MS)

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

    def _make_minutes(self, symbol: str, day: int) -> Klines:
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
        return Klines(
            interval_ms=MINUTE_MS,
            open_time_ms=(EPOCH_DAY + day) * DAY_MS + np.arange(MINUTES) * MINUTE_MS,
            open=opened,
            high=np.maximum(high, np.maximum(opened, close)),
            low=np.minimum(low, np.minimum(opened, close)),
            close=close,
            volume=volume,
            quote_volume=np.round(volume * average, 8),
            trades=np.maximum(np.round(turnover / 900 * np.exp(0.2 * size)), 1),
            taker_buy_base=taker,
            taker_buy_quote=np.round(taker * average, 8),
        )

    def _levels(self, symbol: str) -> Floats:
        """Return the ``(DAYS + 1,)`` log-prices at midnight."""
        listing, total = LISTINGS[symbol], self._days(LEADER).total
        if symbol != LEADER:
            total = listing.beta * total + self._days(symbol).total
        level: Floats = np.append(0.0, np.cumsum(total))
        level += math.log(listing.price) - level[REFERENCE_DAY]
        return level
