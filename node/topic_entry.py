"""An entry of ``worker`` in config.json, read as a Topic."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from core.errors import ConfigError
from core.losses import LOSS_NAMES, LOSSES, loss_named
from core.setting_values import AUTO_WAIT, wait_s
from core.settings import BaseRule, Objective
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
    horizon_text,
    parse_horizon,
    split_symbol,
)
from node.json_text import EXAMPLE, JsonNode, JsonObject
from node.rules.endpoint import TOKEN

T = TypeVar("T")


@contextmanager
def kept(faults: list[str]) -> Iterator[None]:
    """Add a fault of the block to ``faults`` and go on."""
    try:
        yield
    except ConfigError as error:
        faults.append(str(error))


class Reader:
    """Reads values and collects their faults.

    Args:
        reported: keys that a finding is about already; their values are not read.
    """

    def __init__(self, reported: Iterable[str]) -> None:
        self.reported = {key.casefold() for key in reported}
        self.faults: list[str] = []

    def knows(self, node: JsonNode) -> bool:
        """True if a finding is about the value already."""
        return node.key.casefold() in self.reported

    def read(self, node: JsonNode, reading: Callable[..., T], *more: Any) -> T | None:
        """``reading`` of the value; None if the value is wrong."""
        if not self.knows(node):
            with kept(self.faults):
                return reading(node, *more)
        return None


def read_topic(entry: JsonNode, network: str | None, is_placed: bool, reader: Reader) -> Topic | None:
    """The topic of an entry; None if a key is wrong, with the faults in ``reader``."""
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
    base = reader.read(at("Base"), _word, (BaseRule.MINUTE, BaseRule.ASKED))  # AUTO is for all topics
    wait = reader.read(at("Wait"), _wait)
    objective = reader.read(at("Objective"), _word, Objective)
    endpoint = at("InferenceEndpoint")
    if endpoint.value is None:
        reader.read(endpoint, _no_endpoint)
    if len(reader.faults) > told_before or any(key.startswith(f"{entry.key}.".casefold()) for key in reader.reported):
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


def _no_parameters(parameters: JsonNode) -> NoReturn:
    parameters.wrong(f"it must be an object with Token and InferenceEndpoint, as in {EXAMPLE}", kind=True)


def _no_endpoint(endpoint: JsonNode) -> NoReturn:
    endpoint.wrong(
        f'add "http://inference:8000/inference/{{Token}}?topic={{TopicId}}&height={{BlockHeight}}", as in {EXAMPLE}'
    )


def _token(node: JsonNode, known: CatalogueTopic | None) -> str:
    token = node.value
    if token is None or not TOKEN.fullmatch(token):
        example = known.asset if known else "ETH"
        node.wrong(f'give the asset by letters, digits, dot, dash or underscore, such as "{example}"')
    if known and token.upper() != known.asset:
        _contradiction(node, known, known.asset)
    return str(token)


def _symbol(node: JsonNode, token: str | None) -> str | None:
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


def _target(node: JsonNode, known: CatalogueTopic | None, topic_id: int, network: str | None) -> Target:
    if node.value is None and known is None:
        _unknown_topic(node, topic_id, network)
    if node.value is not None and node.value not in list(Target):
        node.wrong(f"it must be one of {', '.join(Target)}")
    if known and node.value not in (None, known.target):
        _contradiction(node, known, known.target)
    return Target(node.value if known is None else known.target)


def _horizon_min(
    node: JsonNode, known: CatalogueTopic | None, target: Target | None, topic_id: int, network: str | None
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


def _loss(node: JsonNode, known: CatalogueTopic | None, target: Target | None) -> str:
    if node.value is not None and node.value not in LOSS_NAMES:
        node.wrong(f"it must be one of {', '.join(LOSS_NAMES)}")
    loss = LOSS_NAMES[node.value or (known.loss if known else "mse")]
    if known and loss != LOSS_NAMES[known.loss]:
        _contradiction(node, known, known.loss)
    if target is Target.VOLATILITY and loss_named(loss).of_returns:
        others = ", ".join(loss.name for loss in LOSSES if not loss.of_returns)
        node.wrong(f"it scores returns and is not defined for volatility; give one of {others}")
    return loss


def _volatility(node: JsonNode, known: CatalogueTopic | None, target: Target | None) -> Volatility:
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


def _word(node: JsonNode, words: Iterable[StrEnum]) -> str | None:
    if node.value is not None and node.value not in list(words):
        node.wrong(f"it must be one of {', '.join(words)}")
    return None if node.value is None else str(node.value)


def _wait(node: JsonNode) -> str | None:
    if node.value not in (None, AUTO_WAIT):
        try:
            wait_s(node.value)
        except ValueError as error:
            node.wrong(f"it must be {error}")
    return None if node.value is None else str(node.value)


def _unknown_topic(node: JsonNode, topic_id: int, network: str | None) -> NoReturn:
    both = f"Target ({', '.join(Target)}) and Horizon (such as {horizon_text(10)}) to its parameters"
    if network is None:
        node.wrong(f'the network is not known; add "chainId": "allora-testnet-1" to wallet, or add {both}')
    node.wrong(f"topic {topic_id} of {network} is not in the catalogue; add {both}, or correct topicId or chainId")


def _contradiction(node: JsonNode, known: CatalogueTopic, right: str) -> NoReturn:
    name = node.key.rpartition(".")[2]
    node.wrong(f'topic {known.topic_id} of {known.network} has {name} "{right}"; write that, or correct topicId')
