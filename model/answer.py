"""From a forecast to the answer of a topic: brought forward to the moment of the question, completed, and checked."""

import math
import sys
from dataclasses import dataclass, replace

from core.clock import MINUTE_MS
from core.errors import UnusableForecast
from core.sources import PERSISTENCE
from core.topic import Target, Topic
from model.forecaster import HeadForecast
from model.heads import head_of
from model.known import NOTHING, Known
from model.panels import MINUTE, panel_of
from model.stretch import NONE, Stretch, stretched_price, stretched_return, stretched_volatility

MOST_SIGMAS = 8.0  # a return beyond this many standard deviations of its horizon is a fault, not a forecast
MOST_TIMES = 50.0  # so is a volatility that many times above the present one, or below it in a market that moves
MOST_MINUTES = 5.0  # without a new candle; measured up to three, and then it is stale
# Weight of a minute's squared return in what is expected of a variance, as measured (docs/decisions/0005).
NEWS_WEIGHT, NEWS_HORIZON_MIN, NEWS_FADES = 0.05, 15, 2 / 3


def carried(forecast: HeadForecast, close: float, anchor: float, age_ms: int) -> HeadForecast:
    """Bring a forecast, made at the last candle's close, forward to the moment of the question.

    The window in question begins with the question, so it has moved on too. A return stays as it is: a price is built
    on the anchor, which holds the move since, and a forecast of the return to come is as good a minute later. A
    volatility learns from the move since: with ``m = ln(anchor / close)`` over ``d`` minutes, ``v**2`` becomes
    ``v**2 + w * (m**2 - v**2 * d)``, where the weight ``w`` falls with the horizon. This holds for the minute panel
    only: how much a return of up to an hour tells about eight hours was not measured. The naive forecast stays.

    Args:
        close: the last close of the forecast's window, in quote currency.
        anchor: the newest price, in quote currency.
        age_ms: from that close to the moment of the anchor; below 0 counts as 0.
    Source: J.P. Morgan/Reuters, RiskMetrics, 4th ed., section 5.2, for the update; docs/decisions/0005 for the weights.
    """
    now = forecast.volatility
    if now is None or forecast.version == PERSISTENCE or panel_of(forecast.head.horizon_min) is not MINUTE:
        return forecast
    weight = NEWS_WEIGHT * min(1.0, NEWS_HORIZON_MIN / forecast.head.horizon_min) ** NEWS_FADES
    moved, minutes = math.log(anchor / close), max(0, age_ms) / MINUTE_MS
    variance = now**2 + weight * (moved**2 - now**2 * min(minutes, MOST_MINUTES))
    return replace(forecast, volatility=math.sqrt(variance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The market's volatility at a question's base, from which a stretch is measured; NaN if it is not known."""

    volatility: float = math.nan  # per minute, of the window of the horizon's length that ends at the base
    dev: float = math.nan  # ln(volatility) less its mean over the last day's epochs


UNKNOWN_START = Start()


def value(
    topic: Topic,
    forecast: HeadForecast,
    anchor: float,
    known: Known = NOTHING,
    stretch: Stretch = NONE,
    *,
    base_price: float = math.nan,
    start: Start = UNKNOWN_START,
) -> float:
    """The answer to ``topic`` in the topic's own unit.

    Args:
        forecast: of the topic's symbol and head, for a whole horizon from now on.
        anchor: the newest trade price of the symbol, in quote currency; only a price is built on it.
        known: the beginning of the question's interval; the forecast completes it.
        stretch: how the answer's distance from no change is widened.
        base_price, start: the price or volatility of no change; NaN leaves the answer unstretched.
    Raises:
        UnusableForecast: the forecast or the answer is not finite, or the forecast lies outside the band around the
            present state; names topic, value and band. The known part is never refused, however large.
    """
    number = _checked(topic, forecast, anchor)
    whole = number if known is NOTHING else forecast.head.kind.measure.whole(known, number, topic.horizon_min)
    if topic.target is Target.VOLATILITY:
        volatility = whole
        if stretch is not NONE and volatility > 0 and start.volatility > 0 and math.isfinite(start.dev):
            volatility = stretched_volatility(math.log(volatility), start.volatility, start.dev, stretch)
        return _finite(topic, float(volatility) * topic.unit)
    if topic.target is Target.LOG_RETURN:
        return _finite(topic, float(stretched_return(whole, stretch)))
    try:
        price = anchor * math.exp(number * known.share_left(topic.horizon_min))
        if stretch is not NONE and base_price > 0:
            price = stretched_price(price, base_price, stretch)
    except OverflowError:
        price = math.inf
    if not (math.isfinite(price) and price > 0):
        raise UnusableForecast(f"topic {topic.key}: price {price} from anchor {anchor} and log-return {number}")
    return price


def _finite(topic: Topic, number: float) -> float:
    if not math.isfinite(number):
        raise UnusableForecast(f"topic {topic.key}: the answer would be {number}")
    return number


def _checked(topic: Topic, forecast: HeadForecast, anchor: float) -> float:
    """The forecast's number, in the head's unit; raises UnusableForecast if it lies outside the band."""
    if (forecast.symbol, forecast.head) != (topic.symbol, head_of(topic)):
        raise UnusableForecast(
            f"topic {topic.key} asks for {head_of(topic).key} of {topic.symbol}, "
            f"was given {forecast.head.key} of {forecast.symbol}"
        )
    if not (math.isfinite(anchor) and anchor > 0):
        raise UnusableForecast(f"topic {topic.key}: the anchor price must be finite and above 0, was {anchor}")
    panel = panel_of(topic.horizon_min)
    if topic.target is Target.VOLATILITY:
        number, present = forecast.volatility, forecast.scale * panel.per_minute
        low = 0.0 if forecast.may_be_zero else max(present / MOST_TIMES, sys.float_info.min)
        high = present * MOST_TIMES
    else:
        number = forecast.log_return
        high = MOST_SIGMAS * forecast.scale * panel.steps(forecast.head) ** 0.5
        low = -high
    if number is None or not (math.isfinite(number) and low <= number <= high):
        raise UnusableForecast(
            f"topic {topic.key}: {forecast.head.key} of {forecast.version} is {number}, "
            f"sane is {low:.3g} to {high:.3g} (scale {forecast.scale:.3g})"
        )
    return number
