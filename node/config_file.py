"""config.json of the offchain node: the topics in it, and what is wrong or unwise.

What the node itself can read is in ``node.rules``; here is what its entries mean to this worker. What the node
would not say (or only long after the start), is one line that names file, key, value and remedy.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs, urlsplit

from core.errors import ConfigError
from core.losses import LOSS_NAMES, LOSSES, loss_named
from core.settings import AUTO_WAIT, BaseRule, Objective, wait_s
from core.topic import (
    CLASSIFICATION,
    DOLLARS,
    LONGEST_MINUTE_HORIZON_MIN,
    CatalogueTopic,
    Target,
    Topic,
    Volatility,
    bases_of,
    catalogue,
    default_symbol,
    fill_placeholders,
    horizon_text,
    parse_horizon,
    split_symbol,
    topic_key,
)
from node.json_text import EXAMPLE, JsonObject, read_json
from node.json_text import JsonNode as _Node
from node.rules import (
    ASKED,
    PUBLIC_NETWORKS,
    TOKEN,
    NodeVersions,
    Severity,
    findings,
    named_version,
    takes_held_answers,
    told_version,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the files say: the topics, and what is legal in them and unwise."""

    topics: tuple[Topic, ...]
    warnings: tuple[str, ...]  # a line each
    rpc_urls: Mapping[str | None, tuple[str, ...]]  # of each network's chain, by chain id: nodeRpcs or nodeRpc
    nodes: Mapping[str | None, NodeVersions]  # that read the file of a network, by chain id


def read_config(*paths: Path, node_version: str = "", own: tuple[str, int] | None = None) -> Config:
    """A config.json or several, as one; the shipped catalogue fills in what is left out of a topic.

    Args:
        paths: files in any schema of the offchain node, v0.5 to the newest; each is of one wallet and network.
        node_version: NODE_VERSION, the node that reads the files; where it is empty, each file's own keys tell.
        own: host and port that inference listens on; None where questions do not come by the files' addresses.
    Raises:
        ConfigError: the mistakes in one of them, a line each, or a topic that inference could not tell from another.
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
    for path in paths:
        with _kept(faults):
            entries += _entries(path, node_version, own, warnings, rpc_urls, nodes, faults)
    single: list[_Entry] = []  # without those that are told to be twins: what else is said of them follows from it
    for place, entry in enumerate(entries):
        with _kept(faults):
            for earlier in entries[:place]:
                _check_twins(earlier, entry)
            single.append(entry)
    topics = tuple(entry.topic for entry in single if entry.topic)
    for entry in single:
        with _kept(faults):
            if entry.topic:
                _check_question(entry.node, entry.topic, topics)
    if faults:
        raise ConfigError("\n".join(faults))
    return Config(topics=topics, warnings=tuple(dict.fromkeys(warnings)), rpc_urls=rpc_urls, nodes=nodes)


@contextmanager
def _kept(faults: list[str]) -> Iterator[None]:
    """Goes on after a fault, which is added to the others."""
    try:
        yield
    except ConfigError as error:
        faults.append(str(error))


def topics_from_config(*paths: Path, node_version: str = "") -> tuple[Topic, ...]:
    """The topics of a config.json or of several, in their order; see ``read_config``."""
    return read_config(*paths, node_version=node_version).topics


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An entry of ``worker`` whose number can be read."""

    node: _Node
    topic_id: int
    network: str | None
    is_placed: bool  # False: what names the network is wrong
    topic: Topic | None  # None: something else in it is wrong

    @property
    def key(self) -> str:
        return topic_key(self.network, self.topic_id)


class _Reader:
    """Reads one value after the other, and keeps what is wrong with each.

    Args:
        told: keys of which something is said already, in lower case; they are not read.
    """

    def __init__(self, told: Iterable[str]) -> None:
        self.told = {key.casefold() for key in told}
        self.faults: list[str] = []

    def knows(self, node: _Node) -> bool:
        """True if something is said of the value already."""
        return node.key.casefold() in self.told

    def read(self, node: _Node, reading: Callable[..., T], *more: Any) -> T | None:
        """What ``reading`` makes of the value; None where the value is wrong."""
        if not self.knows(node):
            with _kept(self.faults):
                return reading(node, *more)
        return None


def _entries(
    path: Path,
    node_version: str,
    own: tuple[str, int] | None,
    warnings: list[str],
    rpc_urls: dict[str | None, tuple[str, ...]],
    nodes: dict[str | None, NodeVersions],
    faults: list[str],
) -> list[_Entry]:
    """Each entry of one file; adds to the last four."""
    root = read_json(path)
    if not isinstance(root.value, JsonObject):
        root.wrong(f"it must be an object, as in {EXAMPLE}", kind=True)
    found = findings(root, node_version, own)
    wrong = [finding for finding in found if finding.severity is Severity.ERROR]
    # Host, path and query of an endpoint are wrong each for itself. What else is said twice of a value mostly follows.
    first = {(one.key, one.line if one.key.endswith(".InferenceEndpoint") else ""): one.line for one in reversed(wrong)}
    faults += _with_version(reversed(first.values()), root, node_version)
    warnings += [finding.line for finding in found]
    reader = _Reader(key for finding in wrong for key in (finding.key, finding.meant))

    entries, wallet = root.field("worker"), root.field("wallet")
    if not entries.value:
        reader.read(entries, _no_entries)
    urls = _urls(wallet)
    network = reader.read(wallet.field("chainId"), _network, urls)
    hosts = [wallet.field(name) for name in ("nodeRpcs", "nodeRpc")]
    is_placed = not reader.faults and not any(
        map(reader.knows, [wallet, wallet.field("chainId"), *(hosts if network is None else [])])
    )
    nodes[network] = named_version(node_version) or told_version(root)
    rpc_urls[network] = tuple(dict.fromkeys((*rpc_urls.get(network, ()), *urls)))
    read: list[_Entry] = []
    for node in entries.items():
        topic = reader.read(node, _topic, network, is_placed, reader)
        topic = replace(topic, held=takes_held_answers(nodes[network])) if topic else None
        topic_id = node.field("topicId")
        if isinstance(node.value, JsonObject) and not reader.knows(topic_id):
            read.append(_Entry(node=node, topic_id=topic_id.value, network=network, is_placed=is_placed, topic=topic))
    faults += reader.faults
    return read


def _no_entries(entries: _Node) -> NoReturn:
    entries.wrong(f"give one entry for each topic, as in {EXAMPLE}", kind=True)


def _with_version(lines: Iterable[str], root: _Node, node_version: str) -> Iterator[str]:
    """The lines; the first one that names a version which nobody named says by what it is known."""
    guessed = "" if named_version(node_version) else told_version(root).said
    for line in lines:
        if guessed and guessed in line:
            yield f"{line} ({guessed}: as the file's keys tell; NODE_VERSION can name another)"
            guessed = ""
        else:
            yield line


def _urls(wallet: _Node) -> list[str]:
    """Those of the chain that a wallet names."""
    several = wallet.field("nodeRpcs").value
    named = (*(several if isinstance(several, list) else ()), wallet.field("nodeRpc").value)
    return [url for url in named if url and isinstance(url, str)]


def _network(chain_id: _Node, urls: Iterable[str]) -> str | None:
    """The chain id that a wallet names, or that its hosts do."""
    named = chain_id.value
    if named and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", named):  # it goes into URLs, headers and labels
        chain_id.wrong('it is letters, digits, dots and dashes, such as "allora-testnet-1"')
    hosts = [_host(url) for url in urls]
    of_hosts = {network for word, network in PUBLIC_NETWORKS.items() if any(word in host for host in hosts)}
    return named or (of_hosts.pop() if len(of_hosts) == 1 else None)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _topic(entry: _Node, network: str | None, is_placed: bool, reader: _Reader) -> Topic | None:
    """The topic that an entry stands for; None where something in it is wrong, which the reader keeps."""
    if not isinstance(entry.value, JsonObject):
        entry.wrong(f"each entry is an object with topicId and parameters, as in {EXAMPLE}", kind=True)
    topic_id = entry.field("topicId")
    parameters = entry.field("parameters")
    if not isinstance(parameters.value, JsonObject):
        return reader.read(parameters, _no_parameters)
    is_placed = is_placed and not reader.knows(topic_id)
    known = catalogue().get((network or "", topic_id.value)) if is_placed else None
    if known and known.target == CLASSIFICATION:
        topic_id.wrong(
            f"{known.asset} {known.horizon} on {known.network} is a classification topic, "
            "which this worker cannot answer yet; remove the entry"
        )

    at = parameters.at
    if at("Target").value == CLASSIFICATION:
        at("Target").wrong(
            f"topic {topic_id.value} is a classification topic, which this worker cannot answer yet; remove the entry"
        )

    told_before = len(reader.faults)
    token = reader.read(at("Token"), _token, known)
    symbol = reader.read(at("Symbol"), _symbol, token)
    target = horizon_min = None
    has_target, has_horizon = (at(name).value is not None for name in ("Target", "Horizon"))
    if is_placed or has_target:  # else the catalogue may know what is missing
        target = reader.read(at("Target"), _target, known, topic_id.value, network)
    if has_horizon or known or (is_placed and has_target):  # else the line about Target names both
        horizon_min = reader.read(at("Horizon"), _horizon_min, known, target, topic_id.value, network)
    loss = reader.read(at("Loss"), _loss, known, target)
    volatility = reader.read(at("Volatility"), _volatility, known, target)
    base = reader.read(at("Base"), _word, BaseRule)
    wait = reader.read(at("Wait"), _wait)
    objective = reader.read(at("Objective"), _word, Objective)
    endpoint = at("InferenceEndpoint")
    if endpoint.value is None:
        reader.read(endpoint, _no_endpoint)
    if len(reader.faults) > told_before or any(key.startswith(f"{entry.key}.".casefold()) for key in reader.told):
        return None
    if not (token and symbol and target and horizon_min and loss and volatility):
        return None
    return Topic(
        topic_id=topic_id.value,
        token=token,
        symbol=symbol,
        target=target,
        horizon_min=horizon_min,
        loss=loss,
        volatility=volatility,
        base=base,
        wait=wait,
        objective=objective,
        network=network,
        epoch_length_blocks=known.epoch_length_blocks if known else None,
        endpoint=endpoint.value,
        parameters=tuple(dict(parameters.value.pairs).items()),
    )


def _no_parameters(parameters: _Node) -> NoReturn:
    parameters.wrong(f"it must be an object with Token and InferenceEndpoint, as in {EXAMPLE}", kind=True)


def _no_endpoint(endpoint: _Node) -> NoReturn:
    endpoint.wrong(
        f'add "http://inference:8000/inference/{{Token}}?topic={{TopicId}}&height={{BlockHeight}}", as in {EXAMPLE}'
    )


def _token(node: _Node, known: CatalogueTopic | None) -> str:
    token = node.value
    if token is None or not TOKEN.fullmatch(token):
        example = known.asset if known else "ETH"
        node.wrong(f'give the asset by letters, digits, dot, dash or underscore, such as "{example}"')
    if known and token.upper() != known.asset:
        _contradiction(node, known, known.asset)
    return str(token)


def _symbol(node: _Node, token: str | None) -> str | None:
    if node.value is not None and not re.fullmatch(r"[A-Z0-9]{2,32}", node.value):
        node.wrong("give the exchange's name of the pair, capital letters and digits alone, such as ETHUSDT")
    if token is None:
        return None
    symbol = node.value or default_symbol(token)
    if not re.fullmatch(r"[A-Z0-9]{2,32}", symbol):
        node.wrong("give the exchange's name of the pair, capital letters and digits alone, such as ETHUSDT")
    bases = bases_of(token)
    base, quote = split_symbol(symbol, token)
    if not quote or base not in bases:
        what = f"a pair of {base} in {quote}" if quote else "not a pair in dollars"
        node.wrong(
            f"that is {what} and Token is {token}; its prices would be submitted as {token}'s in dollars: write "
            f"{' or '.join(bases)} followed by a dollar ({', '.join(DOLLARS)}), such as {default_symbol(token)}"
        )
    return str(symbol)


def _target(node: _Node, known: CatalogueTopic | None, topic_id: int, network: str | None) -> Target:
    if node.value is None and known is None:
        _unknown_topic(node, topic_id, network)
    if node.value is not None and node.value not in list(Target):
        node.wrong(f"it must be one of {', '.join(Target)}")
    if known and node.value not in (None, known.target):
        _contradiction(node, known, known.target)
    return Target(node.value if known is None else known.target)


def _horizon_min(
    node: _Node, known: CatalogueTopic | None, target: Target | None, topic_id: int, network: str | None
) -> int:
    if node.value is None:
        if known is None:
            _unknown_topic(node, topic_id, network)
        return parse_horizon(known.horizon)
    try:
        minutes = parse_horizon(node.value)
    except ConfigError:
        node.wrong("it must be minutes, hours or days such as 10m, 8h or 7d, at most 7d")
    if known and minutes != parse_horizon(known.horizon):
        _contradiction(node, known, known.horizon)
    if minutes > LONGEST_MINUTE_HORIZON_MIN and minutes % 60:
        node.wrong(
            "above 4h it must be whole hours, such as 5h, 8h or 24h: those topics are forecast from hourly klines"
        )
    if target is Target.VOLATILITY and minutes < 2:
        node.wrong("the volatility of a single minute is not defined here; give 2m or more")
    return minutes


def _loss(node: _Node, known: CatalogueTopic | None, target: Target | None) -> str:
    if node.value is not None and node.value not in LOSS_NAMES:
        node.wrong(f"it must be one of {', '.join(LOSS_NAMES)}")
    loss = LOSS_NAMES[node.value or (known.loss if known else "mse")]
    if known and loss != LOSS_NAMES[known.loss]:
        _contradiction(node, known, known.loss)
    if target is Target.VOLATILITY and loss_named(loss).of_returns:
        others = ", ".join(loss.name for loss in LOSSES if not loss.of_returns)
        node.wrong(f"it scores returns and is not defined for volatility; give one of {others}")
    return loss


def _volatility(node: _Node, known: CatalogueTopic | None, target: Target | None) -> Volatility:
    right = Volatility(known.volatility) if known and known.volatility else Volatility.STD_HORIZON
    if node.value is None:
        return right
    if target not in (None, Target.VOLATILITY):
        node.wrong(f"it says what a volatility topic means and Target is {target}; remove it")
    if node.value not in list(Volatility):
        node.wrong(f"it must be one of {', '.join(Volatility)}")
    if known and node.value != right:
        _contradiction(node, known, right)
    return Volatility(node.value)


def _word(node: _Node, words: type[StrEnum]) -> str | None:
    if node.value is not None and node.value not in list(words):
        node.wrong(f"it must be one of {', '.join(words)}")
    return None if node.value is None else str(node.value)


def _wait(node: _Node) -> str | None:
    if node.value not in (None, AUTO_WAIT):
        try:
            wait_s(node.value)
        except ValueError as error:
            node.wrong(f"it must be {error}")
    return None if node.value is None else str(node.value)


def _unknown_topic(node: _Node, topic_id: int, network: str | None) -> NoReturn:
    both = f"Target ({', '.join(Target)}) and Horizon (such as {horizon_text(10)}) to its parameters"
    if network is None:
        node.wrong(f'the network is not known; add "chainId": "allora-testnet-1" to wallet, or add {both}')
    node.wrong(f"topic {topic_id} of {network} is not in the catalogue; add {both}, or correct topicId or chainId")


def _contradiction(node: _Node, known: CatalogueTopic, right: str) -> NoReturn:
    name = node.key.rpartition(".")[2]
    node.wrong(f'topic {known.topic_id} of {known.network} has {name} "{right}"; write that, or correct topicId')


def _check_twins(earlier: _Entry, later: _Entry) -> None:
    """Refuse a topic that stands in the files twice, two pairs of one name, and two topics behind one URL."""
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


def _check_question(node: _Node, topic: Topic, topics: Sequence[Topic]) -> None:
    """Refuse an endpoint of ours whose question several topics could be the answer to."""
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
