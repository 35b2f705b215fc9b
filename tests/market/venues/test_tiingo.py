"""The Tiingo client, and what it shares with the other venues in USD, against a scripted venue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.parsing import time_ms
from market.venues.tiingo import PAGE_ROWS, RUN_OUT_S, Tiingo, bars, tops
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Handler, Venue
from tests.market.venues.bodies import CELLS, assert_keeps_rules

KEY = "0123456789abcdef0123456789abcdef01234567"
NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(12_000)
END_MS = START_MS + 12_000 * MINUTE_MS


def row_of(klines: Klines, row: int) -> dict[str, Any]:
    """A bar as Tiingo has it."""
    return {
        "volume": float(klines.volume[row]),
        "date": iso(int(klines.open_time_ms[row])).replace(".000Z", "+00:00"),
        "volumeNotional": float(klines.quote_volume[row]),
        "close": float(klines.close[row]),
        "open": float(klines.open[row]),
        "low": float(klines.low[row]),
        "tradesDone": float(klines.trades[row]),
        "high": float(klines.high[row]),
    }


def answer_of(rows: list[dict[str, Any]], ticker: str = "ethusd") -> str:
    entry = {"ticker": ticker, "baseCurrency": "eth", "quoteCurrency": "usd", "priceData": rows}
    return json.dumps([entry])


def serving(klines: Klines) -> Handler:
    """Answers as Tiingo does: both ends of a range belong to it."""

    def answer(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/tiingo/crypto/prices":
            return None
        found = klines.between(time_ms(query["startDate"]), time_ms(query["endDate"]) + 1)
        return Answer(answer_of([row_of(found, row) for row in range(len(found))]) if len(found) else "[]")

    return answer


def top(price: object = 2000.5, at: object = iso(NOW_MS - 1500), ticker: str = "ethusd") -> dict[str, Any]:
    return {"ticker": ticker, "topOfBookData": [{"bidPrice": None, "lastPrice": price, "lastSaleTimestamp": at}]}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.handler = serving(WALK)
    return venue


@pytest.fixture
def tiingo(venue: Venue, clock: FakeClock, aside: Quarantine) -> Tiingo:
    return Tiingo([venue.url], clock, aside, key=KEY)


def five(tiingo: Tiingo) -> Klines:
    return tiingo.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


# -- klines -----------------------------------------------------------------------------------------------------------


def test_a_long_range_is_asked_for_in_spans(venue: Venue, tiingo: Tiingo) -> None:
    klines = tiingo.klines("ETHUSDT", MINUTE_MS, START_MS + 1, END_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms[1:])
    for name in ("open", "high", "low", "close", "volume", "quote_volume", "trades"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(WALK, name)[1:])
    assert np.isnan(klines.taker_buy_base).all()
    assert np.isnan(klines.taker_buy_quote).all()
    asked = venue.asked("/tiingo/crypto/prices")
    assert len(asked) == 3
    assert asked[0] == {
        "tickers": "ethusd",
        "startDate": iso(START_MS + MINUTE_MS),
        "endDate": iso(START_MS + (PAGE_ROWS + 1) * MINUTE_MS),
        "resampleFreq": "1min",
    }
    assert {head["Authorization"] for head in venue.heads} == {f"Token {KEY}"}


@pytest.mark.parametrize(
    ("interval_ms", "frequency"),
    [(5 * MINUTE_MS, "5min"), (HOUR_MS, "1hour"), (4 * HOUR_MS, "4hour"), (DAY_MS, "1day")],
)
def test_intervals_have_its_names(venue: Venue, tiingo: Tiingo, interval_ms: int, frequency: str) -> None:
    venue.handler = serving(WALK.resample(interval_ms))
    assert len(tiingo.klines("ETHUSD", interval_ms, START_MS, START_MS + 3 * DAY_MS)) == 3 * DAY_MS // interval_ms
    assert venue.requests[0][1]["resampleFreq"] == frequency


def test_an_interval_that_it_lacks_is_an_error_of_the_configuration(venue: Venue, tiingo: Tiingo) -> None:
    with pytest.raises(ConfigError, match="tiingo has no klines of 180000 ms: choose one of 1m, 5m"):
        tiingo.klines("ETHUSDT", 3 * MINUTE_MS, START_MS, NOW_MS)
    assert venue.requests == []


@pytest.mark.parametrize("into_the_minute_ms", [0, 1, MINUTE_MS - 1])
def test_the_bar_that_has_not_ended_is_dropped(venue: Venue, aside: Quarantine, into_the_minute_ms: int) -> None:
    rows = [row_of(WALK, row) for row in range(11)]
    rows[10]["high"] = 1.0  # nothing that an unfinished bar says counts
    venue.handler = lambda path, query: Answer(answer_of(rows))
    tiingo = Tiingo([venue.url], FakeClock(START_MS + 10 * MINUTE_MS + into_the_minute_ms), aside, key=KEY)
    assert len(tiingo.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)) == 10
    assert aside.counts == {}


def test_gaps_stay_gaps_and_what_has_not_begun_is_not_asked_for(venue: Venue, tiingo: Tiingo) -> None:
    venue.handler = serving(Klines.joined(MINUTE_MS, [WALK.between(0, START_MS + 3 * MINUTE_MS), WALK.tail(5)]))
    assert list(tiingo.klines("ETHUSDT", MINUTE_MS, START_MS, END_MS).gaps()) == [
        (START_MS + 3 * MINUTE_MS, END_MS - 5 * MINUTE_MS)
    ]
    asked = len(venue.requests)
    assert len(tiingo.klines("ETHUSDT", MINUTE_MS, NOW_MS, NOW_MS + DAY_MS)) == 0
    assert len(venue.requests) == asked


def test_rows_that_are_no_klines_are_kept_aside_and_the_others_used(
    venue: Venue, tiingo: Tiingo, aside: Quarantine
) -> None:
    rows = [row_of(WALK, row) for row in range(100)]
    rows[7]["close"] = "much"
    rows[8]["volume"] = None
    rows[9]["volumeNotional"] = None  # a flow that it does not know is no fault
    rows[10]["date"] = "soon"
    venue.handler = lambda path, query: Answer(answer_of(rows[::-1]))
    klines = tiingo.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 100 * MINUTE_MS)
    assert len(klines) == 97
    assert np.isnan(klines.quote_volume).sum() == 1
    assert aside.counts == {
        ("tiingo", "ETHUSDT", "a price is not finite and above 0"): 1,
        ("tiingo", "ETHUSDT", "volume is not finite"): 1,
        ("tiingo", "ETHUSDT", "open time before 2009"): 1,
    }


def changed(**cells: object) -> str:
    return answer_of([row_of(WALK, row) | cells for row in range(5)])


BAD = [
    pytest.param("<html>busy</html>", "not JSON", id="a page of a proxy"),
    pytest.param(changed()[:70], "not JSON", id="cut off"),
    pytest.param("", "not JSON", id="nothing"),
    pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
    pytest.param("[" * 100_000, "not JSON", id="nested without end"),
    pytest.param('{"priceData": []}', "list of objects", id="an object"),
    pytest.param("[5]", "list of objects", id="a number for a ticker"),
    pytest.param('[{"ticker": "ethusd"}]', "priceData must be a list", id="no bars at all"),
    pytest.param('[{"ticker": "ethusd", "priceData": [[1, 2]]}]', "priceData must be a list", id="bars without names"),
    pytest.param(answer_of([row_of(WALK, 0)], "btcusd"), "asked for bars of ethusd", id="another ticker"),
    pytest.param(changed(close="NaN"), "finite and above 0", id="prices that are no number"),
    pytest.param(changed(close=0), "finite and above 0", id="prices of zero"),
    pytest.param(changed(low=-1.0), "finite and above 0", id="prices below zero"),
    pytest.param(changed(open=10**400), "finite and above 0", id="prices beyond all numbers"),
    pytest.param(changed(high=1.0), r"high .*below", id="high below low"),
    pytest.param(changed(date=START_MS), "a time that cannot be read", id="times that are no text"),
    pytest.param(changed(date="1970-01-20T00:20:00Z"), "1970-01-20", id="times of another age"),
    pytest.param(changed(date="2019-05-01T00:00:07Z"), "not on the grid", id="one time for all, off the grid"),
    pytest.param(changed(date="2190-05-01T00:00:00Z"), "2190-05-01", id="times in the future"),
]


@pytest.mark.parametrize(("body", "says"), BAD)
def test_what_is_no_bars_is_refused(
    venue: Venue, tiingo: Tiingo, clock: FakeClock, body: bytes | str, says: str
) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says) as caught:
        five(tiingo)
    assert venue.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert clock.slept_s == []


def test_a_ticker_that_it_does_not_know_has_no_bars(venue: Venue, tiingo: Tiingo) -> None:
    venue.scripted = [Answer("[]")]
    assert len(five(tiingo)) == 0


def test_genuine_bars_are_read_as_they_are_meant(shared_data: Path) -> None:
    body = (shared_data / "raw" / "tiingo" / "crypto_prices_0_http200.json").read_bytes()
    found = bars(body, name="btcusd", interval_ms=DAY_MS, now_ms=NOW_MS)
    assert [iso(at) for at in found.klines.open_time_ms.tolist()] == [
        "2019-05-01T00:00:00.000Z",
        "2019-05-02T00:00:00.000Z",
    ]
    first = {name: float(getattr(found.klines, name)[0]) for name in ("open", "high", "low", "close", "volume")}
    assert first == {
        "open": 5367.348827845256,
        "high": 5443.811868611532,
        "low": 5358.100876910302,
        "close": 5420.0896708474575,
        "volume": 27749.729226739997,
    }
    assert found.klines.quote_volume[1] == 222030376.30221513
    assert found.klines.trades[1] == 241005
    assert found.refused == ()
    assert len(bars(body, name="btcusd", interval_ms=DAY_MS, now_ms=time_ms("2019-05-02T23:59:59Z")).klines) == 1


PARTS = st.fixed_dictionaries({}, optional=dict.fromkeys(row_of(WALK, 0), CELLS))
BODIES = st.one_of(
    st.binary(max_size=60),
    st.lists(PARTS, max_size=4).map(lambda parts: answer_of([row_of(WALK, n) | p for n, p in enumerate(parts)])),
    st.recursive(CELLS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)).map(
        lambda value: json.dumps([{"ticker": "ethusd", "priceData": value}])
    ),
)


@given(body=BODIES)
def test_any_bytes_are_bars_that_keep_the_rules_or_a_named_error(body: bytes | str) -> None:
    try:
        found = bars(
            body if isinstance(body, bytes) else body.encode(), name="ethusd", interval_ms=60_000, now_ms=NOW_MS
        )
    except WorkerError:
        return
    assert_keeps_rules(found, 60_000, NOW_MS)


# -- prices -----------------------------------------------------------------------------------------------------------


def test_prices_carry_the_time_of_the_last_sale(venue: Venue, tiingo: Tiingo) -> None:
    late = top(40000, "2190-01-01T00:00:00Z", "btcusd")["topOfBookData"][0] | {"lastSaleTimestamp": iso(NOW_MS + 900)}
    venue.scripted = [Answer(json.dumps([top(at=iso(NOW_MS - 1500)), {"ticker": "BTCUSD", "topOfBookData": [late]}]))]
    prices = tiingo.prices(["ETHUSDT", "BTCUSDT", "ETHUSDC"])
    assert prices["ETHUSDT"] == prices["ETHUSDC"]
    assert (prices["ETHUSDT"].price, prices["ETHUSDT"].asof_ms) == (2000.5, NOW_MS - 1500)
    assert (prices["BTCUSDT"].price, prices["BTCUSDT"].asof_ms) == (40000, NOW_MS)  # never after now
    assert venue.requests == [("/tiingo/crypto/top", {"tickers": "ethusd,btcusd"})]


def test_no_symbols_have_no_prices(venue: Venue, tiingo: Tiingo) -> None:
    assert tiingo.prices([]) == {}
    assert venue.requests == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param([], "no price of ethusd", id="none"),
        pytest.param([top(ticker="btcusd")], "no price of ethusd", id="another one's"),
        pytest.param([{"ticker": "ethusd", "topOfBookData": []}], "no price of ethusd", id="an empty book"),
        pytest.param([{"ticker": "ethusd", "topOfBookData": 5}], "must be a list", id="a number for a book"),
        pytest.param([top(price=None)], "finite and above 0", id="no sale"),
        pytest.param([top(price=-1)], "finite and above 0", id="below zero"),
        pytest.param([top(price="NaN")], "finite and above 0", id="no number"),
        pytest.param([top(at=None)], "time in the past", id="no time"),
        pytest.param([top(at=NOW_MS)], "time in the past", id="a time that is no text"),
        pytest.param([top(at="2190-01-01T00:00:00Z")], "time in the past", id="a time to come"),
    ],
)
def test_what_is_no_price_is_refused(venue: Venue, tiingo: Tiingo, answer: object, says: str) -> None:
    venue.scripted = [Answer(json.dumps(answer))]
    with pytest.raises(MalformedKlines, match=says):
        tiingo.prices(["ETHUSDT"])


@given(body=st.one_of(st.binary(max_size=60), st.builds(lambda p, at: json.dumps([top(p, at)]), CELLS, CELLS)))
def test_any_bytes_are_a_price_in_the_past_or_a_named_error(body: bytes | str) -> None:
    try:
        found = tops(body if isinstance(body, bytes) else body.encode(), names=("ethusd",), now_ms=NOW_MS)
    except WorkerError:
        return
    assert found["ethusd"].price > 0
    assert found["ethusd"].asof_ms <= NOW_MS


# -- names, limits -- ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "base"),
    [("ETHUSDT", "ETH"), ("ETHUSDC", "ETH"), ("ETHUSD", "ETH"), ("USDCUSDT", "USDC"), ("1INCHUSDT", "1INCH")],
)
def test_the_base_of_a_symbol_in_dollars_is_known(tiingo: Tiingo, symbol: str, base: str) -> None:
    assert tiingo.name_of(symbol) == f"{base.lower()}usd"


@pytest.mark.parametrize("symbol", ["ETHBTC", "ETHEUR", "USDT", "USD", "", "ethusdt", "ETH-USD", "ETH/USDT", "ÄTHUSDT"])
def test_another_symbol_is_an_error_of_the_configuration(venue: Venue, tiingo: Tiingo, symbol: str) -> None:
    for ask in (
        lambda: tiingo.name_of(symbol),
        lambda: tiingo.prices(["ETHUSDT", symbol]),
        lambda: tiingo.klines(symbol, MINUTE_MS, START_MS, END_MS),
    ):
        with pytest.raises(ConfigError, match=r"is not a symbol in USDT, USDC or USD: set parameters\.Symbol"):
            ask()
    assert venue.requests == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("Error: You have run over your hourly request allocation.\nUpgrade.", id="text"),
        pytest.param('{"detail": "You have run over your 500 symbol look up for this month"}', id="an object"),
    ],
)
def test_a_used_up_allocation_is_told_though_the_status_is_200(venue: Venue, tiingo: Tiingo, body: str) -> None:
    venue.handler = lambda path, query: Answer(body)
    with pytest.raises(MarketUnavailable, match=r"used up: .*run over your") as caught:
        five(tiingo)
    assert caught.value.retry_after_s == RUN_OUT_S
    assert "\n" not in str(caught.value)


def test_it_keeps_to_its_requests_a_minute(venue: Venue, tiingo: Tiingo, clock: FakeClock) -> None:
    for _ in range(tiingo.offer.requests_a_minute + 1):
        five(tiingo)
    assert clock.slept_s == [60.0]


def test_what_it_declares(tiingo: Tiingo) -> None:
    assert (tiingo.offer.quote, tiingo.offer.trades, tiingo.offer.key_missing) == ("USD", True, False)
    assert tiingo.offer.flow == {"quote_volume", "trades"}
    assert tiingo.clock_ahead_ms() == 0
    assert tiingo.archive("ETHUSDT", MINUTE_MS, START_MS) is None
