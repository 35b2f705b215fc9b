"""GET from the REST interface (LCD) of a chain: only from hosts of that chain whose version and clock are known.

How a host says that a thing is not there: HTTP 500 with code 2 and "not found", or 404 with code 5. HTTP 501 with code
12 is a path that the host's version has not. All else but 200 is a host that is broken or busy.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from chain.addresses import TIMEOUT_S, Address, Addresses, ChainFault, Unspoken, Untold
from chain.rpc import Block
from chain.shapes import HostSeen
from chain.texts import chain_id, flag, line, time_ms, whole
from chain.versions import VERSIONS, path_of
from core.clock import MINUTE_MS, SECOND_MS, Clock, iso
from core.net.http import one_line
from node.addresses import is_public

T = TypeVar("T")

INTRODUCED_S = 600.0  # after this time a host is asked anew for its chain and version
LOOK_S = 30.0  # at most from one look at a host's newest block to the next
AHEAD_MS = 30 * SECOND_MS  # most that a host's newest block may be ahead of our clock
LATE_MS = 2 * MINUTE_MS  # most that it may be behind our clock
MOST_BEHIND = 2  # blocks that one host may be behind another host
SETTING = "LCD_URLS"
LONGEST_RELEASE = 60  # characters of a release that are kept
MISSING, NO_PATH, ARGUMENT, UNKNOWN = 5, 12, 3, 2  # codes of gRPC in the body of a refusal
_NOT_THERE = re.compile(r"not found|does not exist|error getting topic|no .{1,60} found", re.IGNORECASE)


class Elsewhere(Untold):
    """The host serves another network. It works, so it does not rest."""


@dataclass(slots=True)
class _Seen:
    """A host's chain id, API version and release, and when the host was last asked for them."""

    chain_id: str
    api: str
    release: str
    catching_up: bool
    introduced_s: float
    looked_s: float = float("-inf")


class Lcd:
    """One network's hosts of the REST interface, asked in order as ``chain.addresses.Addresses`` does. For one thread.

    Before a host is asked for anything it has told its chain id and the version that it speaks (again after ten
    minutes and after a fault), and its newest block fits our clock and is at most two blocks behind another host's. A
    chain that is not public may be recorded, so its blocks may be of any time; it only has to go on. A host of another
    network is left out. So two hosts that disagree are no question: the one that is ahead is asked,
    unless its chain id or its time is wrong.

    Args:
        urls: of all hosts, also of those that serve other networks; best first.
        clock: for comparing block times.
        network: chain id; None takes the first that a host tells.
        timeout_s: of the requests; see ``Addresses``.
    """

    def __init__(
        self, urls: Sequence[str], clock: Clock, *, network: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.network = network
        self.api = ""  # version that the host in use spoke at the last look
        self._clock = clock
        self._addresses = Addresses(urls, clock, setting=SETTING, timeout_s=timeout_s, seconds=clock.elapsed_s)
        self._seen: dict[str, _Seen] = {}  # by URL
        self._newest: Block | None = None
        self._newest_s = 0.0  # when the newest block was first seen
        self._looked_s = float("-inf")

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self._addresses.requests

    @property
    def rests_s(self) -> float:
        """Seconds until a host may be asked again; 0 when one may be asked now."""
        return self._addresses.rests_s

    def ask(self, name: str, parse: Callable[[Any], T], **arguments: object) -> T | None:
        """Return what ``parse`` makes of a read; None if the chain says that the thing is not there.

        Args:
            name: a key of ``chain.versions.PATHS``.
            parse: turns the body, a JSON object, into the value; see ``Addresses.ask`` for its errors.
            arguments: of the path.
        Raises:
            Unspoken: no host's version has the path.
            Untold: the hosts work and do not tell, such as of a height that they pruned or an address of no form.
            ChainFault: no host can be asked; the message has each host with its reason.
        """
        if self._clock.elapsed_s() - self._looked_s > LOOK_S:
            self.host()
        elsewhere = [url for url, seen in self._seen.items() if seen.chain_id != self.network]

        def read(address: Address) -> T | None:
            if self._clock.elapsed_s() - self._introduced(address).looked_s > 2 * LOOK_S:
                self._look(address)  # it was behind or away, or it is new
            return self._read(address, name, parse, arguments)

        return self._addresses.ask(name, read, but=elsewhere)

    def host(self) -> HostSeen:
        """Look at the newest block and return what the host in use says of itself.

        The host in use is looked at each time, the others every ``LOOK_S``.

        Raises:
            ChainFault: no host serves the network with a time that fits our clock.
        """
        looked: list[tuple[Address, Block]] = []
        faults = []
        for address in self._addresses.in_order():
            now_s, seen = self._clock.elapsed_s(), self._seen.get(address.url)
            if now_s < address.rests_until_s:
                faults.append(f"{address.host}: {address.fault}")
            elif not looked or seen is None or now_s - seen.looked_s > LOOK_S:
                try:
                    looked.append((address, self._addresses.attempt("newest_block", address, self._look)))
                except ChainFault as fault:
                    faults.append(f"{address.host}: {fault}")
        if not looked:
            raise ChainFault("; ".join(faults) or f"no address is known: set {SETTING}")
        best = max((block for _, block in looked), key=lambda block: block.height)
        for address, block in looked:
            if best.height - block.height > MOST_BEHIND:
                self._seen[address.url].looked_s = float("-inf")
                self._addresses.rest(address, _behind(best, block))
        self._looked_s = self._clock.elapsed_s()
        if self._newest is None or best != self._newest:
            self._newest, self._newest_s = best, self._looked_s
        used, block = next(pair for pair in looked if best.height - pair[1].height <= MOST_BEHIND)
        seen = self._seen[used.url]
        self.api = seen.api
        return HostSeen(
            chain_id=seen.chain_id,
            api=seen.api,
            release=seen.release,
            height=block.height,
            time_ms=block.time_ms,
            catching_up=seen.catching_up,
        )

    def _read(
        self, address: Address, name: str, parse: Callable[[Any], T], arguments: Mapping[str, object]
    ) -> T | None:
        seen = self._introduced(address)
        try:
            body = self._body(address, path_of(name, seen.api, arguments))
        except Unspoken:
            if self._clock.elapsed_s() - seen.introduced_s > LOOK_S:
                seen.introduced_s = float("-inf")  # the chain may speak another version since an upgrade
            raise
        except Untold:
            raise
        except ChainFault:
            self._seen.pop(address.url, None)  # what answers after the fault may be another node
            raise
        return None if body is None else parse(body)

    def _look(self, address: Address) -> Block:
        seen = self._introduced(address)
        seen.looked_s = float("-inf")
        block = self._read(address, "newest_block", _block_of, {})
        if block is None:
            raise ChainFault("the host has no newest block")
        off_ms, newest = block.time_ms - self._clock.now_ms(), self._newest
        if is_public(self.network) and not -LATE_MS <= off_ms <= AHEAD_MS:
            where = f"{off_ms / 1000:.0f} s ahead of" if off_ms > 0 else f"{-off_ms / 1000:.0f} s behind"
            raise ChainFault(
                f"its newest block {block.height} of {iso(block.time_ms)} is {where} our clock: "
                f"the host lags, the chain stands still, or the clock is wrong"
            )
        if newest is not None:
            stood_s = self._clock.elapsed_s() - self._newest_s
            if block == newest and stood_s > LATE_MS / 1000:
                raise ChainFault(
                    f"no new block for {stood_s:.0f} s, the newest is {block.height}: the chain stands still"
                )
            if block.height > newest.height and block.time_ms <= newest.time_ms:
                raise ChainFault(f"time goes back: block {block.height} is not later than block {newest.height}")
            if newest.height - block.height > MOST_BEHIND and block.time_ms <= newest.time_ms:
                raise ChainFault(_behind(newest, block))  # later than the newest block: the chain began anew
        seen.looked_s = self._clock.elapsed_s()
        return block

    def _introduced(self, address: Address) -> _Seen:
        """Return what a host is, asking it if that is not known of late."""
        seen, now_s = self._seen.get(address.url), self._clock.elapsed_s()
        if seen is None or now_s - seen.introduced_s > INTRODUCED_S:
            node = self._needed(address, "node_info")
            network = chain_id(node["default_node_info"]["network"])
            self.network = self.network or network
            is_ours = network == self.network
            seen = _Seen(
                chain_id=network,
                api=self._version(address, seen.api if seen else "") if is_ours else "",
                release=line((node.get("application_version") or {}).get("version", ""))[:LONGEST_RELEASE],
                catching_up=is_ours and flag(self._needed(address, "syncing")["syncing"]),
                introduced_s=now_s,
            )
            self._seen[address.url] = seen
        if seen.chain_id != self.network:
            raise Elsewhere(f"serves {seen.chain_id}, not {self.network}")
        return seen

    def _version(self, address: Address, before: str) -> str:
        """Return the version that a host speaks: the first that it does not refuse, the one of before first."""
        for api in dict.fromkeys([before, *VERSIONS] if before else VERSIONS):
            try:
                self._body(address, path_of("next_topic_id", api, {}))
            except Unspoken:
                continue
            return api
        raise ChainFault(f"speaks no version of the emissions API that is known here ({', '.join(VERSIONS)})")

    def _needed(self, address: Address, name: str) -> Any:
        body = self._body(address, path_of(name, "", {}))
        if body is None:
            raise ChainFault(f"says that {path_of(name, '', {})} is not there")
        return body

    def _body(self, address: Address, path: str) -> Any:
        """Return the body of an answer, a JSON object; None if the chain says that the thing is not there."""
        reply = self._addresses.get(address, path, {})
        try:
            body = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            if reply.status != 200:
                raise self._addresses.refused(reply, path)
            raise ChainFault(f"{path} answered no JSON object but {reply.body[:60]!r}")
        if reply.status == 200:
            return body
        code, said = body.get("code"), one_line(f"{path}: {line(str(body.get('message')))}")
        if code == NO_PATH:
            raise Unspoken(said)
        if code == MISSING or (code == UNKNOWN and _NOT_THERE.search(said)):
            return None
        if code in {UNKNOWN, ARGUMENT}:
            raise Untold(said)
        raise self._addresses.refused(reply, path)


def _block_of(body: Any) -> Block:
    header = body["block"]["header"]
    return Block(height=whole(header["height"]), time_ms=time_ms(header["time"]))


def _behind(best: Block, block: Block) -> str:
    return f"{best.height - block.height} blocks behind another host, at height {block.height}"
