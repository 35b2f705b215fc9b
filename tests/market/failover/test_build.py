"""The venues of the settings: the market that serving asks, and the venue that forecasts are scored on."""

from pathlib import Path

import pytest

from core.clock import MINUTE_MS
from core.errors import ConfigError
from core.settings import Settings, load_settings
from market.build import market_from, truth_venue_from
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.warm_start import read_warm_starts
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, NOW_MS, WALK, assert_prices_equal, at_level

ETH = ("ETHUSDT", MINUTE_MS)
NEWEST = (*ETH, NOW_MS - 20 * MINUTE_MS, NOW_MS)


@pytest.fixture
def settings(first: Venue, second: Venue, tmp_path: Path) -> Settings:
    return load_settings(
        market="binance",
        market_venues="binance,binanceus",
        binance_rest_urls=first.url,
        binance_archive_url=first.url,
        venue_urls=f"binanceus={second.url}",
        data_dir=str(tmp_path),
    )


def test_serving_goes_on_at_the_level_of_the_stored_klines(
    settings: Settings, first: Venue, second: Venue, clock: FakeClock
) -> None:
    """The second venue's folder is all there is: the first one, which tells the newest, is brought to its level."""
    stored = at_level(WALK, APART).between(0, NOW_MS - MINUTE_MS)
    KlineStore(settings.klines_dir / "binanceus").append("ETHUSDT", stored)
    tails, homes = read_warm_starts(settings.klines_dir, [ETH, ("SOLUSDT", MINUTE_MS)], settings.venues)
    assert homes == {"ETHUSDT": "binanceus"}
    market = market_from(settings, clock, topics=(), patience_s=0, homes=homes)
    market.remember("ETHUSDT", tails[ETH])
    assert_prices_equal(market.klines(*NEWEST), at_level(WALK, APART).tail(20))
    assert (market.home("ETHUSDT"), market.source(*ETH)) == ("binanceus", "binance")


def test_a_symbol_without_stored_klines_is_at_the_level_of_the_venue_that_answers(
    settings: Settings, first: Venue, clock: FakeClock
) -> None:
    first.handler = lambda path, query: Answer("sorry", 500)
    market = market_from(settings, clock, topics=(), patience_s=0)
    market.klines(*NEWEST)
    assert market.home("ETHUSDT") == "binanceus"
    assert not settings.klines_dir.exists()


def test_the_truth_venue_is_built_where_it_is_not_the_first(settings: Settings, clock: FakeClock) -> None:
    def named(name: str) -> str:
        truth = truth_venue_from(settings.model_copy(update={"truth_venue": name}), clock, Quarantine(), topics=())
        return truth.info.name if truth else ""

    assert [named(name) for name in ("", "binance", "kraken")] == ["", "", "kraken"]
    with pytest.raises(ConfigError, match="TRUTH_VENUE=atlas needs VENUE_KEYS"):
        named("atlas")
