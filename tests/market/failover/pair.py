"""Two venues of one market that are a little apart, as servers on loopback, and a Failover over them."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MarketUnavailable
from klines.klines import PRICE_COLUMNS, Floats, Klines
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.venue import Price
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import Answer, Venue

NOW_MS = START_MS + 6 * HOUR_MS
LONG = random_walk_klines(8 * 60)
DOWN = Answer("sorry", 500)
CANDLES, TICKERS = "/api/v3/klines", "/api/v3/ticker/price"


def walk(rows: int) -> Klines:
    """The first candles of one and the same market."""
    return LONG.between(0, START_MS + rows * MINUTE_MS)


WALK = walk(6 * 60)
APART = 1.002  # second over first
LAST_MS = int(WALK.open_time_ms[-1])


def priced(klines: Klines, factor: float | Floats) -> Klines:
    """The same trades at other prices."""
    quotes = {name: getattr(klines, name) * factor for name in ("quote_volume", "taker_buy_quote")}
    return replace(times(klines, factor), **quotes)


def at_level(klines: Klines, factor: float | Floats) -> Klines:
    """The same market at a venue whose prices are higher and which trades a third as much."""
    moved, flows = priced(klines, factor), ("volume", "quote_volume", "taker_buy_base", "taker_buy_quote")
    return replace(moved, **{name: getattr(moved, name) / 3 for name in flows})


def from_now(factor: float, until_ms: int = 2**62) -> Klines:
    """The long walk, with other prices from ``NOW_MS`` on."""
    return priced(LONG, np.where((LONG.open_time_ms >= NOW_MS) & (LONG.open_time_ms < until_ms), factor, 1.0))


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


class Stand:
    """Two venues of one market, a clock, and a Failover over both venues or over the first alone."""

    def __init__(
        self, first: Venue, second: Venue, clock: FakeClock, *, alone: bool = False, timeout_s: float = 0.5
    ) -> None:
        self.first, self.second, self.clock = first, second, clock
        quarantine = Quarantine()
        self.venues = [
            Binance([at.url], at.url, clock, timeout_s=timeout_s, patience_s=0, quarantine=quarantine, name=name)
            for name, at in (("binance", first), ("binanceus", second))
        ]
        self.market = Failover(self.venues[:1] if alone else self.venues, clock, quarantine)

    def have(self, first: Klines, second: Klines | None = None) -> None:
        """Let both venues have candles, and the second one have them at its own prices."""
        self.first.series["ETHUSDT", "1m"] = first
        self.second.series["ETHUSDT", "1m"] = at_level(first if second is None else second, APART)

    def fail(self, answer: Answer = DOWN) -> None:
        """Let the first venue give one and the same answer."""
        self.first.handler = broken(answer)

    def wait(self, seconds: float = 0, *, minutes: float = 0) -> None:
        self.clock.time_ms += round(seconds * SECOND_MS + minutes * MINUTE_MS)

    def newest(self, rows: int = 20, end_ms: int = NOW_MS) -> Klines:
        return self.market.klines("ETHUSDT", MINUTE_MS, end_ms - rows * MINUTE_MS, end_ms)

    def latest(self, rows: int = 20) -> Klines:
        """The newest candles by the clock."""
        return self.newest(rows, self.clock.time_ms // MINUTE_MS * MINUTE_MS)

    def asks(self, end_ms: int = NOW_MS) -> int:
        """Ask for candles, which may fail; return how many requests of this the first venue got."""
        before = len(self.first.requests)
        with contextlib.suppress(MarketUnavailable):
            self.newest(end_ms=end_ms)
        return len(self.first.requests) - before

    @property
    def price(self) -> Price:
        return self.market.prices(["ETHUSDT"])["ETHUSDT"]

    @property
    def source(self) -> str:
        return self.market.source("ETHUSDT", MINUTE_MS)

    @property
    def remark(self) -> str:
        return self.market.remark("ETHUSDT", MINUTE_MS)


def assert_prices_equal(left: Klines, right: Klines) -> None:
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in PRICE_COLUMNS:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9)


def broken(answer: Answer) -> Callable[[str, dict[str, str]], Answer | None]:
    return lambda path, query: answer


def works(path: str, query: dict[str, str]) -> Answer | None:
    """The handler of a venue that is well."""
