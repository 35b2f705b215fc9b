"""The simulated exchange's market streams, heard by a real WebSocket client."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from exchange.server import SimulatedExchange
from exchange.sources.given import Given
from klines.spans import INTERVALS_MS
from tests.exchange.client import BUSY_MS, DECIMAL, PROMPT_MS, Message, as_row, closes, listen, rows, second
from tests.fakes.clock import BASE_MS, START_MS, RunningClock, eventually
from tests.fakes.klines import random_walk_klines


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedExchange]:
    """One for all tests that leave its clock and its faults alone."""
    with SimulatedExchange(clock=RunningClock()) as exchange:
        yield exchange


# -- what is told


def test_a_trade_is_what_binance_writes(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@trade", raw=True) as client:
        second(clock)
        first = client.hear()
        second(clock)
        after = client.hear()
    assert list(first) == ["e", "E", "s", "p", "q", "T", "m", "M", "t"]
    assert (first["e"], first["s"], first["m"], first["M"]) == ("trade", "BTCUSDT", False, True)
    assert all(DECIMAL.fullmatch(first[key]) for key in ("p", "q"))
    assert (first["T"] % SECOND_MS, after["T"] - first["T"], after["t"] - first["t"]) == (0, SECOND_MS, 1)
    assert float(first["p"]) == exchange.source.price_at("BTCUSDT", first["T"])


def test_an_aggregate_trade_and_the_best_prices_come_together(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "ethusdt@aggTrade", "ethusdt@bookTicker") as client:
        second(clock)
        told = [json.loads(client.recv(5)) for _ in range(2)]
    assert all(list(message) == ["stream", "data"] for message in told)
    heard = {message["stream"]: message["data"] for message in told}
    trade, book = heard["ethusdt@aggTrade"], heard["ethusdt@bookTicker"]
    assert set(trade) == {"e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"}
    assert (trade["e"], trade["s"]) == ("aggTrade", "ETHUSDT")
    assert set(book) == {"u", "s", "b", "B", "a", "A"}
    assert all(DECIMAL.fullmatch(book[key]) for key in ("b", "B", "a", "A"))
    assert float(book["b"]) < float(trade["p"]) < float(book["a"])


def test_every_second_s_trade_is_prompt(exchange: SimulatedExchange, clock: RunningClock) -> None:
    delays = []
    with listen(exchange, "btcusdt@aggTrade") as client:
        for _ in range(5):
            second(clock)
            trade = client.hear()
            delays.append(clock.now_ms() - trade["T"])
            assert 0 <= trade["E"] - trade["T"] <= BUSY_MS
    assert min(delays) <= PROMPT_MS
    assert max(delays) <= BUSY_MS


def test_an_open_candle_is_told_every_two_seconds(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@kline_1m", "btcusdt@kline_1h") as client:
        client.ready(clock)
        client.hear()
        second(clock)
        assert client.silent()
        second(clock)
        heard = [client.hear() for _ in range(2)]
        second(clock, 2 * SECOND_MS)
        heard += [client.hear() for _ in range(2)]
    told = {(event["k"]["i"], event["E"] // SECOND_MS) for event in heard}
    seconds = sorted({second for _, second in told})
    assert told == {(interval, second) for interval in ("1m", "1h") for second in seconds}
    assert [second % 2 for second in seconds] == [0, 0]
    assert seconds[1] - seconds[0] == 2
    for event in heard:
        candle = event["k"]
        step_ms = INTERVALS_MS[candle["i"]]
        assert set(candle) == set("tTsifLochlvnxqVQB")
        assert (event["e"], event["s"], candle["s"], candle["x"]) == ("kline", "BTCUSDT", "BTCUSDT", False)
        assert (candle["t"], candle["T"]) == (BASE_MS // step_ms * step_ms, candle["t"] + step_ms - 1)
        assert candle["L"] - candle["f"] + 1 == candle["n"]


def test_a_closed_candle_is_prompt_and_the_very_row_of_rest(exchange: SimulatedExchange, clock: RunningClock) -> None:
    names = [f"{symbol}@kline_{interval}" for symbol in ("btcusdt", "xrpusdt") for interval in INTERVALS_MS]
    clock.jump(START_MS + 24 * HOUR_MS - 500 - clock.now_ms())
    with listen(exchange, *names) as client:
        closed: dict[tuple[str, str], Message] = {}
        while len(closed) < len(names):
            event = client.hear_until(closes)[-1]
            candle = event["k"]
            assert candle["T"] == START_MS + 24 * HOUR_MS - 1
            assert clock.now_ms() - candle["T"] <= BUSY_MS
            assert event["E"] - candle["T"] <= BUSY_MS
            closed[candle["s"], candle["i"]] = candle
    for (symbol, interval), candle in closed.items():
        assert as_row(candle) == rows(exchange, symbol, interval, limit=2)[0]


def test_after_a_jump_each_candle_passed_over_is_told_once_and_the_newest_trade(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    names = ("btcusdt@kline_1m", "btcusdt@kline_5m", "btcusdt@aggTrade")
    with listen(exchange, *names) as client:
        client.ready(clock)
        clock.jump(30 * MINUTE_MS)
        heard = client.hear_until(lambda message: message.get("T", 0) > BASE_MS + 30 * MINUTE_MS)
        assert clock.now_ms() - heard[-1]["T"] <= SECOND_MS + BUSY_MS
        for interval, count in (("1m", 30), ("5m", 6)):
            told = [as_row(message["k"]) for message in heard if closes(message) and message["k"]["i"] == interval]
            assert told == rows(exchange, "BTCUSDT", interval, limit=count + 1)[:-1]
    assert sum(message["e"] == "aggTrade" for message in heard) <= 2, "one before the jump and one after it"


def test_after_a_long_jump_the_last_thousand_candles_of_each_stream_are_told(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    symbols = list(exchange.source.symbols)[:7]
    with listen(exchange, *(f"{symbol.lower()}@kline_1m" for symbol in symbols)) as client:
        client.ready(clock)
        clock.jump(2_000 * MINUTE_MS)
        opened = [client.hear_until(closes)[-1]["k"] for _ in range(7_000)]
    for symbol in symbols:
        times = [candle["t"] for candle in opened if candle["s"] == symbol]
        assert times == list(range(BASE_MS + 1_000 * MINUTE_MS, BASE_MS + 2_000 * MINUTE_MS, MINUTE_MS))


def test_after_a_jump_back_the_streams_go_on_from_there(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@aggTrade", "btcusdt@kline_1m") as client:
        client.ready(clock)
        clock.jump(-20 * MINUTE_MS)
        after = client.hear_until(lambda message: message.get("T", 2**62) < BASE_MS)
    assert not any(closes(message) for message in after)
    assert after[-1]["E"] - after[-1]["T"] <= BUSY_MS


def test_a_market_that_stands_still_says_nothing(clock: RunningClock) -> None:
    minutes, hole_ms = random_walk_klines(120), BASE_MS + 10 * MINUTE_MS
    after = minutes.between(hole_ms + 10 * MINUTE_MS, 2**62)
    source = Given({("ETHUSDT", MINUTE_MS): minutes.between(0, hole_ms).merge(after)})
    with SimulatedExchange(source=source, clock=clock) as exchange:
        clock.jump(hole_ms - 300 - clock.now_ms())
        with listen(exchange, "ethusdt@aggTrade", "ethusdt@kline_1m", "ethusdt@kline_1h") as client:
            closed = client.hear_until(closes)[-1]["k"]
            assert as_row(closed) == rows(exchange, "ETHUSDT", "1m", limit=1)[0]
            for _ in range(2):
                second(clock)
                assert client.silent()
            clock.jump(hole_ms + 10 * MINUTE_MS - clock.now_ms())
            assert client.hear()["E"] >= hole_ms + 10 * MINUTE_MS


# -- connections


def test_the_handshake_says_simulated_and_is_remembered(exchange: SimulatedExchange) -> None:
    with listen(exchange, "btcusdt@trade", "ethusdt%40trade") as client:
        assert client.response
        assert client.response.headers["X-Market"] == "SIMULATED"
        assert exchange.requests == [("/stream", {"streams": "btcusdt@trade/ethusdt@trade"})]
        assert client.ask("LIST_SUBSCRIPTIONS")["result"] == ["btcusdt@trade", "ethusdt@trade"]
        assert exchange.stream_connections == 1
    with listen(exchange, "btcusdt@trade", raw=True):
        assert exchange.requests[-1] == ("/ws/btcusdt@trade", {})
    eventually(lambda: exchange.stream_connections == 0, what="their end")


def test_other_paths_have_no_stream(shared: SimulatedExchange) -> None:
    with pytest.raises(InvalidStatus, match="404") as refused:
        connect(shared.stream_url + "/streams")
    assert refused.value.response.headers["X-Market"] == "SIMULATED"


@pytest.mark.parametrize("raw", [False, True], ids=["combined", "raw"])
def test_streams_are_subscribed_and_unsubscribed_on_the_open_connection(
    exchange: SimulatedExchange, clock: RunningClock, raw: bool
) -> None:
    with listen(exchange, raw=raw) as client:
        assert client.ask("LIST_SUBSCRIPTIONS", number=3) == {"result": [], "id": 3}
        names = ("btcusdt@aggTrade", "ethusdt@aggTrade")
        assert client.ask("SUBSCRIBE", *names, number=4) == {"result": None, "id": 4}
        second(clock)
        assert {client.hear()["s"] for _ in range(2)} == {"BTCUSDT", "ETHUSDT"}
        assert client.ask("UNSUBSCRIBE", "btcusdt@aggTrade", number=5) == {"result": None, "id": 5}
        for _ in range(2):
            second(clock)
            assert client.hear()["s"] == "ETHUSDT"


def test_what_does_not_exist_is_accepted_and_never_told(exchange: SimulatedExchange, clock: RunningClock) -> None:
    names = ["nonesuch@trade", "btcusdt@depth", "BTCUSDT@trade", "btcusdt@kline_7m", "btcusdt@kline_1s", "@", "trade"]
    with listen(exchange, *names) as client:
        assert client.ask("SUBSCRIBE", "nonesuch@kline_1m") == {"result": None, "id": 1}
        for _ in range(2):
            second(clock)
            assert client.silent()


@pytest.mark.parametrize(
    ("sent", "code", "why"),
    [
        pytest.param("{", 3, "Invalid JSON: expected value", id="no JSON"),
        pytest.param(b"\x00", 3, "Invalid JSON: expected value", id="binary"),
        pytest.param("[]", 2, "missing field `method`", id="no object"),
        pytest.param('{"id":1}', 2, "missing field `method`", id="no method"),
        pytest.param('{"method":"SUBSCRIBE","params":[]}', 2, "request ID must be an unsigned integer", id="no id"),
        pytest.param('{"method":"STOP","id":1}', 2, "unknown variant `STOP`, expected one of", id="unknown method"),
        pytest.param('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, "must be a list of stream names", id="numbers"),
        pytest.param('{"method":"SUBSCRIBE","params":"a","id":1}', 2, "must be a list of stream names", id="no list"),
    ],
)
def test_a_wrong_control_message_is_answered_with_what_is_wrong(
    shared: SimulatedExchange, sent: str | bytes, code: int, why: str
) -> None:
    with listen(shared) as client:
        client.send(sent)
        answer = client.hear()
        assert (set(answer), answer["code"]) == ({"code", "msg"}, code)
        assert why in answer["msg"]
        assert client.ask("LIST_SUBSCRIPTIONS")["result"] == []


def test_a_connection_has_at_most_1024_streams(shared: SimulatedExchange) -> None:
    with listen(shared) as client:
        assert client.ask("SUBSCRIBE", *(f"s{n}@trade" for n in range(1_024)))["result"] is None
        assert client.ask("SUBSCRIBE", "s0@trade")["result"] is None
        assert client.ask("SUBSCRIBE", "btcusdt@trade")["code"] == 2


def test_more_than_five_messages_in_a_second_end_the_connection(shared: SimulatedExchange) -> None:
    with listen(shared) as client:
        for _ in range(6):
            client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert client.ending() == 1008


def test_a_connection_is_told_of_its_end_before_it_ends() -> None:
    began_s = time.monotonic()
    with SimulatedExchange(stream_lifetime_s=1.0) as exchange, listen(exchange) as client:
        notice = client.hear()
        noticed_s = time.monotonic() - began_s
        assert (set(notice), notice["e"]) == ({"e", "E"}, "serverShutdown")
        assert client.ending() == 1000
        assert 0.9 <= noticed_s < time.monotonic() - began_s
        assert time.monotonic() - began_s >= 1.0


def plain(exchange: SimulatedExchange, *names: str) -> socket.socket:
    """A client that has shaken hands and does not read on."""
    host, port = exchange.stream_url.removeprefix("ws://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect((host, int(port)))
    head = [f"GET /stream?streams={'/'.join(names)} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket"]
    head += ["Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"]
    client.sendall("\r\n".join([*head, "", ""]).encode())
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


def test_a_client_that_does_not_read_holds_up_nobody_and_is_cut_off(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    names = [f"{symbol.lower()}@kline_1m" for symbol in exchange.source.symbols]
    with plain(exchange, *names), listen(exchange, "btcusdt@aggTrade") as other:
        jumps = 0
        while exchange.stream_connections == 2:
            clock.jump(1_000 * MINUTE_MS)
            second(clock)
            other.hear_until(lambda message: clock.now_ms() - message["T"] < SECOND_MS)
            jumps += 1
            assert jumps < 10
        assert jumps > 1
        assert exchange.stream_connections == 1


@pytest.mark.parametrize("how", ["reading", "not reading", "hanging"])
def test_an_exchange_with_open_streams_ends_at_once(clock: RunningClock, how: str) -> None:
    threads = threading.active_count()
    with ExitStack() as running:
        exchange = running.enter_context(SimulatedExchange(clock=clock))
        names = [f"{symbol.lower()}@kline_1m" for symbol in exchange.source.symbols]
        with listen(exchange, "btcusdt@aggTrade") as client, plain(exchange, *names):
            second(clock)
            client.hear()
            if how == "not reading":
                clock.jump(1_500 * MINUTE_MS)
                client.hear()  # after the candles, which are more than the system keeps for the other client
            if how == "hanging":
                exchange.fail_stream("half_open")
                assert not client.ping().wait(0.2)
            began_s = time.monotonic()
            running.close()
            assert time.monotonic() - began_s < 1.0
            if how == "reading":
                assert client.ending() == 1012
    eventually(lambda: threading.active_count() <= threads, what="the end of all threads")
