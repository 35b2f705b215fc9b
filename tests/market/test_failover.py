"""Several venues as one: who is asked, and what is believed. The venues are servers on loopback."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable
from market.binance import Binance
from market.coinbase import Coinbase
from market.failover import HOLE_AGAIN_MS, OLD_PRICE_MS, PRICE_SHARE, Failover
from market.health import KLINES, PRICES
from market.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.provider import Price
from market.quality import Aside
from tests.fakes import START_MS, FakeClock
from tests.market.pair import (
    APART,
    LAST_MS,
    LONG,
    NOW_MS,
    WALK,
    alone,
    assert_prices_equal,
    at_level,
    broken,
    leapt,
    newest,
    two,
    walk,
    with_row,
    works,
)
from tests.market.venue import Answer, Venue


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


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


def test_prices_come_from_whoever_has_them(market: Failover) -> None:
    found = market.prices(["ETHUSDT", "SOLUSDT", "BTCUSDT", "NOSUCHUSDT"])
    assert {symbol: price.venue for symbol, price in found.items()} == {
        "ETHUSDT": "binance",
        "BTCUSDT": "binance",
        "SOLUSDT": "binanceus",
    }
    with pytest.raises(ConfigError, match=r"no venue has prices of NOSUCHUSDT: binance: unknown symbol.*binanceus: "):
        market.prices(["NOSUCHUSDT"])


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


def ask_for_minutes(market: Failover, clock: FakeClock, minutes: int, second: Venue) -> Price:
    """Ask for prices every four seconds and for candles every minute, as a node does; the last price."""
    for step in range(15 * minutes):
        clock.time_ms += 4 * SECOND_MS
        ended = second.series["ETHUSDT", "1m"].between(0, clock.time_ms - MINUTE_MS + 1)
        second.prices = {"ETHUSDT": repr(float(ended.close[-1]))}
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
    assert ask_for_minutes(market, clock, 1, second).venue == "binance"
    price = ask_for_minutes(market, clock, 2, second)
    assert price.venue == "binanceus"
    assert price.price == pytest.approx(longer.close[6 * 60 + 2])
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "frozen"
    assert ask_for_minutes(market, clock, 4, second).venue == "binanceus"  # also after its rest: it is the same
    first.prices = {"ETHUSDT": "2001"}
    assert ask_for_minutes(market, clock, 2, second).venue == "binance"


def test_a_price_that_stands_still_with_its_candles_is_believed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = frozen(walk(6 * 60 + 10), 10)
    longer = replace(longer, volume=np.linspace(1.0, 2.0, len(longer)))  # trades, at one price
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": repr(float(longer.close[-1]))}
    newest(market, rows=120)
    assert ask_for_minutes(market, clock, 5, second).venue == "binance"


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
    lone = alone(first, clock)
    whole = leapt(walk(6 * 60 + 3), NOW_MS, 0.7)
    first.series["ETHUSDT", "1m"] = whole
    ends = []
    for minute in range(1, 4):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        ends.append((newest(lone, end_ms=clock.time_ms).end_ms - NOW_MS) // MINUTE_MS)
    assert ends == [0, 0, 3]


def test_a_spike_is_set_aside_with_its_reason(first: Venue, second: Venue, market: Failover, clock: FakeClock) -> None:
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
    asked = len(second.requests)
    newest(market)
    assert len(second.requests) == asked  # it stays in the window: the verdict counts for a while
    clock.time_ms += HOLE_AGAIN_MS
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
    lone = alone(first, clock)
    first.handler = broken(Answer(json.dumps({"msg": "maintenance"})))
    with pytest.raises(MalformedKlines, match="must be a list"):
        newest(lone)


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
    first.handler = works
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
    first.handler = works
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
    first.handler = works
    clock.time_ms += MINUTE_MS
    assert market.borrowed("ETHUSDT", MINUTE_MS) == (span,)


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


def test_a_leap_that_waits_is_said_once(first: Venue, clock: FakeClock) -> None:
    lone = alone(first, clock)
    first.series["ETHUSDT", "1m"] = leapt(WALK, LAST_MS, 1.3)
    with capture_logs() as lines:
        for _ in range(5):
            newest(lone)
    assert [line["event"] for line in lines].count("leap_awaits_confirmation") == 1


def test_a_leap_in_the_first_row_that_a_second_venue_lacks_is_not_confirmed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Between two candles: within itself that one goes no further than any."""
    longer = walk(6 * 60 + 1)
    gone = WALK.merge(at_level(longer.tail(1), 0.7))
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = gone, at_level(longer, APART)
    newest(market, rows=120)
    clock.time_ms += MINUTE_MS
    assert not len(market.klines("ETHUSDT", MINUTE_MS, NOW_MS, clock.time_ms))
    second.series["ETHUSDT", "1m"] = at_level(gone, APART)
    assert len(market.klines("ETHUSDT", MINUTE_MS, NOW_MS, clock.time_ms)) == 1


def test_what_fills_a_hole_is_doubted_as_any(first: Venue, second: Venue, market: Failover) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    first.series["ETHUSDT", "1m"] = WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS))
    at_ms = hole[0] + MINUTE_MS
    price = float(WALK.between(at_ms, NOW_MS).close[0])
    second.series["ETHUSDT", "1m"] = at_level(with_row(WALK, at_ms, close=price * 1.5, high=price * 1.6), APART)
    told = newest(market)
    assert_prices_equal(told, WALK.tail(20).between(0, at_ms).merge(WALK.between(at_ms + MINUTE_MS, NOW_MS)))
    ((key, _),) = market.aside.counts.items()
    assert key[:2] == ("binanceus", "ETHUSDT")


def test_a_clock_that_is_set_back_makes_no_healthy_price_frozen(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Candles that were told before look as if they came after the price, and have others."""
    longer = walk(6 * 60 + 5)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    clock.time_ms += 5 * MINUTE_MS
    newest(market, rows=120, end_ms=clock.time_ms)
    first.prices = {"ETHUSDT": repr(float(longer.high[-1]) * 1.01)}
    clock.time_ms -= 4 * MINUTE_MS
    for _ in range(40):
        assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "binance"
        clock.time_ms += 4 * SECOND_MS
    assert not market.faults


def test_what_may_be_asked_for_again_is_offered_less_and_less_often_while_it_is_not_to_be_had(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A venue whose times of day work and whose candles do not: each offer makes another one tell all of them anew."""
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    clock.time_ms += 5 * MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    offers = 0
    for _ in range(90):
        clock.time_ms += MINUTE_MS + SECOND_MS
        offers += bool(market.borrowed("ETHUSDT", MINUTE_MS))
        newest(market, end_ms=clock.time_ms // MINUTE_MS * MINUTE_MS)
    assert 2 <= offers <= 8
    first.series["ETHUSDT", "1m"], first.handler = LONG, works
    clock.time_ms += HOUR_MS
    assert market.borrowed("ETHUSDT", MINUTE_MS)


def test_a_standing_is_told_before_the_candles_by_which_it_changed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    said = []
    market.on_standing = lambda: said.append(market.standing)
    first.handler = broken(Answer("sorry", 500))
    newest(market)
    assert said[-1] == {"ETHUSDT-1m": {"level": "binanceus", "borrowed": []}}


def test_a_price_of_long_ago_is_asked_for_elsewhere_and_the_newest_counts(
    first: Venue, second: Venue, clock: FakeClock
) -> None:
    """Coinbase tells when a trade was: one of long ago says little where another venue has traded since."""
    traded_ms = clock.time_ms

    def told(path: str, query: dict[str, str]) -> Answer | None:
        return Answer(json.dumps({"price": "1990", "time": iso(traded_ms)})) if path.endswith("/ticker") else None

    first.handler = told
    second.series["ETHUSDT", "1m"] = WALK
    venues = [
        Coinbase([first.url], clock, Aside(), patience_s=0),
        Binance([second.url], "", clock, patience_s=0, name="binanceus"),
    ]
    market = Failover(venues, clock, Aside(), awaits_life=False)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "coinbase"
    assert not second.requests
    clock.time_ms += OLD_PRICE_MS + SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"] == Price(price=2000 * APART, asof_ms=clock.time_ms, venue="binanceus")
    second.prices = {}
    clock.time_ms += SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == traded_ms  # better than none
    traded_ms = clock.time_ms
    clock.time_ms += 2 * SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == traded_ms


def test_a_price_that_stands_still_at_a_venue_that_stands_in_is_told_from_one_that_moves(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Its candles, brought to the level, have left it as its own venue's would have."""
    longer = walk(6 * 60 + 10)
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    second.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.004)}
    for _ in range(3):
        for _ in range(15):
            with suppress(MarketUnavailable):
                market.prices(["ETHUSDT"])
            clock.time_ms += 4 * SECOND_MS
        newest(market, end_ms=clock.time_ms)
    with pytest.raises(MarketUnavailable, match="binanceus tells the same price of ETHUSDT since"):
        market.prices(["ETHUSDT"])
    assert market.faults["binanceus", PRICES, "ETHUSDT"].state == "frozen"


def test_minutes_without_a_candle_are_a_symbol_s_way_and_no_halt(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Coinbase has no candle where nobody traded: seven minutes without one are usual there for some symbols."""
    whole = walk(8 * 60)
    usual = np.arange(len(whole)) % 8 < 1 + np.arange(len(whole)) % 3 % 2
    first.series["ETHUSDT", "1m"] = Klines(
        interval_ms=MINUTE_MS,
        open_time_ms=whole.open_time_ms[usual],
        **{name: getattr(whole, name)[usual] for name in COLUMNS},
    )
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    newest(market, rows=200)
    for _ in range(60):
        clock.time_ms += MINUTE_MS
        newest(market, end_ms=clock.time_ms)
        assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    first.series["ETHUSDT", "1m"] = first.series["ETHUSDT", "1m"].between(0, clock.time_ms - 8 * MINUTE_MS)
    clock.time_ms += 20 * MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"  # that is longer than its way


def test_lists_of_changing_length_do_not_ask_more_often(second: Venue, clock: FakeClock) -> None:
    """While the stream tells most symbols, the list of those that are asked for is another one each second."""
    names = [f"S{number}USDT" for number in range(10)]
    second.prices = dict.fromkeys(names, "5")
    venue = Binance([second.url], "", clock, patience_s=0, name="binanceus")
    venue._offer = replace(venue.offer, prices_at_once=False, requests_a_minute=300)
    second.knows_symbols = False  # no form for several
    market = Failover([venue], clock, Aside(), awaits_life=False)
    rng = np.random.default_rng(3)
    for _ in range(120):
        chosen = [name for name in names if rng.random() < 0.3] or names
        assert set(market.prices(chosen)) == set(chosen)
        clock.time_ms += SECOND_MS
    assert len(second.requests) <= 2 * PRICE_SHARE * 300 + len(names)


def test_what_a_better_venue_told_is_not_asked_for_again(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Begun at the second venue's level and told by the first ever since; then that is away for a moment."""
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    first.handler = broken(Answer("sorry", 500))
    newest(market)
    first.handler, first.series["ETHUSDT", "1m"] = works, LONG
    for _ in range(60):
        clock.time_ms += MINUTE_MS
        newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    first.handler = broken(Answer("sorry", 500))
    newest(market, end_ms=clock.time_ms)
    assert not market.borrowed("ETHUSDT", MINUTE_MS)


@pytest.mark.parametrize("factor", [100.0, 1.3, 0.01])
def test_a_venue_that_changes_its_unit_is_left_for_the_one_that_does_not(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, factor: float
) -> None:
    """It stays at the new level, candles and ticker: that does not make it true while another venue says otherwise."""
    newest(market, rows=120)
    gone = np.where(LONG.open_time_ms >= NOW_MS, factor, 1.0)
    first.series["ETHUSDT", "1m"] = replace(LONG, **{name: getattr(LONG, name) * gone for name in PRICE_COLUMNS})
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    for _ in range(40):
        clock.time_ms += MINUTE_MS + SECOND_MS
        end_ms = clock.time_ms // MINUTE_MS * MINUTE_MS
        ended = LONG.between(0, end_ms)
        first.prices = {"ETHUSDT": repr(float(ended.close[-1]) * factor)}
        second.prices = {"ETHUSDT": repr(float(ended.close[-1]) * APART)}
        told = newest(market, end_ms=end_ms)
        true = LONG.between(int(told.open_time_ms[0]), told.end_ms)
        np.testing.assert_allclose(told.close, true.close, rtol=1e-9)
        assert told.end_ms == end_ms or factor == 1.3  # beyond twofold nothing is waited for
        assert told.end_ms >= end_ms - 2 * MINUTE_MS
        price = market.prices(["ETHUSDT"])["ETHUSDT"]
        assert price.price == pytest.approx(float(ended.close[-1]), rel=1e-9)
        assert price.venue == "binanceus"


def test_a_leap_that_two_venues_have_is_the_market_s(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    gone = leapt(LONG, NOW_MS, 0.7)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = gone, at_level(gone, APART)
    first.prices = {"ETHUSDT": repr(float(gone.between(NOW_MS, 2**62).close[0]))}
    second.prices = {"ETHUSDT": repr(float(gone.between(NOW_MS, 2**62).close[0]) * APART)}
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(float(first.prices["ETHUSDT"]))
    for _ in range(5):
        clock.time_ms += MINUTE_MS
        assert_prices_equal(newest(market, end_ms=clock.time_ms), gone.between(0, clock.time_ms).tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"


@pytest.mark.parametrize("rows", [slice(100, 200), slice(250, None)])
def test_candles_of_another_unit_are_not_believed_of_one_venue_alone(
    first: Venue, clock: FakeClock, rows: slice
) -> None:
    lone = alone(first, clock)
    factor = np.ones(len(WALK))
    factor[rows] = 100.0
    first.series["ETHUSDT", "1m"] = replace(WALK, **{n: getattr(WALK, n) * factor for n in PRICE_COLUMNS})
    with pytest.raises(MalformedKlines, match=r"ETHUSDT leaps by \+99\d\d % .*another unit or asset\? .* begin anew"):
        newest(lone, rows=300)


def test_minutes_that_are_five_minutes_apart_are_another_interval(first: Venue, clock: FakeClock) -> None:
    lone = alone(first, clock)
    first.series["ETHUSDT", "1m"] = replace(WALK.resample(5 * MINUTE_MS), interval_ms=MINUTE_MS)
    with pytest.raises(MalformedKlines, match="must be 60 s apart, and all 60 are multiples of 300 s apart"):
        newest(lone, rows=300)


@pytest.mark.parametrize(
    ("first_ms", "second_ms", "ahead_ms"),
    [(7_200_000, 0, 0), (50_000, 50_000, 50_000), (-40_000, -40_300, -40_000), (300, 9_000, 300), (-60_000, 20_000, 0)],
)
def test_a_time_that_is_far_off_wants_a_second_venue_that_says_so(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, first_ms: int, second_ms: int, ahead_ms: int
) -> None:
    for venue, its_ms in ((first, first_ms), (second, second_ms)):
        answer = Answer(json.dumps({"serverTime": clock.time_ms + its_ms}))
        venue.handler = broken(answer)
    assert market.clock_ahead_ms() == pytest.approx(ahead_ms, abs=500)
    assert bool(second.requests) is (abs(first_ms) > SECOND_MS)
