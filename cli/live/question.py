"""What a topic's name on chain says of its question, and which testnet topic asks the same as one of mainnet."""

import re
from collections.abc import Collection
from typing import NamedTuple

from core.topic import CLASSIFICATION, CatalogueTopic, Target, catalogue, horizon_text

MAINNET, TESTNET = "allora-mainnet-1", "allora-testnet-1"
# Mainnet topics and their testnet twins as the network's own kit lists them (allora-forge-builder-kit, README, April
# 2026). Others are found by the question.
TWINS = {1: 64, 9: 41, 10: 38, 14: 42, 15: 61, 16: 63, 17: 62, 19: 71}

NAMES = {"BITCOIN": "BTC", "ETHEREUM": "ETH", "SOLANA": "SOL", "RIPPLE": "XRP", "GOLD": "XAU", "SILVER": "XAG"}
NO_ASSET = {"USD", "USDT", "USDC", "EUR"}
_MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 10080}
_HORIZON = re.compile(
    r"(?<![\w.])([0-9]{1,4})[\s-]*(m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)(?![a-z])", re.IGNORECASE
)
_TARGETS = (  # the first that the name has
    (re.compile(r"classif|barrier", re.IGNORECASE), CLASSIFICATION),
    (re.compile(r"volatil|\bvol\b", re.IGNORECASE), Target.VOLATILITY.value),
    (re.compile(r"return", re.IGNORECASE), Target.LOG_RETURN.value),
    (re.compile(r"price|prediction", re.IGNORECASE), Target.PRICE.value),
)


class Question(NamedTuple):
    """A question as far as a name tells it; what it does not tell is empty."""

    asset: str
    target: str
    horizon: str


def question_of(name: str) -> Question:
    """Read a topic's name.

    >>> tuple(question_of("BTC/USD - 8h Log-Return (5min updates)")), tuple(question_of("local SOL 15min vol"))
    (('BTC', 'log_return', '8h'), ('SOL', 'volatility', '15m'))
    >>> tuple(question_of("24 hour xyz:GOLD Triple-Barrier Classification")), tuple(question_of("US election 2024"))
    (('XAU', 'classification', '24h'), ('', '', ''))
    """
    asset = next(iter(_assets(name)), "")
    target = next((target for pattern, target in _TARGETS if pattern.search(name)), "")
    return Question(asset, target, next(iter(_horizons(name)), "")) if target else Question("", "", "")


def renamed(known: CatalogueTopic, name: str) -> list[str]:
    """Return in which words a topic's name asks something else than the catalogue has."""
    named = question_of(name)
    found = []
    if named.asset and known.asset not in _assets(name):
        found.append(f"asset {named.asset}, the catalogue {known.asset}")
    if named.target and named.target != known.target:
        found.append(f"target {named.target}, the catalogue {known.target}")
    if named.horizon and known.horizon not in _horizons(name):
        found.append(f"horizon {named.horizon}, the catalogue {known.horizon}")
    return found


def twins_of(network: str, topic_id: int, asked: Question, active: Collection[int] | None) -> list[int]:
    """Return the testnet topics that ask what a mainnet topic asks, the best first; empty for other networks.

    Args:
        asked: of the mainnet topic.
        active: testnet topics that are active; None: the testnet was not read, so the catalogue's are taken for active.
    """
    if network != MAINNET:
        return []
    others = [known for (of, _), known in catalogue().items() if of == TESTNET]
    same = [one for one in others if Question(one.asset, one.target, one.horizon) == asked]
    mine = catalogue().get((network, topic_id))
    length = mine.epoch_length_blocks if mine else 60
    same.sort(key=lambda one: (one.topic_id != TWINS.get(topic_id), abs(one.epoch_length_blocks - length)))
    return [one.topic_id for one in same if active is None or one.topic_id in active]


def _assets(name: str) -> list[str]:
    """Return the words of a name that may be its asset: those of the catalogue first."""
    words = [NAMES.get(word.upper(), word) for word in re.findall(r"[A-Za-z][A-Za-z0-9]+", name)]
    known = {topic.asset for topic in catalogue().values()}
    listed = [word for word in words if word in known]
    return listed or [word for word in words if re.fullmatch(r"[A-Z][A-Z0-9]{1,7}", word) and word not in NO_ASSET]


def _horizons(name: str) -> list[str]:
    found = [int(count) * _MINUTES[unit[0].lower()] for count, unit in _HORIZON.findall(name)]
    return [horizon_text(minutes) for minutes in found if minutes]
