"""One client of the streams: subscribed names, control messages, and messages not yet sent."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from exchange.stream_faults import Payload

PING_EVERY_S, PONG_WITHIN_S = 20.0, 60.0
MOST_STREAMS = 1_024  # of a connection
MOST_WAITING = 20_000  # messages; a client that does not take them is cut off


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which faults can cut or leave hanging; the scope's state holds it for the application."""

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
        """Do not wait, as closing does, until a client that does not read has taken everything."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()


@dataclass(eq=False, kw_only=True)
class Connection:
    """One client of the streams."""

    protocol: StreamProtocol
    combined: bool  # each message is wrapped with the name of its stream
    names: set[str]  # of streams
    waiting: "asyncio.Queue[str | bytes | None]" = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    hanging: bool = False
    close_code: int = 1000

    def send(self, message: str | bytes | None) -> None:
        """Queue a message; None ends the connection."""
        if self.hanging:
            return
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.protocol.cut()

    def close(self, code: int) -> None:
        self.close_code = code
        self.send(None)

    def hang(self) -> None:
        self.hanging = True
        self.protocol.hang()

    def control(self, text: str) -> Payload:
        """Do what a control message says, and return its answer."""
        try:
            request = json.loads(text)
            return {"result": self._obey(request), "id": request["id"]}
        except _Invalid as error:
            return {"code": 2, "msg": f"Invalid request: {error}"}
        except (ValueError, RecursionError):
            return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}

    def _obey(self, request: Any) -> list[str] | None:
        if not isinstance(request, dict) or "method" not in request:
            raise _Invalid("missing field `method` at line 1 column 1")
        number, names = request.get("id", False), request.get("params") or []
        if isinstance(number, bool) or not isinstance(number, int | str | None):
            raise _Invalid("request ID must be an unsigned integer")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _Invalid("params must be a list of stream names")
        match request["method"]:
            case "SUBSCRIBE":
                if len(self.names.union(names)) > MOST_STREAMS:
                    raise _Invalid("too many streams")
                self.names.update(names)
            case "UNSUBSCRIBE":
                self.names.difference_update(names)
            case "LIST_SUBSCRIPTIONS":
                return sorted(self.names)
            case other:
                known = "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
                raise _Invalid(f"unknown variant `{other}`, {known} at line 1 column 1")
        return None


class _Invalid(Exception):
    """A control message that cannot be obeyed, and why."""


def stream_names(path: str, query: str) -> set[str] | None:
    """Return the streams that a handshake asks for; None for a path without streams.

    >>> sorted(stream_names("/stream", "streams=btcusdt@trade/ethusdt%40trade"))
    ['btcusdt@trade', 'ethusdt@trade']
    """
    if path.rstrip("/") == "/stream":
        names = "/".join(value for key, value in parse_qsl(query) if key == "streams")
    elif path == "/ws" or path.startswith("/ws/"):
        names = path.removeprefix("/ws")
    else:
        return None
    return {name for name in names.split("/") if name}
