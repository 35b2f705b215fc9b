"""HTTP GET with an end: a limit for the whole body, in bytes and in seconds. For venues and for the chain's RPC."""

import contextlib
import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3

BODY_TIMEOUTS = 6  # a body may take this many read timeouts from its first byte to its last; not measured
PIECE_BYTES = 1 << 16
USER_AGENT = "birnn-worker"


class NoReply(Exception):
    """A host gave no whole reply. The text is a short reason without the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP response."""

    status: int
    body: bytes
    retry_after: str | None  # the header


def new_session(headers: Mapping[str, str]) -> requests.Session:
    """Return a session for one thread that sends these headers."""
    session = requests.Session()
    session.headers.update({"User-Agent": USER_AGENT, **headers})
    return session


def get(
    session: requests.Session,
    url: str,
    params: Mapping[str, str | int],
    *,
    connect_s: float,
    read_s: float,
    limit_bytes: int,
) -> Reply:
    """Ask once; no redirect is followed.

    requests bounds only the pause between two reads, so a body that came one byte at a time could hold a thread for
    ever. The body therefore has a deadline. Headers that come byte by byte have no deadline.

    Args:
        connect_s: limit for the connection.
        read_s: limit for the first byte and for each pause; the body has ``BODY_TIMEOUTS`` times as long.
        limit_bytes: largest body.
    Raises:
        NoReply: no connection, no reply in time, or a body that was cut off, too long or too large.
    """
    proxies = {"http": "", "https": ""} if is_loopback(url) else None  # a proxy cannot reach this machine's loopback
    for is_last in (False, True):
        try:
            with session.get(
                url,
                params=params,
                timeout=(connect_s, read_s),
                stream=True,
                proxies=proxies,
                allow_redirects=False,  # a redirect could send a key anywhere
            ) as response:
                body = _read(response, limit_bytes, time.monotonic() + BODY_TIMEOUTS * read_s)
                return Reply(status=response.status_code, body=body, retry_after=response.headers.get("Retry-After"))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            # The host may have closed a kept connection while this request went out: one more try.
            was_closed = bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ProtocolError)
            if is_last or not (isinstance(error, requests.ConnectionError) and was_closed):
                raise NoReply(_reason(error)) from error
    raise AssertionError("unreachable: the last try returns or raises")


def _read(response: requests.Response, limit_bytes: int, deadline_s: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := response.raw.read1(PIECE_BYTES, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > limit_bytes:
            raise requests.RequestException(f"a body of more than {limit_bytes >> 20} MB")
        if time.monotonic() > deadline_s:
            raise requests.Timeout
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    """Name the failure in a short line; the libraries' own texts hold object addresses and whole URLs."""
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
    """Return the first 200 characters of a text, without line breaks."""
    return " ".join(text.split())[:200]


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or a date; None if it is neither.

    >>> retry_after_s("7", 0), retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 15_000), retry_after_s("soon", 0)
    (7.0, 45.0, None)
    """
    if header is not None and re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", header):
        return float(header)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(header or "").timestamp() - now_ms / 1000
    return None


def is_loopback(url: str) -> bool:
    """True if the URL names this machine itself.

    >>> is_loopback("http://127.0.0.1:80/x"), is_loopback("http://127.0.0.1@example.com")
    (True, False)
    """
    return bool(re.fullmatch(r"localhost|127(\.\d{1,3}){3}|::1", urlsplit(url).hostname or ""))
