"""A WebSocket client of the simulated exchange, and what tests ask of it."""

import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from core.clock import SECOND_MS
from exchange.server import SimulatedExchange
from tests.fakes.clock import RunningClock

DECIMAL = re.compile(r"[0-9]+\.[0-9]{8}")
PROMPT_MS = 50
BUSY_MS = 800  # on a machine that does something else as well

Message = dict[str, Any]


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
