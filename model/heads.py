"""Heads: the meaning of each output of the network. A head is (kind, horizon, loss), a topic is (symbol, head).

Price and log-return topics of one loss share a return head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from core.errors import ConfigError
from core.losses import LOSS_NAMES
from core.topic import Target, Topic, horizon_text
from klines.klines import Floats, Klines
from klines.returns import realised_volatility, trailing_return, volatility_of
from model.known import Known, Number, whole_return, whole_volatility

SQUARED = "mse"  # the loss that a head's key does not name


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The measure behind a kind of head: over past candles, in a window, for a question."""

    asked_as: str  # ``Volatility.measure`` of the topics that ask for it; empty for returns
    trailing: Callable[[Klines, int], Floats]  # (T,) over the last so many candles before each row
    of_returns: Callable[[Floats, int], float]  # of the known returns of one window; the int is the interval in ms
    whole: Callable[[Known, Number, int], Number]  # of an interval in minutes: its known beginning, the rest forecast


def _volatility(asked_as: str, *, about_mean: bool) -> Measure:
    return Measure(
        asked_as=asked_as,
        trailing=partial(realised_volatility, about_mean=about_mean),
        of_returns=partial(volatility_of, about_mean=about_mean),
        whole=partial(whole_volatility, about_mean=about_mean),
    )


class Kind(StrEnum):
    """The kind of number that a head forecasts; unitless. A new kind is a new member here and nothing else.

    Topics ask for a kind by ``Measure.asked_as``. A kind other than RETURN is a volatility: never below 0, learnt as a
    logarithm over the present volatility.
    """

    measure: Measure

    def __new__(cls, key: str, measure: Measure) -> "Kind":
        kind = str.__new__(cls, key)
        kind._value_ = key
        kind.measure = measure
        return kind

    # ln(price at the horizon / price now)
    RETURN = (
        "return",
        Measure(
            asked_as="",
            trailing=trailing_return,
            of_returns=lambda returns, _: float(returns.sum()),
            whole=whole_return,
        ),
    )
    # standard deviation of one-minute log-returns over the horizon, per minute
    VOLATILITY = "volatility", _volatility("std", about_mean=True)
    # root mean square of one-minute log-returns over the horizon, per minute
    RMS = "rms", _volatility("rms", about_mean=False)

    @property
    def is_volatility(self) -> bool:
        """True if the number is never below 0 and learnt as a logarithm over the present volatility."""
        return self is not Kind.RETURN

    @property
    def about_mean(self) -> bool:
        """True if the measure is a deviation about the mean."""
        return self is Kind.VOLATILITY


_KINDS = {kind.measure.asked_as: kind for kind in Kind}


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """One output of a panel's network, trained towards and shrunk in one loss.

    >>> Head(Kind.RETURN, 10).key, Head(Kind.RETURN, 480, "czar").key
    ('return-10m', 'return-8h-czar')
    >>> Head.parse("volatility-8h") == Head(Kind.VOLATILITY, 480)
    True
    """

    kind: Kind
    horizon_min: int
    loss: str = SQUARED  # one of the values of LOSS_NAMES

    def __post_init__(self) -> None:
        if self.horizon_min <= 0:
            raise ConfigError(f"a head's horizon must be above 0 minutes, was {self.horizon_min}")
        if self.kind.is_volatility and self.horizon_min == 1:
            raise ConfigError("the volatility of one minute has no meaning here: Horizon must be 2m or more, was 1m")

    @property
    def key(self) -> str:
        """Name in manifests, logs and calibrations."""
        loss = "" if self.loss == SQUARED else f"-{self.loss}"
        return f"{self.kind.value}-{horizon_text(self.horizon_min)}{loss}"

    @classmethod
    def parse(cls, key: str) -> "Head":
        """The head whose ``key`` this is.

        Raises:
            ConfigError: no head has this key.
        """
        word, horizon, loss = (*key.split("-"), SQUARED, SQUARED)[:3]
        units = {"m": 1, "h": 60, "d": 1440}
        kind = next((kind for kind in Kind if kind == word), None)
        if kind and horizon[-1:] in units and horizon[:-1].isdecimal() and loss in LOSS_NAMES.values():
            head = cls(kind, int(horizon[:-1]) * units[horizon[-1]], loss)
            if head.key == key:
                return head
        raise ConfigError(f"a head is written like 'return-10m', 'return-8h-czar' or 'volatility-8h', was {key!r}")


def head_of(topic: Topic) -> Head:
    """The head that answers a topic."""
    asked_as = topic.volatility.measure if topic.target is Target.VOLATILITY else ""
    return Head(_KINDS[asked_as], topic.horizon_min, topic.loss)
