"""Answers that go wrong on demand, so that tests see what a client does with them."""

import asyncio
import json
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
)
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.clock import SECOND_MS, Clock

LOG = structlog.get_logger()
SIM_PREFIX = "/sim/"
REQUESTS_KEPT = 10_000
SIMULATED = {"X-Market": "SIMULATED"}  # header of every answer


class Fault(BaseModel):
    """A fault of the next ``count`` answers to paths that begin with ``path_prefix``."""

    model_config = ConfigDict(extra="forbid")

    path_prefix: Annotated[str, StringConstraints(pattern="^/")]
    count: PositiveInt = 1
    status: Annotated[int, PositiveInt] | None = None
    headers: dict[str, str] = {}
    body: bytes | None = None  # sent as it is, in place of the answer
    delay_s: NonNegativeFloat = 0.0  # before the answer
    cut_after: NonNegativeInt | None = None  # bytes of the body after which the connection is dropped
    seconds: PositiveFloat | None = None  # of real time, after which the fault ends even if answers are left

    def response(self) -> Response | None:
        """Return the response that replaces the answer; None if the real answer is sent."""
        if self.status is None and self.body is None:
            return None
        busy = self.status in {418, 429}
        usual = (
            {"code": -1003, "msg": "Too much request weight used."} if busy else {"code": -1000, "msg": "Simulated."}
        )
        body = json.dumps(usual).encode() if self.body is None else self.body
        return Response(body, self.status or 200, media_type="application/json")


class Outage(BaseModel):
    """An outage of the whole exchange, REST and streams."""

    model_config = ConfigDict(extra="forbid")

    seconds: PositiveFloat  # of the exchange's own clock


GONE = Fault(path_prefix="/", status=503)


def refusal(status: int) -> Response:
    """Return the answer to a handshake in place of the upgrade."""
    return Response(b"no stream", status, SIMULATED)


class Faults:
    """The exchange's ASGI application: remembers requests, and spoils the answers that it was told to spoil.

    Requests to ``/sim`` are neither remembered nor spoilt. Streams have faults of their own; an outage is for both.

    Args:
        respond: makes the answer to a request.
        streams: the application of the streams.
        clock: says when an outage is over.
    """

    def __init__(self, respond: Callable[[Request], Awaitable[Response]], streams: ASGIApp, clock: Clock) -> None:
        self._respond = respond
        self._streams = streams
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, float]] = []  # and when it is over, by time.monotonic
        self._gone_until_ms = 0
        self._seen: deque[tuple[str, dict[str, str]]] = deque(maxlen=REQUESTS_KEPT)

    def add(self, fault: Fault) -> None:
        until_s = math.inf if fault.seconds is None else time.monotonic() + fault.seconds
        with self._lock:
            self._waiting.append((fault, until_s))

    def begin(self, outage: Outage) -> None:
        """Answer 503 to everything; faults that wait are not used up by it."""
        self._gone_until_ms = self._clock.now_ms() + round(outage.seconds * SECOND_MS)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()
        self._gone_until_ms = 0

    def seen(self) -> list[tuple[str, dict[str, str]]]:
        with self._lock:
            return list(self._seen)

    def _next(self, path: str) -> Fault | None:
        with self._lock:
            now_s = time.monotonic()
            self._waiting = [(fault, until_s) for fault, until_s in self._waiting if now_s < until_s]
            for n, (fault, until_s) in enumerate(self._waiting):
                if path.startswith(fault.path_prefix):
                    left = fault.model_copy(update={"count": fault.count - 1})
                    self._waiting[n : n + 1] = [(left, until_s)] if left.count else []
                    return fault
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, fault = scope["path"], None
        gone = False
        if not path.startswith(SIM_PREFIX):
            gone = self._clock.now_ms() < self._gone_until_ms
            with self._lock:
                self._seen.append((path, dict(HTTPConnection(scope).query_params)))
        if scope["type"] == "websocket":
            await (refusal(503) if gone else self._streams)(scope, receive, send)
            return
        if not path.startswith(SIM_PREFIX):
            fault = GONE if gone else self._next(path)
        if fault is not None:
            await asyncio.sleep(fault.delay_s)
        response = fault.response() if fault else None
        if response is None:
            try:
                response = await self._respond(Request(scope, receive))
            except Exception:  # a bug of ours
                LOG.exception("answer_failed", path=path)
                response = Response(status_code=500)
        response.headers.update(SIMULATED | (fault.headers if fault else {}))
        if fault is None or fault.cut_after is None:
            await response(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        body = bytes(response.body)[: fault.cut_after]
        await send({"type": "http.response.body", "body": body, "more_body": True})  # uvicorn drops the connection
