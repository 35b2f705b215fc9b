"""The market streams of the simulated exchange: Binance's WebSocket format, driven by the exchange's clock and candles.

Combined (``/stream?streams=a/b``) and raw (``/ws/a/b``) connections. Source of the format: developers.binance.com,
Spot, WebSocket Streams.
"""

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from core.clock import SECOND_MS, Clock
from exchange.connection import MOST_STREAMS, Connection, stream_names
from exchange.faults import SIMULATED, Active, ActiveFaults, refusal
from exchange.formats import kline_events
from exchange.sources.source import Source
from exchange.stream_faults import FLOOD, Kind, Payload, StreamFault, another, as_json, broken, with_prices
from klines.spans import INTERVALS_MS

LIFETIME_S = 86_400.0
NOTICE_S = 600.0  # a connection is told so long before its end, or a tenth of a shorter life
MOST_CONTROLS_A_SECOND = 5
OPEN_CANDLES_EVERY_S = 2
MOST_CANDLES = 1_000  # of each stream, sent after the clock has jumped
BATCH = 100  # messages after which everything else has its turn
LOOK_S = 0.01  # between two looks at the clock
NAME = re.compile(r"([a-z0-9_.-]{1,20})@(trade|aggTrade|bookTicker|kline_(\w{2,3}))")

LOG = structlog.get_logger()

Message = tuple[str, str | bytes]  # name of the stream, text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """Something that happened in the market, before faults make messages of it."""

    name: str  # of the stream
    symbol: str
    payload: Payload
    closes: bool = False  # a candle that has closed


class Streams:
    """The ASGI application behind the stream routes.

    Args:
        source: returns what is played now.
        clock: whose time says what has happened.
        lifetime_s: how long a connection may live.
    """

    def __init__(self, source: Callable[[], Source], clock: Clock, *, lifetime_s: float = LIFETIME_S) -> None:
        self._source = source
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._connections: set[Connection] = set()
        self._producer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._faults = ActiveFaults[StreamFault]()
        self._late: deque[tuple[float, Message]] = deque()  # and when it is due, by time.monotonic
        self._held: list[Message] = []
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
        """Let nothing go wrong from now on; late messages come at once, connections that hang stay as they are."""
        self._faults.clear()
        self._do(self._send_late, math.inf)

    def _find(self, kind: Kind, symbol: str | None = None) -> Active[StreamFault] | None:
        return self._faults.use(lambda fault: fault.kind == kind and fault.symbol in {None, symbol})

    def _do(self, what: Callable[..., None], *args: Any) -> None:
        """Run in the thread of the connections, and wait until it is done."""

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
        names = stream_names(scope["path"], scope["query_string"].decode("latin-1"))
        if refused := self._find("refuse"):
            await refusal(refused.fault.status or 503)(scope, receive, send)
            return
        if names is None or len(names) > MOST_STREAMS:
            await refusal(404)(scope, receive, send)
            return
        await receive()  # websocket.connect
        self._loop = asyncio.get_running_loop()
        protocol = scope["state"]["protocol"]
        connection = Connection(protocol=protocol, combined=scope["path"].startswith("/stream"), names=names)
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

    def _give_notice(self, connection: Connection) -> None:
        self._reply(connection, {"e": "serverShutdown", "E": self._clock.now_ms()})

    def _reply(self, connection: Connection, event: Payload) -> None:
        if not self._find("silence"):
            connection.send(as_json(event))

    @staticmethod
    async def _send(connection: Connection, send: Send) -> None:
        # The handshake is accepted when everything stands: the client misses nothing that happens after it.
        headers = [(name.lower().encode(), value.encode()) for name, value in SIMULATED.items()]
        await send({"type": "websocket.accept", "headers": headers})
        while (message := await connection.waiting.get()) is not None:
            if connection.hanging:
                continue
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
        await send({"type": "websocket.close", "code": connection.close_code})

    async def _receive(self, connection: Connection, receive: Receive) -> None:
        controls: deque[float] = deque(maxlen=MOST_CONTROLS_A_SECOND + 1)
        while (event := await receive())["type"] != "websocket.disconnect":
            controls.append(time.monotonic())
            if len(controls) > MOST_CONTROLS_A_SECOND and controls[-1] - controls[0] < 1.0:
                connection.close(1008)
                continue
            self._reply(connection, connection.control(event.get("text") or ""))

    # What happens, for all connections.

    async def _produce(self, sent_ms: int) -> None:
        self._late.clear()
        self._held.clear()
        while self._connections:
            now_ms = self._clock.now_ms()
            sent_ms = min(sent_ms, now_ms)  # the clock may be set back
            if now_ms // SECOND_MS > sent_ms // SECOND_MS:
                try:
                    for n, event in enumerate(self._events(sent_ms, now_ms), 1):
                        self._pass_on(event)
                        if n % BATCH == 0:
                            await asyncio.sleep(0)
                except Exception:
                    LOG.exception("stream_failed")
                sent_ms = now_ms
            self._send_late(time.monotonic())
            await asyncio.sleep(LOOK_S)

    def _events(self, since_ms: int, now_ms: int) -> Iterator[_Event]:
        """Yield the candles that closed since ``since_ms``, then the newest second's candles and prices."""
        source = self._source()
        names = {name for connection in self._connections for name in connection.names}
        matches = {name: match for name in names if (match := NAME.fullmatch(name))}
        streams = [(name, match[1].upper(), match[2], match[3]) for name, match in matches.items()]
        streams = [stream for stream in streams if stream[1] in source.symbols]
        for name, symbol, _, interval in streams:
            if interval in INTERVALS_MS:
                yield from _closed(source, name, symbol, interval, since_ms, now_ms)
        # The shortest candle of each symbol, whose close is the price; empty while the market stands still.
        newest = {symbol: source.unfinished(symbol, source.step_ms(symbol), now_ms) for _, symbol, _, _ in streams}
        for name, symbol, kind, interval in streams:
            if not len(newest[symbol]):
                continue
            if interval is None:
                price = float(newest[symbol].close[-1])
                payload = _trade_or_quote(kind, symbol, price, source.decimals(symbol), now_ms)
                yield _Event(name=name, symbol=symbol, payload=payload)
            elif interval in INTERVALS_MS and now_ms // SECOND_MS % OPEN_CANDLES_EVERY_S == 0:
                candle = source.unfinished(symbol, INTERVALS_MS[interval], now_ms)
                for payload in kline_events(candle, symbol, interval, now_ms, closed=False):
                    yield _Event(name=name, symbol=symbol, payload=payload)

    def _pass_on(self, event: _Event) -> None:
        """Send the messages that the faults make of an event."""
        symbol, payload = event.symbol, event.payload
        if self._find("mute", symbol):
            return
        if self._find("garbage_flood", symbol):
            for _ in range(FLOOD):
                self._send_all((event.name, self._nonsense(payload)))
            return
        if event.closes:
            if self._find("lose_candles", symbol):
                return
            if self._find("wrong_candles", symbol):
                payload = another(payload)
        elif payload.get("e") != "kline" and (outlier := self._find("outlier", symbol)):
            factor = outlier.fault.factor or 1.1
            payload = with_prices(payload, lambda price: f"{float(price) * factor:.8f}")
        text = self._nonsense(payload) if self._find("garbage", symbol) else as_json(payload)
        messages: list[Message] = [(event.name, text)] * (2 if self._find("duplicate", symbol) else 1)
        if reorder := self._find("reorder"):
            self._held += messages
            if reorder.left:
                return
            messages = []
        messages = self._held[::-1] + messages  # also what a reordering that was cleared has left behind
        self._held.clear()
        lag = self._find("lag")
        for message in messages:
            if lag or self._late:  # whatever follows a late message comes after it
                due_s = time.monotonic() + (lag.fault.delay_s or 0.0) if lag else 0.0
                self._late.append((due_s, message))
            else:
                self._send_all(message)

    def _nonsense(self, payload: Payload) -> str | bytes:
        self._garbage += 1
        return broken(payload, self._garbage - 1)

    def _send_late(self, now_s: float) -> None:
        while self._late and self._late[0][0] <= now_s:
            self._send_all(self._late.popleft()[1])

    def _send_all(self, message: Message) -> None:
        if self._find("silence"):
            return
        name, text = message
        for connection in self._connections:
            if name in connection.names:
                # A binary frame cannot be wrapped.
                wrapped = connection.combined and isinstance(text, str)
                connection.send(f'{{"stream":"{name}","data":{text}}}' if wrapped else text)  # type: ignore[str-bytes-safe]


def _closed(source: Source, name: str, symbol: str, interval: str, since_ms: int, now_ms: int) -> Iterator[_Event]:
    """Yield the candles that have closed since ``since_ms``."""
    interval_ms = INTERVALS_MS[interval]
    end_ms = now_ms // interval_ms * interval_ms
    start_ms = max(since_ms // interval_ms * interval_ms, end_ms - MOST_CANDLES * interval_ms)
    if start_ms < end_ms:
        klines = source.klines(symbol, interval_ms, start_ms, end_ms)
        for payload in kline_events(klines, symbol, interval, now_ms, closed=True):
            yield _Event(name=name, symbol=symbol, payload=payload, closes=True)


def _trade_or_quote(kind: str, symbol: str, price: float, decimals: int, now_ms: int) -> Payload:
    """Return the newest second's trade, or best bid and ask."""
    at_ms = now_ms // SECOND_MS * SECOND_MS
    number = at_ms // SECOND_MS  # ids rise with time, whoever listens
    if kind == "bookTicker":
        tick = 10.0**-decimals
        bid, ask = f"{price - tick:.8f}" if price > tick else f"{price:.8f}", f"{price + tick:.8f}"
        return {"u": number, "s": symbol, "b": bid, "B": "1.00000000", "a": ask, "A": "1.00000000"}
    event: Payload = {"e": kind, "E": now_ms, "s": symbol, "p": f"{price:.8f}", "q": "0.01000000", "T": at_ms}
    event |= {"m": False, "M": True}
    return event | ({"t": number} if kind == "trade" else {"a": number, "f": number, "l": number})
