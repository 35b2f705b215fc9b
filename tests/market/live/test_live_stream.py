"""The live market over the simulated exchange's stream: fresh through every fault, never a wrong price or candle."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from core.clock import DAY_MS, MINUTE_MS, Clock, CorrectedClock
from exchange.server import SimulatedExchange
from exchange.stream_faults import Kind
from market.live.live_market import LiveMarket
from market.venues.binance.stream import CANDLE_LAG_MS, BinanceStream
from tests.fakes.clock import BASE_MS, RunningClock, Skewed, eventually
from tests.fakes.klines import same
from tests.fakes.net import free_port
from tests.market.live.test_live import Feed, feeding, venue

BTC, ETH = ("BTCUSDT", MINUTE_MS), ("ETHUSDT", MINUTE_MS)
ROWS = 40
FRESH_MS = 2_500  # between two looks of a test; a second is usual


@contextmanager
def streaming(
    exchange: SimulatedExchange,
    clock: Clock,
    *urls: str,
    ping_after_s: float = 0.7,
    silence_s: float = 2.0,
    seconds: Callable[[], float] = time.monotonic,
) -> Iterator[Feed]:
    """A live market whose first candles are in and whose stream is up."""
    series = {BTC: ROWS, ETH: ROWS}
    hosts = urls or (exchange.stream_url,)
    stream = BinanceStream(hosts, series, ping_after_s=ping_after_s, silence_s=silence_s, seconds=seconds)
    with feeding(venue(exchange, clock), series, clock, stream) as feed:
        eventually(lambda: not feed.live.stream_fault, what="the stream")
        yield feed


def age_ms(live: LiveMarket, symbol: str, clock: RunningClock) -> int:
    anchor = live.anchor(symbol)
    return clock.now_ms() - anchor.asof_ms if anchor else 10**9


def asked(exchange: SimulatedExchange, path: str) -> int:
    return sum(seen.startswith(path) for seen, _ in exchange.requests)


def renewed(live: LiveMarket, symbol: str, times: int) -> None:
    """Wait until the anchor of a symbol has moved on ``times``."""
    for _ in range(times):
        before = live.anchor(symbol)
        eventually(lambda before=before: live.anchor(symbol) != before, what=f"a newer price of {symbol}")  # type: ignore[misc]


def assert_as_rest_has_them(exchange: SimulatedExchange, clock: RunningClock, live: LiveMarket) -> None:
    """The candles of both symbols are those that the exchange answers over REST."""
    for series in (BTC, ETH):
        known = live.klines(*series)
        assert same(known, venue(exchange, clock).klines(*series, int(known.open_time_ms[0]), known.end_ms))


def ended_at(feed: Feed, end_ms: int) -> bool:
    return feed.closed[-1][1] == {"BTCUSDT": end_ms, "ETHUSDT": end_ms}


def await_next_candle(feed: Feed, clock: RunningClock) -> None:
    clock.jump(BASE_MS + MINUTE_MS - 300 - clock.now_ms())
    eventually(lambda: ended_at(feed, BASE_MS + MINUTE_MS), what="both candles")


def assert_fresh(feed: Feed, clock: RunningClock, times: int = 2) -> None:
    """New prices of BTC come, and are new."""
    renewed(feed.live, "BTCUSDT", times)
    assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS


def test_while_the_stream_tells_prices_nobody_asks_for_them(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with streaming(exchange, clock) as feed:
        renewed(feed.live, "BTCUSDT", 1)
        before = asked(exchange, "/api/v3/ticker")
        renewed(feed.live, "BTCUSDT", 3)
        renewed(feed.live, "ETHUSDT", 1)
        assert asked(exchange, "/api/v3/ticker") == before
        assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS
        assert feed.live.errors == {"klines": 0, "prices": 0}
        assert set(feed.live.incidents.values()) == {0}
        anchor = feed.live.anchor("BTCUSDT")
        assert anchor
        assert anchor.price == exchange.source.price_at("BTCUSDT", anchor.asof_ms)


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda exchange: exchange.fail_next("/api/v3/klines", count=10_000, status=503), id="by REST"),
        pytest.param(lambda exchange: exchange.fail_stream("lose_candles", count=1), id="by the stream"),
    ],
)
def test_a_candle_that_is_not_told_one_way_comes_the_other_way(
    exchange: SimulatedExchange, clock: RunningClock, lose: Callable[[SimulatedExchange], None]
) -> None:
    with streaming(exchange, clock) as feed:
        lose(exchange)
        await_next_candle(feed, clock)
        assert not feed.live.stream_fault
        exchange.clear_faults()
        assert_as_rest_has_them(exchange, clock, feed.live)


def test_a_candle_of_the_stream_gives_way_to_another_one_of_rest(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_stream("wrong_candles", count=2)
        await_next_candle(feed, clock)
        told = len(feed.closed)
        eventually(lambda: feed.live.incidents["candle_corrected"] == 2, what="both corrected")
        eventually(lambda: len(feed.closed) > told, what="the correction handed on")
        assert_as_rest_has_them(exchange, clock, feed.live)


@pytest.mark.parametrize("fault", ["drop", "close", "half_open", "silence"])
def test_prices_stay_fresh_while_the_stream_is_gone_and_it_comes_back(
    exchange: SimulatedExchange, clock: RunningClock, fault: Kind
) -> None:
    with streaming(exchange, clock) as feed:
        renewed(feed.live, "BTCUSDT", 1)
        ended = feed.live.incidents["stream_ended"]
        exchange.fail_stream(fault, seconds=4.0) if fault == "silence" else exchange.fail_stream(fault)
        eventually(lambda: feed.live.incidents["stream_ended"] > ended, what="the end noticed")
        assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS
        renewed(feed.live, "ETHUSDT", 2)
        eventually(lambda: not feed.live.stream_fault, 15, what="the stream again")
        assert_fresh(feed, clock)
        assert feed.live.price_fault("BTCUSDT") == ""


def test_candles_that_closed_while_nothing_was_heard_are_filled_in(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_next("/api/v3/klines", count=10_000, status=503)
        exchange.fail_stream("refuse", seconds=600.0)
        exchange.fail_stream("drop")
        eventually(lambda: bool(feed.live.stream_fault), what="the end noticed")
        clock.jump(7 * MINUTE_MS)
        assert feed.live.klines(*BTC).end_ms == BASE_MS
        exchange.clear_faults()
        eventually(lambda: ended_at(feed, BASE_MS + 7 * MINUTE_MS), what="the candles that were missed")
        assert not list(feed.live.klines(*BTC).gaps())
        eventually(lambda: not feed.live.stream_fault, what="the stream again")
        assert_as_rest_has_them(exchange, clock, feed.live)


def test_another_host_is_taken_when_the_first_cannot_be_had(exchange: SimulatedExchange, clock: RunningClock) -> None:
    nobody = f"ws://127.0.0.1:{free_port()}"
    with streaming(exchange, clock, nobody, exchange.stream_url) as feed:
        renewed(feed.live, "BTCUSDT", 2)
        assert exchange.stream_connections == 1


def test_a_refused_stream_says_why_and_rest_goes_on(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_stream("refuse", seconds=600.0, status=451)
        exchange.fail_stream("drop")
        eventually(lambda: "451" in feed.live.stream_fault, what="the reason")
        assert_fresh(feed, clock)


@pytest.mark.parametrize("fault", ["garbage", "duplicate", "reorder"])
def test_broken_messages_cost_nothing(exchange: SimulatedExchange, clock: RunningClock, fault: Kind) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_stream(fault, count=12)
        clock.jump(BASE_MS + MINUTE_MS - 1_300 - clock.now_ms())
        seen_ms = 0
        while not ended_at(feed, BASE_MS + MINUTE_MS):
            renewed(feed.live, "BTCUSDT", 1)
            anchor = feed.live.anchor("BTCUSDT")
            assert anchor
            assert anchor.asof_ms >= seen_ms
            seen_ms = anchor.asof_ms
            # Where a trade was lost, the newest price is an open candle's close, which counts as older than it is.
            traded, of_an_open_candle = (
                exchange.source.price_at("BTCUSDT", anchor.asof_ms + later_ms) for later_ms in (0, CANDLE_LAG_MS)
            )
            assert anchor.price in {traded, of_an_open_candle}
            assert clock.now_ms() < BASE_MS + 2 * MINUTE_MS
        assert not feed.live.stream_fault
        assert_as_rest_has_them(exchange, clock, feed.live)


@pytest.mark.parametrize(
    "symbol", [pytest.param(None, id="nothing else is told"), pytest.param("BTCUSDT", id="the other symbol is told")]
)
def test_a_flood_of_refused_messages_is_one_line_a_minute_and_rest_tells_what_is_lacking(
    exchange: SimulatedExchange, clock: RunningClock, symbol: str | None
) -> None:
    now_s = [0.0]
    with capture_logs() as lines, streaming(exchange, clock, seconds=lambda: now_s[0]) as feed:
        exchange.fail_stream("garbage_flood", seconds=600.0, symbol=symbol)

        def refused() -> int:
            return feed.live.incidents["stream_message_refused"]

        clock.jump(BASE_MS + MINUTE_MS - 1_300 - clock.now_ms())
        eventually(lambda: ended_at(feed, BASE_MS + MINUTE_MS), what="the candle of the flooded symbol")
        before = asked(exchange, "/api/v3/ticker")
        renewed(feed.live, "BTCUSDT", 3)
        assert asked(exchange, "/api/v3/ticker") > before
        assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS
        eventually(lambda: refused() > 500, what="a flood")
        said = [line for line in lines if line["event"] == "stream_message_refused"]
        assert [line["count"] for line in said] == [1]
        now_s[0] += 60.0
        eventually(lambda: sum(line["event"] == "stream_message_refused" for line in lines) == 2, what="the next line")
        last = [line for line in lines if line["event"] == "stream_message_refused"][-1]
        assert last["count"] == sum(last["kinds"].values()) > 500
        assert len(last["kinds"]) > 1
        assert sum(line["event"] == "stream_down" for line in lines) <= 2
        exchange.clear_faults()
        eventually(lambda: not feed.live.stream_fault, what="the stream again")


def test_an_outlier_is_never_the_anchor(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_stream("outlier", count=1, symbol="BTCUSDT", factor=1.1)
        eventually(lambda: feed.live.incidents["price_doubted"] == 1, what="the outlier")
        for _ in range(3):
            anchor = feed.live.anchor("BTCUSDT")
            assert anchor
            true = exchange.source.price_at("BTCUSDT", anchor.asof_ms)
            assert true
            assert abs(anchor.price / true - 1) < 0.001
            renewed(feed.live, "BTCUSDT", 1)


def test_a_stream_that_lags_leaves_freshness_to_rest(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with streaming(exchange, clock) as feed:
        exchange.fail_stream("lag", seconds=600.0, delay_s=8.0)
        before = asked(exchange, "/api/v3/ticker")
        eventually(lambda: asked(exchange, "/api/v3/ticker") > before + 2, what="prices asked for")
        assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS


def test_a_symbol_that_falls_silent_alone_is_asked_for_alone(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with streaming(exchange, clock) as feed:
        renewed(feed.live, "ETHUSDT", 1)
        exchange.fail_stream("mute", seconds=600.0, symbol="ETHUSDT")
        renewed(feed.live, "ETHUSDT", 3)
        singles = [query for path, query in exchange.requests if path == "/api/v3/ticker/price" and "symbol" in query]
        assert {query["symbol"] for query in singles} == {"ETHUSDT"}
        assert not feed.live.stream_fault


@pytest.mark.parametrize("by_ms", [-600_000, -40_000, -3_000, 0, 3_000, 40_000, 600_000])
def test_ages_are_right_although_the_clocks_differ(
    exchange: SimulatedExchange, clock: RunningClock, by_ms: int
) -> None:
    ours = CorrectedClock(Skewed(clock, by_ms))
    with streaming(exchange, ours) as feed:
        eventually(lambda: abs(feed.live.clock_ahead_ms + by_ms) < 500, what="the difference measured")
        renewed(feed.live, "BTCUSDT", 2)
        anchor = feed.live.anchor("BTCUSDT")
        assert anchor
        assert -500 < ours.now_ms() - anchor.asof_ms < FRESH_MS
        assert abs(ours.now_ms() - clock.now_ms()) < 500


def test_a_time_that_cannot_be_is_not_believed(exchange: SimulatedExchange, clock: RunningClock) -> None:
    ours = CorrectedClock(Skewed(clock, -3 * DAY_MS))
    with capture_logs() as lines, feeding(venue(exchange, ours), {BTC: ROWS}, ours, loads=False):
        eventually(lambda: any(line["event"] == "clock_not_believed" for line in lines), what="the word")
    assert ours.ahead_ms == 0


@contextmanager
def telling_wildly(clock: RunningClock, price: float) -> Iterator[str]:
    """The address of a stream that tells twenty trades of BTC a second, at prices that are all wrong."""

    def tell(client: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for factor in (2.0, *[0.5, 9.0, 0.1, 70.0] * 10_000):
                trade = {"e": "aggTrade", "s": "BTCUSDT", "p": f"{price * factor:.2f}", "T": clock.now_ms()}
                client.send(json.dumps(trade))
                time.sleep(0.05)

    with serve(tell, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_stream_that_begins_with_a_wrong_price_and_alternates_is_set_right_by_rest(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    """Within seconds, long before the next candle; what is doubted is one line a minute."""
    now_price = exchange.source.price_at("BTCUSDT", clock.now_ms())
    assert now_price
    with capture_logs() as lines, telling_wildly(clock, now_price) as url:
        stream = BinanceStream([url], {BTC: ROWS})
        with feeding(venue(exchange, clock), {BTC: ROWS}, clock, stream) as feed:

            def is_right() -> bool:
                anchor = feed.live.anchor("BTCUSDT")
                true = exchange.source.price_at("BTCUSDT", anchor.asof_ms) if anchor else None
                return bool(anchor and true and abs(anchor.price / true - 1) < 0.01)

            eventually(lambda: bool(feed.closed) and not feed.live.stream_fault, what="candles and stream")
            eventually(is_right, 6, what="a right price")
            for _ in range(3):
                renewed(feed.live, "BTCUSDT", 1)
                assert is_right()
                assert age_ms(feed.live, "BTCUSDT", clock) < FRESH_MS
            assert feed.live.incidents["price_doubted"] > 20
    assert sum(line["event"] == "price_doubted" for line in lines) == 1
