"""HTTP GET whose answers end: a read timeout alone ends none that drips, byte by byte, in its head or its body."""

import contextlib
import email.utils
import http.client
import io
import re
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

TIMEOUTS = 6  # an answer may take six read timeouts from its first byte to its last
USER_AGENT = "birnn-worker"


class _TimedReader(io.RawIOBase):
    """What a socket receives, until the answer's time is over."""

    def __init__(self, sock: socket.socket) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        patience_s = sock.gettimeout()
        self._deadline = float("inf") if patience_s is None else time.monotonic() + TIMEOUTS * patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer has not ended in time")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock))


class _TimedConnection(HTTPConnection):
    response_class = _TimedResponse


class _TimedSecureConnection(HTTPSConnection):
    response_class = _TimedResponse


class _TimedPool(HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TimedSecurePool(HTTPSConnectionPool):
    ConnectionCls = _TimedSecureConnection


class TimedAdapter(HTTPAdapter):
    """For ``requests.Session.mount``: every answer has an end."""

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _TimedPool, "https": _TimedSecurePool}

    def proxy_manager_for(self, proxy: str, **named: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **named)
        if not proxy.lower().startswith("socks"):  # those have pools of their own
            manager.pool_classes_by_scheme = {"http": _TimedPool, "https": _TimedSecurePool}
        return manager


def timed_session(headers: Mapping[str, str]) -> requests.Session:
    """A session whose answers end, and that sends these headers; for one thread."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, TimedAdapter())
    session.headers.update({"User-Agent": USER_AGENT, **headers})
    return session


def open_answer(
    session: requests.Session, url: str, params: Mapping[str, str | int], timeout: tuple[float, float]
) -> requests.Response:
    """Ask, and return once the head of the answer is there; ``read_body`` has the rest.

    Args:
        session: of ``timed_session``.
        timeout: seconds for the connection, and for the first byte and each pause between two pieces.
    Raises:
        requests.RequestException: no connection, or no head in time.
    """
    proxies = {"http": "", "https": ""} if is_loopback(url) else None  # a proxy cannot reach our loopback
    for second in (False, True):
        try:
            return session.get(
                url,
                params=params,
                timeout=timeout,
                stream=True,
                proxies=proxies,
                # A key would go wherever the answer points, and its end would be nobody's to see to.
                allow_redirects=False,
            )
        except requests.ConnectionError as error:
            # A connection kept from an earlier call may have been closed while this request went out.
            if second or not (error.args and isinstance(error.args[0], urllib3.exceptions.ProtocolError)):
                raise
    raise AssertionError("unreachable: the second try returns or raises")


def read_body(response: requests.Response, limit_bytes: int) -> bytes:
    """The whole body, piece by piece so that its size is limited.

    Raises:
        requests.RequestException: it is larger.
        urllib3.exceptions.HTTPError: it was cut off, or did not end in time.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := response.raw.read1(1 << 16, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > limit_bytes:
            raise requests.RequestException(f"a body of more than {limit_bytes >> 20} MB")
    return b"".join(pieces)


def reason_of(error: Exception) -> str:
    """Why an answer did not come, as one short line; the libraries' own texts carry object addresses and whole URLs."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failed"
    if isinstance(error, requests.ConnectionError):
        return "connection failed"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return "the answer was cut off"
    return one_line(str(error))


def one_line(text: str) -> str:
    """The first 200 characters of a text, without line breaks."""
    return " ".join(text.split())[:200]


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as seconds or as a date; None where it says neither.

    >>> retry_after_s("7", 0), retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 15_000), retry_after_s("soon", 0)
    (7.0, 45.0, None)
    """
    if header is not None and re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", header):
        return float(header)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(header or "").timestamp() - now_ms / 1000
    return None


def is_loopback(url: str) -> bool:
    """Does this URL name this machine itself?

    >>> is_loopback("http://127.0.0.1:80/x"), is_loopback("http://127.0.0.1@example.com")
    (True, False)
    """
    return bool(re.fullmatch(r"localhost|127(\.\d{1,3}){3}|::1", urlsplit(url).hostname or ""))
