"""Ask an endpoint of this worker. Standard library alone: containers run their health check every few seconds."""

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any

MOST_BYTES = 4_000_000  # /topics has about 1 kB for each topic

# The endpoint is on this machine or in this compose file: a proxy that the environment names leads elsewhere.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class NoAnswer(Exception):
    """No whole answer came; the text begins with the kind of error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, of any status."""

    status: int
    headers: Message
    body: bytes


def http_get(url: str, timeout_s: float, *, most_bytes: int = MOST_BYTES, user_agent: str = "birnn") -> Answer:
    """Ask once, without retry.

    Args:
        timeout_s: bounds each of connection, headers and whole body.
    Raises:
        NoAnswer: whatever went wrong, a body of more than ``most_bytes`` included.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": user_agent})  # noqa: S310 -- checked by the callers
        try:
            response: Any = _open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return Answer(status=response.status, headers=response.headers, body=_body(response, timeout_s, most_bytes))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)  # URLError hides what went wrong in it
        cause = reason if isinstance(reason, Exception) else error
        raise NoAnswer(type(cause).__name__, str(cause)) from error


def _body(response: Any, timeout_s: float, most_bytes: int) -> bytes:
    deadline_s = time.monotonic() + timeout_s
    body = bytearray()
    while part := response.read1():  # what is there: a body that trickles must not hold the caller
        body += part
        if len(body) > most_bytes:
            raise ValueError(f"the body is longer than {most_bytes} bytes")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the body took longer than {timeout_s:g} s")
    if missing := getattr(response, "length", 0):
        raise ValueError(f"the body ends {missing} bytes too early")
    return bytes(body)
