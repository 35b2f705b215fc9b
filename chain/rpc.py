"""GET from the CometBFT RPC of a chain, at one of several addresses: order, time limits, back-off, answers."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
import structlog

from core.backoff import backoff
from core.clock import Clock
from core.errors import WorkerError
from core.net.http import NoReply, get, new_session, one_line, retry_after_s
from core.seldom import Seldom

T = TypeVar("T")

TIMEOUT_S = 3.0  # for the connection, and for each pause within an answer
BODY_LIMIT_BYTES = 4 * 1024 * 1024  # a status is 2 kB, 20 headers 25 kB; a block's events some 100 kB
FIRST_REST_S, LONGEST_REST_S = 0.5, 30.0  # of an address that failed
DOUBTED_S = 600.0  # how long the other addresses are asked first
LONGEST_ASKED_REST_S = 3_600.0  # longest Retry-After that is kept
STATUS = "/status"
WINDOW_OPENED = "EventWorkerSubmissionWindowOpened"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_log = structlog.get_logger()


class ChainFault(WorkerError):
    """An address of the chain cannot be asked, or its answer is not believed: the next address is asked.

    Args:
        message: the reason, without the host.
        retry_after_s: the address's Retry-After in seconds; None if the response had no such header.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Untold(ChainFault):
    """The chain's node works but does not have the requested data, such as a block that the node has pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of the chain."""

    height: int
    time_ms: int  # of the header, cut down to the millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The answer of ``/status``."""

    chain_id: str
    newest: Block
    earliest: int  # the lowest height that the node still has
    catching_up: bool


class Rpc:
    """A chain's RPC addresses, asked in order. For one thread.

    An address that fails rests for half a second, doubling up to 30 s, or as long as its Retry-After asks for. For ten
    minutes the other addresses are asked before it.

    Args:
        urls: best first, as a wallet writes them: ``tcp://`` and a missing scheme mean ``http://``.
        clock: for a Retry-After that is a date.
        timeout_s: limit for the connection and for each read, as ``core.net.http.get`` has it.
        seconds: a clock that nobody sets.
    """

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = [_Address(_http_url(url)) for url in urls]
        self._clock = clock
        self._timeout_s = timeout_s
        self._seconds = seconds
        self._session = new_session({})
        self._seldom = Seldom()

    def ask(self, path: str, params: Mapping[str, str | int], parse: Callable[[Any], T]) -> T:
        """Return what ``parse`` makes of the first usable answer.

        Args:
            path: begins with a slash.
            params: query parameters.
            parse: turns the ``result`` of an answer into the value. Raises ChainFault if the result is not believed; an
                error of ``dict[...]`` or ``int()`` means that the answer has another form.
        Raises:
            ChainFault: no address gave a usable answer; the message has each host with its reason.
        """
        reasons = []
        now_s = self._seconds()
        for address in sorted(self._addresses, key=lambda address: max(0.0, address.doubted_until_s - now_s)):
            if self._seconds() < address.rests_until_s:
                reasons.append(f"{address.host}: {address.fault}")
                continue
            try:
                answer = parse(self._result(address, path, params))
            except (ChainFault, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                known = isinstance(error, ChainFault)
                reason = str(error) if known else one_line(f"{path} answered in another form: {error!r}")
                reasons.append(f"{address.host}: {reason}")
                if not isinstance(error, Untold) or path == STATUS:
                    self._rest(address, reason, error.retry_after_s if isinstance(error, ChainFault) else None)
            else:
                address.failures = 0
                return answer
        raise ChainFault("; ".join(reasons) or "no RPC address is known")

    @property
    def rests_s(self) -> float:
        """Seconds until an address may be asked again; 0 when one may be asked now."""
        return max(0.0, min((address.rests_until_s for address in self._addresses), default=0.0) - self._seconds())

    def _rest(self, address: "_Address", reason: str, asked_s: float | None) -> None:
        address.failures += 1
        rest_s = backoff(address.failures, FIRST_REST_S, LONGEST_REST_S)
        rest_s = max(rest_s, min(asked_s or 0.0, LONGEST_ASKED_REST_S))
        address.fault, address.rests_until_s = reason, self._seconds() + rest_s
        address.doubted_until_s = self._seconds() + DOUBTED_S
        if len(self._addresses) > 1 and (count := self._seldom.due(address.host)):
            _log.warning(
                "chain_host_failed",
                host=address.host,
                reason=reason,
                rest_s=rest_s,
                remedy="the other RPC addresses are asked meanwhile; take it out of RPC_URLS if it stays so",
                count=count,
            )

    def _result(self, address: "_Address", path: str, params: Mapping[str, str | int]) -> Any:
        try:
            reply = get(
                self._session,
                address.url + path,
                params,
                connect_s=self._timeout_s,
                read_s=self._timeout_s,
                limit_bytes=BODY_LIMIT_BYTES,
            )
        except NoReply as error:
            raise ChainFault(str(error)) from error
        if reply.status not in {200, 500}:  # CometBFT says 500 to whatever it cannot answer, and why
            asked_s = retry_after_s(reply.retry_after, self._clock.now_ms())
            raise ChainFault(f"HTTP {reply.status} to {path}", asked_s)
        try:
            answer = orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise ChainFault(f"{path} answered HTTP {reply.status}, not JSON but {reply.body[:60]!r}") from error
        if refusal := answer.get("error"):
            raise Untold(one_line(f"{path}: {refusal.get('message')}: {refusal.get('data')}"))
        if reply.status == 500:
            raise ChainFault(f"HTTP 500 to {path}")
        return answer.get("result", answer)


@dataclass(slots=True)
class _Address:
    url: str
    failures: int = 0  # in a row
    fault: str = ""  # the last one
    rests_until_s: float = float("-inf")
    doubted_until_s: float = float("-inf")

    @property
    def host(self) -> str:
        """The host alone: a user before it or a path behind it may be a key."""
        return self.url.split("://", 1)[1].split("/", 1)[0].rpartition("@")[2]


def _http_url(url: str) -> str:
    """
    >>> _http_url("tcp://localhost:26657/"), _http_url("localhost:26657"), _http_url("https://rpc.example.org/key")
    ('http://localhost:26657', 'http://localhost:26657', 'https://rpc.example.org/key')
    """
    scheme, _, rest = url.strip().rstrip("/").rpartition("://")
    return f"{ {'': 'http', 'tcp': 'http', 'ws': 'http', 'wss': 'https'}.get(scheme, scheme) }://{rest}"


def status_of(result: Any) -> Status:
    """Read the ``result`` of ``/status``."""
    sync = result["sync_info"]
    return Status(
        chain_id=_text(result["node_info"]["network"]),
        newest=Block(height=_whole(sync["latest_block_height"]), time_ms=_time_ms(sync["latest_block_time"])),
        earliest=_whole(sync.get("earliest_block_height", "1")),
        catching_up=bool(sync.get("catching_up")),
    )


def headers_of(result: Any) -> dict[int, tuple[int, str]]:
    """Return time in milliseconds and chain id by height, from the ``result`` of ``/blockchain``."""
    headers = [meta["header"] for meta in result["block_metas"]]
    return {_whole(header["height"]): (_time_ms(header["time"]), _text(header["chain_id"])) for header in headers}


def windows_of(result: Any) -> dict[int, dict[int, int]]:
    """Return the last height of each worker submission window that a block opened, by nonce and topic id.

    Args:
        result: of ``/block_results``. Event types end in the same word in all versions; older releases of CometBFT have
            another name for the list of a block's last events.
    """
    ends: dict[int, dict[int, int]] = {}
    for event in _events(result):
        if str(event["type"]).rpartition(".")[2] == WINDOW_OPENED:
            attributes = {attribute["key"]: attribute["value"] for attribute in event["attributes"]}
            topic_id, nonce, end = (
                _whole(attributes[name].strip('"')) for name in ("topic_id", "nonce_block_height", "window_end_block")
            )
            ends.setdefault(nonce, {})[topic_id] = end
    return ends


def _events(result: Any) -> Iterator[Any]:
    for name in ("finalize_block_events", "end_block_events"):
        yield from result.get(name) or ()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise ValueError(f"a chain id is letters, digits, dots and dashes, was {value!r}")
    return value


def _whole(value: Any) -> int:
    """
    >>> _whole("1414"), _whole(7)
    (1414, 7)
    """
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)):
        raise ValueError(f"a height or id is a whole number, was {value!r}")
    return int(value)


def _time_ms(value: Any) -> int:
    """
    >>> _time_ms("1970-01-01T00:00:01.171988872Z"), _time_ms("1970-01-01T00:00:02Z")
    (1171, 2000)
    """
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"a time has a zone, was {value!r}")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
