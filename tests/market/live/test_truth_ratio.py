"""The ratio of the truth venue to the serving one, from two servers on loopback."""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from core.clock import MINUTE_MS, SystemClock
from core.errors import MarketUnavailable
from klines.klines import Floats
from market.failover.failover import Failover
from market.live.truth_ratio import MOST_AGE_MS, MOST_NOISE, TruthFeed
from market.price_ratio import WINDOW_ROWS
from market.quarantine import Quarantine
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import at_level

ROWS = 300
LONG = random_walk_klines(2 * ROWS)
NOW_MS = START_MS + ROWS * MINUTE_MS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def servers() -> Iterator[tuple[Venue, Venue]]:
    with Venue().running() as serving, Venue().running() as truth:
        serving.add("ETHUSDT", LONG)
        truth.add("ETHUSDT", at_level(LONG, 1.0005))
        yield serving, truth


def feed_of(servers: tuple[Venue, Venue], clock: FakeClock | SystemClock) -> TruthFeed:
    serving, truth = (Binance([server.url], "", clock, patience_s=0) for server in servers)
    return TruthFeed(truth, Failover([serving], clock, Quarantine()), ["ETHUSDT"], clock)


def test_the_ratio_follows_the_newest_minutes(servers: tuple[Venue, Venue], clock: FakeClock) -> None:
    feed = feed_of(servers, clock)
    assert feed.ratio("ETHUSDT", NOW_MS) is None
    feed.look("ETHUSDT")
    assert feed.ratio("ETHUSDT", NOW_MS).value == pytest.approx(1.0005)  # type: ignore[union-attr]
    servers[1].add("ETHUSDT", at_level(LONG, 1.001))
    for _ in range(60):
        clock.time_ms += MINUTE_MS
        feed.look("ETHUSDT")
    assert feed.ratio("ETHUSDT", clock.time_ms).value == pytest.approx(1.001)  # type: ignore[union-attr]


def test_a_ratio_grows_old_and_is_then_not_used(servers: tuple[Venue, Venue], clock: FakeClock) -> None:
    feed = feed_of(servers, clock)
    feed.look("ETHUSDT")
    servers[1].handler = lambda path, query: Answer("gone", 500)
    with pytest.raises(MarketUnavailable):
        feed.look("ETHUSDT")
    assert feed.ratio("ETHUSDT", NOW_MS + MOST_AGE_MS) is not None
    assert feed.ratio("ETHUSDT", NOW_MS + MOST_AGE_MS + 1) is None
    assert feed.ratio("ETHUSDT", NOW_MS - 60 * MINUTE_MS) is None  # the clock was set back


def test_minutes_are_asked_for_once_corrected_ones_again_and_no_more_are_kept(
    servers: tuple[Venue, Venue], clock: FakeClock
) -> None:
    feed = feed_of(servers, clock)
    feed.look("ETHUSDT")
    for minutes in range(1, 200):
        clock.time_ms += MINUTE_MS
        asked = len(servers[1].asked("/api/v3/klines"))
        feed.look("ETHUSDT")
        (query,) = servers[1].asked("/api/v3/klines")[asked:]
        assert clock.time_ms - int(query["startTime"]) == 6 * MINUTE_MS
        ratio = feed.ratio("ETHUSDT", clock.time_ms)
        assert ratio is not None
        assert (ratio.rows, ratio.newest_ms) == (min(90 + minutes, WINDOW_ROWS), clock.time_ms)
    clock.set_wall(-60 * MINUTE_MS)  # minutes of the future do not count
    feed.look("ETHUSDT")
    assert feed.ratio("ETHUSDT", clock.time_ms).newest_ms == clock.time_ms  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("ratio", "used"),
    [
        pytest.param(np.exp(0.8 * MOST_NOISE * (np.arange(len(LONG)) % 3 - 1)), True, id="a little noise"),
        pytest.param(np.exp(1.3 * MOST_NOISE * (np.arange(len(LONG)) % 3 - 1)), False, id="more noise"),
        pytest.param(1.2, False, id="not the same thing"),
        pytest.param(0.9, False, id="a depeg"),
    ],
)
def test_a_ratio_that_errs_by_more_than_none_does_is_not_used(
    servers: tuple[Venue, Venue], clock: FakeClock, ratio: float | Floats, used: bool
) -> None:
    servers[1].add("ETHUSDT", at_level(LONG, ratio))
    feed = feed_of(servers, clock)
    feed.look("ETHUSDT")
    assert (feed.ratio("ETHUSDT", NOW_MS) is not None) is used


def test_its_thread_says_what_fails_and_goes_on(servers: tuple[Venue, Venue]) -> None:
    clock = SystemClock()
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    live = random_walk_klines(200, start_ms=end_ms - 200 * MINUTE_MS)
    servers[0].add("ETHUSDT", live)
    servers[1].add("ETHUSDT", at_level(live, 1.0005))
    servers[1].handler = lambda path, query: Answer("gone", 500)
    with ExitStack() as ending:
        feed = feed_of(servers, clock)
        ending.callback(feed.stop, 1.0)
        feed.start()
        eventually(lambda: "500" in feed.fault("ETHUSDT"), what="the fault")
        servers[1].handler = lambda path, query: None
        again = feed_of(servers, clock)
        ending.callback(again.stop, 1.0)
        again.start()
        eventually(lambda: again.ratio("ETHUSDT", clock.now_ms()) is not None, what="the ratio")
        assert again.fault("ETHUSDT") == ""
