"""Two venues of one market that are a little apart, as servers on loopback, and a Failover over them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from core.clock import HOUR_MS, MINUTE_MS, SystemClock
from klines.klines import PRICE_COLUMNS, Floats, Klines
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import Answer, Venue

NOW_MS = START_MS + 6 * HOUR_MS
LONG = random_walk_klines(8 * 60)


def walk(rows: int) -> Klines:
    """The first candles of one and the same market."""
    return LONG.between(0, START_MS + rows * MINUTE_MS)


WALK = walk(6 * 60)
APART = 1.002  # second over first
LAST_MS = int(WALK.open_time_ms[-1])


def at_level(klines: Klines, factor: float | Floats) -> Klines:
    """The same market at a venue whose prices are higher and which trades a third as much."""
    changed = {name: getattr(klines, name) / 3 for name in ("volume", "taker_buy_base")}
    changed |= {name: getattr(klines, name) * factor / 3 for name in ("quote_volume", "taker_buy_quote")}
    return replace(times(klines, factor), **changed)


def with_row(klines: Klines, at_ms: int, **cells: float) -> Klines:
    """One candle with other numbers in it."""
    columns = {name: getattr(klines, name).copy() for name in cells}
    row = int(np.searchsorted(klines.open_time_ms, at_ms))
    for name, cell in cells.items():
        columns[name][row] = cell
    return replace(klines, **columns)


def leapt(klines: Klines, from_ms: int, factor: float) -> Klines:
    """All prices from one candle on at another level: that candle opens at the old one and closes at the new."""
    after = klines.open_time_ms >= from_ms
    moved, row = times(klines, np.where(after, factor, 1.0)), int(np.searchsorted(klines.open_time_ms, from_ms))
    opened = float(klines.open[row])
    low, high = min(float(moved.low[row]), opened), max(float(moved.high[row]), opened)
    return with_row(moved, from_ms, open=opened, low=low, high=high)


def frozen(klines: Klines, rows: int) -> Klines:
    """The last candles without a trade, at the price before them."""
    flat = np.arange(len(klines)) >= len(klines) - rows
    price = float(klines.close[-rows - 1])
    changed = {name: np.where(flat, price, getattr(klines, name)) for name in PRICE_COLUMNS}
    changed["volume"] = np.where(flat, 0.0, klines.volume)
    return replace(klines, **changed)  # type: ignore[arg-type]


def two(first: Venue, second: Venue, clock: FakeClock | SystemClock) -> Failover:
    aside = Quarantine()
    venues = [
        Binance([first.url], "", clock, timeout_s=0.5, patience_s=0, aside=aside),
        Binance([second.url], "", clock, timeout_s=0.5, patience_s=0, aside=aside, name="binanceus"),
    ]
    return Failover(venues, clock, aside)


def alone(venue: Venue, clock: FakeClock) -> Failover:
    return Failover([Binance([venue.url], "", clock, patience_s=0)], clock, Quarantine())


def newest(market: Failover, rows: int = 20, end_ms: int = NOW_MS) -> Klines:
    return market.klines("ETHUSDT", MINUTE_MS, end_ms - rows * MINUTE_MS, end_ms)


def assert_prices_equal(left: Klines, right: Klines) -> None:
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in PRICE_COLUMNS:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9)


def broken(answer: Answer) -> Callable[[str, dict[str, str]], Answer | None]:
    return lambda path, query: answer


def works(path: str, query: dict[str, str]) -> Answer | None:
    """The handler of a venue that is well."""
