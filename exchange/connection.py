"""One client of the streams: subscribed names, control messages, and how the connection ends."""

from typing import Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, StrictInt, StrictStr, ValidationError
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from exchange.formats import Event

PING_EVERY_S, PONG_WITHIN_S = 20.0, 60.0
MOST_STREAMS = 1_024  # of a connection
MOST_WAITING_BYTES = 8_000_000  # some 20,000 candles; a client that does not take them is cut off


class Connection(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which faults can cut or leave hanging; the scope's state holds it for the application."""

    names: set[str]  # of streams
    combined: bool  # each message is wrapped with the name of its stream
    quiet: bool = False  # nothing is sent any more
    close_code: int = 1000

    async def run_asgi(self) -> None:
        self.scope["state"]["connection"] = self
        await super().run_asgi()

    def write(self, message: str | bytes) -> None:
        if self.quiet or self.transport.is_closing():
            return
        if isinstance(message, str):
            self.conn.send_text(message.encode())
        else:
            self.conn.send_binary(message)
        self.transport.writelines(self.conn.data_to_send())
        if self.transport.get_write_buffer_size() > MOST_WAITING_BYTES:
            self.cut()

    def cut(self) -> None:
        self.transport.abort()

    def end(self, code: int) -> None:
        """Let the application close the connection after what has been sent."""
        if not self.quiet:
            self.quiet, self.close_code = True, code
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code})

    def hang(self) -> None:
        """Neither send, read nor ping any more, and stay open."""
        self.quiet = True
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

    def obey(self, text: str) -> Event:
        """Do what a control message says, and return its answer."""
        try:
            request = _Control.model_validate_json(text)
        except ValidationError as error:
            return _refusal(error)
        names = set(request.params or [])
        match request.method:
            case "LIST_SUBSCRIPTIONS":
                return {"result": sorted(self.names), "id": request.id}
            case "UNSUBSCRIBE":
                self.names -= names
            case _ if len(self.names | names) > MOST_STREAMS:
                return {"code": 2, "msg": "Invalid request: too many streams"}
            case _:
                self.names |= names
        return {"result": None, "id": request.id}


class _Control(BaseModel):
    method: Literal["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"]
    params: list[str] | None = None
    id: StrictInt | StrictStr | None


def _refusal(error: ValidationError) -> Event:
    """Return Binance's answer to a control message that cannot be obeyed."""
    wrong = error.errors()[0]
    match wrong["type"], wrong["loc"]:
        case "json_invalid", _:
            return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}
        case "literal_error", _:
            known = "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            why = f"unknown variant `{wrong['input']}`, {known} at line 1 column 1"
        case _, ("id", *_):
            why = "request ID must be an unsigned integer"
        case _, ("params", *_):
            why = "params must be a list of stream names"
        case _:
            why = "missing field `method` at line 1 column 1"
    return {"code": 2, "msg": f"Invalid request: {why}"}


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
