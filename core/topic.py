"""Topics: the questions the network asks, read from the offchain node's own config.json."""

from dataclasses import dataclass
from enum import StrEnum

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import ConfigError

LONGEST_HORIZON_MIN = 7 * 24 * 60


class Target(StrEnum):
    """What is asked for, and in which unit."""

    PRICE = "price"  # quote currency per unit of base: USD per ETH
    LOG_RETURN = "log_return"  # unitless: ln(price at the horizon / price now)
    VOLATILITY = "volatility"  # unitless: standard deviation of one-minute log-returns over the horizon


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One question the network asks. Source: ``worker[].topicId`` and ``.parameters`` of config.json."""

    topic_id: int
    token: str  # as the node writes it into the URL: "ETH"
    symbol: str  # as the exchange writes it: "ETHUSDT"
    target: Target
    horizon_min: int  # from the moment of asking to the moment forecast
    loss: str = "mse"  # the topic's loss on the network: mse, mae, czar, ztae, zptae
    network: str | None = None  # chain id; None when the config does not say
    epoch_length_blocks: int | None = None  # from the catalogue; None for a topic it does not know
    endpoint: str = ""  # InferenceEndpoint with the node's placeholders in it
    parameters: tuple[tuple[str, str], ...] = ()  # the node's own replacement table, in file order

    def __post_init__(self) -> None:
        if self.topic_id <= 0:
            raise ConfigError(f"topicId must be above 0, was {self.topic_id}")
        if not 0 < self.horizon_min <= LONGEST_HORIZON_MIN:
            raise ConfigError(
                f"topic {self.topic_id}: Horizon must be between 1m and 7d, was {self.horizon_min} minutes"
            )

    @property
    def horizon_ms(self) -> int:
        """The horizon in milliseconds."""
        return self.horizon_min * MINUTE_MS

    @property
    def horizon(self) -> str:
        """The horizon as the catalogue writes it: ``10m``, ``8h``, ``7d``."""
        return horizon_text(self.horizon_min)


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
