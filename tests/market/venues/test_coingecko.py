"""The CoinGecko client against a scripted venue: ends of candles, reach, the age of prices, limits."""

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
from market.venues.coingecko import COINS, CoinGecko, candles, means
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Handler, Venue
from tests.market.venues.bodies import CELLS, assert_keeps_rules

KEY = "CG-0123456789abcdefghijk"
HALF_MS, FOUR_MS = 30 * MINUTE_MS, 4 * HOUR_MS
NOW_MS = START_MS + 40 * DAY_MS + 20 * MINUTE_MS
HALVES = random_walk_klines(40 * 48 + 1, HALF_MS)  # the last one has not ended
FOURS = random_walk_klines(40 * 6 + 1, FOUR_MS)


def rows_of(klines: Klines) -> list[list[Any]]:
    """Candles as CoinGecko has them, by their ends."""
    columns = [getattr(klines, name).tolist() for name in ("open", "high", "low", "close")]
    return [[at + klines.interval_ms, *row] for at, *row in zip(klines.open_time_ms.tolist(), *columns, strict=True)]


def serving(path: str, query: dict[str, str]) -> Answer | None:
    """Whole candles of the last days, of a length that follows from their number, and the unfinished one."""
    if path != "/api/v3/coins/ethereum/ohlc":
        return None
    days = int(query["days"])
    return Answer(json.dumps(rows_of((HALVES if days <= 2 else FOURS).between(NOW_MS - days * DAY_MS, NOW_MS))))


def fixed(rows: list[list[Any]]) -> Handler:
    return lambda path, query: Answer(json.dumps(rows))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.handler = serving
    return venue


@pytest.fixture
def gecko(venue: Venue, clock: FakeClock, aside: Quarantine) -> CoinGecko:
    return CoinGecko([venue.url], clock, aside)


def day(gecko: CoinGecko) -> Klines:
    return gecko.klines("ETHUSDT", HALF_MS, NOW_MS - DAY_MS, NOW_MS)


# -- klines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval_ms", "back_ms", "days"),
    [
        pytest.param(HALF_MS, 2 * HOUR_MS, 1, id="half hours"),
        pytest.param(HALF_MS, 20 * DAY_MS, 1, id="half hours beyond its reach"),
        pytest.param(FOUR_MS, 12 * HOUR_MS, 7, id="four hours"),
        pytest.param(FOUR_MS, 7 * DAY_MS, 7, id="a week"),
        pytest.param(FOUR_MS, 7 * DAY_MS + FOUR_MS, 14, id="more than a week"),
        pytest.param(FOUR_MS, 20 * DAY_MS, 30, id="most of a month"),
        pytest.param(FOUR_MS, 39 * DAY_MS, 30, id="four hours beyond its reach"),
    ],
)
def test_so_many_days_are_asked_for_that_the_candles_have_their_length(
    venue: Venue, gecko: CoinGecko, interval_ms: int, back_ms: int, days: int
) -> None:
    klines = gecko.klines("ETHUSDT", interval_ms, NOW_MS - back_ms, NOW_MS)
    whole = HALVES if interval_ms == HALF_MS else FOURS
    last_ms = START_MS + 40 * DAY_MS  # what ended then ended more than a quarter of an hour ago
    wanted = whole.between(NOW_MS - min(back_ms, days * DAY_MS), last_ms)
    np.testing.assert_array_equal(klines.open_time_ms, wanted.open_time_ms)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(wanted, name))
    assert (klines.volume == 0).all()
    assert np.isnan(klines.quote_volume).all()
    assert venue.requests == [("/api/v3/coins/ethereum/ohlc", {"vs_currency": "usd", "days": str(days)})]


@pytest.mark.parametrize(
    ("since_end_ms", "rows"),
    [
        pytest.param(0, 47, id="just ended"),
        pytest.param(15 * MINUTE_MS - 1, 47, id="within the age of its cache"),
        pytest.param(15 * MINUTE_MS, 48, id="a quarter of an hour ago"),
    ],
)
def test_a_candle_that_may_be_told_from_before_its_end_is_not_closed(
    venue: Venue, aside: Quarantine, since_end_ms: int, rows: int
) -> None:
    end_ms = START_MS + DAY_MS
    venue.handler = fixed(rows_of(HALVES.between(START_MS - DAY_MS, end_ms + HALF_MS)))
    gecko = CoinGecko([venue.url], FakeClock(end_ms + since_end_ms), aside)
    klines = gecko.klines("ETHUSDT", HALF_MS, START_MS - DAY_MS, end_ms + DAY_MS)
    # A start that is off the grid now: the first candle would be a part of one.
    assert klines.end_ms == START_MS + rows * HALF_MS
    assert klines.open_time_ms[0] >= end_ms + since_end_ms - DAY_MS


def test_what_it_cannot_have_is_not_asked_for(venue: Venue, gecko: CoinGecko) -> None:
    assert len(gecko.klines("ETHUSDT", HALF_MS, START_MS, NOW_MS - 2 * DAY_MS)) == 0
    assert len(gecko.klines("ETHUSDT", FOUR_MS, START_MS, NOW_MS - 31 * DAY_MS)) == 0
    assert len(gecko.klines("ETHUSDT", FOUR_MS, NOW_MS, NOW_MS + DAY_MS)) == 0
    assert venue.requests == []
    for interval_ms in (MINUTE_MS, HOUR_MS, DAY_MS):
        with pytest.raises(ConfigError, match="choose one of 30m, 4h"):
            gecko.klines("ETHUSDT", interval_ms, NOW_MS - DAY_MS, NOW_MS)


def test_parts_of_candles_at_the_ends_are_dropped_and_gaps_stay_gaps(
    venue: Venue, gecko: CoinGecko, aside: Quarantine
) -> None:
    rows = rows_of(HALVES.between(NOW_MS - DAY_MS, NOW_MS - HOUR_MS))
    hole = rows.pop(20)
    venue.handler = fixed([[rows[0][0] - 977_123, 1, 1, 1, 1], *rows, [rows[-1][0] + 977_123, 1, 1, 1, 1]])
    klines = day(gecko)
    assert len(klines) == len(rows)
    assert list(klines.gaps()) == [(hole[0] - HALF_MS, hole[0])]
    assert aside.counts == {}


def test_rows_that_are_no_klines_are_kept_aside_and_the_others_used(
    venue: Venue, gecko: CoinGecko, aside: Quarantine
) -> None:
    rows = rows_of(HALVES.between(NOW_MS - DAY_MS, NOW_MS - HOUR_MS))
    rows[7][3] = None
    rows[9][0] += 1
    venue.handler = fixed(rows)
    assert len(day(gecko)) == len(rows) - 2
    assert aside.counts == {
        ("coingecko", "ETHUSDT", "a price is not finite and above 0"): 1,
        ("coingecko", "ETHUSDT", "open time is not on the grid"): 1,
    }


DAY = rows_of(HALVES.between(NOW_MS - DAY_MS, NOW_MS - HOUR_MS))


def changed(place: int, value: object) -> str:
    return json.dumps([[*row[:place], value, *row[place + 1 :]] for row in DAY])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("<html>busy</html>", "not JSON", id="a page of a proxy"),
        pytest.param(json.dumps(DAY)[:70], "not JSON", id="cut off"),
        pytest.param("", "not JSON", id="nothing"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
        pytest.param('{"prices": []}', "list of lists", id="an object"),
        pytest.param("[5]", "list of lists", id="a number for a row"),
        pytest.param(json.dumps([row[:4] for row in DAY]), "5 columns", id="four columns"),
        pytest.param(json.dumps([[row[0] // 1000, *row[1:]] for row in DAY]), "every 0.03 min", id="seconds"),
        pytest.param(
            json.dumps([[row[0] * 1000, *row[1:]] for row in DAY]),
            "row of a time that cannot be read",
            id="microseconds",
        ),
        pytest.param(changed(0, "2023-11-15"), "row of a time that cannot be read", id="times in text"),
        pytest.param(changed(0, START_MS), "two different|rise strictly", id="one time"),
        pytest.param(json.dumps(rows_of(FOURS)), "of 30 min, got them every 240 min", id="coarser candles"),
        pytest.param(json.dumps(rows_of(random_walk_klines(90))), "got them every 1 min", id="finer candles"),
        pytest.param(changed(4, "NaN"), "finite and above 0", id="prices that are no number"),
        pytest.param(changed(1, 0), "finite and above 0", id="prices of zero"),
        pytest.param(changed(3, -5), "finite and above 0", id="prices below zero"),
        pytest.param(changed(2, 1), "high .*below", id="high below low"),
    ],
)
def test_what_is_no_candles_is_refused(
    venue: Venue, gecko: CoinGecko, clock: FakeClock, body: bytes | str, says: str
) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says) as caught:
        day(gecko)
    assert venue.url in str(caught.value)
    assert clock.slept_s == []


def test_no_candles_are_no_klines(venue: Venue, gecko: CoinGecko) -> None:
    venue.scripted = [Answer("[]")]
    assert len(day(gecko)) == 0


@pytest.mark.parametrize(
    ("name", "rows", "opened"),
    [("ohlc_7d_0_http200", 42, "2021-05-08T16:00"), ("ohlc_30d_myr_0_http200", 180, "2021-04-15T16:00")],
)
def test_the_time_of_a_genuine_candle_is_its_end(shared_data: Path, name: str, rows: int, opened: str) -> None:
    """Told at 14:13 of 2021-05-15: the last row says 16:00 and has not ended, so no row says when it began."""
    body = (shared_data / "raw" / "coingecko" / f"{name}.json").read_bytes()
    told_ms = 1_621_088_009_000
    found = candles(body, interval_ms=FOUR_MS, now_ms=told_ms)
    assert (len(found.klines), found.refused) == (rows, ())
    assert iso(int(found.klines.open_time_ms[0])).startswith(opened)
    assert iso(found.klines.end_ms).startswith("2021-05-15T16:00")
    assert found.klines.closed(told_ms).end_ms == found.klines.end_ms - FOUR_MS
    assert [found.klines.open[0], found.klines.close[0]] == [json.loads(body)[0][1], json.loads(body)[0][4]]
    with pytest.raises(MalformedKlines, match="of 30 min, got them every 240 min"):
        candles(body, interval_ms=HALF_MS, now_ms=told_ms)


ROWS = st.lists(
    st.tuples(
        st.one_of(CELLS, st.integers(0, 50).map(lambda n: START_MS + n * HALF_MS)),
        *[st.one_of(CELLS, st.floats(1, 2))] * 4,
    ),
    max_size=6,
)


@given(body=st.one_of(st.binary(max_size=60), ROWS.map(json.dumps), st.lists(CELLS, max_size=3).map(json.dumps)))
def test_any_bytes_are_candles_that_keep_the_rules_or_a_named_error(body: bytes | str) -> None:
    try:
        found = candles(body if isinstance(body, bytes) else body.encode(), interval_ms=HALF_MS, now_ms=NOW_MS)
    except WorkerError:
        return
    assert_keeps_rules(found, HALF_MS, NOW_MS + HALF_MS)  # ``klines`` drops the one that has begun


# -- prices -----------------------------------------------------------------------------------------------------------


def coin(price: object = 2000.5, told_s: object = NOW_MS // 1000 - 200) -> dict[str, object]:
    return {"usd": price, "last_updated_at": told_s}


def test_prices_carry_the_time_they_were_told(venue: Venue, gecko: CoinGecko) -> None:
    venue.scripted = [Answer(json.dumps({"ethereum": coin(), "bitcoin": coin(40000, NOW_MS // 1000 + 9)}))]
    prices = gecko.prices(["ETHUSDT", "BTCUSDT", "ETHUSDC"])
    assert prices["ETHUSDT"] == prices["ETHUSDC"]
    assert (prices["ETHUSDT"].price, prices["ETHUSDT"].asof_ms) == (2000.5, NOW_MS // 1000 * 1000 - 200_000)
    assert (prices["BTCUSDT"].price, prices["BTCUSDT"].asof_ms) == (40000, NOW_MS)  # never after now
    query = {"ids": "ethereum,bitcoin", "vs_currencies": "usd", "include_last_updated_at": "true"}
    assert venue.requests == [("/api/v3/simple/price", query)]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param({}, "no price of ethereum", id="nothing"),
        pytest.param([], "no price of ethereum", id="a list"),
        pytest.param({"ethereum": 5}, "no price of ethereum", id="a number"),
        pytest.param({"ethereum": {}}, "time in the past", id="an empty coin"),
        pytest.param({"ethereum": coin(None)}, "finite and above 0", id="no price"),
        pytest.param({"ethereum": coin(-1)}, "finite and above 0", id="below zero"),
        pytest.param({"ethereum": coin(told_s=NOW_MS)}, "time in the past", id="a time in ms"),
        pytest.param({"ethereum": coin(told_s=None)}, "time in the past", id="no time"),
    ],
)
def test_what_is_no_price_is_refused(venue: Venue, gecko: CoinGecko, answer: object, says: str) -> None:
    venue.scripted = [Answer(json.dumps(answer))]
    with pytest.raises(MalformedKlines, match=says):
        gecko.prices(["ETHUSDT"])


@given(
    body=st.one_of(
        st.binary(max_size=60),
        CELLS.map(json.dumps),
        st.builds(lambda price, told: json.dumps({"ethereum": coin(price, told)}), CELLS, CELLS | st.just(START_MS)),
    )
)
def test_any_bytes_are_a_price_in_the_past_or_a_named_error(body: bytes | str) -> None:
    try:
        found = means(body if isinstance(body, bytes) else body.encode(), names=("ethereum",), now_ms=NOW_MS)
    except WorkerError:
        return
    assert found["ethereum"].price > 0
    assert found["ethereum"].asof_ms <= NOW_MS


# -- keys, coins, limits ----------------------------------------------------------------------------------------------


def test_it_works_without_a_key_and_more_often_with_one(
    venue: Venue, clock: FakeClock, aside: Quarantine, gecko: CoinGecko
) -> None:
    keyed = CoinGecko([venue.url], clock, aside, key=KEY)
    assert len(day(gecko)) == len(day(keyed)) == 47
    assert [head["x-cg-demo-api-key"] for head in venue.heads] == [None, KEY]
    assert (gecko.offer.requests_a_minute, keyed.offer.requests_a_minute) == (5, 30)
    assert not gecko.offer.key_missing
    for _ in range(5):
        day(gecko)
    assert clock.slept_s == [60.0]


def test_a_genuine_rate_limit_is_waited_out(
    shared_data: Path, venue: Venue, gecko: CoinGecko, clock: FakeClock
) -> None:
    body = (shared_data / "raw" / "coingecko" / "http429_rate_limit.json").read_bytes()
    venue.scripted = [Answer(body, 429, {"Retry-After": "30"})]
    assert len(day(gecko)) == 47
    assert clock.slept_s == [30.0]
    venue.scripted = [Answer(body, 429, {"Retry-After": "119"})]
    with pytest.raises(MarketUnavailable, match="exceeded the Rate Limit") as caught:
        day(gecko)
    assert caught.value.retry_after_s == 119


@pytest.mark.parametrize(
    ("name", "status"), [("ohlc_7d_1_http500.json", 500), ("market_chart_daily_1_http422.json", 422)]
)
def test_genuine_refusals_are_quoted(
    shared_data: Path, venue: Venue, clock: FakeClock, aside: Quarantine, name: str, status: int
) -> None:
    body = (shared_data / "raw" / "coingecko" / name).read_bytes()
    venue.handler = lambda path, query: Answer(body, status)
    with pytest.raises(MarketUnavailable, match=f"HTTP {status} .*{json.loads(body)['error']}"):
        day(CoinGecko([venue.url], clock, aside, patience_s=0))


@pytest.mark.parametrize(
    ("symbol", "says"),
    [
        pytest.param("ETHBTC", "not a symbol in USDT, USDC or USD", id="in another currency"),
        pytest.param("NOCOINUSDT", "no CoinGecko id is known for NOCOIN", id="unknown"),
        pytest.param("ethusdt", "not a symbol", id="in small letters"),
    ],
)
def test_an_unknown_symbol_is_an_error_of_the_configuration(
    venue: Venue, gecko: CoinGecko, symbol: str, says: str
) -> None:
    for ask in (
        lambda: gecko.prices(["ETHUSDT", symbol]),
        lambda: gecko.klines(symbol, HALF_MS, NOW_MS - DAY_MS, NOW_MS),
    ):
        with pytest.raises(ConfigError, match=says):
            ask()
    assert venue.requests == []


def test_names_and_what_it_declares(gecko: CoinGecko) -> None:
    assert {gecko.name_of(f"{base}USDT") for base in COINS} == set(COINS.values())
    assert gecko.name_of("TONUSDC") == "the-open-network"
    assert (gecko.offer.quote, gecko.offer.trades, gecko.offer.flow) == ("USD", False, frozenset())
    assert gecko.clock_ahead_ms() == 0
    assert gecko.archive("ETHUSDT", HALF_MS, START_MS) is None
