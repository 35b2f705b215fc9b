"""One venue per folder: which venue is a symbol's home, when the home moves, and what a reader sees meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, MarketUnavailable, UnknownSymbol
from klines.klines import Klines
from market.quarantine import Quarantine
from market.store.home import HOMES, read_homes
from market.store.home_store import HomeStore
from market.store.home_sync import HomeSync
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport
from market.store.warm_start import read_warm_starts
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, at_level

WALK = random_walk_klines(6 * 1440)
HOURS = WALK.resample(HOUR_MS)
NOW_MS = START_MS + 4 * DAY_MS + 617 * MINUTE_MS
SERIES = [("ETHUSDT", MINUTE_MS, START_MS), ("ETHUSDT", HOUR_MS, START_MS)]


class Stand:
    """Two venues of one market, the second a little dearer, and a store that is synced from them."""

    def __init__(self, folder: Path, first: Venue, second: Venue) -> None:
        self.servers, self.clock, self.root = {"binance": first, "binanceus": second}, FakeClock(NOW_MS), folder
        for interval in (WALK, HOURS):
            first.add("ETHUSDT", interval)
            second.add("ETHUSDT", at_level(interval, APART))
        self.restart()

    def restart(self, *line: str) -> None:
        """A new process, with another MARKET_VENUES perhaps."""
        quarantine, names = Quarantine(), line or tuple(self.servers)
        urls = {name: self.servers[name].url for name in names}
        venues = [
            Binance([url], "", self.clock, patience_s=0, quarantine=quarantine, name=name) for name, url in urls.items()
        ]
        self.store = HomeStore(self.root, names)
        self.keeper = HomeSync(self.store, venues, quarantine, self.clock)

    def sync(self, hours: float = 0) -> list[SyncReport]:
        self.clock.sleep(hours * 3600)
        return self.keeper.sync(SERIES, self.clock.now_ms())

    def bar(self, name: str, answer: Answer | None) -> None:
        self.servers[name].handler = lambda path, query: answer

    def truth(self, name: str, whole: Klines = WALK) -> Klines:
        end_ms = self.clock.now_ms() // whole.interval_ms * whole.interval_ms
        true = whole.between(START_MS, end_ms)
        return true if name == "binance" else at_level(true, APART)

    def assert_home(self, name: str) -> None:
        """Every stored row of the symbol is of one venue, up to now."""
        assert self.store.home("ETHUSDT") == name
        for whole in (WALK, HOURS):
            assert_same(self.store.read("ETHUSDT", whole.interval_ms, 0, 2**62), self.truth(name, whole))
        tails, homes = read_warm_starts(self.root, [("ETHUSDT", MINUTE_MS)], ("binance",))
        assert homes == {"ETHUSDT": name}
        newest = tails["ETHUSDT", MINUTE_MS]
        assert_same(newest, self.truth(name).between(int(newest.open_time_ms[0]), newest.end_ms))


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with Venue().running() as first, Venue().running() as second:
        yield Stand(tmp_path / "klines", first, second)


AWAY = Answer("barred", 451)
EMPTY = Answer("[]")
UNKNOWN = Answer('{"code":-1121,"msg":"Invalid symbol."}', 400)


def test_the_first_venue_that_answers_is_the_home(stand: Stand) -> None:
    assert [report.failure for report in stand.sync()] == [None, None]
    stand.assert_home("binance")
    assert stand.servers["binanceus"].requests == []
    assert stand.store.series() == [("ETHUSDT", MINUTE_MS), ("ETHUSDT", HOUR_MS)]
    assert read_homes(stand.root) == {"ETHUSDT": "binance"}


@pytest.mark.parametrize("answer", [AWAY, EMPTY, UNKNOWN], ids=["away", "without candles", "unknown there"])
def test_a_venue_that_cannot_tell_a_symbol_leaves_it_to_the_next_until_it_can(stand: Stand, answer: Answer) -> None:
    stand.bar("binance", answer)
    assert [report.venue for report in stand.sync()] == ["binanceus", "binanceus"]
    stand.assert_home("binanceus")
    stand.sync(hours=1)
    stand.assert_home("binanceus")  # still away
    stand.bar("binance", None)
    asked = len(stand.servers["binance"].requests)
    stand.sync(hours=0.5)
    assert len(stand.servers["binance"].requests) == asked  # asked once an hour
    with capture_logs() as lines:
        assert [report.venue for report in stand.sync(hours=0.5)] == ["binance", "binance"]
    stand.assert_home("binance")
    (moved,) = [line for line in lines if line["event"] == "home_venue_changed"]
    assert (moved["before"], moved["venue"]) == ("binanceus", "binance")
    stand.sync(hours=1)
    stand.assert_home("binance")


def test_a_home_that_is_away_for_hours_keeps_its_hole_and_fills_it(stand: Stand) -> None:
    stand.sync()
    stand.bar("binance", AWAY)
    for _ in range(3):
        assert all(isinstance(report.failure, MarketUnavailable) for report in stand.sync(hours=2))
    assert stand.servers["binanceus"].requests == []
    assert stand.store.home("ETHUSDT") == "binance"
    stand.bar("binance", None)
    stand.sync()
    stand.assert_home("binance")


def test_a_home_that_is_away_for_more_than_a_day_gives_way_and_comes_back(stand: Stand) -> None:
    stand.sync()
    stand.bar("binance", AWAY)
    stand.sync(hours=25)
    stand.assert_home("binanceus")
    stand.bar("binance", None)
    stand.sync(hours=1)
    stand.assert_home("binance")


def test_a_better_venue_of_less_history_does_not_become_the_home(stand: Stand) -> None:
    """As of a pair that the first venue has just listed."""
    stand.bar("binance", UNKNOWN)
    stand.sync()
    stand.bar("binance", None)
    listed_ms = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
    for whole in (WALK, HOURS):
        stand.servers["binance"].add("ETHUSDT", whole.between(listed_ms, 2**62))
    stand.sync(hours=1)
    stand.assert_home("binanceus")
    assert stand.store.of("binance").first("ETHUSDT", MINUTE_MS) == listed_ms


def test_a_fill_that_is_broken_off_moves_no_home_and_goes_on(stand: Stand) -> None:
    stand.bar("binance", AWAY)
    stand.sync()
    left = 2

    def fails_later(path: str, query: dict[str, str]) -> Answer | None:
        nonlocal left
        left -= 1
        return None if left >= 0 else AWAY

    stand.servers["binance"].handler = fails_later
    assert [report.failure for report in stand.sync(hours=1)] == [None, None]
    stand.assert_home("binanceus")
    stand.bar("binance", None)
    stand.restart()
    stand.sync()
    stand.assert_home("binance")


def test_with_every_venue_away_the_first_one_s_reason_is_told(stand: Stand) -> None:
    for name in stand.servers:
        stand.bar(name, AWAY)
    assert all("451" in str(report.failure) for report in stand.sync())
    assert [report.venue for report in stand.sync()] == ["binance", "binance"]
    stand.bar("binanceus", None)
    stand.sync()
    stand.assert_home("binanceus")  # what has no home is asked for at every sync


def test_a_venue_that_is_not_in_use_any_more_gives_way(stand: Stand) -> None:
    stand.sync()
    stand.restart("binanceus")
    stand.sync()
    stand.assert_home("binanceus")


def test_a_short_history_is_the_last_resort_and_stays_once_it_is_long(stand: Stand) -> None:
    first = next(iter(stand.keeper._venues.values()))
    object.__setattr__(first.info, "history_rows", 48)
    stand.sync()
    stand.assert_home("binanceus")
    stand.bar("binanceus", AWAY)
    stand.sync(hours=25)
    stand.assert_home("binance")  # rather than nothing


def test_a_damaged_pointer_is_said_and_the_folders_decide(stand: Stand) -> None:
    stand.bar("binance", AWAY)
    stand.sync()
    (stand.root / HOMES).write_text("[]")
    with capture_logs() as lines:
        assert stand.store.home("ETHUSDT") == "binanceus"
    assert {line["event"] for line in lines} == {"homes_file_skipped"}
    stand.bar("binance", None)
    stand.sync(hours=1)
    stand.assert_home("binance")


def test_one_series_that_fails_stops_no_other(stand: Stand) -> None:
    stand.servers["binance"].add("BTCUSDT", WALK)
    series = [("NOUSDT", MINUTE_MS), ("../X", MINUTE_MS), ("SOLUSDT", 7), ("BTCUSDT", MINUTE_MS)]
    seen: list[tuple[int, int]] = []
    wanted = [(*one, START_MS) for one in series]
    reports = stand.keeper.sync(wanted, NOW_MS, lambda done, total: seen.append((done, total)))
    assert [(report.symbol, report.interval_ms) for report in reports] == series
    assert [type(report.failure) for report in reports] == [UnknownSymbol, ConfigError, ConfigError, type(None)]
    assert seen[-1][0] == seen[-1][1]
    assert_same(stand.store.read("BTCUSDT", MINUTE_MS, 0, 2**62), stand.truth("binance"))


def test_a_symbol_without_klines_is_read_as_empty(tmp_path: Path) -> None:
    store = HomeStore(tmp_path / "klines", ("kraken", "binance"))
    assert store.home("ETHUSDT") == "kraken"
    assert not len(store.read("ETHUSDT", MINUTE_MS, 0, 2**62))
    assert (store.latest("ETHUSDT", MINUTE_MS), store.first("ETHUSDT", MINUTE_MS), store.series()) == (None, None, [])
    KlineStore(store.root / "coinbase").append("ETHUSDT", WALK.tail(3))
    assert store.home("ETHUSDT") == "kraken"  # another venue's folder, such as TRUTH_VENUE's, is no home
    assert HomeStore(store.root).home("ETHUSDT") == "coinbase"  # where nobody names the venues
    assert [folder.root.name for folder in store.folders()] == ["coinbase"]
