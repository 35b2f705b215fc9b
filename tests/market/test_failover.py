"""Several venues as one: who is asked, at what level, and what is believed. The venues are servers on loopback."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, SystemClock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable
from market.binance import Binance
from market.failover import PRICE_SHARE, Failover
from market.health import KLINES, LONE_REST_MS, PRICES, UNPROVEN_MS
from market.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.level import GOOD_MS, LEAST_COMMON, level_ratio
from market.provider import Price
from market.quality import Aside
from tests.fakes import START_MS, FakeClock, eventually, random_walk_klines
from tests.market.venue import Answer, Venue

NOW_MS = START_MS + 6 * HOUR_MS
LONG = random_walk_klines(8 * 60)


def walk(rows: int) -> Klines:
    """The first candles of one and the same market."""
    return LONG.between(0, START_MS + rows * MINUTE_MS)


WALK = walk(6 * 60)
APART = 1.002  # second over first
LAST_MS = int(WALK.open_time_ms[-1])


def at_level(klines: Klines, factor: float) -> Klines:
    """The same market at a venue whose prices are higher and which trades a third as much."""
    changed = {name: getattr(klines, name) * factor for name in PRICE_COLUMNS}
    return replace(klines, volume=klines.volume / 3, **changed)


def with_row(klines: Klines, at_ms: int, **cells: float) -> Klines:
    """One candle with other numbers in it."""
    columns = {name: getattr(klines, name).copy() for name in cells}
    row = int(np.searchsorted(klines.open_time_ms, at_ms))
    for name, cell in cells.items():
        columns[name][row] = cell
    return replace(klines, **columns)


def leapt(klines: Klines, from_ms: int, factor: float) -> Klines:
    """All prices from one candle on at another level: that candle opens at the old one and closes at the new."""
    after = klines.open_time_ms >= from_ms
    changed = {name: getattr(klines, name) * np.where(after, factor, 1.0) for name in PRICE_COLUMNS}
    row = int(np.searchsorted(klines.open_time_ms, from_ms))
    changed["open"][row] = klines.open[row]
    changed["low"][row] = min(changed["low"][row], klines.open[row])
    changed["high"][row] = max(changed["high"][row], klines.open[row])
    return replace(klines, **changed)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def first() -> Iterator[Venue]:
    with Venue().running() as running:
        running.add("ETHUSDT", WALK)
        running.prices = {"ETHUSDT": "2000", "BTCUSDT": "40000"}
        yield running


@pytest.fixture
def second() -> Iterator[Venue]:
    with Venue().running() as running:
        running.add("ETHUSDT", at_level(WALK, APART))
        running.prices = {"ETHUSDT": str(2000 * APART), "SOLUSDT": "50"}
        yield running


@pytest.fixture
def market(first: Venue, second: Venue, clock: FakeClock) -> Failover:
    return two(first, second, clock)


def two(first: Venue, second: Venue, clock: FakeClock | SystemClock, *, awaits_life: bool = False) -> Failover:
    aside = Aside()
    venues = [
        Binance([first.url], "", clock, timeout_s=0.5, patience_s=0, aside=aside),
        Binance([second.url], "", clock, timeout_s=0.5, patience_s=0, aside=aside, name="binanceus"),
    ]
    return Failover(venues, clock, aside, awaits_life=awaits_life)


def newest(market: Failover, rows: int = 20, end_ms: int = NOW_MS) -> Klines:
    return market.klines("ETHUSDT", MINUTE_MS, end_ms - rows * MINUTE_MS, end_ms)


def assert_prices_equal(left: Klines, right: Klines) -> None:
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in PRICE_COLUMNS:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9)


def broken(answer: Answer) -> Callable[[str, dict[str, str]], Answer | None]:
    return lambda path, query: answer


FAULTS = [
    pytest.param(Answer('{"code":0,"msg":"restricted location"}', 451), "barred", id="451"),
    pytest.param(Answer("<html>no</html>", 403), "barred", id="403 in HTML"),
    pytest.param(Answer("{}", 429, {"Retry-After": "7"}), "limited", id="429"),
    pytest.param(
        Answer(json.dumps({"code": -1003, "msg": f"banned until {NOW_MS + 120_000}."}), 418), "limited", id="418"
    ),
    pytest.param(Answer("sorry", 500), "unreachable", id="500"),
    pytest.param(Answer("<html>maintenance</html>", 503), "unreachable", id="maintenance"),
    pytest.param(Answer(hang_up=True), "unreachable", id="hung up"),
    pytest.param(Answer("[]", cut=True), "unreachable", id="cut off"),
    pytest.param(Answer("<html>busy</html>"), "malformed", id="HTML with 200"),
    pytest.param(Answer('[[1, "2"'), "malformed", id="cut JSON"),
    pytest.param(Answer('{"rows":[]}'), "malformed", id="wrong schema"),
    pytest.param(Answer('{"code":-1121,"msg":"Invalid symbol."}', 400), "unknown symbol", id="unknown or delisted"),
]


@pytest.mark.parametrize(("answer", "state"), FAULTS)
def test_the_next_venue_stands_in_at_the_level_of_the_first(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, answer: Answer, state: str
) -> None:
    before = newest(market)
    first.handler = broken(answer)
    first.prices = {}
    clock.time_ms += MINUTE_MS
    second.series["ETHUSDT", "1m"] = at_level(walk(6 * 60 + 1), APART)
    klines = newest(market, end_ms=NOW_MS + MINUTE_MS)
    assert_prices_equal(klines, walk(6 * 60 + 1).tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    assert market.level("ETHUSDT") == "binance"
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "binanceus"
    faults = {key: fault.state for key, fault in market.faults.items()}
    assert {faults.get(("binance", KLINES, "")), faults.get(("binance", KLINES, "ETHUSDT"))} >= {state}
    asked = len(first.requests)
    newest(market, end_ms=NOW_MS + MINUTE_MS)
    market.prices(["ETHUSDT"])
    assert len(first.requests) == asked  # left alone
    np.testing.assert_array_equal(before.tail(19).close, klines.between(0, NOW_MS).close)


def test_what_the_first_told_is_never_told_otherwise(first: Venue, second: Venue, market: Failover) -> None:
    before = newest(market, rows=30)
    second.series["ETHUSDT", "1m"] = with_row(
        at_level(WALK, APART), LAST_MS, close=float(WALK.close[-1]) * 1.004, high=float(WALK.high[-1]) * 1.01
    )
    first.handler = broken(Answer("sorry", 500))
    after = newest(market, rows=30)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_no_return_has_the_difference_of_two_venues_in_it(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """There and back: what a reader has merged is the market's own path throughout."""
    whole = walk(7 * 60)
    kept = newest(market, rows=100)
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    first.handler = broken(Answer("sorry", 500))
    for minute in range(1, 40):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        kept = kept.merge(market.klines("ETHUSDT", MINUTE_MS, kept.end_ms - 10 * MINUTE_MS, clock.time_ms))
    assert market.borrowed("ETHUSDT", MINUTE_MS) == ()  # the first is not to be asked
    first.series["ETHUSDT", "1m"] = whole
    first.handler = lambda path, query: None
    clock.time_ms += MINUTE_MS
    ((since_ms, until_ms),) = market.borrowed("ETHUSDT", MINUTE_MS)
    assert (since_ms, until_ms) == (NOW_MS, NOW_MS + 39 * MINUTE_MS)
    assert_prices_equal(kept, whole.between(int(kept.open_time_ms[0]), kept.end_ms))
    back = market.klines("ETHUSDT", MINUTE_MS, since_ms, clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert market.borrowed("ETHUSDT", MINUTE_MS) == ()
    np.testing.assert_allclose(back.close, whole.between(since_ms, clock.time_ms).close, rtol=1e-11)


def test_flows_that_are_counted_otherwise_are_left_out_and_volume_is_brought_to_size(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    clock.time_ms += MINUTE_MS
    longer = walk(6 * 60 + 1)
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    told = newest(market, end_ms=NOW_MS + MINUTE_MS).tail(1)
    assert np.isnan(told.trades).all()
    assert np.isnan(told.taker_buy_base).all()
    np.testing.assert_allclose(told.volume, longer.tail(1).volume, rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(at_level(WALK, 1.2), id="another level altogether"),
        pytest.param(random_walk_klines(6 * 60, seed=5, sigma=0.02), id="another asset"),
        pytest.param(at_level(WALK, APART).tail(LEAST_COMMON - 1), id="too few in common"),
    ],
)
def test_a_venue_whose_level_cannot_be_told_is_not_used(
    first: Venue, second: Venue, market: Failover, other: Klines
) -> None:
    newest(market)
    second.series["ETHUSDT", "1m"] = other
    first.handler = broken(Answer("sorry", 500))
    with pytest.raises(
        MarketUnavailable, match=r"no venue has 1m klines of ETHUSDT: binance: .*500.*binanceus: .*level"
    ):
        newest(market)


def test_whoever_tells_first_sets_the_level(first: Venue, second: Venue, market: Failover, clock: FakeClock) -> None:
    first.handler = broken(Answer("barred", 451))
    klines = newest(market)
    np.testing.assert_allclose(klines.close, WALK.tail(20).close * APART)
    assert market.level("ETHUSDT") == "binanceus"
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000 * APART)
    first.handler = lambda path, query: None
    clock.time_ms += 11 * 60 * SECOND_MS  # the hosts' own memory of being barred
    first.series["ETHUSDT", "1m"] = longer = walk(6 * 60 + 11)
    klines = newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    np.testing.assert_allclose(klines.close[-1], longer.close[-1] * APART)


def test_prices_come_from_whoever_has_them(market: Failover) -> None:
    found = market.prices(["ETHUSDT", "SOLUSDT", "BTCUSDT", "NOSUCHUSDT"])
    assert {symbol: price.venue for symbol, price in found.items()} == {
        "ETHUSDT": "binance",
        "BTCUSDT": "binance",
        "SOLUSDT": "binanceus",
    }
    with pytest.raises(ConfigError, match=r"no venue has prices of NOSUCHUSDT: binance: unknown symbol.*binanceus: "):
        market.prices(["NOSUCHUSDT"])


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
    first.handler = lambda path, query: None
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
        first.handler = lambda path, query: None

        def is_back() -> bool:
            newest(market, end_ms=now_ms)
            return market.source("ETHUSDT", MINUTE_MS) == "binance"

        eventually(is_back, timeout_s=5, what="the first venue's return")
    finally:
        market.stop()


def test_a_venue_without_the_last_candles_is_passed_over(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Empty answers are no error of HTTP: a halted market says nothing, politely."""
    newest(market)
    clock.time_ms += 5 * MINUTE_MS
    longer = walk(6 * 60 + 5)
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    klines = newest(market, end_ms=clock.time_ms)
    assert_prices_equal(klines, longer.tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "silent"


def frozen(klines: Klines, rows: int) -> Klines:
    """The last candles without a trade, at the price before them."""
    flat = np.arange(len(klines)) >= len(klines) - rows
    price = float(klines.close[-rows - 1])
    changed = {name: np.where(flat, price, getattr(klines, name)) for name in PRICE_COLUMNS}
    changed["volume"] = np.where(flat, 0.0, klines.volume)
    return replace(klines, **changed)  # type: ignore[arg-type]


def four_minutes_later(market: Failover, clock: FakeClock) -> Klines:
    """What the market did until then, of which two hours were told."""
    newest(market, rows=120)
    clock.time_ms += 4 * MINUTE_MS
    return walk(6 * 60 + 4)


def test_a_frozen_venue_is_passed_over_where_another_one_trades(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = four_minutes_later(market, clock)
    first.series["ETHUSDT", "1m"] = frozen(longer, 4)
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    klines = newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    np.testing.assert_allclose(klines.close[-1], longer.close[-1], rtol=1e-9)


def test_candles_that_repeat_the_last_one_are_no_trades(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A feed that is stuck may tell its last candle again and again, volume and all."""
    longer = four_minutes_later(market, clock)
    rows = np.minimum(np.arange(len(longer)), len(longer) - 5)
    stuck = {name: getattr(longer, name)[rows] for name in COLUMNS}
    first.series["ETHUSDT", "1m"] = Klines(interval_ms=MINUTE_MS, open_time_ms=longer.open_time_ms, **stuck)
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    assert_prices_equal(newest(market, end_ms=clock.time_ms), longer.tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"


def ask_for_minutes(market: Failover, clock: FakeClock, minutes: int) -> Price:
    """Ask for prices every four seconds and for candles every minute, as a node does; the last price."""
    for step in range(15 * minutes):
        clock.time_ms += 4 * SECOND_MS
        price = market.prices(["ETHUSDT"])["ETHUSDT"]
        if step % 15 == 14:
            newest(market, end_ms=clock.time_ms // MINUTE_MS * MINUTE_MS)
    return price


def test_a_price_that_its_own_candles_have_left_is_passed_over(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A ticker out of a cache that nobody renews has the time of the question, and is old all the same."""
    longer = walk(6 * 60 + 10)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.002)}
    newest(market, rows=120)
    assert ask_for_minutes(market, clock, 1).venue == "binance"
    price = ask_for_minutes(market, clock, 2)
    assert price.venue == "binanceus"
    assert price.price == pytest.approx(2000)
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "frozen"
    assert ask_for_minutes(market, clock, 4).venue == "binanceus"  # also after its rest, as it is still the same
    first.prices = {"ETHUSDT": "2001"}
    assert ask_for_minutes(market, clock, 2).venue == "binance"


def test_a_price_that_stands_still_with_its_candles_is_believed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = frozen(walk(6 * 60 + 10), 10)
    longer = replace(longer, volume=np.linspace(1.0, 2.0, len(longer)))  # trades, at one price
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": repr(float(longer.close[-1]))}
    newest(market, rows=120)
    assert ask_for_minutes(market, clock, 5).venue == "binance"


def test_a_market_that_is_silent_everywhere_is_told_as_it_is(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = four_minutes_later(market, clock)
    first.series["ETHUSDT", "1m"] = frozen(longer, 4)
    second.series["ETHUSDT", "1m"] = frozen(at_level(longer, APART), 4)
    klines = newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert (klines.volume[-4:] == 0).all()
    assert len(klines) == 20


def test_a_symbol_that_seldom_trades_is_not_taken_for_frozen(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    seldom = replace(WALK, volume=np.where(np.arange(len(WALK)) % 8 == 0, WALK.volume, 0.0))
    first.series["ETHUSDT", "1m"] = seldom
    second.series["ETHUSDT", "1m"] = at_level(WALK, APART)
    newest(market, rows=200)
    newest(market)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert second.asked("/api/v3/klines") == []


@pytest.mark.parametrize("has_it", [pytest.param(True, id="confirmed"), pytest.param(False, id="contradicted")])
@pytest.mark.parametrize("factor", [pytest.param(1.3, id="up"), pytest.param(0.7, id="down")])
def test_a_leap_is_believed_when_a_second_venue_has_it(
    first: Venue, second: Venue, market: Failover, factor: float, has_it: bool
) -> None:
    moved = leapt(WALK, LAST_MS, factor)
    first.series["ETHUSDT", "1m"] = moved
    second.series["ETHUSDT", "1m"] = at_level(moved if has_it else WALK, APART)
    klines = newest(market)
    assert klines.end_ms == (NOW_MS if has_it else NOW_MS - MINUTE_MS)


def test_a_leap_that_stays_is_believed_in_the_end(first: Venue, clock: FakeClock) -> None:
    """Alone there is nobody to ask: two more candles at the new level say it."""
    alone = Failover([Binance([first.url], "", clock, patience_s=0)], clock, Aside(), awaits_life=False)
    whole = leapt(walk(6 * 60 + 3), NOW_MS, 0.7)
    first.series["ETHUSDT", "1m"] = whole
    ends = []
    for minute in range(1, 4):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        ends.append((newest(alone, end_ms=clock.time_ms).end_ms - NOW_MS) // MINUTE_MS)
    assert ends == [0, 0, 3]


def test_a_spike_is_set_aside_with_its_reason(first: Venue, second: Venue, market: Failover) -> None:
    at_ms = LAST_MS - 5 * MINUTE_MS
    price = float(WALK.close[-6])
    first.series["ETHUSDT", "1m"] = with_row(WALK, at_ms, close=price * 1.5, high=price * 1.6)
    klines = newest(market)
    assert_prices_equal(klines, WALK.tail(20))  # the second venue has that candle
    ((key, count),) = market.aside.counts.items()
    assert key[:2] == ("binance", "ETHUSDT")
    assert "no second venue" in key[2]
    assert count == 1
    second.series["ETHUSDT", "1m"] = at_level(first.series["ETHUSDT", "1m"], APART)
    assert_prices_equal(newest(market), first.series["ETHUSDT", "1m"].tail(20))


def test_a_hole_is_filled_by_whoever_has_it_and_asked_for_once(first: Venue, second: Venue, market: Failover) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    first.series["ETHUSDT", "1m"] = WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS))
    assert_prices_equal(newest(market), WALK.tail(20))
    assert market.filled == 3
    assert market.borrowed("ETHUSDT", MINUTE_MS) == ()  # the series' own venue has none: it is not asked again
    asked = len(second.requests)
    second.handler = broken(Answer("[]"))
    first.series["ETHUSDT", "1m"] = first.series["ETHUSDT", "1m"].tail(100)
    newest(market)
    assert len(second.requests) == asked


def test_a_venue_that_has_only_the_newest_is_not_asked_for_the_old(
    first: Venue, second: Venue, market: Failover
) -> None:
    market.venues[1]._offer = replace(market.venues[1].offer, history_rows=30)  # type: ignore[attr-defined]
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    with pytest.raises(MarketUnavailable):
        market.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 60 * MINUTE_MS)
    assert second.asked("/api/v3/klines") == []


def test_one_venue_alone_speaks_for_itself(first: Venue, clock: FakeClock) -> None:
    alone = Failover([Binance([first.url], "", clock, patience_s=0)], clock, Aside(), awaits_life=False)
    first.handler = broken(Answer(json.dumps({"msg": "maintenance"})))
    with pytest.raises(MalformedKlines, match="must be a list"):
        newest(alone)


def test_standing_survives_a_restart(first: Venue, second: Venue, market: Failover, clock: FakeClock) -> None:
    kept = newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    clock.time_ms += MINUTE_MS
    second.series["ETHUSDT", "1m"] = at_level(walk(6 * 60 + 1), APART)
    newest(market, end_ms=clock.time_ms)
    (said,) = market.standing.values()
    again = two(first, second, clock)
    again.stand("ETHUSDT", MINUTE_MS, str(said["level"]), [tuple(span) for span in said["borrowed"]])
    again.remember("ETHUSDT", kept)
    told = again.klines("ETHUSDT", MINUTE_MS, clock.time_ms - 5 * MINUTE_MS, clock.time_ms)
    assert_prices_equal(told, walk(6 * 60 + 1).tail(5))
    first.handler = lambda path, query: None
    clock.time_ms += 2 * MINUTE_MS
    assert again.borrowed("ETHUSDT", MINUTE_MS) == ((NOW_MS, NOW_MS + MINUTE_MS),)


def test_what_the_own_venue_lacks_is_asked_for_again_once(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """It stood still while it was gone: there is nothing to be had, and the other's candles stay."""
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    whole = walk(6 * 60 + 10)
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    clock.time_ms += 5 * MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    first.series["ETHUSDT", "1m"] = WALK.merge(whole.tail(5))
    first.handler = lambda path, query: None
    clock.time_ms += 5 * MINUTE_MS
    ((start_ms, _),) = market.borrowed("ETHUSDT", MINUTE_MS)
    told = market.klines("ETHUSDT", MINUTE_MS, start_ms, clock.time_ms)
    assert market.borrowed("ETHUSDT", MINUTE_MS) == ()
    assert told.end_ms == clock.time_ms
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"


def test_old_candles_from_another_venue_are_asked_for_again_and_no_others(
    first: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    span = (START_MS + 10 * MINUTE_MS, START_MS + 30 * MINUTE_MS)
    assert len(market.klines("ETHUSDT", MINUTE_MS, *span)) == 20
    first.handler = lambda path, query: None
    clock.time_ms += MINUTE_MS
    assert market.borrowed("ETHUSDT", MINUTE_MS) == (span,)


def test_a_level_of_a_venue_that_is_not_in_use_any_more(first: Venue, clock: FakeClock) -> None:
    """Where candles at that level are there, the new venue's are brought to it; where none are, it begins anew."""
    alone = Failover([Binance([first.url], "", clock, patience_s=0)], clock, Aside(), awaits_life=False)
    alone.stand("ETHUSDT", MINUTE_MS, "kraken", [])
    alone.remember("ETHUSDT", at_level(WALK, APART).between(0, NOW_MS - 5 * MINUTE_MS))
    np.testing.assert_allclose(newest(alone).close, WALK.tail(20).close * APART, rtol=1e-9)
    again = Failover([Binance([first.url], "", clock, patience_s=0)], clock, Aside(), awaits_life=False)
    again.stand("ETHUSDT", MINUTE_MS, "kraken", [])
    assert_prices_equal(newest(again), WALK.tail(20))
    assert again.level("ETHUSDT") == "binance"


def test_two_first_answers_at_once_have_one_level(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A first sync asks for several months at a time, and a venue may fail for one of them."""
    first.handler = broken(Answer("sorry", 500))

    def meanwhile(path: str, query: dict[str, str]) -> Answer | None:
        second.handler = lambda path, query: None
        first.handler = lambda path, query: None
        clock.time_ms += 2 * SECOND_MS
        newest(market, rows=120)
        return None

    second.handler = meanwhile
    assert_prices_equal(newest(market), WALK.tail(20))
    assert market.level("ETHUSDT") == "binance"


def test_a_level_is_a_median_of_what_both_have() -> None:
    other = at_level(WALK, APART)
    wild = with_row(with_row(other, LAST_MS, high=9e9), LAST_MS - MINUTE_MS, high=9e9)
    scale = level_ratio(WALK.tail(60), wild)
    assert scale
    assert scale.price == pytest.approx(1 / APART)
    assert scale.flow == pytest.approx(3.0)


def test_volume_is_brought_to_size_long_after_the_venues_shared_a_candle(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    for minute in (1, 90):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        told = newest(market, end_ms=clock.time_ms).tail(1)
        np.testing.assert_allclose(told.volume, walk(6 * 60 + minute).tail(1).volume, rtol=1e-6)


def test_a_level_of_long_ago_is_measured_anew_before_a_price_counts_by_it(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    first.prices = {}
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)
    second.prices = {"ETHUSDT": str(2000 * 1.01)}
    second.series["ETHUSDT", "1m"] = at_level(LONG, 1.01)
    clock.time_ms += GOOD_MS + MINUTE_MS
    first.series["ETHUSDT", "1m"] = LONG
    newest(market, rows=90, end_ms=clock.time_ms)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)


def test_without_a_level_there_is_no_price_and_no_word_of_a_wrong_symbol(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.prices = {}
    second.series["ETHUSDT", "1m"] = random_walk_klines(6 * 60, seed=5, sigma=0.02)
    for _ in range(300):
        with pytest.raises(MarketUnavailable, match=r"binanceus: .*its level is not known"):
            market.prices(["ETHUSDT"])
        clock.time_ms += SECOND_MS
    assert len(second.asked("/api/v3/klines")) <= 5  # in five minutes: a budget is not spent on it


def test_nothing_is_asked_for_again_while_another_venue_would_tell_it(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Begun at the second venue's level; from its return on the first one tells all, and the list would only grow."""
    first.handler = broken(Answer("sorry", 500))
    newest(market)
    first.handler = lambda path, query: None
    clock.time_ms += 2 * MINUTE_MS
    first.series["ETHUSDT", "1m"] = LONG
    newest(market, end_ms=clock.time_ms)
    assert (market.level("ETHUSDT"), market.source("ETHUSDT", MINUTE_MS)) == ("binanceus", "binance")
    assert not market.borrowed("ETHUSDT", MINUTE_MS)
    first.handler = broken(Answer("sorry", 500))
    newest(market, end_ms=clock.time_ms)
    assert not market.borrowed("ETHUSDT", MINUTE_MS)  # the own venue has told them now


def test_a_level_that_newer_candles_refute_is_not_used_any_more(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    newest(market)  # the second one stands in, at a level that fits
    first.handler = lambda path, query: None
    clock.time_ms += 2 * MINUTE_MS
    first.series["ETHUSDT", "1m"] = LONG
    newest(market, end_ms=clock.time_ms)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(LONG, 1.08)  # apart by more than two venues of one asset can be
    with pytest.raises(MarketUnavailable, match="its level is not known"):
        newest(market, end_ms=clock.time_ms)
    with pytest.raises(MarketUnavailable, match="its level is not known"):
        market.prices(["ETHUSDT"])


def test_prices_are_asked_for_as_often_as_a_venue_wants(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    market.venues[1]._offer = replace(market.venues[1].offer, prices_at_once=False, requests_a_minute=60)  # type: ignore[attr-defined]
    first.prices = {"BTCUSDT": "41000"}
    for _ in range(60):  # as a node asks, and with a symbol that nobody has
        assert set(market.prices(["ETHUSDT", "SOLUSDT", "NONEUSDT"])) == {"ETHUSDT", "SOLUSDT"}
        assert market.prices(["BTCUSDT"])["BTCUSDT"].venue == "binance"  # the pace is a venue's own
        clock.time_ms += SECOND_MS
    asked = second.asked("/api/v3/ticker/price")
    named = [name for query in asked for name in json.loads(query.get("symbols", "[]")) or [query["symbol"]]]
    for symbol in ("ETHUSDT", "SOLUSDT"):
        assert 5 <= named.count(symbol) <= PRICE_SHARE * 60 / 2 + 2  # the first list was asked for one by one as well
    assert named.count("NONEUSDT") <= 3  # then it is left alone for ten minutes


def test_a_venue_that_knows_no_sign_of_life_is_asked_again_all_the_same(first: Venue, second: Venue) -> None:
    """A mirror may serve candles and nothing else."""
    clock = FakeClock(NOW_MS)
    market = two(first, second, clock, awaits_life=True)
    try:
        newest(market)
        first.handler = lambda path, query: Answer("sorry", 404 if path == "/api/v3/time" else 503)
        newest(market)
        first.handler = lambda path, query: Answer("sorry", 404) if path == "/api/v3/time" else None
        clock.time_ms += UNPROVEN_MS - 1
        newest(market)
        assert market.faults
        clock.time_ms += 1
        newest(market)
        assert not market.faults
    finally:
        market.stop()


def test_a_venue_that_has_given_signs_of_life_is_waited_for(first: Venue, second: Venue) -> None:
    clock = FakeClock(NOW_MS)
    market = two(first, second, clock, awaits_life=True)
    try:
        newest(market)
        market.clock_ahead_ms()
        first.handler = broken(Answer("sorry", 503))
        newest(market)
        asked = len(first.asked("/api/v3/klines"))
        for _ in range(10):
            clock.time_ms += UNPROVEN_MS
            newest(market)
        assert len(first.asked("/api/v3/klines")) == asked
    finally:
        market.stop()


def test_a_leap_that_waits_is_said_once(first: Venue, clock: FakeClock) -> None:
    alone = Failover([Binance([first.url], "", clock, patience_s=0)], clock, Aside(), awaits_life=False)
    first.series["ETHUSDT", "1m"] = leapt(WALK, LAST_MS, 1.3)
    with capture_logs() as lines:
        for _ in range(5):
            newest(alone)
    assert [line["event"] for line in lines].count("leap_awaits_confirmation") == 1
