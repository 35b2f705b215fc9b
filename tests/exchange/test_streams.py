"""The simulated exchange's market streams, heard by a real WebSocket client."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from exchange.server import SimulatedExchange
from exchange.stream_faults import Kind, StreamFault
from exchange.walk import INTERVALS_MS, price_at
from klines.klines import COLUMNS
from tests.fakes.clock import BASE_MS, START_MS, RunningClock, eventually
from tests.fakes.klines import random_walk_klines

DECIMAL = re.compile(r"[0-9]+\.[0-9]{8}")
PROMPT_MS = 50
BUSY_MS = 800  # on a machine that does something else as well

Message = dict[str, Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedExchange]:
    """One for all tests that leave its clock and its faults alone."""
    with SimulatedExchange(clock=RunningClock()) as exchange:
        yield exchange


def listen(exchange: SimulatedExchange, *names: str, raw: bool = False) -> AbstractContextManager[ClientConnection]:
    """A client that pings only when told to and does not wait for the other side when it leaves."""
    path = "/ws/" + "/".join(names) if raw else "/stream?streams=" + "/".join(names)
    return connect(exchange.stream_url + path, ping_interval=None, close_timeout=0.1, compression=None)


def hear(client: ClientConnection, timeout_s: float = 5.0) -> Message:
    """The next message; of a combined connection, what is in its wrapping."""
    message = json.loads(client.recv(timeout_s))
    return message.get("data", message)  # type: ignore[no-any-return]


def hear_until(client: ClientConnection, wanted: Callable[[Message], object], timeout_s: float = 5.0) -> list[Message]:
    """Messages up to the first that is wanted."""
    heard = [hear(client, timeout_s)]
    deadline_s = time.monotonic() + timeout_s
    while not wanted(heard[-1]):
        heard.append(hear(client, deadline_s - time.monotonic()))
    return heard


def closes(message: Message) -> bool:
    return message.get("e") == "kline" and message["k"]["x"]


def ask(client: ClientConnection, method: str, *params: str, number: int = 1) -> Message:
    """The answer to a control message; what comes before it is passed over."""
    request = {"method": method, "id": number} | ({"params": list(params)} if params else {})
    client.send(json.dumps(request))
    return hear_until(client, lambda message: "result" in message or "code" in message)[-1]


def silent(client: ClientConnection, for_s: float = 0.2) -> bool:
    try:
        client.recv(for_s)
    except TimeoutError:
        return True
    return False


def second(clock: RunningClock, of_ms: int = SECOND_MS) -> None:
    """Go to just before the next whole second, or the next one of several."""
    clock.jump(of_ms - 20 - clock.now_ms() % of_ms)


def ready(client: ClientConnection, clock: RunningClock) -> None:
    """Hear the first message of a second in which open candles are told: there will be none for two seconds."""
    second(clock, 2 * SECOND_MS)
    hear(client)


def ending(client: ClientConnection) -> int | None:
    """The close code that the other side sends; None when it goes without one."""
    try:
        while True:
            client.recv(5)
    except ConnectionClosed as ended:
        return ended.rcvd.code if ended.rcvd else None


def rest_rows(exchange: SimulatedExchange, symbol: str, interval: str, limit: int) -> list[list[Any]]:
    query = {"symbol": symbol, "interval": interval, "limit": limit}
    answer = requests.get(exchange.url + "/api/v3/klines", params={k: str(v) for k, v in query.items()}, timeout=10)
    return list(answer.json())


def as_row(candle: Message) -> list[Any]:
    return [candle[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")]


# -- what is told


def test_a_trade_is_what_binance_writes(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@trade", raw=True) as client:
        second(clock)
        first = hear(client)
        second(clock)
        after = hear(client)
    assert list(first) == ["e", "E", "s", "p", "q", "T", "m", "M", "t"]
    assert (first["e"], first["s"], first["m"], first["M"]) == ("trade", "BTCUSDT", False, True)
    assert all(DECIMAL.fullmatch(first[key]) for key in ("p", "q"))
    assert (first["T"] % SECOND_MS, after["T"] - first["T"], after["t"] - first["t"]) == (0, SECOND_MS, 1)
    assert float(first["p"]) == price_at(exchange.tape, "BTCUSDT", first["T"])


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
            trade = hear(client)
            delays.append(clock.now_ms() - trade["T"])
            assert 0 <= trade["E"] - trade["T"] <= BUSY_MS
    assert min(delays) <= PROMPT_MS
    assert max(delays) <= BUSY_MS


def test_an_open_candle_is_told_every_two_seconds(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@kline_1m", "btcusdt@kline_1h") as client:
        ready(client, clock)
        hear(client)
        second(clock)
        assert silent(client)
        second(clock)
        heard = [hear(client) for _ in range(2)]
        second(clock, 2 * SECOND_MS)
        heard += [hear(client) for _ in range(2)]
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
            event = hear_until(client, closes)[-1]
            candle = event["k"]
            assert candle["T"] == START_MS + 24 * HOUR_MS - 1
            assert clock.now_ms() - candle["T"] <= BUSY_MS
            assert event["E"] - candle["T"] <= BUSY_MS
            closed[candle["s"], candle["i"]] = candle
    for (symbol, interval), candle in closed.items():
        assert as_row(candle) == rest_rows(exchange, symbol, interval, limit=2)[0]


def test_after_a_jump_each_candle_passed_over_is_told_once_and_the_newest_trade(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    names = ("btcusdt@kline_1m", "btcusdt@kline_5m", "btcusdt@aggTrade")
    with listen(exchange, *names) as client:
        ready(client, clock)
        clock.jump(30 * MINUTE_MS)
        heard = hear_until(client, lambda message: message.get("T", 0) > BASE_MS + 30 * MINUTE_MS)
        assert clock.now_ms() - heard[-1]["T"] <= SECOND_MS + BUSY_MS
        for interval, count in (("1m", 30), ("5m", 6)):
            rows = [as_row(message["k"]) for message in heard if closes(message) and message["k"]["i"] == interval]
            assert rows == rest_rows(exchange, "BTCUSDT", interval, limit=count + 1)[:-1]
    assert sum(message["e"] == "aggTrade" for message in heard) <= 2, "one before the jump and one after it"


def test_after_a_long_jump_the_last_thousand_candles_of_each_stream_are_told(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    symbols = list(exchange.tape.symbols)[:7]
    with listen(exchange, *(f"{symbol.lower()}@kline_1m" for symbol in symbols)) as client:
        ready(client, clock)
        clock.jump(2_000 * MINUTE_MS)
        opened = [hear_until(client, closes)[-1]["k"] for _ in range(7_000)]
    for symbol in symbols:
        times = [candle["t"] for candle in opened if candle["s"] == symbol]
        assert times == list(range(BASE_MS + 1_000 * MINUTE_MS, BASE_MS + 2_000 * MINUTE_MS, MINUTE_MS))


def test_after_a_jump_back_the_streams_go_on_from_there(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@aggTrade", "btcusdt@kline_1m") as client:
        ready(client, clock)
        clock.jump(-20 * MINUTE_MS)
        after = hear_until(client, lambda message: message.get("T", 2**62) < BASE_MS)
    assert not any(closes(message) for message in after)
    assert after[-1]["E"] - after[-1]["T"] <= BUSY_MS


def test_a_market_that_stands_still_says_nothing(tmp_path: Path, clock: RunningClock) -> None:
    minutes = random_walk_klines(20 * 1_440)
    columns = {"open_time": minutes.open_time_ms} | {name: getattr(minutes, name) for name in COLUMNS}
    hole = (pl.col("open_time") // MINUTE_MS % 60).is_between(30, 39)
    pl.DataFrame(columns).filter(~hole).write_parquet(tmp_path / "ETHUSDT-1m-20231115-20231204.parquet")
    with SimulatedExchange(replay=tmp_path, clock=clock) as exchange:
        hole_ms = clock.now_ms() // HOUR_MS * HOUR_MS + 90 * MINUTE_MS
        clock.jump(hole_ms - 300 - clock.now_ms())
        with listen(exchange, "ethusdt@aggTrade", "ethusdt@kline_1m", "ethusdt@kline_1h") as client:
            closed = hear_until(client, closes)[-1]["k"]
            assert as_row(closed) == rest_rows(exchange, "ETHUSDT", "1m", limit=1)[0]
            for _ in range(2):
                second(clock)
                assert silent(client)
            clock.jump(hole_ms + 10 * MINUTE_MS - clock.now_ms())
            assert hear(client)["E"] >= hole_ms + 10 * MINUTE_MS


# -- connections


def test_the_handshake_says_simulated_and_is_remembered(exchange: SimulatedExchange) -> None:
    with listen(exchange, "btcusdt@trade", "ethusdt%40trade") as client:
        assert client.response
        assert client.response.headers["X-Market"] == "SIMULATED"
        assert exchange.requests == [("/stream", {"streams": "btcusdt@trade/ethusdt@trade"})]
        assert ask(client, "LIST_SUBSCRIPTIONS")["result"] == ["btcusdt@trade", "ethusdt@trade"]
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
        assert ask(client, "LIST_SUBSCRIPTIONS", number=3) == {"result": [], "id": 3}
        names = ("btcusdt@aggTrade", "ethusdt@aggTrade")
        assert ask(client, "SUBSCRIBE", *names, number=4) == {"result": None, "id": 4}
        second(clock)
        assert {hear(client)["s"] for _ in range(2)} == {"BTCUSDT", "ETHUSDT"}
        assert ask(client, "UNSUBSCRIBE", "btcusdt@aggTrade", number=5) == {"result": None, "id": 5}
        for _ in range(2):
            second(clock)
            assert hear(client)["s"] == "ETHUSDT"


def test_what_does_not_exist_is_accepted_and_never_told(exchange: SimulatedExchange, clock: RunningClock) -> None:
    names = ["nonesuch@trade", "btcusdt@depth", "BTCUSDT@trade", "btcusdt@kline_7m", "btcusdt@kline_1s", "@", "trade"]
    with listen(exchange, *names) as client:
        assert ask(client, "SUBSCRIBE", "nonesuch@kline_1m") == {"result": None, "id": 1}
        for _ in range(2):
            second(clock)
            assert silent(client)


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
        answer = hear(client)
        assert (set(answer), answer["code"]) == ({"code", "msg"}, code)
        assert why in answer["msg"]
        assert ask(client, "LIST_SUBSCRIPTIONS")["result"] == []


def test_a_connection_has_at_most_1024_streams(shared: SimulatedExchange) -> None:
    with listen(shared) as client:
        assert ask(client, "SUBSCRIBE", *(f"s{n}@trade" for n in range(1_024)))["result"] is None
        assert ask(client, "SUBSCRIBE", "s0@trade")["result"] is None
        assert ask(client, "SUBSCRIBE", "btcusdt@trade")["code"] == 2


def test_more_than_five_messages_in_a_second_end_the_connection(shared: SimulatedExchange) -> None:
    with listen(shared) as client:
        for _ in range(6):
            client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert ending(client) == 1008


def test_a_connection_is_told_of_its_end_before_it_ends() -> None:
    began_s = time.monotonic()
    with SimulatedExchange(stream_lifetime_s=1.0) as exchange, listen(exchange) as client:
        notice = hear(client)
        noticed_s = time.monotonic() - began_s
        assert (set(notice), notice["e"]) == ({"e", "E"}, "serverShutdown")
        assert ending(client) == 1000
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
    names = [f"{symbol.lower()}@kline_1m" for symbol in exchange.tape.symbols]
    with plain(exchange, *names), listen(exchange, "btcusdt@aggTrade") as other:
        jumps = 0
        while exchange.stream_connections == 2:
            clock.jump(1_000 * MINUTE_MS)
            second(clock)
            hear_until(other, lambda message: clock.now_ms() - message["T"] < SECOND_MS)
            jumps += 1
            assert jumps < 10
        assert jumps > 1
        assert exchange.stream_connections == 1


@pytest.mark.parametrize("how", ["reading", "not reading", "hanging"])
def test_an_exchange_with_open_streams_ends_at_once(clock: RunningClock, how: str) -> None:
    threads = threading.active_count()
    with ExitStack() as running:
        exchange = running.enter_context(SimulatedExchange(clock=clock))
        names = [f"{symbol.lower()}@kline_1m" for symbol in exchange.tape.symbols]
        with listen(exchange, "btcusdt@aggTrade") as client, plain(exchange, *names):
            second(clock)
            hear(client)
            if how == "not reading":
                clock.jump(1_500 * MINUTE_MS)
                hear(client)  # after the candles, which are more than the system keeps for the other client
            if how == "hanging":
                exchange.fail_stream("half_open")
                assert not client.ping().wait(0.2)
            began_s = time.monotonic()
            running.close()
            assert time.monotonic() - began_s < 1.0
            if how == "reading":
                assert ending(client) == 1012
    eventually(lambda: threading.active_count() <= threads, what="the end of all threads")


# -- what goes wrong


def after_jump(exchange: SimulatedExchange, clock: RunningClock, kind: Kind, **fault: Any) -> list[list[Any]]:
    """Rows of the closed candles that are told of a jump over thirty minutes while something goes wrong."""
    with listen(exchange, "btcusdt@kline_1m") as client:
        ready(client, clock)
        exchange.fail_stream(kind, **fault)
        clock.jump(30 * MINUTE_MS)
        second(clock, 2 * SECOND_MS)
        heard = hear_until(client, lambda message: not closes(message) and message["k"]["t"] > BASE_MS)
    return [as_row(message["k"]) for message in heard if closes(message)]


def true_rows(exchange: SimulatedExchange) -> list[list[Any]]:
    return rest_rows(exchange, "BTCUSDT", "1m", limit=31)[:-1]


def test_duplicates(exchange: SimulatedExchange, clock: RunningClock) -> None:
    heard = after_jump(exchange, clock, "duplicate", count=2)
    first, second, *others = true_rows(exchange)
    assert heard == [first, first, second, second, *others]


def test_another_order(exchange: SimulatedExchange, clock: RunningClock) -> None:
    heard = after_jump(exchange, clock, "reorder", count=5)
    rows = true_rows(exchange)
    assert heard == rows[4::-1] + rows[5:]


def test_what_an_order_has_held_back_is_told_when_the_faults_are_cleared(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with listen(exchange, "btcusdt@kline_1m") as client:
        ready(client, clock)
        exchange.fail_stream("reorder", count=100)
        clock.jump(30 * MINUTE_MS)
        assert silent(client, 0.3)
        exchange.clear_faults()
        second(clock, 2 * SECOND_MS)
        heard = [as_row(message["k"]) for message in (hear(client) for _ in range(31)) if closes(message)]
    assert heard == true_rows(exchange)[::-1]


def test_lost_candles(exchange: SimulatedExchange, clock: RunningClock) -> None:
    assert after_jump(exchange, clock, "lose_candles", count=3) == true_rows(exchange)[3:]


def test_wrong_candles(exchange: SimulatedExchange, clock: RunningClock) -> None:
    heard = after_jump(exchange, clock, "wrong_candles", count=2, symbol="BTCUSDT")
    rows = true_rows(exchange)
    assert heard[2:] == rows[2:]
    for wrong, right in zip(heard[:2], rows[:2], strict=True):
        opened, high, low, close, volume = (float(cell) for cell in wrong[1:6])
        assert close != float(right[4])
        assert volume != float(right[5])
        assert low <= min(opened, close) <= max(opened, close) <= high


def test_a_lag_delays_and_keeps_the_order(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@kline_1m") as client:
        ready(client, clock)
        exchange.fail_stream("lag", seconds=0.3, delay_s=0.8)
        clock.jump(30 * MINUTE_MS)
        assert silent(client, 0.4)
        second(clock, 2 * SECOND_MS)  # what is told now is not late itself
        assert silent(client, 0.2)
        heard = [hear(client) for _ in range(31)]
        assert clock.now_ms() - heard[-1]["E"] >= 200
    assert [as_row(message["k"]) for message in heard[:-1]] == true_rows(exchange)
    assert not closes(heard[-1])


def test_what_is_late_is_told_at_once_when_the_faults_are_cleared(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with listen(exchange, "btcusdt@kline_1m") as client:
        ready(client, clock)
        exchange.fail_stream("lag", seconds=600.0, delay_s=600.0)
        clock.jump(30 * MINUTE_MS)
        assert silent(client, 0.3)
        exchange.clear_faults()
        heard = [hear(client) for _ in range(30)]
    assert [as_row(message["k"]) for message in heard] == true_rows(exchange)


def test_garbage_is_of_several_kinds(exchange: SimulatedExchange, clock: RunningClock) -> None:
    names = [f"{symbol.lower()}@aggTrade" for symbol in exchange.tape.symbols]
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
            told.append([hear(client) for _ in range(3)])
    for factor, messages in zip((1.5, 1.0), told, strict=True):
        at_ms = max(message.get("T", 0) for message in messages)
        for message in messages:
            price = price_at(exchange.tape, message["s"], at_ms)
            assert price
            ratio = float(message["p" if "p" in message else "b"]) / price
            assert ratio == pytest.approx(factor if message["s"] == "BTCUSDT" else 1.0, rel=1e-4)


def test_a_muted_symbol_alone_says_nothing(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@aggTrade", "ethusdt@aggTrade") as client:
        exchange.fail_stream("mute", seconds=0.4, symbol="ETHUSDT")
        second(clock)
        assert hear(client)["s"] == "BTCUSDT"
        assert silent(client, 0.4)
        second(clock)
        assert {hear(client)["s"] for _ in range(2)} == {"BTCUSDT", "ETHUSDT"}


def test_silence_loses_what_would_have_been_said_and_answers_pings(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with listen(exchange, "btcusdt@aggTrade") as client:
        second(clock)
        before = hear(client)
        exchange.fail_stream("silence", seconds=0.4)
        second(clock)
        client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert client.ping().wait(1.0)
        assert silent(client, 0.4)
        second(clock)
        after = hear(client)
    assert after["T"] - before["T"] == 2 * SECOND_MS


@pytest.mark.parametrize(("fault", "code"), [("drop", None), ("close", 1001)])
def test_every_connection_is_ended(
    exchange: SimulatedExchange, clock: RunningClock, fault: Kind, code: int | None
) -> None:
    with listen(exchange, "btcusdt@trade") as one, listen(exchange, "btcusdt@trade", raw=True) as other:
        exchange.fail_stream(fault)
        assert (ending(one), ending(other)) == (code, code)
    eventually(lambda: exchange.stream_connections == 0, what="their end")
    with listen(exchange, "btcusdt@trade") as again:
        second(clock)
        assert hear(again)["e"] == "trade"


def test_a_half_open_connection_says_nothing_and_stays_open(exchange: SimulatedExchange, clock: RunningClock) -> None:
    with listen(exchange, "btcusdt@trade") as client:
        second(clock)
        hear(client)
        exchange.fail_stream("half_open")
        exchange.fail_stream("half_open")
        pong = client.ping()
        client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        with listen(exchange, "btcusdt@trade") as another:
            second(clock)
            hear(another)
            assert silent(client)
            assert not pong.is_set()
            assert exchange.stream_connections == 2
            exchange.fail_stream("drop")
            assert ending(client) is None


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
        assert hear(client)["e"] == "trade"
    exchange.fail_stream("refuse", seconds=0.5)
    assert [handshake(exchange) for _ in range(2)] == [503, 503]
    eventually(lambda: handshake(exchange) == 101, what="the end of it")
    assert exchange.requests[-1] == ("/stream", {"streams": "btcusdt@trade"})


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
        assert ending(client) is None
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (503, 503)
        assert requests.get(exchange.url + "/sim/requests", timeout=10).json()[-1] == ["/api/v3/ping", {}]
        clock.jump(60 * SECOND_MS)
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (101, 418)
        exchange.outage(3_600.0)
        requests.delete(exchange.url + "/sim/faults", timeout=10)
        assert (handshake(exchange), requests.get(ping, timeout=10).status_code) == (101, 200)


def test_stream_faults_can_be_ordered_and_cleared_over_http(exchange: SimulatedExchange) -> None:
    fault = {"kind": "refuse", "seconds": 600, "status": 429}
    assert requests.post(exchange.url + "/sim/stream-faults", json=fault, timeout=10).status_code == 204
    assert handshake(exchange) == 429
    assert requests.delete(exchange.url + "/sim/faults", timeout=10).status_code == 204
    assert handshake(exchange) == 101


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
def test_a_fault_that_makes_no_sense_is_refused(shared: SimulatedExchange, fault: Mapping[str, Any], why: str) -> None:
    answer = requests.post(shared.url + "/sim/stream-faults", json=fault, timeout=10)
    assert answer.status_code == 422
    assert why in answer.text
    with pytest.raises(ValueError, match=re.escape(why)):
        StreamFault(**fault)
