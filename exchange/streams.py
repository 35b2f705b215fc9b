"""The market streams of the simulated exchange: Binance's WebSocket format, driven by the exchange's clock and tape.

Combined (``/stream?streams=a/b``) and raw (``/ws/a/b``) connections, changed by SUBSCRIBE and UNSUBSCRIBE while they
are open. Faults are settable, for tests. Source of the format: developers.binance.com, Spot, WebSocket Streams.
"""

import asyncio
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from core.clock import SECOND_MS, Clock
from exchange.faults import refusal
from exchange.formats import kline_events
from exchange.stream_faults import (
    FLOOD,
    Kind,
    Payload,
    StreamFault,
    StreamFaults,
    another,
    as_json,
    broken,
    with_prices,
)
from exchange.walk import INTERVALS_MS, Tape, unfinished

PING_EVERY_S, PONG_WITHIN_S = 20.0, 60.0
LIFETIME_S = 86_400.0
NOTICE_S = 600.0  # a connection is told so long before its end, or a tenth of a shorter life
MOST_STREAMS = 1_024
MOST_CONTROLS_A_SECOND = 5
OPEN_CANDLES_EVERY_S = 2
MOST_CANDLES = 1_000  # of each stream, told after the clock has jumped
MOST_WAITING = 20 * MOST_CANDLES  # messages that a client has not taken: it is cut off then
BATCH = 100  # messages after which everything else has its turn
LOOK_S = 0.01
NAME = re.compile(r"([a-z0-9_.-]{1,20})@(trade|aggTrade|bookTicker|kline_(\w{2,3}))")

LOG = structlog.get_logger()


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which faults can cut or leave hanging; the application finds it in its scope's state."""

    async def run_asgi(self) -> None:
        self.scope["state"]["protocol"] = self
        await super().run_asgi()

    def cut(self) -> None:
        self.transport.abort()

    def hang(self) -> None:
        """Neither read nor ping any more, and stay open."""
        self.stop_keepalive()
        self.read_paused = False  # else the application's next receive() would resume reading
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def shutdown(self) -> None:
        super().shutdown()
        self._leave()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._leave()

    def _leave(self) -> None:
        """Not wait, as closing does, until a client that does not read has taken everything."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()


@dataclass(eq=False, kw_only=True)
class _Connection:
    """One client: what it wants to hear, and what it has not taken yet."""

    protocol: StreamProtocol
    combined: bool
    names: set[str]
    waiting: "asyncio.Queue[str | bytes | None]" = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    hanging: bool = False
    close_code: int = 1000

    def tell(self, message: str | bytes | None) -> None:
        """Queue a message; None ends the connection."""
        if self.hanging:
            return
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.protocol.cut()

    def close(self, code: int) -> None:
        self.close_code = code
        self.tell(None)

    def hang(self) -> None:
        self.hanging = True
        self.protocol.hang()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """Something that happened, before it is anybody's message."""

    name: str
    symbol: str
    payload: Payload
    closes: bool = False  # a candle that has closed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """What is told of an event, or in its place."""

    name: str
    text: str | bytes

    @property
    def wrapped(self) -> str | bytes:
        """As a combined stream has it; a binary frame cannot be wrapped."""
        return self.text if isinstance(self.text, bytes) else f'{{"stream":"{self.name}","data":{self.text}}}'


class Streams:
    """The application behind the stream routes.

    Args:
        tape: what is played now.
        clock: whose time says what has happened.
        lifetime_s: how long a connection may live.
    """

    def __init__(self, tape: Callable[[], Tape], clock: Clock, *, lifetime_s: float = LIFETIME_S) -> None:
        self._tape = tape
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._connections: set[_Connection] = set()
        self._producer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._faults = StreamFaults()
        self._late: deque[tuple[float, _Message]] = deque()  # and when it is due, by time.monotonic
        self._held: list[_Message] = []
        self._garbage = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    # Faults, from any thread.

    def add(self, fault: StreamFault) -> None:
        """Let something go wrong from now on."""
        if fault.kind in {"drop", "close", "half_open"}:
            self._do(self._spoil, fault.kind)
            return
        self._faults.add(fault)

    def clear(self) -> None:
        """Let nothing go wrong from now on; what is late comes at once, connections that hang stay as they are."""
        self._faults.clear()
        self._do(self._tell_late, math.inf)

    def _do(self, what: Callable[..., None], *args: Any) -> None:
        """Do it in the thread of the connections; it is done when this returns."""

        async def do() -> None:
            what(*args)

        if self._loop and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(do(), self._loop).result(5.0)

    def _spoil(self, kind: Kind) -> None:
        for connection in list(self._connections):
            match kind:
                case "drop":
                    connection.protocol.cut()
                case "close":
                    connection.close(1001)
                case _:
                    connection.hang()

    # One connection.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = _names(scope["path"], scope["query_string"].decode("latin-1"))
        if refused := self._faults.find("refuse"):
            await refusal(refused.fault.status or 503)(scope, receive, send)
            return
        if names is None or len(names) > MOST_STREAMS:
            await refusal(404)(scope, receive, send)
            return
        await receive()  # websocket.connect
        self._loop = asyncio.get_running_loop()
        protocol = scope["state"]["protocol"]
        connection = _Connection(protocol=protocol, combined=scope["path"].startswith("/stream"), names=names)
        self._connections.add(connection)
        if self._producer is None or self._producer.done():
            self._producer = asyncio.create_task(self._produce(self._clock.now_ms()))
        notice_s = self._lifetime_s - min(NOTICE_S, self._lifetime_s / 10)
        timers = [
            self._loop.call_later(notice_s, self._give_notice, connection),
            self._loop.call_later(self._lifetime_s, connection.close, 1000),
        ]
        sender = asyncio.create_task(self._send(connection, send))
        try:
            await self._receive(connection, receive)
        finally:
            self._connections.discard(connection)
            sender.cancel()
            for timer in timers:
                timer.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _give_notice(self, connection: _Connection) -> None:
        self._say(connection, {"e": "serverShutdown", "E": self._clock.now_ms()})

    def _say(self, connection: _Connection, event: Payload) -> None:
        """Tell one client what is not about the market."""
        if not self._faults.find("silence"):
            connection.tell(as_json(event))

    @staticmethod
    async def _send(connection: _Connection, send: Send) -> None:
        # Accepted when everything stands: what happens after the client has been let in, it is told of.
        await send({"type": "websocket.accept", "headers": [(b"x-market", b"SIMULATED")]})
        while (message := await connection.waiting.get()) is not None:
            if connection.hanging:
                continue
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
        await send({"type": "websocket.close", "code": connection.close_code})

    async def _receive(self, connection: _Connection, receive: Receive) -> None:
        controls: deque[float] = deque(maxlen=MOST_CONTROLS_A_SECOND + 1)
        while (event := await receive())["type"] != "websocket.disconnect":
            controls.append(time.monotonic())
            if len(controls) > MOST_CONTROLS_A_SECOND and controls[-1] - controls[0] < 1.0:
                connection.close(1008)
                continue
            self._say(connection, _control(connection, event.get("text") or ""))

    # What happens, for all connections.

    async def _produce(self, told_ms: int) -> None:
        self._late.clear()
        self._held.clear()
        while self._connections:
            now_ms = self._clock.now_ms()
            told_ms = min(told_ms, now_ms)  # the clock may be set back
            if now_ms // SECOND_MS > told_ms // SECOND_MS:
                try:
                    for n, event in enumerate(self._events(told_ms, now_ms), 1):
                        self._pass_on(event)
                        if n % BATCH == 0:
                            await asyncio.sleep(0)
                except Exception:
                    LOG.exception("stream_failed")
                told_ms = now_ms
            self._tell_late(time.monotonic())
            await asyncio.sleep(LOOK_S)

    def _events(self, told_ms: int, now_ms: int) -> Iterator[_Event]:
        """What has happened since ``told_ms``: candles that closed, then the newest second's candles and prices."""
        tape = self._tape()
        names = {name for connection in self._connections for name in connection.names}
        wanted = {name: match for name in names if (match := NAME.fullmatch(name))}
        symbols = {match[1].upper() for match in wanted.values()}.intersection(tape.symbols)
        for name, match in wanted.items():
            if match[3] in INTERVALS_MS and (symbol := match[1].upper()) in symbols:
                yield from _closed(tape, name, symbol, match[3], told_ms, now_ms)
        # The shortest candle of each symbol, whose close is the price; empty where the market stands still.
        newest = {symbol: unfinished(tape, symbol, tape.step_ms(symbol), now_ms) for symbol in symbols}
        for name, match in wanted.items():
            symbol = match[1].upper()
            if not len(newest.get(symbol, ())):
                continue
            if match[3] is None:
                price = float(newest[symbol].close[-1])
                payload = _print(match[2], symbol, price, tape.decimals(symbol), now_ms)
                yield _Event(name=name, symbol=symbol, payload=payload)
            elif match[3] in INTERVALS_MS and now_ms // SECOND_MS % OPEN_CANDLES_EVERY_S == 0:
                interval_ms = INTERVALS_MS[match[3]]
                same = newest[symbol].interval_ms == interval_ms
                candle = newest[symbol] if same else unfinished(tape, symbol, interval_ms, now_ms)
                for payload in kline_events(candle, symbol, match[3], now_ms, closed=False):
                    yield _Event(name=name, symbol=symbol, payload=payload)

    def _pass_on(self, event: _Event) -> None:
        """Tell it, as the faults will have it."""
        symbol, payload = event.symbol, event.payload
        if self._faults.find("mute", symbol) or self._floods(event):
            return
        if event.closes:
            if self._faults.find("lose_candles", symbol):
                return
            if self._faults.find("wrong_candles", symbol):
                payload = another(payload)
        elif payload.get("e") != "kline" and (outlier := self._faults.find("outlier", symbol)):
            factor = outlier.fault.factor or 1.1
            payload = with_prices(payload, lambda price: f"{float(price) * factor:.8f}")
        text: str | bytes = as_json(payload)
        if self._faults.find("garbage", symbol):
            text = broken(payload, self._garbage)
            self._garbage += 1
        messages = [_Message(name=event.name, text=text)] * (2 if self._faults.find("duplicate", symbol) else 1)
        if reorder := self._faults.find("reorder"):
            self._held += messages
            if reorder.left:
                return
            messages = []
        messages = self._held[::-1] + messages  # also what an order that was cleared has left behind
        self._held.clear()
        lag = self._faults.find("lag")
        for message in messages:
            if lag or self._late:  # whatever follows a late message comes after it
                due_s = time.monotonic() + (lag.fault.delay_s or 0.0) if lag else 0.0
                self._late.append((due_s, message))
            else:
                self._tell(message)

    def _floods(self, event: _Event) -> bool:
        """Whether nonsense was told in its place."""
        if not self._faults.find("garbage_flood", event.symbol):
            return False
        for _ in range(FLOOD):
            self._tell(_Message(name=event.name, text=broken(event.payload, self._garbage)))
            self._garbage += 1
        return True

    def _tell_late(self, now_s: float) -> None:
        while self._late and self._late[0][0] <= now_s:
            self._tell(self._late.popleft()[1])

    def _tell(self, message: _Message) -> None:
        if self._faults.find("silence"):
            return
        for connection in self._connections:
            if message.name in connection.names:
                connection.tell(message.wrapped if connection.combined else message.text)


def _closed(tape: Tape, name: str, symbol: str, interval: str, told_ms: int, now_ms: int) -> Iterator[_Event]:
    """Candles that have closed since ``told_ms``."""
    interval_ms = INTERVALS_MS[interval]
    end_ms = now_ms // interval_ms * interval_ms
    start_ms = max(told_ms // interval_ms * interval_ms, end_ms - MOST_CANDLES * interval_ms)
    if start_ms < end_ms:
        klines = tape.klines(symbol, interval_ms, start_ms, end_ms)
        for payload in kline_events(klines, symbol, interval, now_ms, closed=True):
            yield _Event(name=name, symbol=symbol, payload=payload, closes=True)


def _names(path: str, query: str) -> set[str] | None:
    """The streams that a handshake asks for; None for a path that has none.

    >>> sorted(_names("/stream", "streams=btcusdt@trade/ethusdt%40trade"))
    ['btcusdt@trade', 'ethusdt@trade']
    """
    if path.rstrip("/") == "/stream":
        names = "/".join(value for key, value in parse_qsl(query) if key == "streams")
    elif path == "/ws" or path.startswith("/ws/"):
        names = path.removeprefix("/ws")
    else:
        return None
    return {name for name in names.split("/") if name}


class _Invalid(Exception):
    """A control message that cannot be obeyed, and why."""


def _control(connection: _Connection, text: str) -> Payload:
    """Do what a control message says; the answer to it."""
    try:
        request = json.loads(text)
        return {"result": _obey(connection, request), "id": request["id"]}
    except _Invalid as error:
        return {"code": 2, "msg": f"Invalid request: {error}"}
    except (ValueError, RecursionError):
        return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}


def _obey(connection: _Connection, request: Any) -> list[str] | None:
    if not isinstance(request, dict) or "method" not in request:
        raise _Invalid("missing field `method` at line 1 column 1")
    number, names = request.get("id", False), request.get("params") or []
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        raise _Invalid("request ID must be an unsigned integer")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Invalid("params must be a list of stream names")
    match request["method"]:
        case "SUBSCRIBE":
            if len(connection.names.union(names)) > MOST_STREAMS:
                raise _Invalid("too many streams")
            connection.names.update(names)
        case "UNSUBSCRIBE":
            connection.names.difference_update(names)
        case "LIST_SUBSCRIPTIONS":
            return sorted(connection.names)
        case other:
            known = "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            raise _Invalid(f"unknown variant `{other}`, {known} at line 1 column 1")
    return None


def _print(kind: str, symbol: str, price: float, decimals: int, now_ms: int) -> Payload:
    """The newest second's trade or best bid and ask."""
    at_ms = now_ms // SECOND_MS * SECOND_MS
    number = at_ms // SECOND_MS  # ids rise with time, whoever listens
    if kind == "bookTicker":
        tick = 10.0**-decimals
        bid, ask = f"{price - tick:.8f}" if price > tick else f"{price:.8f}", f"{price + tick:.8f}"
        return {"u": number, "s": symbol, "b": bid, "B": "1.00000000", "a": ask, "A": "1.00000000"}
    event: Payload = {"e": kind, "E": now_ms, "s": symbol, "p": f"{price:.8f}", "q": "0.01000000", "T": at_ms}
    event |= {"m": False, "M": True}
    return event | ({"t": number} if kind == "trade" else {"a": number, "f": number, "l": number})
