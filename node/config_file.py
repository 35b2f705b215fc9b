"""config.json of the offchain node, read: its topics, its errors and its warnings.

``node/rules/`` knows what the node can read; this module knows what the entries mean to this worker. Each mistake is
one line that names file, key, value and remedy.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

from core.errors import ConfigError
from core.topic import Topic, fill_placeholders, split_symbol, topic_key
from node.addresses import PUBLIC_NETWORKS, host_of
from node.json_text import EXAMPLE, JsonNode, JsonObject, read_json
from node.rules.base import Severity
from node.rules.endpoint import ASKED
from node.rules.findings import findings
from node.topic_entry import Reader, kept, read_topic
from node.versions import NodeVersions, named_version, takes_held_answers, version_by_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The content of one or several files."""

    topics: tuple[Topic, ...]
    warnings: tuple[str, ...]  # a line for each thing that is legal and unwise
    rpc_urls: Mapping[str | None, tuple[str, ...]]  # by chain id: nodeRpcs or nodeRpc of the network's files
    nodes: Mapping[str | None, NodeVersions]  # by chain id: the nodes that read the network's files


def read_config(
    *paths: Path, node_version: str = "", own: tuple[str, int] | None = None, workers: Sequence[str] = ()
) -> Config:
    """Read one config.json or several as one; the catalogue fills in the missing keys of a topic.

    Args:
        paths: files in any schema of the offchain node, v0.5 to the newest; each is of one wallet and network.
        node_version: NODE_VERSION, the node that reads the files; if empty, each file's own keys decide.
        own: host and port that inference listens on; None if questions do not use the files' addresses.
        workers: addresses of the wallets, one for each file in its order (WORKER_ADDRESS).
    Raises:
        ConfigError: a line for each mistake; two topics that inference could not tell apart are one.
    """
    warnings: list[str] = []
    if node_version and named_version(node_version) is None:
        warnings.append(
            f"NODE_VERSION was {node_version[:80]!a}: it names no version such as v0.12.0, 0.9.1 or latest; each "
            "file is checked for the version that its own keys tell"
        )
    rpc_urls: dict[str | None, tuple[str, ...]] = {}
    nodes: dict[str | None, NodeVersions] = {}
    faults: list[str] = []
    entries: list[_Entry] = []
    for place, path in enumerate(paths):
        worker = workers[place] if place < len(workers) else ""
        with kept(faults):
            entries += _entries(path, node_version, own, warnings, rpc_urls, nodes, faults, worker)
    single: list[_Entry] = []  # without twins: further faults of a twin follow from the first
    for place, entry in enumerate(entries):
        with kept(faults):
            for earlier in entries[:place]:
                _check_twins(earlier, entry)
            single.append(entry)
    topics = tuple(entry.topic for entry in single if entry.topic)
    for entry in single:
        with kept(faults):
            if entry.topic:
                _check_question(entry.node, entry.topic, topics)
    if faults:
        raise ConfigError("\n".join(faults))
    return Config(topics=topics, warnings=tuple(dict.fromkeys(warnings)), rpc_urls=rpc_urls, nodes=nodes)


def topics_from_config(*paths: Path, node_version: str = "", workers: Sequence[str] = ()) -> tuple[Topic, ...]:
    """The topics of one config.json or several, in their order; see ``read_config``."""
    return read_config(*paths, node_version=node_version, workers=workers).topics


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An entry of ``worker`` whose number can be read."""

    node: JsonNode
    topic_id: int
    network: str | None
    is_placed: bool  # False if the keys that name the network are wrong
    topic: Topic | None  # None if another key of the entry is wrong

    @property
    def key(self) -> str:
        return topic_key(self.network, self.topic_id)


def _entries(
    path: Path,
    node_version: str,
    own: tuple[str, int] | None,
    warnings: list[str],
    rpc_urls: dict[str | None, tuple[str, ...]],
    nodes: dict[str | None, NodeVersions],
    faults: list[str],
    worker: str,
) -> list[_Entry]:
    """Read the entries of one file of a wallet; adds to the four arguments before the wallet's address."""
    root = read_json(path)
    if not isinstance(root.value, JsonObject):
        root.wrong(f"it must be an object, as in {EXAMPLE}", kind=True)
    found = findings(root, node_version, own)
    wrong = [finding for finding in found if finding.severity is Severity.ERROR]
    # Host, path and query of an endpoint are independent. Of other keys the first fault mostly explains the second.
    first = {(one.key, one.line if one.key.endswith(".InferenceEndpoint") else ""): one.line for one in reversed(wrong)}
    faults += _with_version(reversed(first.values()), root, node_version)
    warnings += [finding.line for finding in found]
    reader = Reader(key for finding in wrong for key in (finding.key, finding.meant))

    entries, wallet = root.field("worker"), root.field("wallet")
    if not entries.value:
        reader.read(entries, _no_entries)
    urls = _urls(wallet)
    network = reader.read(wallet.field("chainId"), _network, urls)
    hosts = [wallet.field(name) for name in ("nodeRpcs", "nodeRpc")]
    is_placed = not reader.faults and not any(
        map(reader.knows, [wallet, wallet.field("chainId"), *(hosts if network is None else [])])
    )
    nodes[network] = named_version(node_version) or version_by_keys(root)
    rpc_urls[network] = tuple(dict.fromkeys((*rpc_urls.get(network, ()), *urls)))
    read: list[_Entry] = []
    for node in entries.items():
        topic = reader.read(node, read_topic, network, is_placed, reader)
        topic = replace(topic, held=takes_held_answers(nodes[network]), worker=worker) if topic else None
        topic_id = node.field("topicId")
        if isinstance(node.value, JsonObject) and not reader.knows(topic_id):
            read.append(_Entry(node=node, topic_id=topic_id.value, network=network, is_placed=is_placed, topic=topic))
    faults += reader.faults
    return read


def _no_entries(entries: JsonNode) -> NoReturn:
    entries.wrong(f"give one entry for each topic, as in {EXAMPLE}", kind=True)


def _with_version(lines: Iterable[str], root: JsonNode, node_version: str) -> Iterator[str]:
    """The lines; the first that names a guessed version says that the version was guessed."""
    guessed = "" if named_version(node_version) else version_by_keys(root).said
    for line in lines:
        if guessed and guessed in line:
            yield f"{line} ({guessed}: as the file's keys tell; NODE_VERSION can name another)"
            guessed = ""
        else:
            yield line


def _urls(wallet: JsonNode) -> list[str]:
    several = wallet.field("nodeRpcs").value
    named = (*(several if isinstance(several, list) else ()), wallet.field("nodeRpc").value)
    return [url for url in named if url and isinstance(url, str)]


def _network(chain_id: JsonNode, urls: Iterable[str]) -> str | None:
    """The chain id of a wallet, by ``chainId`` or else by its hosts."""
    named = chain_id.value
    if named and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", named):  # the chain id goes into URLs, headers and labels
        chain_id.wrong('it is letters, digits, dots and dashes, such as "allora-testnet-1"')
    hosts = [host_of(url) for url in urls]
    of_hosts = {network for word, network in PUBLIC_NETWORKS.items() if any(word in host for host in hosts)}
    return named or (of_hosts.pop() if len(of_hosts) == 1 else None)


def _check_twins(earlier: _Entry, later: _Entry) -> None:
    """Refuse a topic given twice, two pairs of one name, and two topics behind one URL."""
    first, node, other, topic = earlier.node, later.node, earlier.topic, later.topic
    is_one_file = first.file == node.file
    if not (is_one_file or (earlier.is_placed and later.is_placed)):
        return
    where = first.key if is_one_file and first is not node else f"{first.file}: {first.key}"
    if earlier.key == later.key:
        here = "in this network" if not is_one_file and later.network else "and the node ignores one"
        node.field("topicId").wrong(f"{where} has it too {here}; remove one entry")
    if earlier.topic_id == later.topic_id and not (earlier.network and later.network):
        silent = first.file if earlier.network is None else node.file
        node.field("topicId").wrong(f'{where} has it too; add "chainId" to the wallet of {silent} to tell them apart')
    if other is None or topic is None:
        return
    pair, others = split_symbol(topic.symbol, topic.token), split_symbol(other.symbol, other.token)
    if topic.symbol == other.symbol and pair != others:
        node.field("parameters").at("Symbol").wrong(
            f"that is {' in '.join(pair)} here and {' in '.join(others)} in {where}, and a venue has one pair of that "
            "name; give one of them another symbol"
        )
    if (url := _url(topic)) == _url(other):
        missing = "topic={TopicId}" if other.topic_id != topic.topic_id else f"network={topic.network}"
        node.field("parameters").at("InferenceEndpoint").wrong(
            f"{where} asks the very same URL for topic {other.key}; add {'&' if '?' in url else '?'}{missing}"
        )


def _check_question(node: JsonNode, topic: Topic, topics: Sequence[Topic]) -> None:
    """Refuse an endpoint of this worker whose question fits several topics."""
    url = urlsplit(_url(topic))
    if not ASKED.fullmatch(url.path):
        return
    endpoint, query = node.field("parameters").at("InferenceEndpoint"), parse_qs(url.query, keep_blank_values=True)
    for given in query.get("network", []):
        if given != topic.network:
            right = f"the wallet is on {topic.network}" if topic.network else 'wallet has no "chainId"'
            endpoint.wrong(f'it asks for network "{given}" but {right}; correct one of them')
    others = [other for other in topics if other is not topic]
    if "network" in query:
        others = [other for other in others if other.network == topic.network]
    same_id = [other for other in others if other.topic_id == topic.topic_id]
    same_token = [other for other in others if other.token == topic.token]
    more = ["topic={TopicId}"] if same_token and "topic" not in query else []
    if same_id and ("topic" in query or more):
        more.append(f"network={topic.network}")
    if more:
        why = (
            f"topic {same_id[0].key} has the same id"
            if same_id
            else f"topic {same_token[0].key} is about {topic.token} too"
        )
        endpoint.wrong(f"{why}; add {'&' if url.query else '?'}{'&'.join(more)}")


def _url(topic: Topic) -> str:
    return fill_placeholders(topic.endpoint, topic_id=topic.topic_id, height=0, parameters=dict(topic.parameters))
