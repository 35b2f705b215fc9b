"""The Binance client against a scripted venue: paging, hosts, limits, malformed answers."""

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.settings import Market, load_settings
from core.timed_http import USER_AGENT
from klines.klines import Klines
from market.build import venue_from
from market.http.client import PROBATION_MS
from market.quarantine import Quarantine
from market.venue import MarketData
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.net import free_port
from tests.fakes.venue_server import Answer, Venue, rest_rows

NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(3 * 1440)  # three whole days
PAGE = rest_rows(WALK.between(0, START_MS + 5 * MINUTE_MS))
BANNED = '{"code":-1003,"msg":"Way too much request weight used; IP banned until %d. Please use the websocket."}'


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.add("ETHUSDT", WALK)
    venue.prices = {"ETHUSDT": "2000.5", "BTCUSDT": "40000.25"}
    return venue


@pytest.fixture
def second() -> Iterator[Venue]:
    with Venue().running() as running:
        running.add("ETHUSDT", WALK)
        yield running


@pytest.fixture
def binance(venue: Venue, clock: FakeClock) -> Binance:
    return Binance([venue.url], venue.url, clock)


def five(market: MarketData) -> Klines:
    return market.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


# -- klines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_rows", [pytest.param(1000, id="whole pages"), pytest.param(300, id="short pages")])
def test_pages_are_joined(venue: Venue, binance: Binance, page_rows: int) -> None:
    venue.page_rows = page_rows
    klines = binance.klines("ETHUSDT", MINUTE_MS, START_MS + 1, START_MS + 2500 * MINUTE_MS)
    assert_same(klines, WALK.between(START_MS + 1, START_MS + 2500 * MINUTE_MS))
    asked = venue.asked("/api/v3/klines")
    assert len(asked) == -(-2499 // page_rows)
    assert asked[0] == {
        "symbol": "ETHUSDT",
        "interval": "1m",
        "startTime": str(START_MS + MINUTE_MS),
        "endTime": str(START_MS + 2500 * MINUTE_MS - 1),
        "limit": "1000",
    }
    assert {head["User-Agent"] for head in venue.heads} == {USER_AGENT}


def test_holes_stay_holes_and_an_empty_answer_is_no_klines(venue: Venue, binance: Binance) -> None:
    venue.series["ETHUSDT", "1m"] = Klines.joined(MINUTE_MS, [WALK.tail(4320 - 100), WALK.between(0, 0)])
    hole = binance.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 200 * MINUTE_MS)
    assert hole.open_time_ms[0] == START_MS + 100 * MINUTE_MS
    assert len(hole) == 100
    assert len(binance.klines("ETHUSDT", MINUTE_MS, 0, START_MS)) == 0


def test_the_unfinished_kline_is_dropped(venue: Venue) -> None:
    for into_the_minute_ms in (0, 1, MINUTE_MS - 1):
        market = Binance([venue.url], venue.url, FakeClock(START_MS + 10 * MINUTE_MS + into_the_minute_ms))
        assert len(market.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)) == 10


def test_what_has_not_begun_is_not_asked_for(venue: Venue, binance: Binance) -> None:
    assert len(binance.klines("ETHUSDT", MINUTE_MS, NOW_MS, NOW_MS + DAY_MS)) == 0
    assert venue.requests == []


def test_a_row_that_says_it_closes_later_is_unfinished(venue: Venue, binance: Binance) -> None:
    rows = [list(row) for row in PAGE]
    rows[3][6] = NOW_MS
    venue.scripted = [Answer(json.dumps(rows)), Answer("[]")]
    assert len(five(binance)) == 3


def test_an_absurd_close_time_in_the_middle_drops_nothing(venue: Venue, binance: Binance) -> None:
    rows = rest_rows(WALK.tail(20))
    rows[5][6] = 10**13
    venue.handler = lambda path, query: Answer(json.dumps(rows))
    assert len(binance.klines("ETHUSDT", MINUTE_MS, int(WALK.tail(20).open_time_ms[0]), WALK.end_ms)) == 20


@pytest.mark.parametrize("rows", [1, 3, 15])
def test_rows_of_another_interval_are_refused_however_few(
    venue: Venue, second: Venue, clock: FakeClock, rows: int
) -> None:
    venue.scripted = [Answer(json.dumps(rest_rows(WALK.resample(5 * MINUTE_MS).rows(0, rows))))]
    assert len(five(Binance([venue.url, second.url], venue.url, clock))) == 5


def test_rows_after_the_range_are_dropped(venue: Venue, binance: Binance) -> None:
    venue.scripted = [Answer(json.dumps(rest_rows(WALK.between(0, START_MS + 8 * MINUTE_MS))))]
    assert_same(five(binance), WALK.between(0, START_MS + 5 * MINUTE_MS))


def test_columns_that_nobody_reads_may_be_more_or_missing(venue: Venue, binance: Binance) -> None:
    for rows in ([[*row, "x", None] for row in PAGE], [row[:11] for row in PAGE]):
        venue.scripted = [Answer(json.dumps(rows))]
        assert_same(five(binance), WALK.between(0, START_MS + 5 * MINUTE_MS))


def test_a_host_that_ignores_the_start_ends_in_an_error_and_not_in_a_loop(venue: Venue, binance: Binance) -> None:
    venue.handler = lambda path, query: Answer(json.dumps(PAGE))
    with pytest.raises(MalformedKlines, match="got only older ones"):
        binance.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 10 * MINUTE_MS)
    assert len(venue.requests) == 2


def changed(row: int, column: int, value: object) -> str:
    rows = [list(kline) for kline in PAGE]
    rows[row][column] = value
    return json.dumps(rows)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("<html>busy</html>", "not JSON", id="a page of a proxy"),
        pytest.param(json.dumps(PAGE)[:50], "not JSON", id="cut off"),
        pytest.param("", "not JSON", id="nothing"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
        pytest.param("[" * 100_000, "not JSON", id="nested without end"),
        pytest.param('{"code":0}', "must be a list", id="an object"),
        pytest.param("[[]]", "11 columns", id="an empty row"),
        pytest.param("[5]", "11 columns", id="a number for a row"),
        pytest.param(json.dumps([row[:6] for row in PAGE]), "11 columns", id="six columns"),
        pytest.param(json.dumps([[row[0] * 1000, *row[1:]] for row in PAGE]), "with times", id="microseconds"),  # type: ignore[operator]
        pytest.param(json.dumps(PAGE[::-1]), "must rise", id="newest first"),
        pytest.param(json.dumps([[60_000, *PAGE[0][1:]]]), "got only older ones", id="another time"),
    ],
)
def test_what_is_not_klines_is_refused(
    venue: Venue, binance: Binance, clock: FakeClock, body: bytes | str, says: str
) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says) as caught:
        five(binance)
    assert venue.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert clock.slept_s == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(changed(1, 0, START_MS + 61_000), "grid", id="off the grid"),
        pytest.param(changed(1, 0, str(START_MS)), "before 2009", id="a time in quotes"),
        pytest.param(changed(1, 0, START_MS * 1000), "before 2009", id="a time in microseconds"),
        pytest.param(changed(1, 0, True), "before 2009", id="a time that is true"),
        pytest.param(changed(1, 6, None), "before 2009", id="no close time"),
        pytest.param(json.dumps([PAGE[0], {"open": 1}, *PAGE[2:]]), "before 2009", id="no list"),
        pytest.param(json.dumps([PAGE[0], PAGE[1][:6], *PAGE[2:]]), "before 2009", id="six columns"),
        pytest.param(json.dumps([PAGE[0], None, PAGE[3], PAGE[2], PAGE[4]]), "before 2009", id="in disorder"),
        pytest.param(changed(1, 4, "NaN"), "not finite and above 0", id="a price that is no number"),
        pytest.param(changed(1, 4, "much"), "not finite and above 0", id="a price in words"),
        pytest.param(changed(1, 4, None), "not finite and above 0", id="no price"),
        pytest.param(changed(1, 5, None), "volume is not finite", id="no volume"),
        pytest.param(changed(1, 4, "-Infinity"), "not finite and above 0", id="a price without end"),
        pytest.param(changed(1, 4, "0.00000000"), "not finite and above 0", id="a price of zero"),
        pytest.param(changed(1, 2, "1.0"), "high is below", id="high below low"),
    ],
)
def test_one_row_that_is_no_kline_is_set_aside(venue: Venue, clock: FakeClock, body: str, says: str) -> None:
    aside = Quarantine()
    venue.scripted = [Answer(body)]
    klines = five(Binance([venue.url], venue.url, clock, aside=aside))
    assert len(klines) == 4
    assert START_MS + MINUTE_MS not in klines.open_time_ms
    ((told, count),) = aside.counts.items()
    assert told[:2] == ("binance", "ETHUSDT")
    assert says in told[2]
    assert count == 1


@pytest.mark.parametrize("body", [changed(1, 8, [1]), changed(1, 8, None), json.dumps([PAGE[0], *PAGE])])
def test_a_count_that_is_none_and_a_row_that_is_there_twice_cost_nothing(
    venue: Venue, binance: Binance, body: str
) -> None:
    venue.scripted = [Answer(body), Answer("[]")]
    assert len(five(binance)) == 5


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        pytest.param("NaN", "close must be finite", id="prices that are no numbers"),
        pytest.param("0", "close must be finite and above 0", id="prices of zero"),
    ],
)
def test_of_many_such_rows_none_is_used(venue: Venue, binance: Binance, cell: str, says: str) -> None:
    rows = [[*row[:4], cell, *row[5:]] if number in {1, 3, 4} else row for number, row in enumerate(PAGE)]
    venue.scripted = [Answer(json.dumps(rows))]
    with pytest.raises(MalformedKlines, match=says):
        five(binance)


# -- hosts and limits -------------------------------------------------------------------------------------------------

PASSED_OVER = [
    pytest.param(Answer("sorry", 500), id="500"),
    pytest.param(Answer("sorry", 503), id="503"),
    pytest.param(Answer("<html>no</html>", 403), id="403"),
    pytest.param(Answer('{"code":0,"msg":"Service unavailable from a restricted location"}', 451), id="451"),
    pytest.param(Answer("<html>log in</html>"), id="a page"),
    pytest.param(Answer('{"msg":"maintenance"}'), id="an object"),
    pytest.param(Answer(json.dumps(PAGE), cut=True), id="cut off"),
    pytest.param(Answer(json.dumps(PAGE), cut=True, chunked=True), id="cut off between chunks"),
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
    market = Binance([venue.url, second.url], venue.url, clock)
    assert len(five(market)) == 5
    assert clock.slept_s == []
    asked = len(venue.requests)
    assert len(five(market)) == 5
    assert len(venue.requests) == asked  # the host that worked is asked first now
    clock.sleep(PROBATION_MS / 1000)
    venue.handler = lambda path, query: None
    five(market)
    five(market)
    assert len(venue.requests) == asked + 2  # the first host is back
    assert len(second.requests) == 2


def test_a_host_that_is_not_there_is_passed_over(second: Venue, clock: FakeClock) -> None:
    market = Binance([f"http://127.0.0.1:{free_port()}", second.url], second.url, clock)
    assert len(five(market)) == 5


def test_a_host_that_does_not_answer_in_time_is_passed_over(venue: Venue, second: Venue, clock: FakeClock) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("[]", wait_for=enough)
    market = Binance([venue.url, second.url], venue.url, clock, timeout_s=0.2)
    assert len(five(market)) == 5
    enough.set()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(" " * 1000 + "[]"), id="its body"),
        pytest.param(Answer(raw=b"HTTP/1.1 200 " + b"O" * 1000), id="its status"),
        pytest.param(Answer(raw=HEAD + b"X: " + b"a" * 1000), id="one line of its head"),
        pytest.param(Answer(raw=HEAD + b"X:a\r\n" * 200), id="lines of its head"),
        pytest.param(Answer(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 1000), id="the size of a chunk"),
    ],
)
def test_a_host_whose_answer_never_ends_is_passed_over(
    venue: Venue, second: Venue, clock: FakeClock, answer: Answer
) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: replace(answer, drip_until=enough)
    asked = ThreadPoolExecutor(1).submit(five, Binance([venue.url, second.url], venue.url, clock, timeout_s=0.2))
    try:
        assert len(asked.result(timeout=10)) == 5
    finally:
        enough.set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(json.dumps(PAGE)), id="plain"),
        pytest.param(Answer(json.dumps(PAGE), chunked=True), id="chunked"),
        pytest.param(Answer(gzip.compress(json.dumps(PAGE).encode()), headers={"Content-Encoding": "gzip"}), id="gzip"),
    ],
)
def test_bodies_are_read_in_every_transfer(venue: Venue, binance: Binance, answer: Answer) -> None:
    venue.scripted = [answer]
    assert len(five(binance)) == 5
    assert len(venue.requests) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_anew(venue: Venue, binance: Binance) -> None:
    five(binance)
    venue.scripted = [Answer(hang_up=True)]
    assert len(five(binance)) == 5


def test_failures_are_retried_with_longer_and_longer_waits(venue: Venue, binance: Binance, clock: FakeClock) -> None:
    venue.scripted = [Answer(status=502)] * 4
    assert len(five(binance)) == 5
    assert clock.slept_s == [0.5, 1.0, 2.0, 4.0]


def test_patience_ends_and_is_then_not_tried_again_by_every_call(
    venue: Venue, binance: Binance, clock: FakeClock
) -> None:
    venue.handler = lambda path, query: Answer("down", 500)
    with pytest.raises(MarketUnavailable, match=r"HTTP 500 to /api/v3/klines: down; .*BINANCE_REST_URLS"):
        five(binance)
    assert 40 < sum(clock.slept_s) <= 60
    waits = len(clock.slept_s)
    with pytest.raises(MarketUnavailable):
        five(binance)
    assert len(clock.slept_s) == waits
    venue.handler = lambda path, query: None
    assert len(five(binance)) == 5
    venue.scripted = [Answer(status=500)]
    assert len(five(binance)) == 5
    assert len(clock.slept_s) == waits + 1


def test_without_patience_each_host_is_asked_once(venue: Venue, second: Venue, clock: FakeClock) -> None:
    venue.handler = second.handler = lambda path, query: Answer(status=500)
    with pytest.raises(MarketUnavailable):
        five(Binance([venue.url, second.url], venue.url, clock, patience_s=0))
    assert (len(venue.requests), len(second.requests), clock.slept_s) == (1, 1, [])


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        pytest.param(Answer("{}", 429, {"Retry-After": "2"}), 2.0, id="429"),
        pytest.param(Answer("{}", 418, {"Retry-After": "7"}), 7.0, id="418"),
        pytest.param(Answer(BANNED % (NOW_MS + 30_000), 418), 30.0, id="418 with the end in its text"),
        pytest.param(Answer(BANNED % (NOW_MS + 30_000), 418, {"Retry-After": "1"}), 30.0, id="418 with both"),
        pytest.param(Answer("{}", 429, {"Retry-After": "0"}), 0.5, id="429 that names no time"),
        pytest.param(Answer("{}", 429, {"Retry-After": "soon"}), 0.5, id="429 with nonsense"),
        pytest.param(Answer("{}", 429), 0.5, id="429 without a word"),
        pytest.param(Answer("{}", 429, {"Retry-After": "Mon, 25 Dec 2023 00:00:09 GMT"}), 9.0, id="429 with a date"),
    ],
)
def test_a_rate_limit_is_waited_out_and_no_other_host_is_asked(
    venue: Venue, second: Venue, clock: FakeClock, answer: Answer, wait_s: float
) -> None:
    venue.scripted = [answer]
    assert len(five(Binance([venue.url, second.url], venue.url, clock))) == 5
    assert clock.slept_s == [wait_s]
    assert second.requests == []


def test_a_rate_limit_without_end_ends_with_the_patience(venue: Venue, binance: Binance, clock: FakeClock) -> None:
    venue.handler = lambda path, query: Answer("{}", 429, {"Retry-After": "0"})
    with pytest.raises(MarketUnavailable, match="429"):
        five(binance)
    assert sum(clock.slept_s) <= 60


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        pytest.param(Answer("{}", 429, {"Retry-After": "3600"}), 3600.0, id="an hour"),
        pytest.param(Answer(BANNED % (NOW_MS + 7_200_000), 418), 7200.0, id="a ban of two hours"),
        pytest.param(Answer("{}", 418), 120.0, id="a ban that does not say"),
    ],
)
def test_a_long_ban_is_reported_and_kept(
    venue: Venue, binance: Binance, clock: FakeClock, answer: Answer, wait_s: float
) -> None:
    venue.scripted = [answer]
    for _ in range(2):  # the second time nobody is asked
        with pytest.raises(MarketUnavailable) as caught:
            five(binance)
        assert caught.value.retry_after_s == wait_s
    assert (len(venue.requests), clock.slept_s) == (1, [])
    clock.sleep(wait_s)
    assert len(five(binance)) == 5


def test_an_unknown_symbol_is_an_error_of_the_configuration(venue: Venue, second: Venue, clock: FakeClock) -> None:
    market = Binance([venue.url, second.url], venue.url, clock)
    with pytest.raises(ConfigError, match=r"'NOUSDT'.*parameters\.Symbol"):
        market.klines("NOUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)
    second.add("NOUSDT", WALK)  # a host that trades it decides
    assert len(market.klines("NOUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)) == 1440
    assert clock.slept_s == []


@pytest.mark.parametrize("status", [400, 404, 401])
def test_another_refusal_is_not_retried(venue: Venue, binance: Binance, clock: FakeClock, status: int) -> None:
    venue.handler = lambda path, query: Answer('{"code":-1120,"msg":"Invalid interval."}', status)
    with pytest.raises(MarketUnavailable, match="Invalid interval"):
        five(binance)
    assert (len(venue.requests), clock.slept_s) == (1, [])


def test_many_threads_may_ask_at_once(venue: Venue, binance: Binance) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(five(binance)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 8


# -- prices -----------------------------------------------------------------------------------------------------------


def test_prices_of_several_symbols_take_one_request(venue: Venue, binance: Binance, clock: FakeClock) -> None:
    prices = binance.prices(["ETHUSDT", "BTCUSDT", "ETHUSDT"])
    assert {symbol: price.price for symbol, price in prices.items()} == {"ETHUSDT": 2000.5, "BTCUSDT": 40000.25}
    assert {price.asof_ms for price in prices.values()} == {clock.now_ms()}
    assert venue.asked("/api/v3/ticker") == [{"symbols": '["ETHUSDT","BTCUSDT"]'}]
    assert binance.prices(["ETHUSDT"])["ETHUSDT"].price == 2000.5
    assert venue.asked("/api/v3/ticker")[1:] == [{"symbol": "ETHUSDT"}]
    assert binance.prices([]) == {}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("{}", 400), id="400"),
        pytest.param(Answer("{}", 404), id="404"),
        pytest.param(Answer('{"detail":[]}', 422), id="422"),
        pytest.param(Answer('{"symbol":"ETHUSDT","price":"1"}'), id="one price"),
        pytest.param(Answer('[{"symbol":"ETHUSDT","price":"1"}]'), id="a list that lacks one"),
        pytest.param(Answer('[1, null, {"symbol": []}]'), id="a list of other things"),
    ],
)
def test_a_server_without_the_form_for_several_is_asked_one_by_one(
    venue: Venue, binance: Binance, answer: Answer
) -> None:
    venue.handler = lambda path, query: answer if "symbols" in query else None
    for _ in range(2):
        prices = binance.prices(["ETHUSDT", "BTCUSDT"])
        assert {symbol: price.price for symbol, price in prices.items()} == {"ETHUSDT": 2000.5, "BTCUSDT": 40000.25}
    assert sum("symbols" in query for query in venue.asked("/api/v3/ticker")) == 1
    assert len(venue.requests) == 5


@pytest.mark.parametrize("text", ["NaN", "inf", "0", "-1", "cheap", "", None, [1], "1e999"])
def test_a_price_that_is_none_is_refused(venue: Venue, binance: Binance, text: object) -> None:
    venue.handler = lambda path, query: Answer(json.dumps([{"symbol": "ETHUSDT", "price": text}]))
    with pytest.raises(MalformedKlines, match="the price of ETHUSDT must be finite and above 0"):
        binance.prices(["ETHUSDT"])


def test_a_price_of_another_symbol_is_refused(venue: Venue, binance: Binance) -> None:
    venue.scripted = [Answer('{"symbol":"BTCUSDT","price":"1"}')]
    with pytest.raises(MalformedKlines, match="no price of ETHUSDT"):
        binance.prices(["ETHUSDT"])


def test_one_unknown_symbol_among_several_is_named(binance: Binance) -> None:
    with pytest.raises(ConfigError, match="'NOUSDT'"):
        binance.prices(["ETHUSDT", "NOUSDT"])


# -- reach and settings -----------------------------------------------------------------------------------------------


def test_it_answers_when_any_host_does(venue: Venue, second: Venue) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("{}", wait_for=enough)
    reach = Binance([venue.url, second.url], venue.url, SystemClock()).answers(3.0)
    assert reach
    assert reach.detail == second.url
    enough.set()


def test_why_no_host_answers_is_told(venue: Venue) -> None:
    venue.handler = lambda path, query: Answer("<html>log in</html>")
    nobody = f"http://127.0.0.1:{free_port()}"
    reach = Binance([venue.url, nobody], venue.url, SystemClock()).answers(10)
    assert not reach
    assert f"{nobody}: connection failed" in reach.detail
    assert "not JSON" in reach.detail


def test_a_host_that_is_silent_is_not_waited_for(venue: Venue) -> None:
    enough = threading.Event()
    venue.handler = lambda path, query: Answer("{}", wait_for=enough)
    reach = Binance([venue.url], venue.url, SystemClock()).answers(0.2)
    enough.set()
    assert not reach
    assert f"{venue.url}: no answer" in reach.detail


@pytest.mark.parametrize(
    ("market", "rest", "archive", "says"),
    [
        pytest.param(
            "simulated",
            "https://api.binance.com",
            "http://localhost:1",
            "BINANCE_REST_URLS.*python -m exchange",
            id="rest",
        ),
        pytest.param("simulated", "http://127.0.0.1:1,http://a.b", "http://[::1]:1", "'http://a.b'", id="second rest"),
        pytest.param("simulated", "http://127.0.0.1:1", "https://a.b", "BINANCE_ARCHIVE_URL", id="archive"),
        pytest.param("simulated", "http://127.0.0.1@a.b", "http://127.0.0.1:1", "on this machine", id="in disguise"),
        pytest.param("binance", "ws://127.0.0.1:1", "http://127.0.0.1:1", "http:// or https://", id="not http"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(market: str, rest: str, archive: str, says: str) -> None:
    settings = load_settings(market=Market(market), binance_rest_urls=rest, binance_archive_url=archive)
    with pytest.raises(ConfigError, match=says):
        venue_from("binance", settings, FakeClock(), Quarantine(), topics=())


@pytest.mark.parametrize("market", list(Market))
def test_a_server_on_this_machine_serves_every_market(venue: Venue, clock: FakeClock, market: Market) -> None:
    settings = load_settings(market=market, binance_rest_urls=f"{venue.url}/", binance_archive_url=f"{venue.url}/")
    built = venue_from("binance", settings, clock, Quarantine(), topics=())
    assert len(five(built)) == 5
    assert built.archive("ETHUSDT", MINUTE_MS, START_MS) is not None


def test_an_interval_that_binance_does_not_have_is_refused(binance: Binance) -> None:
    with pytest.raises(ConfigError, match="no klines of 7 ms"):
        binance.klines("ETHUSDT", 7, 0, NOW_MS)


# -- genuine answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "interval_ms", "rows"),
    [
        pytest.param("spot_klines.json", MINUTE_MS, None, id="1m"),
        pytest.param("klines_SOLUSDT_1h_2024-02-01.json", HOUR_MS, None, id="1h"),
        pytest.param("klines_ETHUSDT_1d_2022-01-01.json", DAY_MS, None, id="1d"),
        pytest.param("klines_SOLUSDT_4h_2017-07-01.json", 4 * HOUR_MS, 0, id="before the listing"),
    ],
)
def test_genuine_klines_are_read(
    shared_data: Path, venue: Venue, name: str, interval_ms: int, rows: int | None
) -> None:
    body = (shared_data / "raw" / "binance_rest" / name).read_bytes()
    expected = json.loads(body)
    venue.scripted = [Answer(body), Answer("[]")]
    market = Binance([venue.url], venue.url, FakeClock(1_800_000_000_000))
    start_ms = expected[0][0] if expected else 0
    klines = market.klines("SOLUSDT", interval_ms, start_ms, start_ms + 5000 * interval_ms)
    assert len(klines) == (len(expected) if rows is None else rows)
    assert klines.close.tolist() == [float(row[4]) for row in expected]


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        pytest.param("http400_invalid_symbol.json", 400, ConfigError, id="invalid symbol"),
        pytest.param("http400_invalid_interval.json", 400, MarketUnavailable, id="invalid interval"),
        pytest.param("http403_waf.html", 403, MarketUnavailable, id="firewall"),
        pytest.param("http418_ip_banned.json", 418, MarketUnavailable, id="banned"),
        pytest.param("http429_too_much_weight.json", 429, MarketUnavailable, id="too much weight"),
        pytest.param("http451_restricted_location.json", 451, MarketUnavailable, id="restricted location"),
    ],
)
def test_genuine_errors_are_told_in_one_line(
    shared_data: Path, venue: Venue, clock: FakeClock, name: str, status: int, error: type[WorkerError]
) -> None:
    body = (shared_data / "raw" / "binance_errors" / name).read_bytes()
    venue.handler = lambda path, query: Answer(body, status)
    with pytest.raises(error, match=str(status)) as caught:
        five(Binance([venue.url], venue.url, clock, patience_s=0))
    assert "\n" not in str(caught.value)
    assert "<" not in str(caught.value)
