"""config.json of the offchain node: the topics in it, and what is wrong or unwise.

What the node itself can read is in ``core.node_rules``; here is what its entries mean to this worker. What the node
would not say (or only long after the start), is one line that names file, key, value and remedy.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from core.errors import ConfigError
from core.json_node import EXAMPLE, JsonObject, read_json
from core.json_node import JsonNode as _Node
from core.node_rules import (
    PUBLIC_NETWORKS,
    NodeVersions,
    Severity,
    findings,
    named_version,
    takes_held_answers,
    told_version,
)
from core.settings import AUTO_WAIT, BaseRule, Objective, wait_s
from core.topic import (
    CLASSIFICATION,
    DOLLARS,
    LONGEST_MINUTE_HORIZON_MIN,
    LOSS_NAMES,
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
)

SIGNED_LOSSES = frozenset({"ztae", "zptae", "czar"})  # in units of the standard deviation of past returns
_ASKED = re.compile(r".*/inference/([^/]*)")  # the path of an endpoint of ours, up to the token


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
    entries = [entry for path in paths for entry in _entries(path, node_version, own, warnings, rpc_urls, nodes)]
    for place, entry in enumerate(entries):
        for earlier in entries[:place]:
            _check_twins(earlier, entry)
    topics = tuple(topic for _, topic in entries)
    for node, topic in entries:
        _check_question(node, topic, topics)
    return Config(topics=topics, warnings=tuple(dict.fromkeys(warnings)), rpc_urls=rpc_urls, nodes=nodes)


def topics_from_config(*paths: Path, node_version: str = "") -> tuple[Topic, ...]:
    """The topics of a config.json or of several, in their order; see ``read_config``."""
    return read_config(*paths, node_version=node_version).topics


def _entries(
    path: Path,
    node_version: str,
    own: tuple[str, int] | None,
    warnings: list[str],
    rpc_urls: dict[str | None, tuple[str, ...]],
    nodes: dict[str | None, NodeVersions],
) -> "list[tuple[_Node, Topic]]":
    """Each entry of one file, and the topic it stands for; adds to the last three."""
    root = read_json(path)
    if not isinstance(root.value, JsonObject):
        root.wrong(f"it must be an object, as in {EXAMPLE}", kind=True)
    found = findings(root, node_version, own)
    faults = [finding for finding in reversed(found) if finding.severity is Severity.ERROR]
    if faults:
        first = {fault.key: fault.line for fault in faults}  # what else is said of a value mostly follows from it
        raise ConfigError("\n".join(_with_version(reversed(first.values()), root, node_version)))
    entries = root.field("worker")
    if not entries.value:
        entries.wrong(f"give one entry for each topic, as in {EXAMPLE}", kind=True)
    wallet = root.field("wallet")
    network = _network(wallet)
    named = (*(wallet.field("nodeRpcs").value or ()), *filter(None, [wallet.field("nodeRpc").value]))
    nodes[network] = named_version(node_version) or told_version(root)
    rpc_urls[network] = tuple(dict.fromkeys((*rpc_urls.get(network, ()), *named)))
    read: list[tuple[_Node, Topic]] = []
    refused: list[str] = []
    for node in entries.items():
        try:
            read.append((node, replace(_topic(node, network), held=takes_held_answers(nodes[network]))))
        except ConfigError as error:
            refused.append(str(error))
    if refused:
        raise ConfigError("\n".join(refused))
    warnings += [finding.line for finding in found]
    return read


def _with_version(lines: Iterable[str], root: _Node, node_version: str) -> Iterator[str]:
    """The lines; the first one that names a version which nobody named says by what it is known."""
    guessed = "" if named_version(node_version) else told_version(root).said
    for line in lines:
        if guessed and guessed in line:
            yield f"{line} ({guessed}: as the file's keys tell; NODE_VERSION can name another)"
            guessed = ""
        else:
            yield line


def _network(wallet: _Node) -> str | None:
    """The chain id that a wallet names, or that its hosts do."""
    chain_id = wallet.field("chainId").value
    if chain_id and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", chain_id):  # it goes into URLs, headers and labels
        wallet.field("chainId").wrong('it is letters, digits, dots and dashes, such as "allora-testnet-1"')
    hosts = [_host(url) for url in (*(wallet.field("nodeRpcs").value or ()), wallet.field("nodeRpc").value or "")]
    named = {network for word, network in PUBLIC_NETWORKS.items() if any(word in host for host in hosts)}
    return chain_id or (named.pop() if len(named) == 1 else None)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _topic(entry: _Node, network: str | None) -> Topic:
    if not isinstance(entry.value, JsonObject):
        entry.wrong(f"each entry is an object with topicId and parameters, as in {EXAMPLE}", kind=True)
    topic_id = entry.field("topicId")
    parameters = entry.field("parameters")
    if not isinstance(parameters.value, JsonObject):
        parameters.wrong(f"it must be an object with Token and InferenceEndpoint, as in {EXAMPLE}", kind=True)
    known = catalogue().get((network or "", topic_id.value))
    if known and known.target == CLASSIFICATION:
        topic_id.wrong(
            f"{known.asset} {known.horizon} on {known.network} is a classification topic, "
            "which this worker cannot answer yet; remove the entry"
        )

    token = _token(parameters.at("Token"), known)
    target = _target(parameters.at("Target"), known, topic_id.value, network)
    endpoint = parameters.at("InferenceEndpoint")
    table = dict(parameters.value.pairs)
    _check_endpoint(endpoint, topic_id.value, table)
    return Topic(
        topic_id=topic_id.value,
        token=token,
        symbol=_symbol(parameters.at("Symbol"), token),
        target=target,
        horizon_min=_horizon_min(parameters.at("Horizon"), known, target, topic_id.value, network),
        loss=_loss(parameters.at("Loss"), known, target),
        volatility=_volatility(parameters.at("Volatility"), known, target),
        base=_word(parameters.at("Base"), BaseRule),
        wait=_wait(parameters.at("Wait")),
        objective=_word(parameters.at("Objective"), Objective),
        network=network,
        epoch_length_blocks=known.epoch_length_blocks if known else None,
        endpoint=endpoint.value,
        parameters=tuple(table.items()),
    )


def _token(node: _Node, known: CatalogueTopic | None) -> str:
    token = node.value
    if token is None or not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", token):
        example = known.asset if known else "ETH"
        node.wrong(f'give the asset by letters, digits, dot, dash or underscore, such as "{example}"')
    if known and token.upper() != known.asset:
        _contradiction(node, known, known.asset)
    return str(token)


def _symbol(node: _Node, token: str) -> str:
    symbol = node.value if node.value is not None else default_symbol(token)
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
    if node.value == CLASSIFICATION:
        node.wrong(f"topic {topic_id} is a classification topic, which this worker cannot answer yet; remove the entry")
    if node.value is None and known is None:
        _unknown_topic(node, topic_id, network)
    if node.value is not None and node.value not in list(Target):
        node.wrong(f"it must be one of {', '.join(Target)}")
    if known and node.value not in (None, known.target):
        _contradiction(node, known, known.target)
    return Target(node.value if known is None else known.target)


def _horizon_min(node: _Node, known: CatalogueTopic | None, target: Target, topic_id: int, network: str | None) -> int:
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


def _loss(node: _Node, known: CatalogueTopic | None, target: Target) -> str:
    if node.value is not None and node.value not in LOSS_NAMES:
        node.wrong(f"it must be one of {', '.join(LOSS_NAMES)}")
    loss = LOSS_NAMES[node.value or (known.loss if known else "mse")]
    if known and loss != LOSS_NAMES[known.loss]:
        _contradiction(node, known, known.loss)
    if target is Target.VOLATILITY and loss in SIGNED_LOSSES:
        node.wrong("it scores returns and is not defined for volatility; give one of mse, mae, huber, logcosh")
    return loss


def _volatility(node: _Node, known: CatalogueTopic | None, target: Target) -> Volatility:
    right = Volatility(known.volatility) if known and known.volatility else Volatility.STD_HORIZON
    if node.value is None:
        return right
    if target is not Target.VOLATILITY:
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


def _check_endpoint(node: _Node, topic_id: int, parameters: Mapping[str, str]) -> None:
    template = node.value
    if template is None:
        node.wrong(
            f'add "http://inference:8000/inference/{{Token}}?topic={{TopicId}}&height={{BlockHeight}}", as in {EXAMPLE}'
        )
    known = ["TopicId", "BlockHeight", *(key for key in parameters if key != "InferenceEndpoint")]
    rest = template
    for key in known:
        placeholder = f"{{{key}}}"
        if placeholder in rest and re.search("[{}]", parameters.get(key, "")):
            node.wrong(f"{placeholder} stands for a value with braces, which the node may or may not replace")
        rest = rest.replace(placeholder, "")
    if re.search("[{}]", rest):
        unknown = re.search(r"\{[^{}]*\}", rest)
        what = f"{unknown[0]} is no placeholder" if unknown else "a brace is left over"
        node.wrong(f"{what}; the node knows {', '.join(f'{{{key}}}' for key in known)}")
    url = fill_placeholders(template, topic_id=topic_id, height=0, parameters=parameters)
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or re.search(r"[\s\x00-\x1f\x7f]", url):
        node.wrong("it must be a URL that begins with http:// or https:// and a host, without blanks")
    # Written out instead of as placeholders they may name another topic, whose value would then be submitted here.
    asked = _ASKED.fullmatch(parts.path)
    if asked and unquote(asked[1]) != parameters["Token"]:
        node.wrong(f'it asks for "{unquote(asked[1])}" but Token is "{parameters["Token"]}"; write {{Token}}')
    for given in parse_qs(parts.query, keep_blank_values=True).get("topic", []):
        if given != str(topic_id):
            node.wrong(f'it asks for topic "{given}" but topicId is {topic_id}; write ?topic={{TopicId}}')


def _check_twins(earlier: tuple[_Node, Topic], later: tuple[_Node, Topic]) -> None:
    """Refuse a topic that stands in the files twice, two pairs of one name, and two topics behind one URL."""
    (first, other), (node, topic) = earlier, later
    where = first.key if first.file == node.file and first is not node else f"{first.file}: {first.key}"
    if other.key == topic.key:
        here = "in this network" if first.file != node.file and topic.network else "and the node ignores one"
        node.field("topicId").wrong(f"{where} has it too {here}; remove one entry")
    if other.topic_id == topic.topic_id and not (other.network and topic.network):
        silent = first.file if other.network is None else node.file
        node.field("topicId").wrong(f'{where} has it too; add "chainId" to the wallet of {silent} to tell them apart')
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
    if not _ASKED.fullmatch(url.path):
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
