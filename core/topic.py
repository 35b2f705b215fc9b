"""Topics: the questions the network asks, and the catalogue of those it is known to ask."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import ConfigError

LONGEST_HORIZON_MIN = 7 * 24 * 60
MINUTES_A_YEAR = 365 * 24 * 60
LONGEST_MINUTE_HORIZON_MIN = 4 * 60  # above it a topic is forecast from hourly klines
CLASSIFICATION = "classification"  # the catalogue's word for topics whose target is not a Target

# Assets that the spot market does not trade, and the tokens that stand for them, the default first: a PAXG or an XAUT
# is a fine troy ounce of gold in a vault. Source: paxos.com/paxgold, gold.tether.to.
PROXIES: Mapping[str, tuple[str, ...]] = MappingProxyType({"XAU": ("PAXG", "XAUT")})

# Quotes of a symbol that count as a dollar: the dollar and the tokens that are redeemed for a dollar. A longer name
# comes before its ending, so that BTCFDUSD without a token is BTC in FDUSD and not BTCFD in USD.
DOLLARS = ("FDUSD", "PYUSD", "BUSD", "TUSD", "USD", "USDT", "USDC", "USDP", "USD1", "DAI")


class Target(StrEnum):
    """The kind of number that a topic asks for, and its unit."""

    PRICE = "price"  # quote currency per unit of base: USD per ETH
    LOG_RETURN = "log_return"  # unitless: ln(price at the horizon / price now)
    VOLATILITY = "volatility"  # unitless: of the one-minute log-returns over the horizon, as Volatility says


class Volatility(StrEnum):
    """A volatility topic's definition: a measure of the horizon's log-returns, and its unit."""

    STD = "std"  # sample standard deviation (about the mean, n - 1), per minute
    # The same over the horizon, times the square root of its minutes: the network's own definition, and the default.
    STD_HORIZON = "std_horizon"
    STD_ANNUAL = "std_annual"  # the same a year: times the square root of 525,600
    RMS = "rms"  # square root of the mean square, per minute
    RMS_HORIZON = "rms_horizon"  # the same over the horizon: the square root of the sum of the squares
    RMS_ANNUAL = "rms_annual"  # the same a year

    @property
    def measure(self) -> str:
        """The measure without the unit: ``std`` or ``rms``."""
        return self.partition("_")[0]

    @property
    def about_zero(self) -> bool:
        """True if the returns themselves are measured and not their distance from the mean."""
        return self.measure == "rms"

    def factor(self, horizon_min: int) -> float:
        """The factor from a volatility per minute to this unit.

        >>> Volatility.STD.factor(15), Volatility.RMS_HORIZON.factor(16), round(Volatility.STD_ANNUAL.factor(15), 1)
        (1.0, 4.0, 725.0)
        """
        _, _, unit = self.partition("_")
        return float({"": 1, "horizon": horizon_min, "annual": MINUTES_A_YEAR}[unit] ** 0.5)


def topic_key(network: str | None, topic_id: int) -> str:
    """The name of a topic, unique in a deployment; an id alone is unique within a network only.

    >>> topic_key("net-1", 64), topic_key(None, 64)
    ('net-1/64', '64')
    """
    return f"{network}/{topic_id}" if network else str(topic_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A question that the network asks. Source: ``worker[].topicId`` and ``.parameters`` of config.json."""

    topic_id: int
    token: str  # as the node writes it into the URL: "ETH"
    symbol: str  # as the exchange writes it: "ETHUSDT"
    target: Target
    horizon_min: int  # from the moment of asking to the moment forecast
    volatility: Volatility = Volatility.STD_HORIZON  # of a volatility topic alone
    loss: str = "mse"  # the topic's loss on the network, the name of a ``core.losses.Loss``
    base: str | None = None  # Base of its parameters, a BaseRule; None is BASE_RULE
    wait: str | None = None  # Wait of its parameters: seconds after the base, or auto; None is ANSWER_WAIT
    objective: str | None = None  # Objective of its parameters; None is OBJECTIVE
    held: bool = True  # True if the asking node is known to wait for an answer without a time limit
    network: str | None = None  # chain id; None if the config names no chain
    epoch_length_blocks: int | None = None  # from the catalogue; None for a topic that it does not list
    worker: str = field(default="", compare=False)  # address that answers for it, of WORKER_ADDRESS; empty: not known
    endpoint: str = ""  # InferenceEndpoint with the node's placeholders in it
    parameters: tuple[tuple[str, str], ...] = ()  # the node's own replacement table, in file order
    key: str = field(init=False, compare=False, repr=False)  # ``topic_key``

    def __post_init__(self) -> None:
        if self.topic_id <= 0:
            raise ConfigError(f"topicId must be above 0, was {self.topic_id}")
        if not 0 < self.horizon_min <= LONGEST_HORIZON_MIN:
            raise ConfigError(
                f"topic {self.topic_id}: Horizon must be between 1m and 7d, was {self.horizon_min} minutes"
            )
        object.__setattr__(self, "key", topic_key(self.network, self.topic_id))

    @property
    def unit(self) -> float:
        """Factor from a volatility per minute to the topic's own; 1 for every other target."""
        return self.volatility.factor(self.horizon_min) if self.target is Target.VOLATILITY else 1.0

    @property
    def asked(self) -> str:
        """The target, and for a volatility the definition.

        >>> Topic(topic_id=79, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15).asked
        'volatility std_horizon'
        """
        return f"{self.target} {self.volatility}" if self.target is Target.VOLATILITY else self.target.value

    @property
    def proxy(self) -> str:
        """A sentence for people if another asset's pair stands for the token; else empty.

        >>> Topic(topic_id=60, token="XAU", symbol="PAXGUSDT", target=Target.LOG_RETURN, horizon_min=1440).proxy
        'PAXG stands for XAU'
        """
        token, (base, _) = self.token.upper(), split_symbol(self.symbol, self.token)
        return "" if base == token else f"{base} stands for {token}"

    @property
    def horizon_ms(self) -> int:
        """The horizon in milliseconds."""
        return self.horizon_min * MINUTE_MS

    @property
    def horizon(self) -> str:
        """The horizon as the catalogue writes it: ``10m``, ``8h``, ``7d``."""
        return horizon_text(self.horizon_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueTopic:
    """An active topic of a network. Source: the network's own topic list; see ``source`` in catalogue.json."""

    network: str
    topic_id: int
    asset: str
    horizon: str  # "10m", "8h", "7d"
    target: str  # a Target, or CLASSIFICATION
    loss: str
    epoch_length_blocks: int
    volatility: str | None  # a Volatility; None where the target is not volatility


@cache
def catalogue() -> Mapping[tuple[str, int], CatalogueTopic]:
    """The topics known when this version was made, by (network, topic id), classification topics included.

    >>> catalogue()["allora-testnet-1", 1].asset
    'ETH'
    """
    content = json.loads(files("core").joinpath("catalogue.json").read_text("utf-8"))
    topics = (CatalogueTopic(**dict(zip(content["columns"], row, strict=True))) for row in content["topics"])
    return MappingProxyType({(topic.network, topic.topic_id): topic for topic in topics})


def fill_placeholders(template: str, *, topic_id: int, height: int, parameters: Mapping[str, str]) -> str:
    """Complete an endpoint as the offchain node does: plain text replacement, nothing is escaped.

    ``{TopicId}`` and ``{BlockHeight}`` come first, then each parameter; unknown placeholders stay.
    Source: the node's apiAdapter.

    >>> fill_placeholders("http://h/{Token}?t={TopicId}&x={X}", topic_id=1, height=60, parameters={"Token": "ETH"})
    'http://h/ETH?t=1&x={X}'
    """
    built_in = {"TopicId": str(topic_id), "BlockHeight": str(height)}
    for key, value in (*built_in.items(), *parameters.items()):
        template = template.replace(f"{{{key}}}", value)
    return template


def default_symbol(token: str) -> str:
    """The pair whose prices answer for an asset if the config names no symbol.

    >>> default_symbol("eth"), default_symbol("XAU")
    ('ETHUSDT', 'PAXGUSDT')
    """
    base, *_ = PROXIES.get(token.upper(), (token.upper(),))
    return f"{base}USDT"


def bases_of(token: str) -> tuple[str, ...]:
    """The bases that a token's pair may have: the token and its proxies.

    >>> bases_of("eth"), bases_of("XAU")
    (('ETH',), ('XAU', 'PAXG', 'XAUT'))
    """
    return (token.upper(), *PROXIES.get(token.upper(), ()))


def split_symbol(symbol: str, token: str) -> tuple[str, str]:
    """Base and quote of a pair in dollars; the whole symbol and an empty quote if the quote is not a dollar.

    A text may be two pairs: DOTUSD is DOT in USD, or DO in TUSD. An asset of the catalogue decides, then the token,
    then the longer name of a dollar.

    Args:
        token: the expected base; empty if it is not known.

    >>> split_symbol("DOTUSD", "DOT"), split_symbol("DOTUSD", "DO"), split_symbol("DOTUSD", "")
    (('DOT', 'USD'), ('DO', 'TUSD'), ('DO', 'TUSD'))
    >>> split_symbol("ARBUSD", ""), split_symbol("BTCBUSD", "BTCB"), split_symbol("ETHBTC", "ETH")
    (('ARB', 'USD'), ('BTC', 'BUSD'), ('ETHBTC', ''))
    """
    splits = [(symbol.removesuffix(quote), quote) for quote in DOLLARS if symbol.endswith(quote) and symbol != quote]
    named = [split for split in splits if split[0] in bases_of(token)]
    known = [split for split in splits if split[0] in _traded()]
    both = [split for split in named if split in known]
    return next(iter([*both, *known, *named, *splits]), (symbol, ""))


@cache
def _traded() -> frozenset[str]:
    """The catalogue's assets; proxies in place of assets that are not traded."""
    assets = {topic.asset for topic in catalogue().values()}
    return frozenset(base for asset in assets for base in PROXIES.get(asset, (asset,)))


def parse_horizon(text: str) -> int:
    """Minutes of a horizon as configs and the catalogue write it.

    Raises:
        ConfigError: the text is not minutes, hours or days between 1m and 7d.

    >>> parse_horizon("10m"), parse_horizon("8h"), parse_horizon("7d")
    (10, 480, 10080)
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    minutes = int(match[1]) * {"m": 1, "h": 60, "d": 1440}[match[2]] if match else 0
    if not 0 < minutes <= LONGEST_HORIZON_MIN:
        raise ConfigError(f"a horizon is minutes, hours or days such as 10m, 8h or 7d, at most 7d, was {text!r}")
    return minutes


def horizon_text(minutes: int) -> str:
    """Minutes in the largest unit that the catalogue uses for them.

    >>> horizon_text(10), horizon_text(480), horizon_text(1440), horizon_text(10080)
    ('10m', '8h', '24h', '7d')
    """
    if minutes % 1440 == 0 and minutes > 1440:
        return f"{minutes // 1440}d"
    if minutes * MINUTE_MS % HOUR_MS == 0:
        return f"{minutes // 60}h"
    return f"{minutes}m"
