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
from functools import partial
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from core.clock import SECOND_MS, Clock
from exchange.connection import MOST_STREAMS, Connection, stream_names
from exchange.faults import ActiveFaults, refusal
from exchange.formats import Event, kline_events, price_event
from exchange.sources.source import Source
from exchange.stream_faults import FLOOD, Kind, StreamFault, another, as_json, broken, with_prices
from klines.spans import INTERVALS_MS

LIFETIME_S = 86_400.0
NOTICE_S = 600.0  # a connection is told so long before its end, or a tenth of a shorter life
MOST_CONTROLS_A_SECOND = 5
OPEN_CANDLES_EVERY_S = 2
MOST_CANDLES = 1_000  # of each stream, sent after the clock has jumped
BATCH = 100  # messages after which everything else has its turn
LOOK_S = 0.01  # between two looks at the clock
NAME = re.compile(rf"([a-z0-9_.-]{{1,20}})@(trade|aggTrade|bookTicker|kline_({'|'.join(INTERVALS_MS)}))")

LOG = structlog.get_logger()

Message = tuple[str, str | bytes]  # name of the stream, text


class Streams:
    """The ASGI application behind the stream routes.

    Args:
        source: returns what is played now.
        clock: whose time says what has happened.
        faults: that are going on; those of streams are used here.
        lifetime_s: how long a connection may live.
    """

    def __init__(self, source: Callable[[], Source], clock: Clock, faults: ActiveFaults, *, lifetime_s: float) -> None:
        self.connections: set[Connection] = set()  # open ones
        self._source = source
        self._clock = clock
        self._faults = faults
        self._lifetime_s = lifetime_s
        self._producer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._late: deque[tuple[float, Message]] = deque()  # and when it is due, by time.monotonic
        self._held: list[Message] = []
        self._garbage = 0

    # Faults, from any thread.

    def fail(self, fault: StreamFault) -> None:
        """Let something go wrong from now on."""
        match fault.kind:
            case "drop":
                self._do(self._for_all, Connection.cut)
            case "close":
                self._do(self._for_all, partial(Connection.end, code=1001))
            case "half_open":
                self._do(self._for_all, Connection.hang)
            case _:
                self._faults.add(fault)

    def _for_all(self, do: Callable[[Connection], None]) -> None:
        for connection in self.connections:
            do(connection)

    def catch_up(self) -> None:
        """Send late messages at once."""
        self._do(self._send_late, math.inf)

    def _do(self, what: Callable[..., None], *args: Any) -> None:
        """Run in the thread of the connections, and wait until it is done."""

        async def do() -> None:
            what(*args)

        if self._loop and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(do(), self._loop).result(5.0)

    def _find(self, kind: Kind, symbol: str | None = None) -> StreamFault | None:
        return self._faults.use(StreamFault, lambda fault: fault.kind == kind and fault.symbol in {None, symbol})

    # One connection.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = stream_names(scope["path"], scope["query_string"].decode("latin-1"))
        refused = self._find("refuse")
        if refused or names is None or len(names) > MOST_STREAMS:
            await refusal((refused.status or 503) if refused else 404)(scope, receive, send)
            return
        await receive()  # websocket.connect
        self._loop = asyncio.get_running_loop()
        connection: Connection = scope["state"]["connection"]
        connection.names, connection.combined = names, scope["path"].startswith("/stream")
        if self._producer is None or self._producer.done():
            self._producer = asyncio.create_task(self._produce(self._clock.now_ms()))
        notice_s = self._lifetime_s - min(NOTICE_S, self._lifetime_s / 10)
        timers = [
            self._loop.call_later(notice_s, self._give_notice, connection),
            self._loop.call_later(self._lifetime_s, connection.end, 1000),
        ]
        self.connections.add(connection)
        try:
            # The handshake is accepted when everything stands: the client misses nothing that happens after it.
            await send({"type": "websocket.accept"})
            await self._receive(connection, receive)
            await send({"type": "websocket.close", "code": connection.close_code})
        finally:
            self.connections.discard(connection)
            for timer in timers:
                timer.cancel()

    def _give_notice(self, connection: Connection) -> None:
        self._reply(connection, {"e": "serverShutdown", "E": self._clock.now_ms()})

    def _reply(self, connection: Connection, event: Event) -> None:
        if not self._find("silence"):
            connection.write(as_json(event))

    async def _receive(self, connection: Connection, receive: Receive) -> None:
        controls: deque[float] = deque(maxlen=MOST_CONTROLS_A_SECOND + 1)
        while (event := await receive())["type"] != "websocket.disconnect":
            controls.append(time.monotonic())
            if len(controls) > MOST_CONTROLS_A_SECOND and controls[-1] - controls[0] < 1.0:
                connection.end(1008)
            else:
                self._reply(connection, connection.obey(event.get("text") or ""))

    # What happens, for all connections.

    async def _produce(self, sent_ms: int) -> None:
        self._late.clear()
        self._held.clear()
        while self.connections:
            now_ms = self._clock.now_ms()
            sent_ms = min(sent_ms, now_ms)  # the clock may be set back
            if now_ms // SECOND_MS > sent_ms // SECOND_MS:
                try:
                    for n, (name, event) in enumerate(self._events(sent_ms, now_ms), 1):
                        self._pass_on(name, event)
                        if n % BATCH == 0:
                            await asyncio.sleep(0)
                except Exception:
                    LOG.exception("stream_failed")
                sent_ms = now_ms
            self._send_late(time.monotonic())
            await asyncio.sleep(LOOK_S)

    def _events(self, since_ms: int, now_ms: int) -> Iterator[tuple[str, Event]]:
        """Yield the candles that closed since ``since_ms``, then the newest second's candles and prices."""
        source = self._source()
        names = {name for connection in self.connections for name in connection.names}
        matches = {name: match for name in names if (match := NAME.fullmatch(name))}
        streams = [(name, match[1].upper(), match[2], match[3]) for name, match in matches.items()]
        streams = [stream for stream in streams if stream[1] in source.symbols]
        for name, symbol, _, interval in streams:
            if interval:
                step_ms = INTERVALS_MS[interval]
                end_ms = now_ms // step_ms * step_ms
                start_ms = max(since_ms // step_ms * step_ms, end_ms - MOST_CANDLES * step_ms)
                closed = source.klines(symbol, step_ms, start_ms, end_ms)
                yield from ((name, event) for event in kline_events(closed, symbol, now_ms, closed=True))
        # The shortest candle of each symbol, whose close is the price; empty while the market stands still.
        newest = {
            symbol: source.unfinished(symbol, source.symbols[symbol].step_ms, now_ms) for _, symbol, _, _ in streams
        }
        for name, symbol, kind, interval in streams:
            if not len(newest[symbol]):
                continue
            if not interval:
                price = float(newest[symbol].close[-1])
                yield name, price_event(kind, symbol, price, source.symbols[symbol].decimals, now_ms)
            elif now_ms // SECOND_MS % OPEN_CANDLES_EVERY_S == 0:
                candle = source.unfinished(symbol, INTERVALS_MS[interval], now_ms)
                yield from ((name, event) for event in kline_events(candle, symbol, now_ms, closed=False))

    def _pass_on(self, name: str, event: Event) -> None:
        """Send the messages that the faults make of an event."""
        symbol = event["s"]
        if self._find("mute", symbol):
            return
        if self._find("garbage_flood", symbol):
            for _ in range(FLOOD):
                self._send_all((name, self._nonsense(event)))
            return
        if "k" in event and event["k"]["x"]:
            if self._find("lose_candles", symbol):
                return
            if self._find("wrong_candles", symbol):
                event = another(event)
        elif "k" not in event and (outlier := self._find("outlier", symbol)):
            factor = outlier.factor or 1.1
            event = with_prices(event, lambda price: f"{float(price) * factor:.8f}")
        text = self._nonsense(event) if self._find("garbage", symbol) else as_json(event)
        messages: list[Message] = [(name, text)] * (2 if self._find("duplicate", symbol) else 1)
        if reorder := self._find("reorder"):
            self._held += messages
            if not reorder.is_over:
                return
            messages = []
        messages = self._held[::-1] + messages  # also what a reordering that was cleared has left behind
        self._held.clear()
        lag = self._find("lag")
        for message in messages:
            if lag or self._late:  # whatever follows a late message comes after it
                due_s = time.monotonic() + (lag.delay_s or 0.0) if lag else 0.0
                self._late.append((due_s, message))
            else:
                self._send_all(message)

    def _nonsense(self, event: Event) -> str | bytes:
        self._garbage += 1
        return broken(event, self._garbage - 1)

    def _send_late(self, now_s: float) -> None:
        while self._late and self._late[0][0] <= now_s:
            self._send_all(self._late.popleft()[1])

    def _send_all(self, message: Message) -> None:
        if self._find("silence"):
            return
        name, text = message
        for connection in self.connections:
            if name in connection.names:
                # A binary frame cannot be wrapped.
                wrapped = connection.combined and isinstance(text, str)
                connection.write(f'{{"stream":"{name}","data":{text}}}' if wrapped else text)  # type: ignore[str-bytes-safe]
