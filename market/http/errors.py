"""What a venue's HTTP error means. The exception is chosen once, where the response is read."""

import contextlib
import json
import re
from dataclasses import dataclass

from core.errors import MarketUnavailable
from core.net.http import Reply, one_line, retry_after_s

UNNAMED_BAN_S = 120.0  # of a 418 that names no end; Binance's bans begin at two minutes
LONGEST_BAN_S = 86_400.0  # a venue that names more than a day is not believed


class Refused(MarketUnavailable):
    """The venue refuses the request itself; asking again will not help."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnknownPair(Refused):
    """The venue does not trade the pair."""


class KeyFault(Refused):
    """The venue does not accept the key, or the key may not see the data."""


class Unreached(MarketUnavailable):
    """This host could not be asked, is broken or does not serve us: another host may."""


class Blocked(Unreached):
    """Every host answers that the venue does not serve our country or address (HTTP 403, 451)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """A response with another status than 200."""

    status: int
    code: int | None  # the venue's own error code
    message: str  # the venue's words, one short line
    rest_s: float | None  # how long the venue wants to be left alone
    text: str  # host, status, path and message
    remedy: str  # for a refusal that the settings may have caused

    def fault(self) -> MarketUnavailable:
        """The exception that the status stands for; a venue's client may know better."""
        if self.status in {418, 429}:  # a rate limit, or a ban for breaking one
            rest_s = UNNAMED_BAN_S if self.rest_s is None and self.status == 418 else self.rest_s
            return MarketUnavailable(self.text, None if rest_s is None else min(max(0.0, rest_s), LONGEST_BAN_S))
        if self.status in {403, 451}:
            return Blocked(self.text)
        if not 400 <= self.status < 500:
            return Unreached(self.text)
        return Refused(self.text if self.status == 400 else f"{self.text}; {self.remedy}", status=self.status)


def read_error(reply: Reply, url: str, path: str, remedy: str, now_ms: int) -> ErrorReply:
    """Read code and message of a response; ``now_ms`` is for a Retry-After that is a date."""
    code, message = _code_and_message(reply.body)
    return ErrorReply(
        status=reply.status,
        code=code,
        message=message,
        rest_s=retry_after_s(reply.retry_after, now_ms),
        text=f"{url} answered HTTP {reply.status} to {path}: {message}",
        remedy=remedy,
    )


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
