"""A series that another venue began is begun anew when the first one is back, with its archives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import COLUMNS
from market.build import write_standing
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.sync import sync_all
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, at_level
from updater.service import begin_anew

WALK = random_walk_klines(6 * 1440)
HOURS = WALK.resample(HOUR_MS)
NOW_MS = START_MS + 5 * DAY_MS + 617 * MINUTE_MS
SERIES = [("ETHUSDT", MINUTE_MS), ("ETHUSDT", HOUR_MS)]


class Stand:
    """Two venues, and a store that is synced from both as one."""

    def __init__(self, folder: Path, first: Venue, second: Venue) -> None:
        self.first, self._second, self.clock = first, second, FakeClock(NOW_MS)
        for interval in (WALK, HOURS):
            first.add("ETHUSDT", interval)
            second.add("ETHUSDT", at_level(interval, APART))
        self.store = KlineStore(folder / "klines")
        self.market = self.opened()

    def opened(self) -> Failover:
        aside = Quarantine()
        first = Binance([self.first.url], self.first.url, self.clock, patience_s=0, aside=aside)
        second = Binance([self._second.url], "", self.clock, patience_s=0, aside=aside, name="binanceus")
        return Failover([first, second], self.clock, aside, awaits_life=False)

    def sync(self) -> list[str]:
        """As the updater does."""
        anew = begin_anew(self.store, self.market, SERIES)
        sync_all(self.store, self.market, [(*one, START_MS) for one in SERIES], self.clock.now_ms())
        write_standing(self.store.root, self.market, ())
        return anew

    def bar(self, *prefixes: str) -> None:
        """Let the first venue refuse what begins so."""
        self.first.handler = lambda path, query: Answer("barred", 451) if path.startswith(prefixes) else None

    def assert_level(self, venue: str) -> None:
        """Of what is stored."""
        factor = 1.0 if venue == "binance" else APART
        assert self.market.level("ETHUSDT") == venue
        for whole in (WALK, HOURS):
            end_ms = self.clock.now_ms() // whole.interval_ms * whole.interval_ms
            true, found = whole.between(START_MS, end_ms), self.store.read("ETHUSDT", whole.interval_ms, 0, 2**62)
            np.testing.assert_array_equal(found.open_time_ms, true.open_time_ms)
            np.testing.assert_allclose(found.close, true.close * factor, rtol=1e-9)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with Venue().running() as first, Venue().running() as second:
        yield Stand(tmp_path, first, second)


def test_a_series_is_begun_anew_when_the_first_venue_is_back(stand: Stand) -> None:
    stand.bar("/")
    assert stand.sync() == []
    stand.assert_level("binanceus")
    stand.clock.sleep(HOUR_MS / 1000)
    assert stand.sync() == []  # still away
    stand.assert_level("binanceus")
    stand.bar("/none")
    stand.clock.sleep(HOUR_MS / 1000)
    assert stand.sync() == ["ETHUSDT"]
    stand.assert_level("binance")
    found = stand.store.read("ETHUSDT", MINUTE_MS, 0, 2**62)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(found, name), getattr(WALK, name)[: len(found)], atol=1e-8)
    stand.clock.sleep(HOUR_MS / 1000)
    assert stand.sync() == []


@pytest.mark.parametrize("still", ["/data/", "/api/"])
def test_not_while_a_part_of_it_is_away(stand: Stand, still: str) -> None:
    stand.bar("/")
    stand.sync()
    stand.bar(still)
    stand.clock.sleep(HOUR_MS / 1000)
    assert stand.sync() == []
    stand.assert_level("binanceus")


@pytest.mark.parametrize("removed", [1, 2])
def test_a_kill_in_between_is_made_good(stand: Stand, removed: int) -> None:
    stand.bar("/")
    stand.sync()
    stand.bar("/none")
    for symbol, interval_ms in SERIES[:removed]:
        stand.store.remove(symbol, interval_ms, (0, 2**62))
    stand.market = stand.opened()
    for symbol, interval_ms in SERIES:  # as ``venues.json`` says
        stand.market.stand(symbol, interval_ms, "binanceus", [])
    assert stand.sync() == ["ETHUSDT"]
    stand.assert_level("binance")


def test_a_series_of_the_first_venue_stays(stand: Stand) -> None:
    stand.sync()
    asked = len(stand.first.requests)
    assert begin_anew(stand.store, stand.market, SERIES) == []
    assert len(stand.first.requests) == asked
