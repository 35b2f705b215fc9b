"""GET from the CometBFT RPC of a chain, at one of several addresses, and read its answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from chain.addresses import TIMEOUT_S, Address, Addresses, ChainFault, Untold
from chain.texts import chain_id, time_ms, whole
from core.clock import Clock
from core.net.http import one_line

T = TypeVar("T")

STATUS = "/status"


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
    """A chain's RPC addresses, asked in order as ``chain.addresses.Addresses`` does. For one thread.

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
        self._addresses = Addresses(urls, clock, setting="RPC_URLS", timeout_s=timeout_s, seconds=seconds)

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
        return self._addresses.ask(path, lambda address: parse(self._result(address, path, params)))

    @property
    def rests_s(self) -> float:
        """Seconds until an address may be asked again; 0 when one may be asked now."""
        return self._addresses.rests_s

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self._addresses.requests

    def _result(self, address: Address, path: str, params: Mapping[str, str | int]) -> Any:
        reply = self._addresses.get(address, path, params)
        if reply.status not in {200, 500}:  # CometBFT says 500 to whatever it cannot answer, and why
            raise self._addresses.refused(reply, path)
        try:
            answer = orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise ChainFault(f"{path} answered HTTP {reply.status}, not JSON but {reply.body[:60]!r}") from error
        if refusal := answer.get("error"):
            fault = ChainFault if path == STATUS else Untold  # each node has a status
            raise fault(one_line(f"{path}: {refusal.get('message')}: {refusal.get('data')}"))
        if reply.status == 500:
            raise ChainFault(f"HTTP 500 to {path}")
        return answer.get("result", answer)


def status_of(result: Any) -> Status:
    """Read the ``result`` of ``/status``."""
    sync = result["sync_info"]
    return Status(
        chain_id=chain_id(result["node_info"]["network"]),
        newest=Block(height=whole(sync["latest_block_height"]), time_ms=time_ms(sync["latest_block_time"])),
        earliest=whole(sync.get("earliest_block_height", "1")),
        catching_up=bool(sync.get("catching_up")),
    )


def headers_of(result: Any) -> dict[int, tuple[int, str]]:
    """Return time in milliseconds and chain id by height, from the ``result`` of ``/blockchain``."""
    headers = [meta["header"] for meta in result["block_metas"]]
    return {whole(header["height"]): (time_ms(header["time"]), chain_id(header["chain_id"])) for header in headers}
