"""A store, the simulated exchange, and a venue that has six days of minutes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import DAY_MS, HOUR_MS, SystemClock
from exchange.server import SimulatedExchange
from market.store.kline_store import KlineStore
from tests.cli.data.stand import MONTH, WALK, as_told, at
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Venue as LoopbackVenue


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    """With minutes of ETH, one gap in them, and hours of BTC."""
    store = KlineStore(tmp_path / "klines" / "binance")
    store.append("ETHUSDT", WALK.between(0, at(1000)).merge(WALK.between(at(1010), 2**62)))
    store.append("BTCUSDT", random_walk_klines(300, HOUR_MS))
    return store


@pytest.fixture
def venue() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=1, clock=SystemClock()) as exchange:
        yield exchange


@pytest.fixture
def listed() -> Iterator[LoopbackVenue]:
    """A venue that has the six days of minutes, and their days."""
    with LoopbackVenue().running() as venue:
        venue.series["ETHUSDT", "1m"] = as_told(MONTH)
        venue.series["ETHUSDT", "1d"] = as_told(MONTH.resample(DAY_MS))
        yield venue
