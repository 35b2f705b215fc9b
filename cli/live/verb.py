"""``birnn topics --live``: the catalogue and the config against the chain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chain.addresses import ChainFault
from cli.live.chains import LiveNetwork, Paid, hosts_of, paid_of, read_network
from cli.live.compare import rows_of
from cli.live.question import TESTNET
from cli.live.tables import host_lines, network_json, network_parts, row_json
from cli.place import ledger_url, place_of
from cli.screen import asking, print_json, screen, show_parts
from cli.session import log_as, stoppable
from cli.verbs import config_as_far_as_known
from core.clock import DAY_MS, Clock, SystemClock
from core.errors import ConfigError
from core.settings import Settings
from core.show.progress import progress_of
from core.topic import catalogue, topic_key
from ledger.database import FAULTS
from ledger.epochs import EpochBook
from monitor.chain.alarms import upgrade_words
from monitor.chain.checks import network_checked
from monitor.chain.looks import NetworkLook
from node.versions import NodeVersions
from truth.contract import MOST_OFF

PAID_DAYS, MOST_PAID = 7, 100  # epochs of the ledger behind what a topic pays


def show_live(settings: Settings, *, as_json: bool) -> bool:
    """Print the topics on chain; False if a network could not be read, or not wholly.

    Raises:
        ConfigError: no host is set.
    """
    if not settings.lcds:
        raise ConfigError(
            "birnn topics --live asks the chain: set LCD_URLS to hosts of its REST interface, such as "
            "https://allora-api.testnet.allora.network"
        )
    clock = SystemClock()
    config, why_no_config = config_as_far_as_known(settings, example=True)
    place = place_of(settings)
    log_as(settings, place.market)
    with asking("asking the chain's hosts"):
        hosts, faults = hosts_of(settings.lcds, clock)
    rpcs = settings.rpcs({**dict.fromkeys(hosts, ()), **config.rpc_urls})
    read: list[LiveNetwork] = []
    with stoppable("nothing was changed"):
        for chain_id, urls in hosts.items():
            wanted = {topic_id for network, topic_id in catalogue() if network == chain_id}
            wanted |= {topic.topic_id for topic in config.topics if topic.network == chain_id}
            with progress_of(f"topics of {chain_id}", step=20) as show:
                try:
                    read.append(read_network(chain_id, urls, rpcs.get(chain_id, ()), wanted, clock, show))
                except ChainFault as fault:
                    faults[chain_id] = str(fault)
    url = ledger_url(settings, place)
    read = [_with_ledger(network, url, clock) for network in read]
    testnet = next((_active(network) for network in read if network.chain_id == TESTNET), None)
    most_off = settings.alarms.get("contract", MOST_OFF)
    rows = {network.chain_id: rows_of(network, config.topics, testnet, most_off) for network in read}
    notices = {network.chain_id: _notices(network, config.nodes, clock) for network in read}
    unread = sorted({topic.network or "" for topic in config.topics} - set(rows))
    lines = [*host_lines(faults), *(f"{one or 'no network'}: no host of LCD_URLS serves it" for one in unread)]
    lines += [f"the config was not read, so no topic is marked as configured: {why_no_config}"] if why_no_config else []
    if as_json:
        print_json(
            {
                "networks": [network_json(network, notices[network.chain_id]) for network in read],
                "topics": [row_json(row) for network in read for row in rows[network.chain_id]],
                "faults": lines,
            }
        )
    else:
        show_parts(lines)
        for network in read:
            show_parts(network_parts(network, rows[network.chain_id], notices[network.chain_id], screen().width))
    return bool(read) and not any(network.fault for network in read) and not set(faults) & set(hosts)


def _active(network: LiveNetwork) -> set[int] | None:
    if network.fault:
        return None
    return {topic_id for topic_id, live in network.topics.items() if live.is_active is not False}


def _notices(network: LiveNetwork, nodes: Mapping[str | None, NodeVersions], clock: Clock) -> Sequence[str]:
    look = NetworkLook(host=network.host, block_ms=network.block_ms, upgrade=network.upgrade)
    checked = network_checked(look, nodes.get(network.chain_id))
    return upgrade_words(network.chain_id, checked, clock.now_ms())


def _with_ledger(network: LiveNetwork, url: str, clock: Clock) -> LiveNetwork:
    """Return a network with what the ledger's epochs say of the rewards, where there are some."""
    book = EpochBook(url)
    try:
        if not book.is_begun:
            return network
        since_ms = clock.now_ms() - PAID_DAYS * DAY_MS
        keys = {topic_id: topic_key(network.chain_id, topic_id) for topic_id in network.topics}
        found = {topic_id: _paid_by(book, key, since_ms) for topic_id, key in keys.items()}
    except FAULTS:  # birnn status says what is wrong with it
        return network
    finally:
        book.close()
    topics = {topic_id: replace(live, paid=found[topic_id] or live.paid) for topic_id, live in network.topics.items()}
    return replace(network, topics=topics)


def _paid_by(book: EpochBook, key: str, since_ms: int) -> Paid | None:
    paid = []
    for epoch, _ in book.epochs_of(key, MOST_PAID, since_ms=since_ms):
        rewards = [one.reward for one in epoch.inside.inferers]
        if rewards and None not in rewards:
            paid.append([reward for reward in rewards if reward is not None])
    return paid_of(paid, "ledger")
