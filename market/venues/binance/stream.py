"""Binance's market streams over one WebSocket: trades and candles of every symbol, as they happen.

A connection ends after 24 hours at the latest, or falls silent without ending. It is then opened anew on the next host,
and the reader is called, so that it can ask over REST meanwhile. Source of the format and of the limits:
developers.binance.com, Spot, WebSocket Streams.
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from core.backoff import backoff
from core.errors import MalformedKlines
from core.net.http import USER_AGENT, is_loopback, one_line
from core.seldom import Seldom
from klines.klines import Klines
from klines.spans import INTERVALS_MS, interval_name
from market.venue import MarketStream, StreamReader
from market.venues.parsing import price_of, time_ms

Series = tuple[str, int]  # symbol, interval_ms

OPEN_TIMEOUT_S = 5.0
PING_AFTER_S = 3.0  # of silence, and again; BTC alone trades several times a second
SILENCE_S = 15.0  # a connection that answers pings and sends nothing has lost its subscriptions
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0  # 300 connections in five minutes are allowed; this makes at most 150
HEALTHY_S = 60.0  # a longer connection ended in the ordinary way: the next one is opened at once, on the first host
CANDLE_LAG_MS = 1_000  # an open candle's close counts as this much older than its message: trades are newer
BAD_IN_A_ROW = 100  # a server that sends so many unreadable messages is not the exchange
MESSAGE_LIMIT_BYTES = 1 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A price and the venue's time of it."""

    symbol: str
    price: float
    venue_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A candle that the venue calls closed."""

    symbol: str
    kline: Klines  # one row


class ShuttingDown(Exception):
    """The venue says that this connection will end soon."""


class Silent(Exception):
    """Nothing comes over a connection. TCP alone would take many minutes to notice."""


def parse(message: str | bytes) -> Trade | Closed | None:
    """Read an event, with or without the wrapping of a combined stream; None if we do not use such events.

    The close of an open candle counts as a price: there is no other while nobody trades.

    Raises:
        MalformedKlines: not an event of the documented form.
        ShuttingDown: the connection will end.
    """
    try:
        event = json.loads(message)
        event = event.get("data", event)
        kind = event.get("e")
        if kind in {"aggTrade", "trade"}:
            return _trade(event["s"], event["p"], event["T"])
        if kind == "kline":
            candle = event["k"]
            if candle["x"] is True:
                return Closed(symbol=_text(event["s"]), kline=_kline(candle))
            return _trade(event["s"], candle["c"], event["E"] - CANDLE_LAG_MS)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise MalformedKlines(f"not a market event: {message[:80]!r} ({type(error).__name__}: {error})") from error
    if kind == "serverShutdown":
        raise ShuttingDown
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"symbols and prices must be text, was {value!r}")
    return value


def _time(value: Any) -> int:
    if not (at_ms := time_ms(value, unit_ms=1)):
        raise ValueError(f"a time must be in milliseconds, was {value!r}")
    return at_ms


def _trade(symbol: Any, price: Any, at_ms: Any) -> Trade:
    venue_ms = _time(at_ms)
    return Trade(symbol=_text(symbol), price=price_of(symbol, _text(price), venue_ms).price, venue_ms=venue_ms)


def _kline(candle: dict[str, Any]) -> Klines:
    cells = [[float(candle[key]) for key in "ohlcvqnVQ"]]  # in the order of COLUMNS
    return Klines.from_table(INTERVALS_MS[candle["i"]], np.array([_time(candle["t"])], np.int64), np.array(cells))


class BinanceStream(MarketStream):
    """Trades and closed candles from the first of several hosts that sends them.

    Args:
        urls: ``ws://`` or ``wss://`` hosts without a trailing slash, in the order they are tried.
        series: symbols and the intervals of their candles.
        ping_after_s: how long a connection may be silent before it is pinged, and how long a pong may take.
        silence_s: how long a connection that answers pings may be silent.
        seconds: a monotonic clock, for log lines that come once a minute.
    """

    def __init__(
        self,
        urls: Sequence[str],
        series: Iterable[Series],
        *,
        ping_after_s: float = PING_AFTER_S,
        silence_s: float = SILENCE_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.urls = tuple(urls)
        self._ping_after_s, self._silence_s = ping_after_s, silence_s
        wanted = tuple(series)
        symbols = dict.fromkeys(symbol for symbol, _ in wanted)
        names = [f"{symbol.lower()}@aggTrade" for symbol in symbols]
        names += [f"{symbol.lower()}@kline_{interval_name(interval_ms)}" for symbol, interval_ms in wanted]
        self.path = f"/stream?streams={'/'.join(names)}"
        self._wanted = frozenset(wanted)
        self._symbols = frozenset(symbols)
        self.malformed = 0  # messages that could not be read
        self._kinds: Counter[str] = Counter()  # of the malformed messages since the last log line about them
        self._seldom = Seldom(seconds)
        self._is_logged_down = True  # the last log line about the stream says that it is down
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, reader: StreamReader) -> None:
        self._thread = threading.Thread(target=self._run, args=(reader,), name="live-stream", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop and task:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        if self._thread:
            self._thread.join(timeout_s)

    def _run(self, reader: StreamReader) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(asyncio.CancelledError):
            runner.run(self._follow(reader))

    async def _follow(self, reader: StreamReader) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        host = failures = 0
        while not self._stopping.is_set():
            began_s = self._loop.time()
            url = self.urls[host]
            try:
                reason = await self._listen(url, reader)
            except Exception as error:
                if count := self._seldom.due("stream_fault"):
                    log.exception("stream_fault", host=url, count=count)
                reason = f"{url}: {type(error).__name__}: {error}"
            reader.stream_down(reason)
            if self._loop.time() - began_s >= HEALTHY_S:
                host = failures = 0
            else:
                host, failures = (host + 1) % len(self.urls), failures + 1
            pause_s = backoff(failures + 1, FIRST_PAUSE_S, LONGEST_PAUSE_S)
            pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 -- so that many nodes do not come back all at once
            if count := self._seldom.due("stream_down", reason):
                self._is_logged_down = True
                in_s = round(pause_s, 1)
                log.warning("stream_down", reason=reason, in_s=in_s, meanwhile="polling over REST", count=count)
            await asyncio.sleep(pause_s)

    async def _listen(self, url: str, reader: StreamReader) -> str:
        """Follow one connection from its opening to its end; returns why it ended."""
        try:
            connection = await connect(
                url + self.path,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=None,  # ``_next`` pings, and only in a silence
                compression=None,  # a message has 200 bytes, and unpacking would be half the work
                max_size=MESSAGE_LIMIT_BYTES,
                user_agent_header=USER_AGENT,
                proxy=None if is_loopback(url) else True,
            )
        except (OSError, WebSocketException, EOFError, ValueError, TimeoutError) as error:
            return f"{url}: no stream: {_reason(error)}"
        try:
            return f"{url}: {await self._read(connection, url, reader)}"
        except Silent as silence:
            return f"{url}: {silence}"
        except ConnectionClosed as error:
            return f"{url}: {_reason(error)}"
        finally:
            connection.transport.abort()  # a proper close would wait for a reply that may never come

    async def _read(self, connection: ClientConnection, url: str, reader: StreamReader) -> str:
        up = False
        bad = 0
        while True:
            try:
                event = parse(await self._next(connection))
            except ShuttingDown:
                return "the server is about to shut down"
            except MalformedKlines as error:
                self.malformed += 1
                bad += 1
                self._log_malformed(url, error)
                if bad == BAD_IN_A_ROW:
                    return f"{BAD_IN_A_ROW} messages in a row could not be read"
                continue
            bad = 0
            if event is None or event.symbol not in self._symbols:
                continue
            if not up:
                up = True
                if self._is_logged_down:
                    self._is_logged_down = False
                    log.info("stream_up", host=url)
                reader.stream_up(url)
            if isinstance(event, Trade):
                reader.traded(event.symbol, event.price, event.venue_ms)
            elif (event.symbol, event.kline.interval_ms) in self._wanted:
                reader.candle_closed(event.symbol, event.kline)

    def _log_malformed(self, url: str, error: MalformedKlines) -> None:
        """One line a minute: how many messages of which kind, and the newest reason."""
        self._kinds[type(error.__cause__ or error).__name__] += 1
        if count := self._seldom.due("stream_message_refused"):
            kinds = dict(sorted(self._kinds.items()))
            self._kinds.clear()
            log.warning("stream_message_refused", host=url, count=count, kinds=kinds, reason=str(error))

    async def _next(self, connection: ClientConnection) -> str | bytes:
        """Return the next message; raises Silent if a ping is not answered, or the silence is long."""
        pong: asyncio.Future[float] | None = None
        silent_s = 0.0
        while silent_s < self._silence_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ping_after_s):
                    return await connection.recv()
            silent_s += self._ping_after_s
            if pong is not None and not pong.done():
                raise Silent(f"silent for {silent_s:.0f} s and no answer to a ping")
            pong = asyncio.ensure_future(await connection.ping())
        raise Silent(f"sent nothing for {silent_s:.0f} s")


def _reason(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}").removesuffix(":")
