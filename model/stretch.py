"""The stretch of a topic: its answers are spread wider than the least expected loss asks for.

The forecast that loses least lies close to no change, and admission asks for answers that spread at least 0.316 times
as widely as the truths. So the answer's distance from no change is multiplied by a factor that belongs to the topic,
not to the network. Every number may belong to a single answer, or be an array with a row for each answer.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.errors import IncompatibleModel
from core.settings import Objective
from core.topic import Topic
from model.known import Number

BEFORE_DATA = 0.33  # spread over the truths' spread that a stretch aims at before anything is measured


STRETCH_COSTS = (
    "Answers made for admission (OBJECTIVE) are spread wider than the least loss asks for, at the cost of loss: their "
    "skill against the naive forecast may lie below 0 on purpose, and is then no fault."
)


def is_for_admission(topic: Topic, setting: Objective) -> bool:
    """True if the topic's answers are stretched for admission even where the stretch raises their loss.

    Pages and tables then show STRETCH_COSTS.

    Args:
        setting: OBJECTIVE.
    """
    return objective_of(topic, setting) is Objective.ADMISSION


def objective_of(topic: Topic, setting: Objective) -> Objective:
    """A topic's objective; ``auto`` on a mainnet stays ``auto``: least loss, stretched where that still saves loss.

    >>> from core.topic import Target
    >>> eth = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=9, network="testnet-1")
    >>> objective_of(eth, Objective.AUTO)
    <Objective.ADMISSION: 'admission'>
    """
    wanted = Objective(topic.objective or setting)
    if wanted is not Objective.AUTO:
        return wanted
    if "testnet" in (topic.network or ""):
        return Objective.ADMISSION
    return Objective.AUTO if "mainnet" in (topic.network or "") else Objective.LOSS


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The stretch of a topic's answers; ``NONE`` leaves answers as they are."""

    factor: float = 1.0  # 1 or more
    shift: float = 0.0  # volatility only: added to ln(forecast) it gives the expected logarithm
    middle: float = 0.0  # volatility only: mean distance of the forecasts from the trailing fit, stretched about
    intercept: float = 0.0  # volatility only: the trailing fit, intercept + slope * dev
    slope: float = 0.0

    def to_json(self) -> dict[str, float]:
        """For admission.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Stretch":
        """The inverse of ``to_json``.

        Raises:
            IncompatibleModel: the value has another form, a number is not finite, or the factor is below 1.
        """
        try:
            stretch = cls(**{str(name): float(number) for name, number in value.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise IncompatibleModel(f"a stretch is numbers by name, was {value!r}; train again") from error
        if not all(math.isfinite(number) for number in asdict(stretch).values()) or stretch.factor < 1:
            raise IncompatibleModel(f"a stretch is of finite numbers, its factor 1 or more, was {value!r}; train again")
        return stretch


NONE = Stretch()


def before_data(horizon_min: int, known_min: float) -> Stretch:
    """The stretch of a return or price topic before its first replay.

    Args:
        known_min: minutes of the interval that are known when the topic is answered; 0: nothing to stretch.

    >>> round(before_data(15, 1).factor, 3), before_data(15, 0).factor
    (1.278, 1.0)
    """
    return Stretch(factor=max(1.0, BEFORE_DATA * math.sqrt(horizon_min / known_min)) if known_min > 0 else 1.0)


def stretched_return(move: Number, stretch: Stretch) -> Number:
    """The answered log-return: ``factor * move``."""
    return stretch.factor * move


def stretched_price(price: float, base_price: float, stretch: Stretch) -> float:
    """The answered price: the log-distance from the base price is stretched."""
    if stretch.factor == 1:
        return price  # to the last bit
    return base_price * math.exp(stretch.factor * math.log(price / base_price))


def stretched_volatility(forecast_log: Number, base_volatility: Number, dev: Number, stretch: Stretch) -> Number:
    """The answered volatility: stretched about the trailing fit and the forecasts' mean distance from it.

    Args:
        forecast_log: ln of the forecast of the interval's volatility, known part included. The expected logarithm lies
            lower than the logarithm of the expectation; ``stretch.shift`` is the difference.
        base_volatility: of the window of the horizon's length that ends at the base, in the unit of the forecast.
        dev: ln(base volatility) less its mean over the last day's epochs, the present epoch included.
    """
    centre = np.log(base_volatility) + stretch.intercept + stretch.slope * dev + stretch.middle
    answer: Number = np.exp(centre + stretch.factor * (forecast_log + stretch.shift - centre))
    return answer
