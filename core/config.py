"""config.json of the offchain node, read as the node itself reads it.

Go's decoder ignores unknown keys and the case of the keys it knows; ``parameters`` is a map, so its keys keep their
case and its values must be strings. What the node would not say (or only long after the start), is said here, in one
line that names file, key, value and remedy.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from core.errors import ConfigError
from core.topic import (
    CLASSIFICATION,
    LONGEST_MINUTE_HORIZON_MIN,
    LOSS_NAMES,
    PROXIES,
    CatalogueTopic,
    Target,
    Topic,
    Volatility,
    catalogue,
    default_symbol,
    fill_placeholders,
    horizon_text,
    parse_horizon,
)

OUR_KEYS = ("InferenceEndpoint", "Token", "Target", "Horizon", "Loss", "Symbol", "Volatility")
SIGNED_LOSSES = frozenset({"ztae", "zptae", "czar"})  # in units of the standard deviation of past returns
ENTRYPOINT, OLD_ENTRYPOINT = "apiAdapter", "api-worker-reputer"
NETWORKS = {"testnet": "allora-testnet-1", "mainnet": "allora-mainnet-1"}
EXAMPLE = "config.example.json"
_ASKED = re.compile(r".*/inference/([^/]*)")  # the path of an endpoint of ours, up to the token


def topics_from_config(*paths: Path) -> tuple[Topic, ...]:
    """The topics of a config.json or of several, in their order; the shipped catalogue fills in what is left out.

    Args:
        paths: files in any schema of the offchain node, v0.5 to the newest; each is of one wallet and network.
    Raises:
        ConfigError: the first mistake in them, or a topic that inference could not tell from another.
    """
    entries = [entry for path in paths for entry in _entries(path)]
    for place, entry in enumerate(entries):
        for earlier in entries[:place]:
            _check_twins(earlier, entry)
    topics = tuple(topic for _, topic in entries)
    for node, topic in entries:
        _check_question(node, topic, topics)
    return topics


def _entries(path: Path) -> "list[tuple[_Node, Topic]]":
    """Each entry of one file, and the topic it stands for."""
    root = _Node(path, "", _read(path))
    if not isinstance(root.value, _Object):
        root.wrong(f"it must be an object, as in {EXAMPLE}", kind=True)
    entries = root.field("worker")
    if entries.value is not None and not isinstance(entries.value, list):
        entries.wrong("it must be a list with one entry for each topic", kind=True)
    if not entries.value:
        entries.wrong(f"give one entry for each topic, as in {EXAMPLE}", kind=True)
    wallet = _Wallet.of(root.field("wallet"))
    nodes = [_Node(path, f"worker[{index}]", value) for index, value in enumerate(entries.value)]
    return [(node, _topic(node, wallet)) for node in nodes]


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object with every pair it has, also where a key stands twice."""

    pairs: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Node:
    """A JSON value, and where it stands. None is absent: Go's decoder takes null for that."""

    file: Path
    key: str
    value: Any

    def wrong(self, remedy: str, *, kind: bool = False) -> NoReturn:
        """Raise the one line; with ``kind`` it says what sort of value it was and not which."""
        shown = "is missing or null" if self.value is None else f"was {_shown(self.value, kind=kind)}"
        line = f"{self.file}: {self.key or 'top level'} {shown}: {remedy}"
        # Keys and values come from the file: whatever is in them, it stays one line.
        raise ConfigError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))

    def field(self, name: str) -> "_Node":
        """A key of a Go struct: found in any case."""
        return self._child(name, [pair for pair in self.value.pairs if pair[0].casefold() == name.casefold()])

    def at(self, name: str) -> "_Node":
        """A key of a Go map: found in its own case alone."""
        return self._child(name, [pair for pair in self.value.pairs if pair[0] == name])

    def _child(self, name: str, found: list[tuple[str, Any]]) -> "_Node":
        child = _Node(self.file, f"{self.key}.{name}" if self.key else name, found[-1][1] if found else None)
        if len(found) > 1:
            child.wrong(f"it is given {len(found)} times and the node takes the last; keep one", kind=True)
        return child

    def text(self, remedy: str) -> str | None:
        """The value if it is a string or absent."""
        if self.value is not None and not isinstance(self.value, str):
            self.wrong(remedy)
        return self.value


def _shown(value: Any, *, kind: bool = False) -> str:
    """A value for an error message: ASCII, on one line, not long; containers by their kind."""
    kinds = {_Object: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    if kind or isinstance(value, _Object | list):
        return kinds.get(type(value), "a number")
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _read(path: Path) -> Any:
    """The JSON value in ``path``, its objects as ``_Object``."""

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        if path.exists() and not path.is_file():  # what Docker makes of a mounted file that is missing
            raise ConfigError(f"{path}: not a file: remove it, then cp {EXAMPLE} config.json")
        text = path.read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=lambda pairs: _Object(tuple(pairs)), parse_constant=refuse_constant)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file: cp {EXAMPLE} config.json, or set CONFIG_FILE") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check its owner and mode") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        if text.startswith("\ufeff"):
            raise ConfigError(
                f"{path}: line 1 column 1: begins with a byte order mark: save it as UTF-8 without BOM"
            ) from error
        where = f"line {error.lineno} column {error.colno}"
        raise ConfigError(f"{path}: {where}: not JSON ({error.msg}): correct it, or compare with {EXAMPLE}") from error
    except (ValueError, RecursionError) as error:  # a constant, a number of thousands of digits, endless brackets
        raise ConfigError(f"{path}: not JSON ({error}): compare with {EXAMPLE}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wallet:
    """What the wallet says about the network and the node's version."""

    network: str | None = None
    since_v09: bool = False  # nodeRpcs is given and nodeRpc, which v0.9 dropped, is not

    @classmethod
    def of(cls, node: _Node) -> "_Wallet":
        if node.value is None:
            return cls()
        if not isinstance(node.value, _Object):
            node.wrong(f"it must be an object, as in {EXAMPLE}", kind=True)  # it may hold a mnemonic: never shown
        chain_id = node.field("chainId").text('it must be a string such as "allora-testnet-1"')
        if chain_id and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", chain_id):  # it goes into URLs, headers and labels
            node.field("chainId").wrong('it is letters, digits, dots and dashes, such as "allora-testnet-1"')
        old = node.field("nodeRpc").text("it must be one URL in quotes")
        several = node.field("nodeRpcs")
        new = [] if several.value is None else several.value
        if not isinstance(new, list) or not all(isinstance(url, str) for url in new):
            several.wrong("it must be a list of URLs in quotes", kind=True)
        hosts = [_host(url) for url in (*new, old or "")]
        named = {network for word, network in NETWORKS.items() if any(word in host for host in hosts)}
        return cls(network=chain_id or (named.pop() if len(named) == 1 else None), since_v09=bool(new) and not old)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _topic(entry: _Node, wallet: _Wallet) -> Topic:
    if not isinstance(entry.value, _Object):
        entry.wrong(f"each entry is an object with topicId and parameters, as in {EXAMPLE}", kind=True)
    topic_id = entry.field("topicId")
    if type(topic_id.value) is not int or not 0 < topic_id.value < 2**63:  # a bool is an int too
        topic_id.wrong("it must be a whole number above 0, without quotes")
    _check_entrypoint(entry.field("inferenceEntrypointName"), wallet)
    parameters = _parameters(entry.field("parameters"))
    known = catalogue().get((wallet.network or "", topic_id.value))
    if known and known.target == CLASSIFICATION:
        topic_id.wrong(
            f"{known.asset} {known.horizon} on {known.network} is a classification topic, "
            "which this worker cannot answer yet; remove the entry"
        )

    token = _token(parameters.at("Token"), known)
    target = _target(parameters.at("Target"), known, topic_id.value, wallet.network)
    endpoint = parameters.at("InferenceEndpoint")
    table = dict(parameters.value.pairs)
    _check_endpoint(endpoint, topic_id.value, table)
    return Topic(
        topic_id=topic_id.value,
        token=token,
        symbol=_symbol(parameters.at("Symbol"), token),
        target=target,
        horizon_min=_horizon_min(parameters.at("Horizon"), known, target, topic_id.value, wallet.network),
        loss=_loss(parameters.at("Loss"), known, target),
        volatility=_volatility(parameters.at("Volatility"), known, target),
        network=wallet.network,
        epoch_length_blocks=known.epoch_length_blocks if known else None,
        endpoint=endpoint.value,
        parameters=tuple(table.items()),
    )


def _check_entrypoint(name: _Node, wallet: _Wallet) -> None:
    if name.value not in (ENTRYPOINT, OLD_ENTRYPOINT):
        name.wrong(f'it must be "{ENTRYPOINT}" (node v0.7 and later) or "{OLD_ENTRYPOINT}" (before)')
    if name.value == OLD_ENTRYPOINT and wallet.since_v09:
        name.wrong(f'a node that reads wallet.nodeRpcs (v0.9 and later) does not know it; write "{ENTRYPOINT}"')


def _parameters(node: _Node) -> _Node:
    """``parameters``, with every key once, every value a string and ours spelt right."""
    if not isinstance(node.value, _Object):
        node.wrong(f"it must be an object with Token and InferenceEndpoint, as in {EXAMPLE}", kind=True)
    keys = [key for key, _ in node.value.pairs]
    for key in keys:
        child = node.at(key)
        if not isinstance(child.value, str):
            child.wrong("every value in parameters must be a string in quotes, or the node does not start")
        right = next((ours for ours in OUR_KEYS if ours.casefold() == key.casefold()), key)
        if right not in keys:
            child.wrong(f"keys in parameters are case-sensitive; write {right}")
    return node


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
    known = {entry.asset: entry.asset for entry in catalogue().values()}
    known |= {pair.removesuffix("USDT"): asset for asset, pair in PROXIES.items()}
    for base, other in sorted(known.items()):
        if symbol.startswith(base) and other != token.upper() and not symbol.startswith(token.upper()):
            node.wrong(f"that is a pair of {other} but Token is {token}; its prices would be submitted as {token}'s")
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
        node.wrong(f'add "http://inference:8000/inference/{{Token}}?topic={{TopicId}}", as in {EXAMPLE}')
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
    """Refuse a topic that stands in the files twice, and two topics behind one URL."""
    (first, other), (node, topic) = earlier, later
    where = first.key if first.file == node.file and first is not node else f"{first.file}: {first.key}"
    if other.key == topic.key:
        here = "in this network" if first.file != node.file and topic.network else "and the node ignores one"
        node.field("topicId").wrong(f"{where} has it too {here}; remove one entry")
    if other.topic_id == topic.topic_id and not (other.network and topic.network):
        silent = first.file if other.network is None else node.file
        node.field("topicId").wrong(f'{where} has it too; add "chainId" to the wallet of {silent} to tell them apart')
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
