"""How long a venue that fails is left alone, and what brings it back."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, SystemClock
from core.errors import MarketUnavailable
from market.failover.breaker import LONE_REST_MS, PROVEN_MS, UNPROVEN_MS
from market.failover.failover import Failover
from market.http.client import Hosts
from market.quarantine import Quarantine
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock, eventually
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import (
    APART,
    NOW_MS,
    at_level,
    broken,
    newest,
    two,
    works,
)


def test_a_rate_limit_is_waited_out_and_the_venue_is_back(first: Venue, market: Failover, clock: FakeClock) -> None:
    newest(market)
    first.scripted = [Answer("{}", 429, {"Retry-After": "30"})]
    newest(market)
    asked = len(first.requests)
    clock.time_ms += 29 * SECOND_MS
    newest(market)
    assert len(first.requests) == asked
    clock.time_ms += 2 * SECOND_MS
    newest(market)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert not market.faults


def test_rests_grow_while_another_venue_stands_in(first: Venue, market: Failover, clock: FakeClock) -> None:
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    asked_ms = []
    for _ in range(600):
        before = len(first.requests)
        newest(market)
        if len(first.requests) > before:
            asked_ms.append(clock.time_ms - NOW_MS)
        clock.time_ms += SECOND_MS
    rests = np.diff(asked_ms) / 1000
    assert list(rests[:6]) == [1, 2, 4, 8, 16, 32]
    assert set(rests[6:]) == {60}


def test_when_all_are_gone_each_is_tried_again_soon(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.handler = second.handler = broken(Answer("sorry", 500))
    for _ in range(60):
        with pytest.raises(MarketUnavailable, match="no venue has"):
            newest(market)
        clock.time_ms += SECOND_MS
    first.handler = works
    clock.time_ms += LONE_REST_MS
    assert len(newest(market)) == 20


def test_a_venue_that_hangs_holds_nobody_up(first: Venue, second: Venue) -> None:
    """With signs of life awaited: after the first time no question waits for it, and it is back when it answers."""
    clock = SystemClock()
    now_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    live = random_walk_klines(300, start_ms=now_ms - 300 * MINUTE_MS)
    first.add("ETHUSDT", live)
    second.add("ETHUSDT", at_level(live, APART))
    market = two(first, second, clock, awaits_life=True)
    try:
        newest(market, end_ms=now_ms)
        first.handler = broken(Answer("sorry", 503))
        newest(market, end_ms=now_ms)
        asked = len([path for path, _ in first.requests if path == "/api/v3/klines"])
        for _ in range(20):
            newest(market, end_ms=now_ms)
        assert len([path for path, _ in first.requests if path == "/api/v3/klines"]) == asked
        eventually(lambda: any(path == "/api/v3/time" for path, _ in first.requests), what="a look for a sign of life")
        first.handler = works

        def is_back() -> bool:
            newest(market, end_ms=now_ms)
            return market.source("ETHUSDT", MINUTE_MS) == "binance"

        eventually(is_back, timeout_s=5, what="the first venue's return")
    finally:
        market.stop()


def test_a_venue_that_knows_no_sign_of_life_is_asked_again_all_the_same(
    first: Venue, second: Venue, watched: Failover, clock: FakeClock
) -> None:
    """A mirror may serve candles and nothing else."""
    newest(watched)
    first.handler = lambda path, query: Answer("sorry", 404 if path == "/api/v3/time" else 503)
    newest(watched)
    first.handler = lambda path, query: Answer("sorry", 404) if path == "/api/v3/time" else None
    clock.time_ms += UNPROVEN_MS - 1
    newest(watched)
    assert watched.faults
    clock.time_ms += 1
    newest(watched)
    assert not watched.faults


def test_a_venue_that_has_given_signs_of_life_is_waited_for(
    first: Venue, second: Venue, watched: Failover, clock: FakeClock
) -> None:
    newest(watched)
    watched.clock_ahead_ms()
    first.handler = broken(Answer("sorry", 503))
    newest(watched)
    asked = len(first.asked("/api/v3/klines"))
    for _ in range(10):
        clock.time_ms += UNPROVEN_MS
        newest(watched)
    assert len(first.asked("/api/v3/klines")) == asked


@pytest.mark.parametrize("how", ["with another to stand in", "alone"])
def test_a_proven_venue_that_gives_no_sign_of_life_any_more_is_asked_again_some_day(
    first: Venue, second: Venue, watched: Failover, clock: FakeClock, how: str
) -> None:
    """It may be well, and only its path for signs of life gone."""
    newest(watched)
    watched.clock_ahead_ms()
    first.handler = broken(Answer("sorry", 503))
    newest(watched)
    if how == "alone":
        second.handler = broken(Answer("sorry", 503))
    first.handler = lambda path, query: Answer("sorry", 404) if path == "/api/v3/time" else None
    clock.time_ms += (UNPROVEN_MS if how == "alone" else PROVEN_MS) - 1
    if how == "alone":
        with pytest.raises(MarketUnavailable):
            newest(watched)
    else:
        newest(watched)
        assert watched.source("ETHUSDT", MINUTE_MS) == "binanceus"
    clock.time_ms += 1
    newest(watched)
    assert watched.source("ETHUSDT", MINUTE_MS) == "binance"


def test_a_venue_that_has_no_such_candles_stands_in_for_nobody(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """CoinGecko has no minutes: beside it alone the first venue is asked again as soon as one alone is."""
    market.venues[1]._offer = replace(market.venues[1].offer, intervals_ms=frozenset({HOUR_MS}))  # type: ignore[attr-defined]
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    for _ in range(10):
        asked = len(first.requests)
        with pytest.raises(MarketUnavailable):
            newest(market)
        assert len(first.requests) > asked
        clock.time_ms += LONE_REST_MS


def hosts_of(venue: Venue, clock: FakeClock) -> Hosts:
    return Hosts([venue.url], clock, timeout_s=1, patience_s=0, remedy="")


def test_a_rest_does_not_outlast_a_clock_that_is_set_back(venue: Venue, clock: FakeClock) -> None:
    hosts = hosts_of(venue, clock)
    venue.scripted = [Answer("{}", 429, {"Retry-After": "30"})]
    with pytest.raises(MarketUnavailable, match="429"):
        hosts.ask("/api/v3/time", {}, len)
    with pytest.raises(MarketUnavailable, match="left alone for 30 s"):
        hosts.ask("/api/v3/time", {}, len)
    clock.time_ms -= HOUR_MS
    assert hosts.ask("/api/v3/time", {}, len)


@pytest.mark.parametrize("asked_for", ["Wed, 15 Nov 2028 06:00:00 GMT", "999999999"])
def test_no_answer_makes_us_rest_for_more_than_a_day(venue: Venue, clock: FakeClock, asked_for: str) -> None:
    hosts = hosts_of(venue, clock)
    venue.scripted = [Answer("{}", 429, {"Retry-After": asked_for})]
    with pytest.raises(MarketUnavailable, match="429"):
        hosts.ask("/api/v3/time", {}, len)
    assert hosts.resting_until_ms == clock.time_ms + 24 * HOUR_MS


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(Answer("{}", 429, {"Retry-After": "30"}), "rate limited", id="limited"),
        pytest.param(Answer("no", 451), "HTTP 451", id="barred"),
    ],
)
def test_a_sign_of_life_is_not_looked_for_where_we_may_not_ask(
    venue: Venue, clock: FakeClock, answer: Answer, says: str
) -> None:
    """And one that is refused so tells the questions to stay away as well."""
    hosts = hosts_of(venue, clock)
    venue.scripted = [answer]
    assert not hosts.answers("/api/v3/time", 1)
    for _ in range(5):
        found = hosts.answers("/api/v3/time", 1)
        assert says in found.detail
    assert len(venue.requests) == 1
    assert hosts.asked_last_minute == 1
    clock.time_ms += 11 * MINUTE_MS
    assert hosts.answers("/api/v3/time", 1)


@pytest.mark.parametrize("alone", [True, False])
def test_a_venue_that_bars_its_signs_of_life_is_barred_and_not_gone(
    first: Venue, second: Venue, clock: FakeClock, alone: bool
) -> None:
    """Where nobody stands in it is asked again soon: it may be back, and a sign of life is not looked for meanwhile."""
    aside = Quarantine()
    venues = [
        Binance([venue.url], "", clock, patience_s=0, aside=aside, name=name)
        for venue, name in ((first, "binance"), (second, "binanceus"))
    ]
    market = Failover(venues[:1] if alone else venues, clock, aside)
    newest(market)
    first.handler = lambda path, query: Answer("sorry", 500) if "klines" in path else Answer("no", 403)
    with contextlib.suppress(MarketUnavailable):
        newest(market)
    eventually(lambda: {fault.state for fault in market.faults.values()} == {"barred"})
    first.handler = works
    asked = len(first.requests)
    for _ in range(4):
        clock.time_ms += SECOND_MS
        with contextlib.suppress(MarketUnavailable):
            newest(market)
    assert (len(first.requests) > asked) is alone
    assert market.source("ETHUSDT", MINUTE_MS) == ("binance" if alone else "binanceus")
    market.stop()


def test_of_a_venue_alone_a_host_that_tells_nothing_new_is_passed_over(
    first: Venue, second: Venue, clock: FakeClock
) -> None:
    whole = first.series["ETHUSDT", "1m"]
    second.add("ETHUSDT", whole)
    market = Failover(
        [Binance([first.url, second.url], "", clock, patience_s=0)], clock, Quarantine(), awaits_life=False
    )
    newest(market)
    assert not second.requests
    first.add("ETHUSDT", whole.between(0, NOW_MS - 10 * MINUTE_MS))
    assert newest(market).end_ms == NOW_MS
    asked = len(first.requests)
    assert newest(market).end_ms == NOW_MS
    assert len(first.requests) == asked
    second.handler = broken(Answer("sorry", 500))
    assert newest(market).end_ms == NOW_MS - 10 * MINUTE_MS  # what it has is better than nothing


def test_where_no_host_tells_anything_new_each_is_asked_once(first: Venue, second: Venue, clock: FakeClock) -> None:
    old = first.series["ETHUSDT", "1m"].between(0, NOW_MS - 10 * MINUTE_MS)
    for venue in (first, second):
        venue.add("ETHUSDT", old)
    market = Failover(
        [Binance([first.url, second.url], "", clock, patience_s=0)], clock, Quarantine(), awaits_life=False
    )
    for _ in range(30):
        assert newest(market).end_ms == old.end_ms
    asked, asked_again = first.asked("/api/v3/klines"), second.asked("/api/v3/klines")
    assert len(asked) == len(asked_again) / 30  # a question is two requests: what comes after is asked for
