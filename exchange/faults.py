"""What goes wrong on demand, so that tests see what a client does with it: the faults of answers, and how long."""

import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, PrivateAttr
from starlette.responses import Response

SIMULATED = {"X-Market": "SIMULATED"}  # header of every answer


class LastingFault(BaseModel):
    """A fault that ends after ``count`` uses or after ``seconds`` of real time, whichever comes first; else after one.

    The time runs from the moment the fault is made.
    """

    model_config = ConfigDict(extra="forbid")

    count: PositiveInt | None = None
    seconds: PositiveFloat | None = None

    _left: float = PrivateAttr()  # uses
    _until_s: float = PrivateAttr()  # by time.monotonic

    def model_post_init(self, context: Any) -> None:
        self._left = self.count or (1 if self.seconds is None else math.inf)
        self._until_s = math.inf if self.seconds is None else time.monotonic() + self.seconds

    @property
    def is_over(self) -> bool:
        return self._left <= 0 or time.monotonic() >= self._until_s


F = TypeVar("F", bound=LastingFault)


class ActiveFaults:
    """The faults that are going on. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[LastingFault] = []

    def add(self, fault: LastingFault) -> None:
        with self._lock:
            self._active.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._active.clear()

    def use(self, kind: type[F], fits: Callable[[F], bool]) -> F | None:
        """Return the first fault that fits, and count one use of it."""
        with self._lock:
            self._active = [fault for fault in self._active if not fault.is_over]
            for fault in self._active:
                if isinstance(fault, kind) and fits(fault):
                    fault._left -= 1
                    return fault
        return None


class Fault(LastingFault):
    """A fault of the answers to paths that begin with ``path_prefix``."""

    path_prefix: str = Field(pattern="^/")
    count: PositiveInt = 1
    status: PositiveInt | None = None
    headers: dict[str, str] = {}
    body: bytes | None = None  # sent as it is, in place of the answer
    delay_s: float = Field(default=0.0, ge=0)  # before the answer
    cut_after: int | None = Field(default=None, ge=0)  # bytes of the body after which the connection is dropped

    def response(self) -> Response | None:
        """Return the response that replaces the answer; None if the real answer is sent."""
        if self.status is None and self.body is None:
            return None
        code, msg = (-1003, "Too much request weight used.") if self.status in {418, 429} else (-1000, "Simulated.")
        body = json.dumps({"code": code, "msg": msg}).encode() if self.body is None else self.body
        return Response(body, self.status or 200, media_type="application/json")


GONE = Fault(path_prefix="/", status=503)


class Outage(BaseModel):
    """An outage of the whole exchange, REST and streams."""

    model_config = ConfigDict(extra="forbid")

    seconds: PositiveFloat  # of the exchange's own clock


def refusal(status: int) -> Response:
    """Return the answer to a handshake in place of the upgrade."""
    return Response(b"no stream", status, SIMULATED)
