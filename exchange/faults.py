"""Answers that go wrong on demand, so that tests see what a client does with them."""

import asyncio
import json
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

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


class LastingFault(BaseModel):
    """A fault that ends after ``count`` uses or after ``seconds`` of real time, whichever comes first."""

    model_config = ConfigDict(extra="forbid")

    count: PositiveInt | None = None
    seconds: PositiveFloat | None = None


F = TypeVar("F", bound=LastingFault)


@dataclass(slots=True, kw_only=True)
class Active(Generic[F]):
    """A fault that is going on."""

    fault: F
    until_s: float  # by time.monotonic
    left: float  # uses


class ActiveFaults(Generic[F]):
    """The faults that are going on. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[Active[F]] = []

    def add(self, fault: F) -> None:
        """Begin a fault; without ``count`` and ``seconds`` it is used once."""
        until_s = math.inf if fault.seconds is None else time.monotonic() + fault.seconds
        left = fault.count or (1 if fault.seconds is None else math.inf)
        with self._lock:
            self._active.append(Active(fault=fault, until_s=until_s, left=left))

    def clear(self) -> None:
        with self._lock:
            self._active.clear()

    def use(self, fits: Callable[[F], bool]) -> Active[F] | None:
        """Return the first fault that fits, and count one use of it."""
        now_s = time.monotonic()
        with self._lock:
            self._active = [active for active in self._active if now_s < active.until_s and active.left > 0]
            for active in self._active:
                if fits(active.fault):
                    active.left -= 1
                    return active
        return None


class Fault(LastingFault):
    """A fault of the answers to paths that begin with ``path_prefix``."""

    path_prefix: Annotated[str, StringConstraints(pattern="^/")]
    count: PositiveInt = 1
    status: Annotated[int, PositiveInt] | None = None
    headers: dict[str, str] = {}
    body: bytes | None = None  # sent as it is, in place of the answer
    delay_s: NonNegativeFloat = 0.0  # before the answer
    cut_after: NonNegativeInt | None = None  # bytes of the body after which the connection is dropped

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
    """The exchange's ASGI application: remembers requests, and spoils answers on demand.

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
        self._active = ActiveFaults[Fault]()
        self._lock = threading.Lock()
        self._gone_until_ms = 0
        self._seen: deque[tuple[str, dict[str, str]]] = deque(maxlen=REQUESTS_KEPT)

    def add(self, fault: Fault) -> None:
        self._active.add(fault)

    def begin(self, outage_s: float) -> None:
        """Answer 503 to everything for so long; faults that wait are not used up by it."""
        self._gone_until_ms = self._clock.now_ms() + round(outage_s * SECOND_MS)

    def clear(self) -> None:
        self._active.clear()
        self._gone_until_ms = 0

    def seen(self) -> list[tuple[str, dict[str, str]]]:
        with self._lock:
            return list(self._seen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, fault = scope["path"], None
        if not path.startswith(SIM_PREFIX):
            with self._lock:
                self._seen.append((path, dict(HTTPConnection(scope).query_params)))
            if self._clock.now_ms() < self._gone_until_ms:
                fault = GONE
        if scope["type"] == "websocket":
            await (refusal(503) if fault else self._streams)(scope, receive, send)
            return
        if not fault and not path.startswith(SIM_PREFIX):
            active = self._active.use(lambda known: path.startswith(known.path_prefix))
            fault = active.fault if active else None
        if fault:
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
