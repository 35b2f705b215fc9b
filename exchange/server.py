"""The simulated exchange on loopback: Binance's REST interface, archive files and streams.

Its prices are invented or replayed, never a market's: every answer says so in ``X-Market: SIMULATED``. Under ``/sim``
it takes orders to fail, for tests; these requests are neither remembered nor spoilt.
"""

import asyncio
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import structlog
import uvicorn
from pydantic import ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from core.clock import SECOND_MS, Clock, SystemClock
from core.errors import ConfigError
from exchange.connection import PING_EVERY_S, PONG_WITHIN_S, Connection
from exchange.faults import GONE, SIMULATED, ActiveFaults, Fault, Outage, refusal
from exchange.rest import Rest
from exchange.sources.source import Source
from exchange.sources.walk import RandomWalk
from exchange.stream_faults import Kind, StreamFault
from exchange.streams import LIFETIME_S, Streams

LOG = structlog.get_logger()
REQUESTS_KEPT = 10_000


class SimulatedExchange:
    """The exchange, served by a thread of this process while its ``with`` block lasts.

    Args:
        seed: of the invented prices.
        symbols: whose prices are invented; None for all there are.
        source: of the candles, in place of invented ones.
        clock: decides which candles have closed.
        port: 0 for any free port.
        stream_lifetime_s: after which a stream's connection is ended.
        rest: answers the requests.
        host: the address to listen at.
    Raises:
        ConfigError: the port cannot be had, or a symbol is unknown.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        symbols: Iterable[str] | None = None,
        source: Source | None = None,
        clock: Clock | None = None,
        port: int = 0,
        stream_lifetime_s: float = LIFETIME_S,
        rest: Rest | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._source = source or RandomWalk(seed, symbols)
        self._rest = rest or Rest()
        self._faults = ActiveFaults()
        self._gone_until_ms = 0
        self._seen: deque[tuple[str, dict[str, str]]] = deque(maxlen=REQUESTS_KEPT)
        self._streams = Streams(lambda: self.source, self._clock, self._faults, lifetime_s=stream_lifetime_s)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            reason = getattr(error, "strerror", error)
            raise ConfigError(f"port {port} of {host} cannot be had: {reason}; choose another") from error
        address = f"{host}:{self._socket.getsockname()[1]}"
        self.url, self.stream_url = f"http://{address}", f"ws://{address}"
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            headers=list(SIMULATED.items()),
            ws=Connection,
            ws_ping_interval=PING_EVERY_S,
            ws_ping_timeout=PONG_WITHIN_S,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="critical",  # cut answers are errors to uvicorn; our own failures are logged below
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="exchange", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    @property
    def source(self) -> Source:
        """The candles that are played now."""
        with self._lock:
            source = self._source.at(self._clock.now_ms())
            if source is not self._source:
                self._source = source
                LOG.warning("replay_over", prices=source.name, note=source.note)
                say(source.note)
            return source

    @property
    def requests(self) -> list[tuple[str, dict[str, str]]]:
        """Path and query of the requests so far, oldest first."""
        with self._lock:
            return list(self._seen)

    @property
    def stream_connections(self) -> int:
        """How many streams are open."""
        return len(self._streams.connections)

    def fail_next(self, path_prefix: str, count: int = 1, **fault: Any) -> None:
        """Spoil the next ``count`` answers to paths that begin with ``path_prefix``; ``Fault`` has the arguments."""
        self._faults.add(Fault(path_prefix=path_prefix, count=count, **fault))

    def fail_stream(self, kind: Kind, **fault: Any) -> None:
        """Let something go wrong with the streams; ``StreamFault`` has the arguments."""
        self._streams.fail(StreamFault(kind=kind, **fault))

    def outage(self, seconds: float) -> None:
        """Be gone for so many seconds of the exchange's clock; faults that wait are not used up by an outage."""
        self._gone_until_ms = self._clock.now_ms() + round(seconds * SECOND_MS)
        self.fail_stream("drop")  # afterwards, so that the clients find nobody

    def clear_faults(self) -> None:
        """Answer as usual from now on; connections that hang stay as they are."""
        self._faults.clear()
        self._gone_until_ms = 0
        self._streams.catch_up()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        path = scope["path"]
        if path.startswith("/sim/") and scope["type"] == "http":
            body = await Request(scope, receive).body()
            await (await asyncio.to_thread(self._obey, scope["method"], path, body))(scope, receive, send)
            return
        query = HTTPConnection(scope).query_params
        with self._lock:
            self._seen.append((path, dict(query)))
        gone = self._clock.now_ms() < self._gone_until_ms
        if scope["type"] == "websocket":
            await (refusal(503) if gone else self._streams)(scope, receive, send)
            return
        fault = GONE if gone else self._faults.use(Fault, lambda known: path.startswith(known.path_prefix))
        await asyncio.sleep(fault.delay_s if fault else 0)
        response = fault.response() if fault else None
        if response is None:
            try:
                response = await asyncio.to_thread(
                    lambda: self._rest.answer(self.source, self._clock.now_ms(), path, query.multi_items())
                )
            except Exception:  # a bug of ours
                LOG.exception("answer_failed", path=path)
                response = Response(status_code=500)
        response.headers.update(fault.headers if fault else {})
        if fault is None or fault.cut_after is None:
            await response(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        body = bytes(response.body)[: fault.cut_after]
        await send({"type": "http.response.body", "body": body, "more_body": True})  # uvicorn drops the connection

    def _obey(self, method: str, path: str, body: bytes) -> Response:
        try:
            match method, path:
                case "POST", "/sim/faults":
                    self._faults.add(Fault.model_validate_json(body))
                case "POST", "/sim/stream-faults":
                    self._streams.fail(StreamFault.model_validate_json(body))
                case "POST", "/sim/outage":
                    self.outage(Outage.model_validate_json(body).seconds)
                case "DELETE", "/sim/faults":
                    self.clear_faults()
                case "GET", "/sim/requests":
                    return JSONResponse(self.requests)
                case _:
                    return Response(f"no {method} {path}", 404)
        except ValidationError as error:
            return Response(str(error), 422)
        return Response(status_code=204)


def say(text: str) -> None:
    """Tell a person at the terminal."""
    sys.stderr.write(f"SIMULATED exchange: {text}\n")
