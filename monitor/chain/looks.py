"""What the monitor last saw of a network and of its topics, for pages and processes that do not ask the chain."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from chain.shapes import Access, HostSeen, TopicSeen, Upgrade
from ledger.epochs import Sighting

NO_TOPIC: Mapping[str, Any] = {}  # body of the sighting of a topic that the chain has not


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A worker's wallet."""

    amount: str  # uallo
    submissions: int | None = None  # that it pays for, about; None: the price of gas is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLook:
    """A network, as last seen."""

    seen_ms: int | None = None  # when the chain was last read
    fault: str = ""  # why it was not read just now; empty if it was
    host: HostSeen | None = None
    block_ms: float | None = None  # mean time between blocks, measured
    upgrade: Upgrade | None = None
    most_inferers: int | None = None  # places in an active set
    wallets: Mapping[str, Wallet] = field(default_factory=dict)  # by address

    @property
    def body(self) -> dict[str, Any]:
        """What a Sighting keeps."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLook:
    """A topic, as last seen. Its weight and whether it is active are in ``seen``."""

    seen: TopicSeen
    access: Access = field(default_factory=Access)  # of our worker
    score_ema: str | None = None  # of our worker
    trend: str | None = None  # of the score EMA, an epoch, over the last epochs that have one
    lowest_score: str | None = None  # of the active set, which a newcomer has to beat; None: not told
    inferers: int | None = None  # in the newest active set
    free_places: int | None = None  # among inferers; None: not known

    @property
    def body(self) -> dict[str, Any]:
        """What a Sighting keeps."""
        return asdict(self)


def network_look(sighting: Sighting | None) -> NetworkLook | None:
    """Return the look that a sighting keeps; None without one, or if another release wrote it."""
    if sighting is None:
        return None
    body = dict(sighting.body)
    try:
        host, upgrade = body.pop("host"), body.pop("upgrade")
        wallets = {address: Wallet(**wallet) for address, wallet in body.pop("wallets").items()}
        return NetworkLook(
            host=HostSeen(**host) if host else None,
            upgrade=Upgrade(**upgrade) if upgrade else None,
            wallets=wallets,
            **body,
        )
    except (TypeError, LookupError, AttributeError):
        return None


def topic_look(sighting: Sighting | None) -> TopicLook | None:
    """Return the look that a sighting keeps; None without one, without a topic, or if another release wrote it."""
    if sighting is None:
        return None
    body = dict(sighting.body)
    try:
        seen, access = dict(body.pop("seen")), body.pop("access")
        seen["labels"] = tuple(seen["labels"])
        return TopicLook(seen=TopicSeen(**seen), access=Access(**access), **body)
    except (TypeError, LookupError, AttributeError, ValueError):
        return None
