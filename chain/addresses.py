"""Several hosts of one interface of a chain: asked in order; a host that fails rests."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from core.backoff import backoff
from core.clock import Clock
from core.errors import WorkerError
from core.net.http import NoReply, Reply, get, new_session, one_line, retry_after_s
from core.seldom import Seldom

T = TypeVar("T")

TIMEOUT_S = 3.0  # for the connection, and for each pause within an answer
BODY_LIMIT_BYTES = 4 * 1024 * 1024  # a status is 2 kB, 20 headers 25 kB; a block's events some 100 kB
FIRST_REST_S, LONGEST_REST_S = 0.5, 30.0  # of an address that failed
DOUBTED_S = 600.0  # how long the other addresses are asked first
LONGEST_ASKED_REST_S = 3_600.0  # longest Retry-After that is kept

# What reading a body of another form raises.
MISREAD = (LookupError, TypeError, ValueError, AttributeError, OverflowError)

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


class Unspoken(Untold):
    """The chain's node works but does not have the requested path: its version of the interface has no such path."""


@dataclass(slots=True)
class Address:
    """One address and how it did."""

    url: str
    failures: int = 0  # in a row
    fault: str = ""  # the last one
    rests_until_s: float = float("-inf")
    doubted_until_s: float = float("-inf")

    @property
    def host(self) -> str:
        """The host alone: a user before it, and a path or a query behind it, may be a key."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


class Addresses:
    """The addresses of one interface, asked in order. For one thread.

    An address that fails rests for half a second, doubling up to 30 s, or as long as its Retry-After asks for. For ten
    minutes the other addresses are asked before it.

    Args:
        urls: best first, as a wallet writes them: ``tcp://`` and a missing scheme mean ``http://``.
        clock: for a Retry-After that is a date.
        setting: that names them, for log lines.
        timeout_s: limit for the connection and for each read, as ``core.net.http.get`` has it.
        seconds: a clock that nobody sets.
    """

    def __init__(
        self, urls: Sequence[str], clock: Clock, *, setting: str, timeout_s: float, seconds: Callable[[], float]
    ) -> None:
        self.all = tuple(Address(http_url(url)) for url in urls)
        self.requests = 0  # sent
        self._setting = setting
        self._clock = clock
        self._timeout_s = timeout_s
        self._seconds = seconds
        self._session = new_session({})
        self._seldom = Seldom()

    def ask(self, what: str, use: Callable[[Address], T], *, but: Collection[str] = ()) -> T:
        """Return what ``use`` makes of the first address that works.

        Args:
            what: is asked for, for messages; a path.
            use: raises ChainFault if the address's answer is not believed; an error of ``dict[...]`` or ``int()``
                means that the answer has another form.
            but: URLs of addresses that are left out.
        Raises:
            ChainFault: no address gave a usable answer; the message has each host with its reason. ``Unspoken`` or
                ``Untold`` if an address said so: those that work tell more than those that fail.
        """
        faults: list[tuple[str, type[ChainFault]]] = []
        for address in self.in_order():
            if address.url in but:
                continue
            if self._seconds() < address.rests_until_s:
                faults.append((f"{address.host}: {address.fault}", ChainFault))
                continue
            try:
                return self.attempt(what, address, use)
            except ChainFault as fault:
                faults.append((f"{address.host}: {fault}", type(fault)))
        kinds = [kind for _, kind in faults]
        kind = next((kind for kind in (Unspoken, Untold) if any(issubclass(one, kind) for one in kinds)), ChainFault)
        raise kind("; ".join(reason for reason, _ in faults) or f"no address is known: set {self._setting}")

    def attempt(self, what: str, address: Address, use: Callable[[Address], T]) -> T:
        """Return what ``use`` makes of one address; a fault lets it rest, unless the fault is ``Untold``."""
        try:
            answer = use(address)
        except Untold:
            raise
        except ChainFault as fault:
            self.rest(address, str(fault), fault.retry_after_s)
            raise
        except MISREAD as error:
            reason = one_line(f"{what} answered in another form: {error!r}")
            self.rest(address, reason)
            raise ChainFault(reason) from error
        address.failures = 0
        return answer

    def in_order(self) -> list[Address]:
        """Return the addresses, those that failed of late last."""
        now_s = self._seconds()
        return sorted(self.all, key=lambda address: max(0.0, address.doubted_until_s - now_s))

    @property
    def rests_s(self) -> float:
        """Seconds until an address may be asked again; 0 when one may be asked now."""
        return max(0.0, min((address.rests_until_s for address in self.all), default=0.0) - self._seconds())

    def rest(self, address: Address, reason: str, asked_s: float | None = None) -> None:
        """Ask an address no more for a while, and name it in the log if there are others."""
        address.failures += 1
        rest_s = backoff(address.failures, FIRST_REST_S, LONGEST_REST_S)
        rest_s = max(rest_s, min(asked_s or 0.0, LONGEST_ASKED_REST_S))
        address.fault, address.rests_until_s = reason, self._seconds() + rest_s
        address.doubted_until_s = self._seconds() + DOUBTED_S
        if len(self.all) > 1 and (count := self._seldom.due(address.host)):
            _log.warning(
                "chain_host_failed",
                host=address.host,
                reason=reason,
                rest_s=rest_s,
                remedy=f"the other addresses are asked meanwhile; take it out of {self._setting} if it stays so",
                count=count,
            )

    def get(self, address: Address, path: str, params: Mapping[str, str | int]) -> Reply:
        """Send one request; a status that is not 200 is a reply as well.

        Raises:
            ChainFault: no whole reply.
        """
        self.requests += 1
        try:
            return get(
                self._session,
                address.url + path,
                params,
                connect_s=self._timeout_s,
                read_s=self._timeout_s,
                limit_bytes=BODY_LIMIT_BYTES,
            )
        except NoReply as error:
            raise ChainFault(str(error)) from error

    def refused(self, reply: Reply, path: str) -> ChainFault:
        """Return the fault of a reply whose status says no, with the Retry-After of its head."""
        return ChainFault(f"HTTP {reply.status} to {path}", retry_after_s(reply.retry_after, self._clock.now_ms()))


def http_url(url: str) -> str:
    """
    >>> http_url("tcp://localhost:26657/"), http_url("localhost:26657"), http_url("https://rpc.example.org/key")
    ('http://localhost:26657', 'http://localhost:26657', 'https://rpc.example.org/key')
    """
    scheme, _, rest = url.strip().rstrip("/").rpartition("://")
    scheme = {"": "http", "tcp": "http", "ws": "http", "wss": "https"}.get(scheme, scheme)
    return f"{scheme}://{rest}"
