"""Faults of the simulated exchange's streams, seen by a real WebSocket client."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus

from core.clock import MINUTE_MS, SECOND_MS
from exchange.server import SimulatedExchange
from exchange.stream_faults import Kind, StreamFault
from tests.exchange.client import DECIMAL, as_row, closes, listen, rows, second
from tests.fakes.clock import BASE_MS, RunningClock, eventually


def after_jump(exchange: SimulatedExchange, clock: RunningClock, kind: Kind, **fault: Any) -> list[list[Any]]:
    """Rows of the closed candles that are told of a jump over thirty minutes while something goes wrong."""
    with listen(exchange, "btcusdt@kline_1m") as client:
        client.ready(clock)
        exchange.fail_stream(kind, **fault)
        clock.jump(30 * MINUTE_MS)
        second(clock, 2 * SECOND_MS)
        heard = client.hear_until(lambda message: not closes(message) and message["k"]["t"] > BASE_MS)
    return [as_row(message["k"]) for message in heard if closes(message)]


def true_rows(exchange: SimulatedExchange) -> list[list[Any]]:
    return rows(exchange, limit=31)[:-1]


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("duplicate", 2, lambda rows: [rows[0], rows[0], rows[1], rows[1], *rows[2:]]),
        ("reorder", 5, lambda rows: rows[4::-1] + rows[5:]),
        ("lose_candles", 3, lambda rows: rows[3:]),
    ],
)
def test_closed_candles_come_twice_or_in_another_order_or_not(
    exchange: SimulatedExchange, clock: RunningClock, kind: Kind, count: int, expected: Callable[[list[Any]], list[Any]]
) -> None:
    assert after_jump(exchange, clock, kind, count=count) == expected(true_rows(exchange))


@pytest.mark.parametrize(
    ("kind", "fault", "order"),
    [("reorder", {"count": 100}, -1), ("lag", {"seconds": 600.0, "delay_s": 600.0}, 1)],
    ids=["held back", "late"],
)
def test_what_was_not_sent_comes_when_the_faults_are_cleared(
    exchange: SimulatedExchange, clock: RunningClock, kind: Kind, fault: dict[str, Any], order: int
) -> None:
    with listen(exchange, "btcusdt@kline_1m") as client:
        client.ready(clock)
        exchange.fail_stream(kind, **fault)
        clock.jump(30 * MINUTE_MS)
        assert client.silent(0.3)
        exchange.clear_faults()
        if kind == "reorder":  # with the next message
            second(clock, 2 * SECOND_MS)
        heard = [as_row(client.hear()["k"]) for _ in range(30 if kind == "lag" else 31)]
    assert [row for row in heard if row in true_rows(exchange)] == true_rows(exchange)[::order]


def test_wrong_candles(exchange: SimulatedExchange, clock: RunningClock) -> None:
    heard = after_jump(exchange, clock, "wrong_candles", count=2, symbol="BTCUSDT")
    true = true_rows(exchange)
    assert heard[2:] == true[2:]
    for wrong, right in zip(heard[:2], true[:2], strict=True):
        opened, high, low, close, volume = (float(cell) for cell in wrong[1:6])
        assert close != float(right[4])
        assert volume != float(right[5])
        assert low <= min(opened, close) <= max(opened, close) <= high


def test_a_lag_delays_and_keeps_the_order(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@kline_1m") as client:
        client.ready(clock)
        exchange.fail_stream("lag", seconds=0.3, delay_s=0.8)
        clock.jump(30 * MINUTE_MS)
        assert client.silent(0.4)
        second(clock, 2 * SECOND_MS)  # what is told now is not late itself
        assert client.silent(0.2)
        heard = [client.hear() for _ in range(31)]
        assert clock.now_ms() - heard[-1]["E"] >= 200
    assert [as_row(message["k"]) for message in heard[:-1]] == true_rows(exchange)
    assert not closes(heard[-1])


def test_garbage_is_of_several_kinds(exchange: SimulatedExchange, clock: RunningClock) -> None:
    names = [f"{symbol.lower()}@aggTrade" for symbol in exchange.source.symbols]
    with listen(exchange, *names) as client:
        exchange.fail_stream("garbage", count=9)
        second(clock)
        heard = [looks(client.recv(5)) for _ in names]
    broken = ["no JSON", "no JSON", "another shape", "NaN", "-n", "float", "NoneType", "binary", "unknown event"]
    assert heard == [*broken, "n", "n"]


def looks(message: str | bytes) -> str:
    """What a message of a combined stream of trades is, or how its price is written."""
    try:
        data = json.loads(message)["data"]
    except ValueError:
        return "binary" if isinstance(message, bytes) else "no JSON"
    if not isinstance(data, dict):
        return "another shape"
    if data["e"] != "aggTrade":
        return "unknown event"
    price = data.get("p")
    return DECIMAL.sub("n", price) if isinstance(price, str) else type(price).__name__


def test_outliers_of_one_symbol(exchange: SimulatedExchange, clock: RunningClock) -> None:
    told = []
    with listen(exchange, "btcusdt@aggTrade", "btcusdt@bookTicker", "ethusdt@aggTrade") as client:
        exchange.fail_stream("outlier", count=2, symbol="BTCUSDT", factor=1.5)
        for _ in range(2):
            second(clock)
            told.append([client.hear() for _ in range(3)])
    for factor, messages in zip((1.5, 1.0), told, strict=True):
        at_ms = max(message.get("T", 0) for message in messages)
        for message in messages:
            price = exchange.source.price_at(message["s"], at_ms)
            assert price
            ratio = float(message["p" if "p" in message else "b"]) / price
            assert ratio == pytest.approx(factor if message["s"] == "BTCUSDT" else 1.0, rel=1e-4)


def test_a_muted_symbol_alone_says_nothing(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@aggTrade", "ethusdt@aggTrade") as client:
        exchange.fail_stream("mute", seconds=0.4, symbol="ETHUSDT")
        second(clock)
        assert client.hear()["s"] == "BTCUSDT"
        assert client.silent(0.4)
        second(clock)
        assert {client.hear()["s"] for _ in range(2)} == {"BTCUSDT", "ETHUSDT"}


def test_silence_loses_what_would_have_been_said_and_answers_pings(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with listen(exchange, "btcusdt@aggTrade") as client:
        second(clock)
        before = client.hear()
        exchange.fail_stream("silence", seconds=0.4)
        second(clock)
        client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert client.ping().wait(1.0)
        assert client.silent(0.4)
        second(clock)
        after = client.hear()
    assert after["T"] - before["T"] == 2 * SECOND_MS


@pytest.mark.parametrize(("fault", "code"), [("drop", None), ("close", 1001)])
def test_every_connection_is_ended(
    exchange: SimulatedExchange, clock: RunningClock, fault: Kind, code: int | None
) -> None:
    with listen(exchange, "btcusdt@trade") as one, listen(exchange, "btcusdt@trade", raw=True) as other:
        exchange.fail_stream(fault)
        assert (one.ending(), other.ending()) == (code, code)
    eventually(lambda: exchange.stream_connections == 0, what="their end")
    with listen(exchange, "btcusdt@trade") as again:
        second(clock)
        assert again.hear()["e"] == "trade"


def test_a_half_open_connection_says_nothing_and_stays_open(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@trade") as client:
        second(clock)
        client.hear()
        exchange.fail_stream("half_open")
        exchange.fail_stream("half_open")
        pong = client.ping()
        client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        with listen(exchange, "btcusdt@trade") as another:
            second(clock)
            another.hear()
            assert client.silent()
            assert not pong.is_set()
            assert exchange.stream_connections == 2
            exchange.fail_stream("drop")
            assert client.ending() is None


def handshake(exchange: SimulatedExchange) -> int:
    """The status that it is answered with."""
    try:
        with listen(exchange, "btcusdt@trade"):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_handshakes_are_refused(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@trade") as client:
        exchange.fail_stream("refuse")
        for status in (403, 429, 451):
            exchange.fail_stream("refuse", count=1, status=status)
        assert [handshake(exchange) for _ in range(5)] == [503, 403, 429, 451, 101]
        second(clock)
        assert client.hear()["e"] == "trade"
    exchange.fail_stream("refuse", seconds=0.5)
    assert [handshake(exchange) for _ in range(2)] == [503, 503]
    eventually(lambda: handshake(exchange) == 101, what="the end of it")
    assert exchange.requests[-1] == ("/stream", {"streams": "btcusdt@trade"})
    order = {"kind": "refuse", "seconds": 600, "status": 429}
    assert requests.post(exchange.url + "/sim/stream-faults", json=order, timeout=10).status_code == 204
    assert handshake(exchange) == 429
    assert requests.delete(exchange.url + "/sim/faults", timeout=10).status_code == 204
    assert handshake(exchange) == 101


@pytest.mark.parametrize("how", ["python", "http"])
def test_in_an_outage_there_is_nothing_until_the_exchange_s_clock_says_so(
    exchange: SimulatedExchange, clock: RunningClock, how: str
) -> None:
    ping = exchange.url + "/api/v3/ping"
    with listen(exchange, "btcusdt@trade") as client:
        if how == "python":
            exchange.outage(60.0)
        else:
            assert requests.post(exchange.url + "/sim/outage", json={"seconds": 60}, timeout=10).status_code == 204
        exchange.fail_next("/api", status=418)
        assert client.ending() is None
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (503, 503)
        assert requests.get(exchange.url + "/sim/requests", timeout=10).json()[-1] == ["/api/v3/ping", {}]
        clock.jump(60 * SECOND_MS)
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (101, 418)
        exchange.outage(3_600.0)
        requests.delete(exchange.url + "/sim/faults", timeout=10)
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (101, 200)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        pytest.param({"kind": "flood"}, "Input should be 'drop', 'close'", id="unknown kind"),
        pytest.param({"kind": "drop", "secs": 1}, "Extra inputs are not permitted", id="unknown field"),
        pytest.param({"kind": "drop", "seconds": 1}, "drop has no use for seconds", id="field of another kind"),
        pytest.param({"kind": "mute"}, "mute needs seconds, symbol", id="missing fields"),
        pytest.param({"kind": "lag", "seconds": 1}, "lag needs delay_s", id="missing delay"),
        pytest.param({"kind": "refuse", "status": 101}, "greater than or equal to 400", id="status"),
        pytest.param({"kind": "outlier", "factor": -1}, "greater than 0", id="factor"),
        pytest.param({"kind": "outlier", "symbol": "btcusdt"}, "should match pattern", id="symbol"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    exchange: SimulatedExchange, fault: Mapping[str, Any], why: str
) -> None:
    answer = requests.post(exchange.url + "/sim/stream-faults", json=fault, timeout=10)
    assert answer.status_code == 422
    assert why in answer.text
    with pytest.raises(ValueError, match=re.escape(why)):
        StreamFault(**fault)
