"""How long a venue that fails is left alone, and what brings it back."""

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MarketUnavailable
from market.failover.breaker import BARRED_REST_S, LONE_REST_S
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import NOW_MS, broken, newest, two, works


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
    clock.time_ms += round(LONE_REST_S * SECOND_MS)
    assert len(newest(market)) == 20


def test_a_venue_that_hangs_is_asked_by_one_question_after_each_rest(first: Venue, second: Venue) -> None:
    """Each such question waits for as long as the venue's time limit; the others go to the next venue at once."""
    clock = FakeClock(NOW_MS)
    market = two(first, second, clock)
    newest(market)
    gone = threading.Event()
    first.handler = broken(Answer(hang_up=True, wait_for=gone))
    asked = len(first.requests)
    for _ in range(10):
        newest(market)
    assert len(first.requests) == asked + 1
    for rest_s in (1, 2, 4):
        clock.time_ms += rest_s * SECOND_MS - 1
        newest(market)
        clock.time_ms += 1
        asked = len(first.requests)
        for _ in range(5):
            newest(market)
        assert len(first.requests) == asked + 1
    gone.set()
    first.handler = works
    clock.time_ms += 8 * SECOND_MS
    newest(market)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert not market.faults


def test_a_rest_is_as_long_when_the_clock_is_set(first: Venue, market: Failover, clock: FakeClock) -> None:
    newest(market)
    first.handler = broken(Answer("no", 451))
    newest(market)
    first.handler = works
    asked = len(first.requests)
    for by_ms in (HOUR_MS, -3 * HOUR_MS, 2 * HOUR_MS):
        clock.set_wall(by_ms)
        newest(market)
    assert len(first.requests) == asked
    clock.time_ms += round(BARRED_REST_S * SECOND_MS)
    newest(market)
    assert len(first.requests) > asked


@pytest.mark.parametrize("alone", [True, False])
def test_a_venue_that_bars_us_is_left_alone_for_long_only_where_another_stands_in(
    first: Venue, second: Venue, clock: FakeClock, alone: bool
) -> None:
    venues = two(first, second, clock).venues
    market = Failover(venues[:1] if alone else venues, clock, Quarantine())
    newest(market)
    first.handler = broken(Answer("no", 403))
    with contextlib.suppress(MarketUnavailable):
        newest(market)
    assert {fault.state for fault in market.faults.values()} == {"barred"}
    first.handler = works
    asked = len(first.requests)
    clock.time_ms += 4 * SECOND_MS
    newest(market)
    assert (len(first.requests) > asked) is alone
    assert market.source("ETHUSDT", MINUTE_MS) == ("binance" if alone else "binanceus")


def test_a_venue_that_has_no_such_candles_stands_in_for_nobody(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Beside a venue without minutes the first one is asked again as soon as a venue alone is."""
    market.venues[1]._offer = replace(market.venues[1].offer, intervals_ms=frozenset({HOUR_MS}))  # type: ignore[attr-defined]
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    for _ in range(10):
        asked = len(first.requests)
        with pytest.raises(MarketUnavailable):
            newest(market)
        assert len(first.requests) > asked
        clock.time_ms += round(LONE_REST_S * SECOND_MS)


def test_of_a_venue_alone_a_host_that_tells_nothing_new_is_passed_over(
    first: Venue, second: Venue, clock: FakeClock
) -> None:
    whole = first.series["ETHUSDT", "1m"]
    second.add("ETHUSDT", whole)
    market = Failover([Binance([first.url, second.url], "", clock, patience_s=0)], clock, Quarantine())
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
    market = Failover([Binance([first.url, second.url], "", clock, patience_s=0)], clock, Quarantine())
    for _ in range(30):
        assert newest(market).end_ms == old.end_ms
    asked, asked_again = first.asked("/api/v3/klines"), second.asked("/api/v3/klines")
    assert len(asked) == len(asked_again) / 30  # a question is two requests: what comes after is asked for
