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


class Client(ClientConnection):
    """One connection to the streams."""

    def hear(self, timeout_s: float = 5.0) -> Message:
        """The next message; of a combined connection, what is in its wrapping."""
        message = json.loads(self.recv(timeout_s))
        return message.get("data", message)  # type: ignore[no-any-return]

    def hear_until(self, wanted: Callable[[Message], object], timeout_s: float = 5.0) -> list[Message]:
        """Messages up to the first that is wanted."""
        heard = [self.hear(timeout_s)]
        deadline_s = time.monotonic() + timeout_s
        while not wanted(heard[-1]):
            heard.append(self.hear(deadline_s - time.monotonic()))
        return heard

    def ask(self, method: str, *params: str, number: int = 1) -> Message:
        """The answer to a control message; what comes before it is passed over."""
        request = {"method": method, "id": number} | ({"params": list(params)} if params else {})
        self.send(json.dumps(request))
        return self.hear_until(lambda message: "result" in message or "code" in message)[-1]

    def silent(self, for_s: float = 0.2) -> bool:
        try:
            self.recv(for_s)
        except TimeoutError:
            return True
        return False

    def ready(self, clock: RunningClock) -> None:
        """Hear the first message of a second in which open candles are told: there will be none for two seconds."""
        second(clock, 2 * SECOND_MS)
        self.hear()

    def ending(self) -> int | None:
        """The close code that the other side sends; None when it goes without one."""
        try:
            while True:
                self.recv(5)
        except ConnectionClosed as ended:
            return ended.rcvd.code if ended.rcvd else None


def listen(exchange: SimulatedExchange, *names: str, raw: bool = False) -> AbstractContextManager[Client]:
    """A client that pings only when told to and does not wait for the other side when it leaves."""
    url = exchange.stream_url + ("/ws/" + "/".join(names) if raw else "/stream?streams=" + "/".join(names))
    options: dict[str, Any] = {"ping_interval": None, "close_timeout": 0.1, "compression": None}
    return connect(url, create_connection=Client, **options)  # type: ignore[no-any-return]


def closes(message: Message) -> bool:
    return message.get("e") == "kline" and message["k"]["x"]


def second(clock: RunningClock, of_ms: int = SECOND_MS) -> None:
    """Go to just before the next whole second, or the next one of several."""
    clock.jump(of_ms - 20 - clock.now_ms() % of_ms)


def rows(exchange: SimulatedExchange, symbol: str = "BTCUSDT", interval: str = "1m", **query: int) -> list[list[Any]]:
    """Rows of ``GET /api/v3/klines``."""
    wanted = {"symbol": symbol, "interval": interval} | {name: str(value) for name, value in query.items()}
    answer = requests.get(exchange.url + "/api/v3/klines", params=wanted, timeout=10)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def as_row(candle: Message) -> list[Any]:
    return [candle[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")]
