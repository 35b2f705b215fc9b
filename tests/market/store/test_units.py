"""A file of an archive in another unit, sound in itself and with a checksum that fits, does not stay in the store."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from klines.spans import Span, month_span
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport, sync_series
from market.venue import MarketData
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, at_level

FIRST_MS = 1_696_118_400_000  # 2023-10-01
START_MS, NOW_MS = FIRST_MS + 22 * DAY_MS, FIRST_MS + 30 * DAY_MS + 617 * MINUTE_MS + 30_000
END_MS = NOW_MS // MINUTE_MS * MINUTE_MS
WALK = random_walk_klines((NOW_MS - FIRST_MS) // MINUTE_MS + 60, start_ms=FIRST_MS)


def day(number: int) -> Span:
    """A day of that October."""
    return FIRST_MS + (number - 1) * DAY_MS, FIRST_MS + number * DAY_MS


@lru_cache  # a venue makes its files of a series once
def times(klines: Klines, factor: float, *spans: Span) -> Klines:
    """The same with the prices of some days in another unit."""
    inside = np.zeros(len(klines), np.bool_)
    for start, end in spans:
        inside |= (klines.open_time_ms >= start) & (klines.open_time_ms < end)
    columns = {name: np.where(inside, getattr(klines, name) * factor, getattr(klines, name)) for name in PRICE_COLUMNS}
    return replace(klines, **columns)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture(params=["one of many", "two of many"])
def market(request: pytest.FixtureRequest, venue: Venue, clock: FakeClock) -> Iterator[MarketData]:
    """A venue's archives and REST, alone or before a venue that is a little dearer; what they say is up to the test."""
    venue.add("ETHUSDT", WALK)
    aside = Quarantine()
    first = Binance([venue.url], venue.url, clock, patience_s=0, aside=aside)
    with Venue().running() as other:
        other.add("ETHUSDT", at_level(WALK, APART))
        second = Binance([other.url], "", clock, patience_s=0, aside=aside, name="binanceus")
        venues = [first, second] if request.param == "two of many" else [first]
        yield Failover(venues, clock, aside, awaits_life=False)


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    return KlineStore(tmp_path / "klines")


def archived(venue: Venue, klines: Klines, *, rest: bool) -> None:
    """Let the archives have other klines than REST, which may be barred."""

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        venue.series["ETHUSDT", "1m"] = klines if path.startswith("/data/") else WALK
        return Answer("barred", 451) if path.startswith("/api/") and not rest else None

    venue.handler = handle


def minutes(store: KlineStore, market: MarketData, start_ms: int = START_MS) -> SyncReport:
    return sync_series(store, market, "ETHUSDT", MINUTE_MS, start_ms, NOW_MS)


def assert_holds(store: KlineStore, missing: Sequence[Span]) -> None:
    """The true series but for some spans."""
    found = store.read("ETHUSDT", MINUTE_MS, 0, 2**62)
    inside = (WALK.open_time_ms >= START_MS) & (WALK.open_time_ms < END_MS)
    for start, end in missing:
        inside &= ~((WALK.open_time_ms >= start) & (WALK.open_time_ms < end))
    found = found.between(START_MS, END_MS)
    np.testing.assert_array_equal(found.open_time_ms, WALK.open_time_ms[inside])
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(found, name), getattr(WALK, name)[inside], rtol=0, atol=1e-8)


ODD = {
    "a day and two": [day(24), day(26), day(27)],
    "the oldest": [day(23)],
    "the newest": [day(30)],
}


@pytest.mark.parametrize(
    ("spans", "factor"),
    [*(pytest.param(spans, 100.0, id=name) for name, spans in ODD.items()), ([day(24)], 0.01), ([day(24)], 2.2)],
)
def test_days_in_another_unit_come_by_rest(
    venue: Venue, store: KlineStore, market: MarketData, spans: list[Span], factor: float
) -> None:
    archived(venue, times(WALK, factor, *spans), rest=True)
    report = minutes(store, market)
    assert (report.failure, report.gaps) == (None, ())
    assert_holds(store, [])


@pytest.mark.parametrize("spans", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("market", ["one of many"], indirect=True)
def test_where_nobody_can_be_asked_most_days_are_right(
    venue: Venue, store: KlineStore, market: MarketData, clock: FakeClock, spans: list[Span]
) -> None:
    archived(venue, times(WALK, 100, *spans), rest=False)
    today = (day(31)[0], END_MS)
    for _ in range(2):
        minutes(store, market)
        assert_holds(store, [*spans, today])
    archived(venue, times(WALK, 100, *spans), rest=True)
    clock.sleep(HOUR_MS / 1000)
    assert minutes(store, market).gaps == ()
    assert_holds(store, [])


@pytest.mark.parametrize("spans", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("market", ["two of many"], indirect=True)
def test_where_another_venue_can_be_asked_its_klines_stand_in(
    venue: Venue, store: KlineStore, market: MarketData, clock: FakeClock, spans: list[Span]
) -> None:
    archived(venue, times(WALK, 100, *spans), rest=False)
    minutes(store, market)
    clock.sleep(HOUR_MS / 1000)
    assert minutes(store, market).gaps == ()
    found, true = store.read("ETHUSDT", MINUTE_MS, START_MS, END_MS), WALK.between(START_MS, END_MS)
    np.testing.assert_array_equal(found.open_time_ms, true.open_time_ms)
    np.testing.assert_allclose(found.close, true.close, rtol=1e-6)


def test_most_of_the_days_in_another_unit_come_by_rest(venue: Venue, store: KlineStore, market: MarketData) -> None:
    archived(venue, times(WALK, 100, (0, day(29)[0])), rest=True)
    assert minutes(store, market).gaps == ()
    assert_holds(store, [])


@pytest.mark.parametrize("of", ["every day", "yesterday alone"])
def test_where_all_there_is_is_of_another_unit_rest_says_so(
    venue: Venue, store: KlineStore, market: MarketData, of: str
) -> None:
    """Nothing leaps then."""
    start_ms = START_MS if of == "every day" else day(30)[0]
    archived(venue, times(WALK, 100, (0, 2**62)), rest=True)
    for _ in range(2):
        assert minutes(store, market, start_ms).gaps == ()
    assert_holds(store, [(0, start_ms)])


def test_a_fall_that_rest_repeats_stays_and_stops_nothing(
    venue: Venue, store: KlineStore, market: MarketData, clock: FakeClock
) -> None:
    """At the edge of a file; within one nobody but a second venue could make it believable."""
    fallen = times(WALK, 0.3, (day(26)[0], 2**62))
    venue.add("ETHUSDT", fallen)
    for later_ms in (0, 5 * MINUTE_MS, HOUR_MS):
        report = sync_series(store, market, "ETHUSDT", MINUTE_MS, START_MS, clock.now_ms())
        assert (report.gaps, report.failure) == ((), None)
        found = store.read("ETHUSDT", MINUTE_MS, START_MS, 2**62)
        end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
        np.testing.assert_allclose(found.close, fallen.between(START_MS, end_ms).close, rtol=0, atol=1e-8)
        assert market.source("ETHUSDT", MINUTE_MS) in {"", "binance"}
        venue.requests.clear()
        clock.time_ms = NOW_MS + later_ms
    assert not venue.asked("/data/")


def test_beside_a_hole_only_the_file_goes(venue: Venue, store: KlineStore, market: MarketData) -> None:
    """Over it a leap may be as far as tenfold; what was stored before, and would not be fetched again, stays."""
    hole = day(25)[1] - 15 * MINUTE_MS, day(25)[1]
    true = WALK.between(0, hole[0]).merge(WALK.between(hole[1], 2**62))
    store.append("ETHUSDT", true.between(0, day(26)[0]))
    archived(venue, times(true, 10, day(26)), rest=True)
    sync_series(store, market, "ETHUSDT", MINUTE_MS, day(26)[0], NOW_MS)
    found, end_ms = store.read("ETHUSDT", MINUTE_MS, 0, 2**62), NOW_MS // MINUTE_MS * MINUTE_MS
    np.testing.assert_allclose(found.close, true.between(0, end_ms).close, rtol=0, atol=1e-8)


def test_the_days_of_a_month_in_another_unit_are_tried(
    venue: Venue, store: KlineStore, market: MarketData, clock: FakeClock
) -> None:
    clock.time_ms = FIRST_MS + 33 * DAY_MS
    whole = random_walk_klines(33 * 1440, start_ms=FIRST_MS)
    odd = times(whole, 100, (0, day(32)[0]))

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        venue.series["ETHUSDT", "1m"] = odd if "/monthly/" in path else whole
        few = int(query.get("endTime", 0)) - int(query.get("startTime", 0)) < 30 * MINUTE_MS
        return None if few or not path.startswith("/api/") else Answer("busy", 503)

    venue.handler = handle
    sync_series(store, market, "ETHUSDT", MINUTE_MS, FIRST_MS, clock.now_ms())
    found = store.read("ETHUSDT", MINUTE_MS, *month_span(FIRST_MS))
    np.testing.assert_allclose(found.close, whole.between(*month_span(FIRST_MS)).close, rtol=0, atol=1e-8)


def test_what_a_kill_left_unlooked_at_is_found_by_the_next_sync(
    venue: Venue, store: KlineStore, market: MarketData
) -> None:
    """Files are stored as they arrive; the kill comes before they are compared."""
    store.append("ETHUSDT", times(WALK, 100, day(26)).between(START_MS, END_MS - 5 * MINUTE_MS))
    assert minutes(KlineStore(store.root), market).gaps == ()
    assert_holds(store, [])


def test_klines_of_before_stay_where_nobody_can_be_asked(venue: Venue, store: KlineStore, market: MarketData) -> None:
    """They may be of a person's own file, and are not to be had again."""
    before = times(WALK, 100, day(26)).between(START_MS, END_MS - 5 * MINUTE_MS)
    store.append("ETHUSDT", before)
    archived(venue, WALK, rest=False)
    minutes(store, market)
    assert len(store.read("ETHUSDT", MINUTE_MS, *day(26))) == 1440


@pytest.mark.parametrize("market", ["one of many"], indirect=True)
def test_the_tail_for_serving_follows(venue: Venue, store: KlineStore, market: MarketData) -> None:
    archived(venue, times(WALK, 100, day(30)), rest=False)
    minutes(store, market)
    assert store.tail_fault("ETHUSDT", MINUTE_MS) == ""
    assert store.latest("ETHUSDT", MINUTE_MS) == day(30)[0] - MINUTE_MS


def test_removing_leaves_all_else(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    assert store.remove("ETHUSDT", MINUTE_MS, (day(26)[0] + 7 * MINUTE_MS, day(29)[1])) == 4 * 1440 - 7
    kept = [WALK.between(0, day(26)[0] + 7 * MINUTE_MS), WALK.between(day(29)[1], 2**62)]
    np.testing.assert_array_equal(
        store.read("ETHUSDT", MINUTE_MS, 0, 2**62).close, np.concatenate([one.close for one in kept])
    )
    assert store.remove("ETHUSDT", MINUTE_MS, (0, 2**62)) == len(WALK) - (4 * 1440 - 7)
    assert store.latest("ETHUSDT", MINUTE_MS) is None
    assert store.remove("ETHUSDT", MINUTE_MS, (0, 2**62)) == 0
