"""The promises of every venue's client, tested against a server on loopback that writes the venue's format."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from core.clock import DAY_MS, MINUTE_MS, CorrectedClock
from core.errors import ConfigError, KeyRefused, MalformedKlines, MarketUnavailable, UnknownSymbol, WorkerError
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Klines
from market.quarantine import Quarantine
from market.venues.base import RestVenue, key_setting
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.venues.formats import FORMATS, KEY, Format

WALK = random_walk_klines(300)
NOW_MS = WALK.end_ms + 20_000
BY_NAME = {form.name: form for form in FORMATS}
KEYED = [BY_NAME[name] for name in ("tiingo", "atlas")]


@dataclass(frozen=True, kw_only=True)
class Stand:
    """A venue on loopback and what its client is built from."""

    form: Format
    venue: Venue
    clock: FakeClock
    quarantine: Quarantine

    def client(self, **options: Any) -> RestVenue:
        return self.form.client(self.venue.url, self.clock, self.quarantine, **options)

    def answers(self, answer: Answer | str | bytes) -> None:
        """The same to every question."""
        given = answer if isinstance(answer, Answer) else Answer(answer)
        self.venue.handler = lambda path, query: given

    def serves(self, klines: Klines, price: str = "2000.5", at_ms: int = NOW_MS) -> None:
        self.venue.handler = self.form.serving(klines, self.form.price(price, at_ms))


@pytest.fixture(params=FORMATS, ids=lambda form: form.name)
def stand(request: pytest.FixtureRequest, venue: Venue, quarantine: Quarantine) -> Stand:
    """Every venue in turn."""
    return Stand(form=request.param, venue=venue, clock=FakeClock(NOW_MS), quarantine=quarantine)


only_keyed = pytest.mark.parametrize("stand", KEYED, ids=lambda form: form.name, indirect=True)


def hour(client: RestVenue) -> Klines:
    return client.klines("ETHUSDT", MINUTE_MS, WALK.end_ms - 60 * MINUTE_MS, NOW_MS)


def price(client: RestVenue) -> float:
    return client.prices(["ETHUSDT"])["ETHUSDT"].price


both_calls = pytest.mark.parametrize("call", [hour, price])
Call = Callable[[RestVenue], object]


# -- klines -----------------------------------------------------------------------------------------------------------


def test_klines_come_oldest_first_in_our_columns_and_units(stand: Stand) -> None:
    stand.serves(WALK)
    client = stand.client()
    found = client.klines("ETHUSDT", MINUTE_MS, START_MS + 1, NOW_MS)
    np.testing.assert_array_equal(found.open_time_ms, WALK.open_time_ms[1:])
    for name in (*PRICE_COLUMNS, "volume", *client.info.flow):
        np.testing.assert_allclose(getattr(found, name), getattr(WALK, name)[1:], rtol=1e-7)
    for name in set(FLOW_COLUMNS) - {"volume", *client.info.flow}:
        assert np.isnan(getattr(found, name)).all()
    assert stand.quarantine.counts == {}
    within = client.klines("ETHUSDT", MINUTE_MS, START_MS + 1, START_MS + 9 * MINUTE_MS + 1)
    assert ((within.open_time_ms - START_MS) // MINUTE_MS).tolist() == list(range(1, 10))


@pytest.mark.parametrize("into_the_minute_ms", [-1, 0, 1, MINUTE_MS - 1])
def test_only_closed_klines_are_handed_on(stand: Stand, into_the_minute_ms: int) -> None:
    """Also where our clock is behind, and the newest row has not even begun by it."""
    form, (last,) = stand.form, stand.form.rows(WALK.rows(10, 11))
    rows = [form.changed(row, high=1e9) if row == last else row for row in form.rows(WALK.rows(0, 11))]
    stand.answers(form.page(rows))
    stand.clock.time_ms = START_MS + 10 * MINUTE_MS + into_the_minute_ms
    assert len(stand.client().klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)) == 10 - (
        into_the_minute_ms < 0
    )
    assert stand.quarantine.counts == {}


def test_gaps_stay_gaps_and_what_has_not_begun_is_not_asked_for(stand: Stand) -> None:
    gap = (START_MS + 100 * MINUTE_MS, START_MS + 120 * MINUTE_MS)
    stand.serves(WALK.between(0, gap[0]).merge(WALK.between(gap[1], NOW_MS)))
    client = stand.client()
    assert [*client.klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS).gaps()] == [gap]
    asked = len(stand.venue.requests)
    assert len(client.klines("ETHUSDT", MINUTE_MS, NOW_MS, NOW_MS + DAY_MS)) == 0
    assert len(stand.venue.requests) == asked
    stand.answers(stand.form.page([]))
    assert len(hour(client)) == 0


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        pytest.param({"close": "much"}, "a price is not finite and above 0", id="a price in words"),
        pytest.param({"close": None}, "a price is not finite and above 0", id="no price"),
        pytest.param({"open": -1}, "a price is not finite and above 0", id="a price below zero"),
        pytest.param({"volume": None}, "volume is not finite", id="no volume"),
        pytest.param({"high": 1}, "high is below", id="high below low"),
        pytest.param({"time": "soon"}, "open time before 2009", id="a time in words"),
        pytest.param({"time": None}, "open time before 2009", id="no time"),
        pytest.param({"time": True}, "open time before 2009", id="a time that is true"),
    ],
)
def test_one_bad_cell_costs_one_row(stand: Stand, cells: dict[str, object], reason: str) -> None:
    rows = stand.form.rows(WALK.tail(60))
    rows[7] = stand.form.changed(rows[7], **cells)
    stand.answers(stand.form.page(rows))
    assert len(hour(stand.client())) == 59
    ((name, symbol, why),) = stand.quarantine.counts
    assert (name, symbol) == (stand.form.name, "ETHUSDT")
    assert reason in why


BODIES: dict[str, Callable[[Format, str], str | bytes]] = {
    "a page of a proxy": lambda form, good: "<html>busy</html>",
    "cut off": lambda form, good: good[:-30],
    "nothing": lambda form, good: "",
    "not text": lambda form, good: b"\xff\xfe\x00",
    "nested without end": lambda form, good: "[" * 100_000,
    "an object": lambda form, good: '{"rows": []}',
    "a number for a row": lambda form, good: form.page([5]),
    "rows of 1970": lambda form, good: form.page(form.rows(random_walk_klines(60, start_ms=0))),
    "rows of next month": lambda form, good: form.page(
        form.rows(random_walk_klines(60, start_ms=NOW_MS + 30 * DAY_MS))
    ),
    "rows without cells": lambda form, good: form.page([[], []]),
}
CELLS_OF_ALL: dict[str, dict[str, object]] = {
    "prices that are not numbers": {"close": "NaN"},
    "prices of zero": {"close": 0},
    "prices below zero": {"low": -1.0},
    "prices beyond all numbers": {"open": 10**400},
    "volumes that are not finite": {"volume": "Infinity"},
    "volumes below zero": {"volume": -1},
    "high below low": {"high": 1.0},
    "low above high": {"low": 9e9},
    "times in words": {"time": "soon"},
    "times in another unit": {"time": START_MS * 1000},
    "one time for all, off the grid": {"time": START_MS + 7_000},
}


@pytest.mark.parametrize("spoilt", [*BODIES, *CELLS_OF_ALL])
def test_what_is_not_klines_is_refused_in_one_line(stand: Stand, spoilt: str) -> None:
    form, rows = stand.form, stand.form.rows(WALK.tail(60))
    if spoilt in BODIES:
        stand.answers(BODIES[spoilt](form, form.page(rows)))
    else:
        stand.answers(form.page([form.changed(row, **CELLS_OF_ALL[spoilt]) for row in rows]))
    with pytest.raises(MalformedKlines) as caught:
        hour(stand.client())
    assert stand.venue.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stand.clock.slept_s == []


CELL = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)
PLACES = st.sampled_from(("time", *PRICE_COLUMNS, "volume"))
SPOILT = st.lists(st.tuples(st.integers(0, 19), PLACES, CELL), max_size=3)
SMALL = WALK.tail(20)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(cells=SPOILT, bytes_=st.binary(max_size=60), value=st.recursive(CELL, lambda each: st.lists(each, max_size=3)))
def test_any_body_gives_klines_that_keep_the_rules_or_a_named_error(
    form: Format, cells: list[tuple[int, str, object]], bytes_: bytes, value: object
) -> None:
    rows = form.rows(SMALL)
    for row, name, cell in cells:
        rows[row] = form.changed(rows[row], **{name: cell})
    now_ms = WALK.end_ms - 1  # the newest candle is not finished
    for body in (form.page(rows).encode(), bytes_, form.page([value]).encode(), json.dumps(value).encode()):
        try:
            found = form.parse(body, now_ms)
        except WorkerError:
            continue
        assert found.klines.interval_ms == MINUTE_MS
        assert found.klines.end_ms <= now_ms  # the type itself keeps the other rules


# -- prices and the clock ---------------------------------------------------------------------------------------------

TIMELESS = {"binance", "kraken"}  # their prices come without a time, and count as of the request


def test_a_price_has_the_moment_of_its_trade_or_of_the_request(stand: Stand) -> None:
    stand.serves(WALK, at_ms=NOW_MS - 1_500)
    client = stand.client()
    found = client.prices(["ETHUSDT"])["ETHUSDT"]
    assert found.price == 2000.5
    assert found.asof_ms == (NOW_MS if stand.form.name in TIMELESS else NOW_MS - 1_500)
    stand.serves(WALK, at_ms=NOW_MS + 900)
    assert client.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == NOW_MS, "never after now"
    asked = len(stand.venue.requests)
    assert client.prices([]) == {}
    assert len(stand.venue.requests) == asked


@pytest.mark.parametrize("value", ["NaN", "inf", "0", "-1", "cheap", "", None, [1], "1e999"])
def test_a_price_that_is_not_a_number_above_zero_is_refused(stand: Stand, value: object) -> None:
    stand.answers(stand.form.price(value, NOW_MS))
    with pytest.raises(MalformedKlines, match="must be finite and above 0"):
        price(stand.client())


@pytest.mark.parametrize("form", [form for form in FORMATS if form.name not in TIMELESS], ids=lambda form: form.name)
@pytest.mark.parametrize("at_ms", [1_000, NOW_MS + 2 * DAY_MS], ids=["1970", "in two days"])
def test_a_price_of_another_age_is_refused(form: Format, at_ms: int) -> None:
    with pytest.raises(MalformedKlines, match="time in the past"):
        form.parse_price(form.price("2000.5", at_ms).encode(), NOW_MS)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(value=CELL, bytes_=st.binary(max_size=60))
def test_any_body_gives_a_price_above_zero_or_a_named_error(form: Format, value: object, bytes_: bytes) -> None:
    for body in (bytes_, form.price(value, NOW_MS).encode(), json.dumps(value).encode()):
        try:
            found = form.parse_price(body, NOW_MS)
        except WorkerError:
            continue
        assert 0 < found < np.inf


TIMES: dict[str, Callable[[int], object]] = {
    "binance": lambda at_ms: {"serverTime": at_ms},
    "coinbase": lambda at_ms: {"iso": "2023-11-15T05:00:27.000Z"},
    "kraken": lambda at_ms: {"error": [], "result": {"unixtime": at_ms // 1000}},
}


def test_the_venues_clock_says_what_is_closed(stand: Stand) -> None:
    """Ours is 32 seconds behind: the newest candle has closed by the venue's clock alone."""
    true_ms = WALK.end_ms + 27_000
    clock = CorrectedClock(FakeClock(true_ms - 32_000))
    client = stand.form.client(stand.venue.url, clock, stand.quarantine)
    if stand.form.name not in TIMES:
        assert not client.info.tells_time
        assert client.clock_ahead_ms() == 0
        return
    body = json.dumps(TIMES[stand.form.name](true_ms))
    stand.venue.handler = lambda path, query: stand.form.serving(WALK)(path, query) or Answer(body)
    clock.ahead_ms = client.clock_ahead_ms()
    assert clock.now_ms() == true_ms
    assert client.clock_ahead_ms() == 0
    assert hour(client).end_ms == WALK.end_ms
    stand.answers("{}")
    with pytest.raises(MalformedKlines):
        client.clock_ahead_ms()


# -- symbols, intervals, limits ---------------------------------------------------------------------------------------


def test_an_interval_that_the_venue_lacks_is_an_error_of_the_configuration(stand: Stand) -> None:
    with pytest.raises(ConfigError, match="no klines of 420000 ms"):
        stand.client().klines("ETHUSDT", 7 * MINUTE_MS, START_MS, NOW_MS)
    assert stand.venue.requests == []


@both_calls
@pytest.mark.parametrize("stand", [form for form in FORMATS if form.unknown], ids=lambda form: form.name, indirect=True)
def test_an_unknown_symbol_is_an_error_of_the_configuration(stand: Stand, call: Call) -> None:
    assert stand.form.unknown
    stand.answers(stand.form.unknown)
    with pytest.raises(UnknownSymbol, match=r"unknown symbol 'ETHUSDT'.*set parameters\.Symbol") as caught:
        call(stand.client())
    assert f"leave {stand.form.name} out of MARKET_VENUES" in str(caught.value)
    assert (len(stand.venue.requests), stand.clock.slept_s) == (1, [])


@pytest.mark.parametrize("symbol", ["ETHBTC", "ETHEUR", "USD", "", "ethusdt", "ETH-USD", "ÄTHUSDT"])
def test_a_venue_in_dollars_is_not_asked_for_another_pair(stand: Stand, symbol: str) -> None:
    client = stand.client()
    if not client.info.quote:
        assert client.name_of(symbol) == symbol
        return
    for ask in (
        lambda: client.prices(["ETHUSDT", symbol]),
        lambda: client.klines(symbol, MINUTE_MS, START_MS, NOW_MS),
    ):
        with pytest.raises(UnknownSymbol, match=r"is not a symbol in USDT, USDC or USD: set parameters\.Symbol"):
            ask()
    assert stand.venue.requests == []


NAMES = {
    "binance": {"BTCUSDT": "BTCUSDT"},
    "coinbase": {"ETHUSDT": "ETH-USD", "BTCUSDC": "BTC-USD", "1INCHUSDT": "1INCH-USD"},
    "kraken": {"BTCUSDT": "XBTUSD", "DOGEUSD": "XDGUSD", "ETHUSDC": "ETHUSD"},
    "tiingo": {"ETHUSD": "ethusd", "USDCUSDT": "usdcusd"},
    "atlas": {"BTCUSD": "tiingo_btcusd_1min"},
}


def test_names(stand: Stand) -> None:
    client, names = stand.client(), NAMES[stand.form.name]
    assert {symbol: client.name_of(symbol) for symbol in names} == names
    assert client.info.name == stand.form.name


@both_calls
def test_a_rate_limit_is_waited_out_and_a_ban_is_kept(stand: Stand, call: Call) -> None:
    client = stand.client()
    stand.serves(WALK)
    stand.venue.scripted = [Answer('{"message":"slow down"}', 429, {"Retry-After": "3"})]
    assert call(client)
    assert stand.clock.slept_s == [3.0]
    stand.venue.scripted = [Answer("{}", 418)]
    asked = len(stand.venue.requests)
    for _ in range(2):
        with pytest.raises(MarketUnavailable) as caught:
            call(client)
        assert caught.value.retry_after_s == 120.0
    assert len(stand.venue.requests) == asked + 1


def test_the_budget_of_a_minute_is_kept_to(stand: Stand) -> None:
    client = stand.client()
    client.hosts.limits.requests_a_minute = 2
    stand.serves(WALK)
    for _ in range(3):
        price(client)
    assert stand.clock.slept_s == [60.0]


# -- keys -------------------------------------------------------------------------------------------------------------


@only_keyed
@both_calls
@pytest.mark.parametrize("key", ["", "  \n"])
def test_without_a_key_nothing_is_asked(stand: Stand, call: Call, key: str) -> None:
    client = stand.client(key=key)
    assert client.info.key_missing
    with pytest.raises(KeyRefused) as caught:
        call(client)
    assert f"set {key_setting(stand.form.name)}" in str(caught.value)
    assert stand.venue.requests == []


@only_keyed
@pytest.mark.parametrize("key", ["two\nlines of it", "schlüssel-schlüssel", "short", "with a blank in it"])
def test_what_is_not_a_key_is_not_sent_and_not_shown(stand: Stand, key: str) -> None:
    client = stand.client(key=key)
    assert not client.info.key_missing
    with pytest.raises(KeyRefused, match="is not a key") as caught:
        hour(client)
    assert key not in str(caught.value)
    client.hosts.ping("/", 5.0)
    assert [head[client.KEY_HEADER] for head in stand.venue.heads] == [None]


TAG = r"POST /api/tags/acquire/ .*public.* once with the key of VENUE_KEYS \(atlas=KEY\)"
OF_ANY = [
    pytest.param(Answer(f'{{"detail": "{KEY}: what?"}}', 400), MarketUnavailable, "what", id="400"),
    pytest.param(Answer(f'{{"error":"{KEY}"}}', 429, {"Retry-After": "900"}), MarketUnavailable, "429", id="429"),
    pytest.param(Answer(f"{KEY}: down", 500), MarketUnavailable, "500", id="500"),
    pytest.param(Answer(f"{'x' * 190} {KEY}", 500), MarketUnavailable, "500", id="500, cut in the key"),
    pytest.param(Answer(json.dumps({"msg": KEY}).replace("0", "\\u0030"), 500), MarketUnavailable, "500", id="escaped"),
    pytest.param(Answer(f"<html>{KEY}: not from here</html>", 403), MarketUnavailable, "from here", id="403 of a page"),
    pytest.param(Answer(f"{'x' * 40}{KEY}"), MalformedKlines, r"x{40}\*\*\*", id="an answer that ends in it"),
    pytest.param(Answer(json.dumps({"k": KEY})), MalformedKlines, "must|no price of", id="an object of it"),
    pytest.param(Answer("{}", 302, {"Location": "/elsewhere"}), MarketUnavailable, "302", id="sent elsewhere"),
    pytest.param(Answer(hang_up=True), MarketUnavailable, "connection", id="hung up"),
]
OF_ONE: list[tuple[str, Answer, type[WorkerError], str]] = [
    ("tiingo", Answer(f'{{"detail": "Invalid token {KEY}."}}', 401), KeyRefused, r"VENUE_KEYS \(tiingo=KEY\)"),
    ("tiingo", Answer(f'{{"detail": "Please supply a token, not {KEY}"}}', 403), KeyRefused, "VENUE_KEYS"),
    ("tiingo", Answer(f'{{"detail": "{KEY}: gone"}}', 404), MarketUnavailable, "404"),
    ("tiingo", Answer(f"You have run over your limit, {KEY}"), MarketUnavailable, "allocation is used up"),
    ("atlas", Answer('{"error":"Missing API key"}', 401), KeyRefused, r"set VENUE_KEYS \(atlas=KEY\) to a key"),
    ("atlas", Answer(f'{{"error":"no dataset for {KEY}"}}', 403), KeyRefused, TAG),
    ("atlas", Answer('{"error":"missing tag"}', 403), KeyRefused, TAG),
    ("atlas", Answer('{"error":"dataset not found"}', 404), KeyRefused, TAG),
    ("atlas", Answer(f'{{"error":"tag of {KEY}"}}', 409), KeyRefused, TAG),
    ("atlas", Answer("", 301, {"Location": "/api/rows"}), MarketUnavailable, "301"),  # a path without its slash
]
CASES = [
    *(pytest.param(form, *case.values, id=f"{form.name}: {case.id}") for form in KEYED for case in OF_ANY),
    *(pytest.param(BY_NAME[c[0]], *c[1:], id=f"{c[0]}: {c[1].status} {c[1].body!r:.30}") for c in OF_ONE),
]


@both_calls
@pytest.mark.parametrize(("stand", "answer", "error", "says"), CASES, indirect=["stand"])
def test_a_refusal_says_what_to_do_and_a_key_is_in_no_fault_no_log_and_no_url(
    stand: Stand, call: Call, answer: Answer, error: type[WorkerError], says: str
) -> None:
    client = stand.client(key=f" {KEY}\n", patience_s=0)
    stand.answers(answer)
    with capture_logs() as lines, pytest.raises(error, match=says) as caught:
        call(client)
    assert stand.venue.heads[0][client.KEY_HEADER] == client.KEY_SCHEME + KEY
    texts = [str(caught.value), repr(caught.value), str(lines), repr(client), str(stand.venue.requests)]
    texts += [state.fault for state in client.hosts.states]
    for text in texts:
        assert not any(KEY[at : at + 7] in text for at in range(len(KEY) - 6))
    assert len(stand.venue.requests) == 1 + answer.hang_up  # a connection that was closed is opened anew, once
