"""Hosts of a venue: which one is asked, how long is waited, and which fault is raised."""

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from core.clock import HOUR_MS, SystemClock
from core.errors import MalformedKlines, MarketUnavailable
from market.http.client import PROBATION_MS, HostPool, json_of
from market.http.errors import Blocked, Refused
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.net import nobody
from tests.fakes.venue_server import Answer, Venue

NOW_MS = START_MS
PATH = "/anything"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


def well(path: str, query: dict[str, str]) -> Answer:
    return Answer("[1]")


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.handler = well
    return venue


@pytest.fixture
def second() -> Iterator[Venue]:
    with Venue().running() as running:
        running.handler = well
        yield running


def pool_of(clock: FakeClock | SystemClock, *venues: Venue | str, **options: Any) -> HostPool:
    urls = [venue if isinstance(venue, str) else venue.url for venue in venues]
    waits: dict[str, Any] = {"timeout_s": 10.0, "patience_s": 60.0}
    return HostPool(urls, clock, remedy="set URLS", **waits | options)


def ask(pool: HostPool) -> object:
    return pool.ask(PATH, {}, parse)


def parse(body: bytes) -> list[object]:
    value = json_of(body)
    if not isinstance(value, list):
        raise MalformedKlines(f"must be a list, was {value!r:.60}")
    return value


PASSED_OVER = [
    pytest.param(Answer("sorry", 500), id="500"),
    pytest.param(Answer("sorry", 503), id="503"),
    pytest.param(Answer("<html>no</html>", 403), id="403"),
    pytest.param(Answer('{"code":0,"msg":"Service unavailable from a restricted location"}', 451), id="451"),
    pytest.param(Answer("<html>log in</html>"), id="a page"),
    pytest.param(Answer('{"msg":"maintenance"}'), id="an object"),
    pytest.param(Answer("[1]", cut=True), id="cut off"),
    pytest.param(Answer("[1]", cut=True, chunked=True), id="cut off between chunks"),
    pytest.param(Answer("{}", 302, {"Location": "http://127.0.0.1:1/"}), id="sent elsewhere"),
    pytest.param(Answer("[]", headers={"Content-Encoding": "gzip"}), id="not gzip"),
    pytest.param(Answer("no such page", 404), id="404"),
    pytest.param(Answer(hang_up=True), id="hung up"),
]


@pytest.mark.parametrize("answer", PASSED_OVER)
def test_a_host_that_fails_is_passed_over_without_waiting(
    venue: Venue, second: Venue, clock: FakeClock, answer: Answer
) -> None:
    venue.handler = lambda path, query: answer
    pool = pool_of(clock, venue, second)
    assert ask(pool) == [1]
    assert clock.slept_s == []
    asked = len(venue.requests)
    clock.set_wall(-HOUR_MS)
    ask(pool)
    assert len(venue.requests) == asked  # the host that worked is asked first now, whatever the wall clock says
    clock.sleep(PROBATION_MS / 1000)
    venue.handler = well
    ask(pool)
    ask(pool)
    assert len(venue.requests) == asked + 2  # the first host is back
    assert len(second.requests) == 2


def test_a_host_that_is_not_there_or_does_not_answer_in_time_is_passed_over(
    venue: Venue, second: Venue, clock: FakeClock
) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("[]", wait_for=enough)
    assert ask(pool_of(clock, nobody(), venue, second, timeout_s=0.2)) == [1]
    enough.set()


def test_a_host_whose_body_never_ends_is_passed_over(venue: Venue, second: Venue, clock: FakeClock) -> None:
    """It comes byte by byte, each in good time."""
    enough = threading.Event()
    venue.handler = lambda path, query: replace(Answer(" " * 1000 + "[]"), drip_until=enough)
    asked = ThreadPoolExecutor(1).submit(ask, pool_of(clock, venue, second, timeout_s=0.2))
    try:
        assert asked.result(timeout=10) == [1]
    finally:
        enough.set()


BODIES = {
    "plain": Answer("[1]"),
    "chunked": Answer("[1]", chunked=True),
    "gzip": Answer(gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"}),
    "a kept connection that was closed meanwhile": Answer(hang_up=True),
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)
def test_bodies_are_read_in_every_transfer_and_a_closed_connection_is_opened_anew(
    venue: Venue, clock: FakeClock, answer: Answer
) -> None:
    pool = pool_of(clock, venue)
    ask(pool)
    venue.scripted = [answer]
    assert ask(pool) == [1]
    assert (len(venue.requests), clock.slept_s) == (2 + answer.hang_up, [])


def test_failures_are_retried_with_longer_and_longer_waits(venue: Venue, clock: FakeClock) -> None:
    venue.scripted = [Answer(status=502)] * 4
    assert ask(pool_of(clock, venue)) == [1]
    assert clock.slept_s == [0.5, 1.0, 2.0, 4.0]


def test_patience_ends_and_is_then_not_tried_again_by_every_call(venue: Venue, clock: FakeClock) -> None:
    pool = pool_of(clock, venue)
    venue.handler = lambda path, query: Answer("down", 500)
    with pytest.raises(MarketUnavailable, match=r"HTTP 500 to /anything: down; set URLS"):
        ask(pool)
    assert 40 < sum(clock.slept_s) <= 60
    waits = len(clock.slept_s)
    with pytest.raises(MarketUnavailable):
        ask(pool)
    assert len(clock.slept_s) == waits
    venue.handler = well
    assert ask(pool) == [1]
    venue.scripted = [Answer(status=500)]
    assert ask(pool) == [1]
    assert len(clock.slept_s) == waits + 1


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        pytest.param(Answer("{}", 418, {"Retry-After": "7"}), 7.0, id="418"),
        pytest.param(Answer("{}", 429, {"Retry-After": "0"}), 0.5, id="429 that names no time"),
        pytest.param(Answer("{}", 429, {"Retry-After": "soon"}), 0.5, id="429 with nonsense"),
        pytest.param(Answer("{}", 429), 0.5, id="429 without a word"),
        pytest.param(Answer("{}", 429, {"Retry-After": "Wed, 15 Nov 2023 00:00:09 GMT"}), 9.0, id="429 with a date"),
    ],
)
def test_a_rate_limit_is_waited_out_and_no_other_host_is_asked(
    venue: Venue, second: Venue, clock: FakeClock, answer: Answer, wait_s: float
) -> None:
    venue.scripted = [answer]
    assert ask(pool_of(clock, venue, second)) == [1]
    assert clock.slept_s == [wait_s]
    assert second.requests == []
    venue.handler = lambda path, query: answer
    with pytest.raises(MarketUnavailable, match=str(answer.status)):
        ask(pool_of(clock, venue))
    assert sum(clock.slept_s) <= wait_s + 60, "a rate limit without end ends with the patience"


@pytest.mark.parametrize(
    ("answer", "rest_s"),
    [
        pytest.param(Answer("{}", 429, {"Retry-After": "3600"}), 3_600.0, id="an hour"),
        pytest.param(Answer("{}", 418), 120.0, id="a ban that does not say"),
        pytest.param(Answer("{}", 429, {"Retry-After": "999999999"}), 86_400.0, id="for thirty years"),
        pytest.param(Answer("{}", 429, {"Retry-After": "Wed, 15 Nov 2028 06:00:00 GMT"}), 86_400.0, id="until 2028"),
    ],
)
def test_a_long_rest_is_kept_whatever_the_wall_clock_says_and_is_no_longer_than_a_day(
    venue: Venue, clock: FakeClock, answer: Answer, rest_s: float
) -> None:
    pool = pool_of(clock, venue)
    venue.scripted = [answer]
    for by_ms in (-HOUR_MS, 48 * HOUR_MS, 0):
        with pytest.raises(MarketUnavailable) as caught:
            ask(pool)
        assert caught.value.retry_after_s == rest_s
        clock.set_wall(by_ms)
    assert (len(venue.requests), clock.slept_s) == (1, [])
    clock.sleep(rest_s)
    assert ask(pool) == [1]


@pytest.mark.parametrize("status", [400, 404, 401])
def test_a_refusal_is_not_retried(venue: Venue, clock: FakeClock, status: int) -> None:
    venue.handler = lambda path, query: Answer('{"code":-1120,"msg":"Invalid interval."}', status)
    with pytest.raises(Refused, match="-1120 Invalid interval") as caught:
        ask(pool_of(clock, venue))
    assert caught.value.status == status
    assert ("set URLS" in str(caught.value)) == (status != 400)
    assert (len(venue.requests), clock.slept_s) == (1, [])


def test_where_one_host_refuses_the_request_another_one_may_serve_it(venue: Venue, second: Venue) -> None:
    clock = FakeClock()
    venue.handler = lambda path, query: Answer('{"msg":"Invalid symbol."}', 400)
    assert ask(pool_of(clock, venue, second)) == [1]
    second.handler = lambda path, query: Answer(status=500)
    with pytest.raises(Refused, match="Invalid symbol"):
        ask(pool_of(clock, venue, second))


def test_the_budget_counts_by_a_clock_that_is_not_set(venue: Venue, clock: FakeClock) -> None:
    pool = pool_of(clock, venue, requests_a_minute=2, patience_s=0)
    ask(pool)
    clock.time_ms += 20_000
    ask(pool)
    clock.set_wall(-HOUR_MS)
    with pytest.raises(MarketUnavailable, match="budget of 2 requests a minute is used up; free again in 40 s"):
        ask(pool)
    assert pool.limits.asked_last_minute == 2
    clock.time_ms += 40_000
    assert ask(pool) == [1]


def test_many_threads_may_ask_at_once(venue: Venue, clock: FakeClock) -> None:
    pool = pool_of(clock, venue)
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(lambda _: ask(pool), range(8))] == [[1]] * 8


def test_a_demoted_host_is_asked_last_until_none_is_left(venue: Venue, second: Venue, clock: FakeClock) -> None:
    pool = pool_of(clock, venue, second)
    assert pool.demote("has no new candle")
    ask(pool)
    assert (len(venue.requests), len(second.requests)) == (0, 1)
    assert not pool.demote("has no new candle either")
    assert [state.fault for state in pool.states] == ["has no new candle", ""]
    clock.sleep(PROBATION_MS / 1000)
    ask(pool)
    assert len(venue.requests) == 1


# -- ping -------------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_when_any_host_answers(venue: Venue, second: Venue) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("{}", wait_for=enough)
    assert pool_of(SystemClock(), venue, second).ping(PATH, 3.0) == ""
    enough.set()


def test_a_ping_says_why_no_host_answers(venue: Venue, second: Venue) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("<html>log in</html>")
    second.handler = lambda path, query: Answer("{}", wait_for=enough)
    gone = nobody()
    why_not = pool_of(SystemClock(), venue, second, gone).ping(PATH, 0.5)
    enough.set()
    assert f"{gone}: connection failed" in why_not
    assert f"{second.url}: no answer" in why_not
    assert "not JSON" in why_not


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(Answer("{}", 429, {"Retry-After": "30"}), "rate limited", id="limited"),
        pytest.param(Answer("no", 451), "HTTP 451", id="barred"),
    ],
)
def test_a_host_that_may_not_be_asked_is_not_pinged(venue: Venue, clock: FakeClock, answer: Answer, says: str) -> None:
    pool = pool_of(clock, venue)
    venue.scripted = [answer]
    assert pool.ping(PATH, 1)
    for _ in range(5):
        assert says in pool.ping(PATH, 1)
    assert len(venue.requests) == 1
    assert pool.limits.asked_last_minute == 1
    clock.sleep(PROBATION_MS / 1000)
    assert pool.ping(PATH, 1) == ""


def test_a_venue_whose_every_host_bars_us_is_blocked_and_without_patience_each_host_is_asked_once(
    venue: Venue, second: Venue, clock: FakeClock
) -> None:
    venue.handler = second.handler = lambda path, query: Answer("no", 403)
    pool = pool_of(clock, venue, second)
    for asked in (1, 2):
        with pytest.raises(Blocked):
            ask(pool)
        assert [len(each.requests) for each in (venue, second)] == [asked, asked]
    assert [state.is_barred for state in pool.states] == [True, True]
    venue.handler = second.handler = lambda path, query: Answer(status=500)
    with pytest.raises(MarketUnavailable):
        ask(pool_of(clock, venue, second, patience_s=0))
    assert ([len(each.requests) for each in (venue, second)], clock.slept_s) == ([3, 3], [])


def test_the_error_of_a_venue_is_quoted_in_one_line(venue: Venue, clock: FakeClock) -> None:
    for body in (json.dumps({"detail": "two\nlines"}), "<p>two\n</p>lines"):
        venue.scripted = [Answer(body, 400)]
        with pytest.raises(Refused, match="two lines") as caught:
            ask(pool_of(clock, venue))
        assert "\n" not in str(caught.value)
