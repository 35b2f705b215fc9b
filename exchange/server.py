"""The simulated exchange on loopback: Binance's REST interface, archive files and streams.

Its prices are invented or replayed, never a market's: every answer says so in ``X-Market: SIMULATED``. Under ``/sim``
it takes orders to fail, for tests.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
import uvicorn
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.clock import Clock, SystemClock
from core.errors import ConfigError
from exchange.connection import PING_EVERY_S, PONG_WITHIN_S, StreamProtocol
from exchange.faults import SIM_PREFIX, Fault, Faults, Outage
from exchange.rest import Rest
from exchange.sources.replay import Replay
from exchange.sources.source import Source
from exchange.sources.walk import RandomWalk
from exchange.stream_faults import Kind, StreamFault
from exchange.streams import LIFETIME_S, Streams

LOG = structlog.get_logger()


class SimulatedExchange:
    """The exchange, served by a thread of this process while its ``with`` block lasts.

    Args:
        seed: of the invented prices.
        replay: folder of Parquet klines to play; then no price is invented.
        clock: decides which candles have closed.
        port: 0 for any free port.
        symbols: that are traded; None for all there are.
        state: file in which a replay keeps its shift, so that it goes on where it was after a restart.
        stream_lifetime_s: after which a stream's connection is ended.
        source: of the candles; then ``seed``, ``replay``, ``symbols`` and ``state`` are not used.
        rest: answers the requests.
        host: the address to listen at.
    Raises:
        ConfigError: the port is taken, a symbol is unknown, or the folder or the state file cannot be used.
    """

    def __init__(
        self,
        seed: int = 0,
        replay: Path | None = None,
        clock: Clock | None = None,
        port: int = 0,
        symbols: Iterable[str] | None = None,
        state: Path | None = None,
        stream_lifetime_s: float = LIFETIME_S,
        source: Source | None = None,
        rest: Rest | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        if source is None and replay is not None:
            source = Replay.open(replay, self._clock.now_ms(), symbols=symbols, state=state)
        self._source = source or RandomWalk(seed, symbols)
        self._rest = rest or Rest()
        self._streams = Streams(lambda: self.source, self._clock, lifetime_s=stream_lifetime_s)
        self._faults = Faults(self._respond, self._streams, self._clock)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"port {port} of {host} cannot be had: {error.strerror}; choose another") from error
        address = f"{host}:{self._socket.getsockname()[1]}"
        self.url, self.stream_url = f"http://{address}", f"ws://{address}"
        config = uvicorn.Config(
            self._faults,
            ws=StreamProtocol,
            ws_ping_interval=PING_EVERY_S,
            ws_ping_timeout=PONG_WITHIN_S,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="critical",  # cut answers are errors to uvicorn; our own failures are logged by Faults
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
        return self._faults.seen()

    def fail_next(self, path_prefix: str, count: int = 1, **fault: Any) -> None:
        """Spoil the next ``count`` answers to paths that begin with ``path_prefix``; ``Fault`` has the arguments."""
        self._faults.add(Fault(path_prefix=path_prefix, count=count, **fault))

    def fail_stream(self, kind: Kind, **fault: Any) -> None:
        """Let something go wrong with the streams; ``StreamFault`` has the arguments."""
        self._streams.add(StreamFault(kind=kind, **fault))

    def outage(self, seconds: float) -> None:
        """Be gone for so many seconds of the exchange's clock: no REST answer, no stream."""
        self._faults.begin(seconds)  # before the streams end, so that their clients find nobody
        self._streams.add(StreamFault(kind="drop"))

    def clear_faults(self) -> None:
        """Answer as usual from now on."""
        self._faults.clear()
        self._streams.clear()

    @property
    def stream_connections(self) -> int:
        """How many streams are open."""
        return self._streams.connections

    async def _respond(self, request: Request) -> Response:
        path, query = request.url.path, request.query_params.multi_items()
        if path.startswith(SIM_PREFIX):
            return await asyncio.to_thread(self._obey, request.method, path, await request.body())
        return await asyncio.to_thread(lambda: self._rest.answer(self.source, self._clock.now_ms(), path, query))

    def _obey(self, method: str, path: str, body: bytes) -> Response:
        try:
            match method, path:
                case "POST", "/sim/faults":
                    self._faults.add(Fault.model_validate_json(body))
                case "POST", "/sim/stream-faults":
                    self._streams.add(StreamFault.model_validate_json(body))
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
