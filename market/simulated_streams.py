"""The market streams of the simulated exchange: Binance's WebSocket format, driven by the exchange's clock and tape.

Combined (``/stream?streams=a/b``) and raw (``/ws/a/b``) connections, changed by SUBSCRIBE and UNSUBSCRIBE while they
are open. Faults are settable, for tests. Source of the format: developers.binance.com, Spot, WebSocket Streams.
"""

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import structlog
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, StringConstraints
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from core.clock import SECOND_MS, Clock
from market.tape import INTERVALS_MS, Tape, price_at, unfinished
from market.wire import kline_event

PATHS = ("/stream", "/ws")
PING_EVERY_S, PONG_WITHIN_S = 20.0, 60.0
LIFETIME_S = 86_400.0
NOTICE_S = 600.0  # a connection is told so long before its end, or a tenth of a shorter life
MOST_STREAMS = 1_024
MOST_CONTROLS_A_SECOND = 5
OPEN_CANDLES_EVERY_S = 2
MOST_CANDLES = 1_000  # told after the clock has jumped
MOST_WAITING = 5_000  # messages that a client has not taken: it is cut off then
LOOK_S = 0.01
NAME = re.compile(r"([a-z0-9_.-]{1,20})@(trade|aggTrade|bookTicker|kline_(\w{2,3}))")
GARBAGE: tuple[str | bytes, ...] = (
    "<html>busy</html>",
    '{"stream":"btcusdt@aggTrade","data":{"e":"aggTr',
    "[]",
    '{"data":7}',
    '{"data":{"e":"aggTrade","s":"BTCUSDT","p":"NaN","T":1}}',
    '{"data":{"e":"aggTrade","s":"BTCUSDT","p":"-1.0","T":1}}',
    '{"data":{"e":"aggTrade","s":"BTCUSDT","p":1.5,"T":1}}',
    '{"data":{"e":"kline","s":"BTCUSDT","k":{"x":true}}}',
    b"\xff\xfe\x00\x01",
    '{"data":{"e":"somethingNew","s":"BTCUSDT"}}',
)

LOG = structlog.get_logger()

Kind = Literal[
    "drop", "close", "refuse", "silence", "half_open", "garbage", "duplicate", "reorder", "outlier", "lag", "mute",
    "lose_candles", "wrong_candles",
]  # fmt: skip


class StreamFault(BaseModel):
    """What goes wrong with the streams, for ``seconds`` of real time or with the next ``count`` things it is about.

    ``drop`` cuts every open connection, ``close`` ends it properly, ``half_open`` leaves it there without a word ever
    again. ``refuse`` answers handshakes with ``status``. ``silence`` tells nothing, ``mute`` nothing of one symbol.
    ``garbage``, ``duplicate`` and ``reorder`` are about messages, ``outlier`` about prices (times ``factor``),
    ``lose_candles`` and ``wrong_candles`` about closed candles; with ``lag`` messages come ``delay_s`` late.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    seconds: PositiveFloat | None = None
    count: PositiveInt | None = None
    symbol: Annotated[str, StringConstraints(pattern="^[A-Z0-9_.-]{1,20}$")] | None = None
    factor: PositiveFloat = 1.1
    delay_s: NonNegativeFloat = 0.0
    status: Annotated[int, PositiveInt] = 503


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which also hands the application its transport: faults cut it, or leave it hanging."""

    async def run_asgi(self) -> None:
        self.scope["extensions"]["transport"] = self.transport  # type: ignore[assignment]
        await super().run_asgi()


@dataclass(eq=False, kw_only=True)
class _Connection:
    """One client: what it wants to hear, and what it has not taken yet."""

    transport: asyncio.Transport
    combined: bool
    names: set[str]
    waiting: "asyncio.Queue[str | bytes | None]" = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    frozen: bool = False
    close_code: int = 1000

    def tell(self, message: str | bytes | None) -> None:
        """Queue a message; None ends the connection."""
        if self.frozen:
            return
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.transport.abort()

    def close(self, code: int) -> None:
        self.close_code = code
        self.tell(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """Something that happened, before it is anybody's message."""

    name: str
    symbol: str
    payload: dict[str, Any]
    closes: bool = False  # a candle that has closed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """What is told of an event, or in its place."""

    name: str
    text: str
    broken: str | bytes = ""

    @property
    def wrapped(self) -> str:
        """As a combined stream has it."""
        return f'{{"stream":"{self.name}","data":{self.text}}}'


@dataclass(slots=True, kw_only=True)
class _Active:
    """A fault that is going on."""

    fault: StreamFault
    until_s: float | None
    left: int | None

    def applies(self, now_s: float) -> bool:
        return (self.until_s is None or now_s < self.until_s) and (self.left is None or self.left > 0)

    def use(self) -> None:
        if self.left is not None:
            self.left -= 1


class Streams:
    """The application behind the stream routes.

    Args:
        tape: what is played now.
        clock: whose time says what has happened.
        seen: is told path and query of each handshake.
        lifetime_s: how long a connection may live.
    """

    def __init__(
        self,
        tape: Callable[[], Tape],
        clock: Clock,
        seen: Callable[[str, str], None],
        *,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self._tape = tape
        self._clock = clock
        self._seen = seen
        self._lifetime_s = lifetime_s
        self._connections: set[_Connection] = set()
        self._producer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # faults are set from other threads
        self._active: list[_Active] = []
        self._late: deque[tuple[float, _Message]] = deque()
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
            if self._loop:
                self._loop.call_soon_threadsafe(self._spoil, fault.kind)
            return
        until_s = None if fault.seconds is None else time.monotonic() + fault.seconds
        count = fault.count if fault.seconds is not None or fault.count is not None else 1
        with self._lock:
            self._active.append(_Active(fault=fault, until_s=until_s, left=count))

    def clear(self) -> None:
        """Let nothing go wrong from now on; connections that hang stay as they are."""
        with self._lock:
            self._active.clear()

    def _spoil(self, kind: str) -> None:
        for connection in list(self._connections):
            if kind == "drop":
                connection.transport.abort()
            elif kind == "close":
                connection.close(1001)
            else:
                connection.frozen = True
                connection.transport.pause_reading()

    def _find(self, *kinds: str, symbol: str | None = None) -> _Active | None:
        """The first fault of these kinds that is going on, one use of it taken."""
        now_s = time.monotonic()
        with self._lock:
            self._active = [active for active in self._active if active.applies(now_s)]
            for active in self._active:
                fault = active.fault
                if fault.kind in kinds and (fault.symbol is None or symbol in {None, fault.symbol}):
                    active.use()
                    return active
        return None

    # One connection.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        path, query = scope["path"], unquote(scope["query_string"].decode("latin-1"))
        self._seen(path, query)
        market = (b"x-market", b"SIMULATED")
        refused = self._find("refuse")
        names = _names(path, query)
        status = refused.fault.status if refused else 404 if names is None or len(names) > MOST_STREAMS else 0
        if status or names is None:
            await send({"type": "websocket.http.response.start", "status": status, "headers": [market]})
            await send({"type": "websocket.http.response.body", "body": b"no stream"})
            return
        await send({"type": "websocket.accept", "headers": [market]})
        self._loop = asyncio.get_running_loop()
        connection = _Connection(
            transport=scope["extensions"]["transport"], combined=path.startswith("/stream"), names=names
        )
        self._connections.add(connection)
        if self._producer is None or self._producer.done():
            self._producer = asyncio.create_task(self._produce())
        notice_s = self._lifetime_s - min(NOTICE_S, self._lifetime_s / 10)
        timers = [
            self._loop.call_later(notice_s, self._give_notice, connection),
            self._loop.call_later(self._lifetime_s, connection.close, 1000),
        ]
        sender = asyncio.create_task(self._send_waiting(connection, send))
        try:
            await self._receive(connection, receive)
        finally:
            self._connections.discard(connection)
            sender.cancel()
            for timer in timers:
                timer.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _give_notice(self, connection: _Connection) -> None:
        connection.tell(json.dumps({"e": "serverShutdown", "E": self._clock.now_ms()}))

    @staticmethod
    async def _send_waiting(connection: _Connection, send: Send) -> None:
        while (message := await connection.waiting.get()) is not None:
            if connection.frozen:
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
            connection.tell(json.dumps(_control(connection, event.get("text") or "")))

    # What happens, for all connections.

    async def _produce(self) -> None:
        told_ms = self._clock.now_ms()
        while self._connections:
            now_ms = self._clock.now_ms()
            told_ms = min(told_ms, now_ms)  # the clock may be set back
            if now_ms // SECOND_MS > told_ms // SECOND_MS:
                try:
                    for event in self._events(told_ms, now_ms):
                        self._pass_on(event)
                except Exception:
                    LOG.exception("stream_failed")
                told_ms = now_ms
            self._tell_late()
            await asyncio.sleep(LOOK_S)

    def _events(self, told_ms: int, now_ms: int) -> Iterator[_Event]:
        """What has happened since ``told_ms``: candles that closed, then the newest second's prices."""
        tape = self._tape()
        wanted = {match.group(): match for c in self._connections for n in c.names if (match := NAME.fullmatch(n))}
        traded = self._prices(tape, {match[1].upper() for match in wanted.values()}, now_ms)
        for name, match in wanted.items():
            symbol, interval_ms = match[1].upper(), INTERVALS_MS.get(match[3] or "")
            if interval_ms and symbol in tape.symbols:
                yield from self._candles(tape, name, symbol, match[3], told_ms, now_ms)
        for name, match in wanted.items():
            if match[1].upper() in traded and match[2] in {"trade", "aggTrade", "bookTicker"}:
                symbol = match[1].upper()
                payload = _print(match[2], symbol, traded[symbol], tape.decimals(symbol), now_ms)
                yield _Event(name=name, symbol=symbol, payload=payload)

    @staticmethod
    def _prices(tape: Tape, symbols: Iterable[str], now_ms: int) -> dict[str, float]:
        """Symbols that are traded just now, and their prices."""
        prices: dict[str, float] = {}
        for symbol in symbols:
            if symbol not in tape.symbols:
                continue
            step_ms = tape.step_ms(symbol)
            open_ms = now_ms // step_ms * step_ms
            price = price_at(tape, symbol, now_ms) if len(tape.klines(symbol, step_ms, open_ms, open_ms + 1)) else None
            if price is not None:
                prices[symbol] = price
        return prices

    @staticmethod
    def _candles(tape: Tape, name: str, symbol: str, interval: str, told_ms: int, now_ms: int) -> Iterator[_Event]:
        interval_ms = INTERVALS_MS[interval]
        end_ms = now_ms // interval_ms * interval_ms
        start_ms = max(told_ms // interval_ms * interval_ms, end_ms - MOST_CANDLES * interval_ms)
        closed = tape.klines(symbol, interval_ms, start_ms, end_ms)
        for row in range(len(closed)):
            opened = int(closed.open_time_ms[row])
            payload = kline_event(closed.between(opened, opened + 1), symbol, interval, now_ms, closed=True)
            yield _Event(name=name, symbol=symbol, payload=payload, closes=True)
        if now_ms // SECOND_MS % OPEN_CANDLES_EVERY_S == 0:
            candle = unfinished(tape, symbol, interval_ms, now_ms)
            if len(candle):
                payload = kline_event(candle, symbol, interval, now_ms, closed=False)
                yield _Event(name=name, symbol=symbol, payload=payload)

    def _pass_on(self, event: _Event) -> None:
        """Tell it, as the faults will have it."""
        symbol, payload = event.symbol, event.payload
        if self._find("silence") or self._find("mute", symbol=symbol):
            return
        if event.closes:
            if self._find("lose_candles", symbol=symbol):
                return
            if self._find("wrong_candles", symbol=symbol):
                payload["k"] |= {"c": payload["k"]["o"], "v": "1.00000000"}
        elif payload.get("e") != "kline" and (outlier := self._find("outlier", symbol=symbol)):
            prices = ("b", "a") if "u" in payload else ("p",)
            payload |= {key: f"{float(payload[key]) * outlier.fault.factor:.8f}" for key in prices}
        message = _Message(name=event.name, text=json.dumps(payload, separators=(",", ":")))
        if self._find("garbage"):
            message = _Message(name=event.name, text="", broken=GARBAGE[self._garbage % len(GARBAGE)])
            self._garbage += 1
        messages = [message] * (2 if self._find("duplicate") else 1)
        if reordered := self._find("reorder"):
            self._held += messages
            if reordered.left:
                return
            messages = self._held[::-1]
            self._held.clear()
        for each in messages:
            if lag := self._find("lag"):
                self._late.append((time.monotonic() + lag.fault.delay_s, each))
            else:
                self._tell(each)

    def _tell_late(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            self._tell(self._late.popleft()[1])

    def _tell(self, message: _Message) -> None:
        for connection in self._connections:
            if message.name in connection.names:
                connection.tell(message.broken or (message.wrapped if connection.combined else message.text))


def _names(path: str, query: str) -> set[str] | None:
    """The streams that a handshake asks for; None for a path that has none."""
    if path.rstrip("/") == "/stream":
        names = [part.removeprefix("streams=") for part in query.split("&") if part.startswith("streams=")]
        return {name for part in names for name in part.split("/") if name}
    if path == "/ws" or path.startswith("/ws/"):
        return {name for name in path.removeprefix("/ws").split("/") if name}
    return None


def _control(connection: _Connection, text: str) -> dict[str, Any]:
    """Do what a control message says; the answer to it."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}
    if not isinstance(message, dict) or "method" not in message:
        return {"code": 2, "msg": "Invalid request: missing field `method` at line 1 column 1"}
    answer = {"result": None, "id": message.get("id")}
    names = message.get("params") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {"code": 2, "msg": "Invalid request: params must be a list of stream names", "id": message.get("id")}
    match message["method"]:
        case "SUBSCRIBE":
            if len(connection.names | set(names)) > MOST_STREAMS:
                return {"code": 2, "msg": "Invalid request: too many streams", "id": message.get("id")}
            connection.names |= set(names)
        case "UNSUBSCRIBE":
            connection.names -= set(names)
        case "LIST_SUBSCRIPTIONS":
            answer["result"] = sorted(connection.names)
        case other:
            known = "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            return {"code": 2, "msg": f"Invalid request: unknown variant {other}, {known}", "id": message.get("id")}
    return answer


def _print(kind: str, symbol: str, price: float, decimals: int, now_ms: int) -> dict[str, Any]:
    """The newest second's trade or best bid and ask."""
    at_ms = now_ms // SECOND_MS * SECOND_MS
    number = at_ms // SECOND_MS  # ids rise with time, whoever listens
    if kind == "bookTicker":
        tick = 10.0**-decimals
        bid, ask = f"{price - tick:.8f}" if price > tick else f"{price:.8f}", f"{price + tick:.8f}"
        return {"u": number, "s": symbol, "b": bid, "B": "1.00000000", "a": ask, "A": "1.00000000"}
    event: dict[str, Any] = {"e": kind, "E": now_ms, "s": symbol, "p": f"{price:.8f}", "q": "0.01000000", "T": at_ms}
    event |= {"m": False, "M": True}
    return event | ({"t": number} if kind == "trade" else {"a": number, "f": number, "l": number})
