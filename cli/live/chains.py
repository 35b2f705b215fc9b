"""All topics of the networks that the hosts of LCD_URLS serve, read once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import TypeVar

from chain.addresses import Address, ChainFault, Untold
from chain.emissions import Emissions
from chain.events import settled_of
from chain.lcd import Lcd
from chain.rpc import STATUS, Rpc, status_of
from chain.shapes import HostSeen, TopicSeen, Upgrade
from core.clock import Clock
from core.show.progress import Show

T = TypeVar("T")

TIMEOUT_S = 10.0
LIMIT_S = 300.0  # for one network
MOST_REQUESTS = 3_000  # to one network: seven for an active topic, one for another
LONGEST_REST_S = 20.0  # that is waited for; a host that asks for more is given up
MOST_FAULTS = 3  # topics in a row that could not be read: the hosts are down
INFERERS, FORECASTERS = "max_top_inferers_to_reward", "max_top_forecasters_to_reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What a topic pays its inferers for an epoch, in uallo."""

    total: Decimal
    median: Decimal  # of the inferers of an epoch
    epochs: int  # that were seen
    source: str  # "ledger" or "chain"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTopic:
    """A topic as it is now; None: not told."""

    topic_id: int
    is_active: bool | None
    seen: TopicSeen | None = None  # None: there is no such topic, or it is not active and nobody asks for it
    inferers: int | None = None  # in the newest active set
    forecasters: int | None = None
    paid: Paid | None = None
    fault: str = ""  # why it could not be read


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveNetwork:
    """A network as it is now."""

    chain_id: str
    hosts: Sequence[str]
    host: HostSeen
    block_ms: float | None = None
    most_inferers: int | None = None  # places in an active set
    most_forecasters: int | None = None
    upgrade: Upgrade | None = None
    topics: Mapping[int, LiveTopic] = field(default_factory=dict)  # those that were read
    unread: Sequence[int] = ()  # topics that were not read before the limit
    fault: str = ""  # why reading ended early
    requests: int = 0


def hosts_of(urls: Sequence[str], clock: Clock) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Ask each host which network it serves; return the URLs by chain id, and the faults by host."""
    found: dict[str, list[str]] = {}
    faults: dict[str, str] = {}
    for url in urls:
        name = Address(url).host
        try:
            found.setdefault(Lcd([url], clock, timeout_s=TIMEOUT_S).host().chain_id, []).append(url)
        except ChainFault as fault:
            faults[name] = str(fault).removeprefix(f"{name}: ")
    return found, faults


def read_network(
    chain_id: str,
    urls: Sequence[str],
    rpc_urls: Sequence[str],
    wanted: Collection[int],
    clock: Clock,
    show: Show,
    *,
    limit_s: float = LIMIT_S,
    most_requests: int = MOST_REQUESTS,
) -> LiveNetwork:
    """Read a network's topics: those that are wanted, then the others, newest first.

    Args:
        wanted: ids that are read also if they are not active.
        rpc_urls: for the rewards of the newest settled epoch; empty: rewards are not read.
        show: called for each topic with how many were read, of how many, and the name of the next topic.
        limit_s: after which no topic is begun.
    Raises:
        ChainFault: no host can be asked.
    """
    lcd = Lcd(urls, clock, network=chain_id, timeout_s=TIMEOUT_S)
    emissions = Emissions(chain_id, lcd)
    host = emissions.host()
    last = emissions.next_topic_id() - 1
    params = _softly(lcd, clock, emissions.params) or {}
    network = LiveNetwork(
        chain_id=chain_id,
        hosts=[Address(url).host for url in urls],
        host=host,
        block_ms=_softly(lcd, clock, lambda: emissions.block_ms(host)),
        most_inferers=_places(params, INFERERS),
        most_forecasters=_places(params, FORECASTERS),
        upgrade=_softly(lcd, clock, emissions.upgrade),
    )
    rpc = _rpc_of(chain_id, rpc_urls, clock)
    until_s = clock.elapsed_s() + limit_s
    queue = list(dict.fromkeys([*sorted(wanted), *range(last, 0, -1)]))
    topics: dict[int, LiveTopic] = {}
    in_a_row = 0
    why = ""
    for done, topic_id in enumerate(queue):
        requests = emissions.requests + (rpc.requests if rpc else 0)
        if clock.elapsed_s() > until_s or requests >= most_requests:
            why = (
                f"the limit of {limit_s:.0f} s"
                if requests < most_requests
                else f"the limit of {most_requests:,} requests"
            )
        elif in_a_row == MOST_FAULTS:
            why = f"the hosts do not answer any more: {topics[queue[done - 1]].fault}"
        if why:
            break
        show(done, len(queue), f"topic {topic_id}")
        read = partial(_topic, emissions, lcd, rpc, clock, topic_id, is_wanted=topic_id in wanted)
        try:
            topics[topic_id] = _patiently(lcd, clock, read)
            in_a_row = 0
        except ChainFault as fault:
            topics[topic_id] = LiveTopic(topic_id=topic_id, is_active=None, fault=str(fault))
            in_a_row += not isinstance(fault, Untold)
    return replace(
        network,
        topics={topic_id: topics[topic_id] for topic_id in sorted(topics)},
        unread=sorted(set(queue) - set(topics)),
        fault=why,
        requests=emissions.requests + (rpc.requests if rpc else 0),
    )


def _patiently(lcd: Lcd, clock: Clock, read: Callable[[], T]) -> T:
    """Return what a read tells; it is asked once more if the hosts want a short rest.

    Raises:
        ChainFault: it could not be told. The hosts may be asked again.
    """
    try:
        return read()
    except Untold:
        raise
    except ChainFault:
        _rest(lcd, clock)
    try:
        return read()
    except ChainFault:
        _rest(lcd, clock)
        raise


def _softly(lcd: Lcd, clock: Clock, read: Callable[[], T]) -> T | None:
    """Return what a read tells; None if it cannot be told: the rest can be."""
    try:
        return _patiently(lcd, clock, read)
    except ChainFault:
        return None


def _rest(lcd: Lcd, clock: Clock) -> None:
    clock.sleep(min(lcd.rests_s, LONGEST_REST_S))


def _topic(
    emissions: Emissions, lcd: Lcd, rpc: Rpc | None, clock: Clock, topic_id: int, *, is_wanted: bool
) -> LiveTopic:
    is_active = emissions.is_active(topic_id)
    if is_active is False and not is_wanted:
        return LiveTopic(topic_id=topic_id, is_active=False)
    seen = emissions.topic(topic_id)
    if seen is None or is_active is False:
        return LiveTopic(topic_id=topic_id, is_active=is_active if seen else False, seen=seen)
    inferers, forecasters = _softly(lcd, clock, lambda: _taken(emissions, topic_id)) or (None, None)
    return LiveTopic(
        topic_id=topic_id,
        is_active=is_active,
        seen=seen,
        inferers=inferers,
        forecasters=forecasters,
        paid=_softly(lcd, clock, lambda: _paid(emissions, rpc, topic_id)) if rpc else None,
    )


def _taken(emissions: Emissions, topic_id: int) -> tuple[int | None, int | None]:
    """Return how many inferers and forecasters the newest closed epoch has; None: not told."""
    nonce = emissions.last_worker_nonce(topic_id)
    inferers = emissions.inferences(topic_id, nonce) if nonce is not None else ()
    if nonce is None or not inferers:  # an empty list: pruned, or not there yet
        return None, None
    forecasters = emissions.forecasters(topic_id, nonce)
    return len(inferers), None if forecasters is None else len(forecasters)


def _paid(emissions: Emissions, rpc: Rpc, topic_id: int) -> Paid | None:
    """Read what the newest settled epoch paid, of the block that settled it; None if no host tells."""
    settled = emissions.last_settled(topic_id)
    if settled is None:
        return None
    nonce, height = settled
    try:
        results = rpc.ask("/block_results", {"height": height}, settled_of)
    except ChainFault:
        return None
    for one in results:
        if (one.topic_id, one.nonce) == (topic_id, nonce) and one.rewards:
            return paid_of([list(one.rewards.values())], "chain")
    return None


def paid_of(epochs: Sequence[Sequence[str]], source: str) -> Paid | None:
    """Return the means of what epochs paid.

    Args:
        epochs: for each what its inferers were paid, in uallo.
    """
    paid = [sorted(Decimal(reward) for reward in epoch) for epoch in epochs if epoch]
    if not paid:
        return None
    middle = [(one[(len(one) - 1) // 2] + one[len(one) // 2]) / 2 for one in paid]
    total = sum((sum(one, Decimal(0)) for one in paid), Decimal(0)) / len(paid)
    return Paid(total=total, median=sum(middle, Decimal(0)) / len(middle), epochs=len(paid), source=source)


def _places(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name, "")
    return int(text) if text.isdecimal() else None


def _rpc_of(chain_id: str, urls: Sequence[str], clock: Clock) -> Rpc | None:
    """Return the RPC of a network; None if no address answers for it."""
    ours = []
    for url in urls:
        try:
            status = Rpc([url], clock, timeout_s=TIMEOUT_S).ask(STATUS, {}, status_of)
        except ChainFault:
            continue
        if status.chain_id == chain_id:
            ours.append(url)
    return Rpc(ours, clock, timeout_s=TIMEOUT_S) if ours else None
