"""Answers that go wrong on demand, so that tests see what a client does with them."""

import asyncio
import json
import math
import threading
import time
from collections import deque
from typing import Annotated
from urllib.parse import parse_qsl

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
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.clock import SECOND_MS, Clock

LOG = structlog.get_logger()
SIM_PREFIX = "/sim/"
REQUESTS_KEPT = 10_000


class Fault(BaseModel):
    """What goes wrong with the next ``count`` answers to paths that begin with ``path_prefix``."""

    model_config = ConfigDict(extra="forbid")

    path_prefix: Annotated[str, StringConstraints(pattern="^/")]
    count: PositiveInt = 1
    status: Annotated[int, PositiveInt] | None = None
    headers: dict[str, str] = {}
    body: bytes | None = None  # sent as it is in place of the answer
    delay_s: NonNegativeFloat = 0.0  # before the answer
    cut_after: NonNegativeInt | None = None  # bytes of the body after which the connection is dropped
    seconds: PositiveFloat | None = None  # of real time after which it is over, however many answers it has spoilt

    def instead(self) -> tuple[int, bytes] | None:
        """Status and body that replace the answer; None when the real one is sent."""
        if self.status is None and self.body is None:
            return None
        busy = self.status in {418, 429}
        usual = (
            {"code": -1003, "msg": "Too much request weight used."} if busy else {"code": -1000, "msg": "Simulated."}
        )
        return self.status or 200, json.dumps(usual).encode() if self.body is None else self.body


class Outage(BaseModel):
    """The whole exchange is gone, REST and streams."""

    model_config = ConfigDict(extra="forbid")

    seconds: PositiveFloat  # of the exchange's own clock


GONE = Fault(path_prefix="/", status=503)


def refusal(status: int) -> Response:
    """The answer to a handshake in place of the upgrade."""
    return Response(b"no stream", status, {"X-Market": "SIMULATED"})


class Faults:
    """Remembers every request and spoils the answers it was told to spoil; ``/sim`` itself is left alone.

    Streams go to an application of their own, which has its own faults; an outage is for both.
    """

    def __init__(self, app: ASGIApp, streams: ASGIApp, clock: Clock) -> None:
        self._app = app
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
        path = scope["path"]
        simulated = path.startswith(SIM_PREFIX)
        gone = not simulated and self._clock.now_ms() < self._gone_until_ms
        if not simulated:
            with self._lock:
                self._seen.append((path, dict(parse_qsl(scope["query_string"].decode("latin-1")))))
        if scope["type"] == "websocket":
            await (refusal(503) if gone else self._streams)(scope, receive, send)
            return
        fault = None if simulated else GONE if gone else self._next(path)
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        if fault is not None:
            await asyncio.sleep(fault.delay_s)
        if fault is not None and (instead := fault.instead()) is not None:
            await Response(instead[1], instead[0], media_type="application/json")(scope, receive, keep)
        else:
            try:
                await self._app(scope, receive, keep)
            except Exception:  # a bug of ours; the application has put a 500 into `messages` already
                LOG.exception("answer_failed", path=path)
        # Answers are made whole before they are sent, so that a cut one can promise more than it holds.
        start, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        extra = fault.headers if fault is not None else {}
        names = {name.lower().encode() for name in extra}
        start["headers"] = [(name, value) for name, value in start["headers"] if name not in names]
        start["headers"] += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
        start["headers"].append((b"x-market", b"SIMULATED"))
        await send(start)
        if fault is not None and fault.cut_after is not None:
            await send({"type": "http.response.body", "body": body[: fault.cut_after], "more_body": True})
            return  # unfinished: uvicorn drops the connection
        await send({"type": "http.response.body", "body": body})
