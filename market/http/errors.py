"""What a venue's HTTP error means. Its kind is set once, where the response is read, and is a field from then on."""

import contextlib
import json
import re
from dataclasses import dataclass
from enum import Enum, auto

from core.errors import MarketUnavailable
from core.net.http import Reply, one_line, retry_after_s

UNNAMED_BAN_S = 120.0  # of a 418 that names no end; Binance's bans begin at two minutes
LONGEST_BAN_S = 86_400.0  # a venue that names more than a day is not believed


class FaultKind(Enum):
    """Why a host did not serve a request."""

    UNREACHABLE = auto()  # the host is broken
    BARRED = auto()  # the venue does not serve our country or address
    LIMITED = auto()  # a rate limit, or a ban for breaking one
    REFUSED = auto()  # the request itself
    KEY_REFUSED = auto()  # the key, or what the key may see
    UNKNOWN_SYMBOL = auto()  # the venue does not trade the pair


class Refused(MarketUnavailable):
    """The venue refuses the request itself; asking again will not help.

    Args:
        message: what was refused, with the host.
        status: HTTP status.
        kind: REFUSED, KEY_REFUSED or UNKNOWN_SYMBOL.
    """

    def __init__(self, message: str, *, status: int, kind: FaultKind = FaultKind.REFUSED) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Unreached(MarketUnavailable):
    """This host could not be asked, is broken or does not serve us: another host may."""


class Blocked(Unreached):
    """Every host answers that the venue does not serve our country or address (HTTP 403, 451)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """A response with another status than 200. A venue's client may set ``kind`` and ``rest_s`` by its own rules."""

    status: int
    code: int | None  # the venue's own error code
    message: str  # the venue's words, one short line
    kind: FaultKind
    rest_s: float | None  # how long the venue wants to be left alone


def read_error(reply: Reply, now_ms: int) -> ErrorReply:
    """Sort a response by its status.

    Args:
        now_ms: for a Retry-After that is a date.
    """
    code, message = _code_and_message(reply.body)
    rest_s = None
    if reply.status in {418, 429}:
        kind = FaultKind.LIMITED
        rest_s = retry_after_s(reply.retry_after, now_ms)
    elif reply.status in {403, 451}:
        kind = FaultKind.BARRED
    else:
        kind = FaultKind.REFUSED if 400 <= reply.status < 500 else FaultKind.UNREACHABLE
    return ErrorReply(status=reply.status, code=code, message=message, kind=kind, rest_s=rest_s)


def exception_for(error: ErrorReply, what: str, remedy: str) -> MarketUnavailable:
    """The exception that a host's error is raised as.

    Args:
        what: begins the message: host, status, path and the venue's words.
        remedy: ends the message of a refusal that the settings may have caused.
    """
    match error.kind:
        case FaultKind.LIMITED:
            rest_s = UNNAMED_BAN_S if error.rest_s is None and error.status == 418 else error.rest_s
            return MarketUnavailable(what, None if rest_s is None else min(max(0.0, rest_s), LONGEST_BAN_S))
        case FaultKind.BARRED:
            return Blocked(what)
        case FaultKind.UNREACHABLE:
            return Unreached(what)
        case _:
            of_network = error.kind is FaultKind.REFUSED and error.status != 400
            return Refused(f"{what}; {remedy}" if of_network else what, status=error.status, kind=error.kind)


def _code_and_message(body: bytes) -> tuple[int | None, str]:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
        if isinstance(value, dict):
            code = value.get("code")
            for name in ("msg", "message", "error", "detail"):
                if isinstance(value.get(name), str):
                    message = f"{code} {value[name]}" if code is not None else value[name]
                    return (code if isinstance(code, int) else None), one_line(message)
    return None, one_line(re.sub(r"<[^>]*>", " ", body[:1000].decode(errors="replace"))) or "no body"
