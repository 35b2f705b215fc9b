"""How long a venue that fails is left alone, and what brings it back."""

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
from tests.fakes.venue_server import Answer
from tests.market.failover.pair import CANDLES, DOWN, NOW_MS, WALK, Stand, broken, works


def test_a_rate_limit_is_waited_out_and_the_venue_is_back(stand: Stand) -> None:
    stand.newest()
    stand.first.scripted = [Answer("{}", 429, {"Retry-After": "30"})]
    stand.newest()
    stand.wait(29)
    assert not stand.asks()
    stand.wait(2)
    stand.newest()
    assert stand.source == "binance"
    assert not stand.market.faults


def test_rests_grow_while_another_venue_stands_in(stand: Stand) -> None:
    stand.newest()
    stand.fail()
    asked_ms = []
    for _ in range(600):
        if stand.asks():
            asked_ms.append(stand.clock.time_ms - NOW_MS)
        stand.wait(1)
    rests = np.diff(asked_ms) / 1000
    assert list(rests[:6]) == [1, 2, 4, 8, 16, 32]
    assert set(rests[6:]) == {60}


def test_when_all_are_gone_each_is_tried_again_soon(stand: Stand) -> None:
    stand.newest()
    stand.first.handler = stand.second.handler = broken(DOWN)
    for _ in range(60):
        with pytest.raises(MarketUnavailable, match="no venue has"):
            stand.newest()
        stand.wait(1)
    stand.first.handler = works
    stand.wait(LONE_REST_S)
    assert len(stand.newest()) == 20


def test_a_venue_that_hangs_is_asked_by_one_question_after_each_rest(stand: Stand) -> None:
    """Each such question waits for as long as the venue's time limit; the others go to the next venue at once."""
    stand.newest()
    gone = threading.Event()
    stand.fail(Answer(hang_up=True, wait_for=gone))
    assert [stand.asks() for _ in range(10)] == [1] + 9 * [0]
    for rest_s in (1, 2, 4):
        stand.clock.time_ms += rest_s * SECOND_MS - 1
        assert not stand.asks()
        stand.clock.time_ms += 1
        assert [stand.asks() for _ in range(5)] == [1, 0, 0, 0, 0]
    gone.set()
    stand.first.handler = works
    stand.wait(8)
    stand.newest()
    assert stand.source == "binance"
    assert not stand.market.faults


def test_a_rest_is_as_long_when_the_clock_is_set(stand: Stand) -> None:
    stand.newest()
    stand.fail(Answer("no", 451))
    stand.newest()
    stand.first.handler = works
    for by_ms in (HOUR_MS, -3 * HOUR_MS, 2 * HOUR_MS):
        stand.clock.set_wall(by_ms)
        assert not stand.asks()
    stand.wait(BARRED_REST_S)
    assert stand.asks()


@pytest.mark.parametrize("alone", [True, False])
def test_a_venue_that_bars_us_is_left_alone_for_long_only_where_another_stands_in(
    stand: Stand, lone: Stand, alone: bool
) -> None:
    stand = lone if alone else stand
    stand.newest()
    stand.fail(Answer("no", 403))
    stand.asks()
    assert {fault.state for fault in stand.market.faults.values()} == {"barred"}
    stand.first.handler = works
    stand.wait(4)
    assert bool(stand.asks()) is alone
    assert stand.source == ("binance" if alone else "binanceus")


def test_a_venue_that_has_no_such_candles_stands_in_for_nobody(stand: Stand) -> None:
    """Beside a venue without minutes the first one is asked again as soon as a venue alone is."""
    stand.venues[1]._info = replace(stand.venues[1].info, intervals_ms=frozenset({HOUR_MS}))
    stand.newest()
    stand.fail()
    for _ in range(10):
        asked = len(stand.first.requests)
        with pytest.raises(MarketUnavailable):
            stand.newest()
        assert len(stand.first.requests) > asked
        stand.wait(LONE_REST_S)


@pytest.fixture
def hosts(lone: Stand) -> Stand:
    """One venue alone, which has the two servers as its hosts."""
    lone.second.add("ETHUSDT", WALK)
    venue = Binance([lone.first.url, lone.second.url], "", lone.clock, patience_s=0)
    lone.market = Failover([venue], lone.clock, Quarantine())
    return lone


OLD = WALK.between(0, NOW_MS - 10 * MINUTE_MS)


def test_of_a_venue_alone_a_host_that_tells_nothing_new_is_passed_over(hosts: Stand) -> None:
    hosts.newest()
    assert not hosts.second.requests
    hosts.first.add("ETHUSDT", OLD)
    assert hosts.newest().end_ms == NOW_MS
    assert not hosts.asks()
    assert hosts.newest().end_ms == NOW_MS
    hosts.second.handler = broken(DOWN)
    assert hosts.newest().end_ms == OLD.end_ms  # what it has is better than nothing


def test_where_no_host_tells_anything_new_each_is_asked_once(hosts: Stand) -> None:
    for venue in (hosts.first, hosts.second):
        venue.add("ETHUSDT", OLD)
    for _ in range(30):
        assert hosts.newest().end_ms == OLD.end_ms
    asked, asked_again = hosts.first.asked(CANDLES), hosts.second.asked(CANDLES)
    assert len(asked) == len(asked_again) / 30  # a question is two requests: what comes after is asked for
