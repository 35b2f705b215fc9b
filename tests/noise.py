"""Random walks and forecasts of them that are noise: what the gate must not let through."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from core.clock import HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats
from model.judging.comparison import LEAST_HORIZONS
from model.judging.evaluation import TopicForecasts
from model.judging.gate import judge_topics

SYMBOLS = 3
TOGETHER = 0.7  # correlation between two symbols' returns
SIGMA = 6e-4  # of one candle


class Noise(StrEnum):
    """What a forecast without skill is made of."""

    UNRELATED = "unrelated to the past"
    FOLLOWING = "follows the past"
    AGAINST = "against the past"  # looks good on most spans of a random walk and pays for it on a few


@dataclass(frozen=True, slots=True)
class Size:
    """A horizon, and how much time there is to judge it by."""

    name: str
    rows: int  # judge rows, one per candle
    steps: int  # of the horizon
    interval_ms: int = MINUTE_MS

    @property
    def horizons(self) -> float:
        return self.rows / self.steps


SIZES = (  # as the panels have them with 90 TRAINING_DAYS: 12 % of the time is judged on
    Size("5 min", 15_500, 5),
    Size("15 min", 15_500, 15),
    Size("4 h", 15_500, 240),
    Size("8 h", 2_050, 8, HOUR_MS),
    Size("24 h", 2_050, 24, HOUR_MS),
    Size("24 h, as little as is judged", LEAST_HORIZONS * 24, 24, HOUR_MS),
)


def returns(rng: np.random.Generator, candles: int, *, stormy: bool) -> Floats:
    """``(SYMBOLS, candles)`` returns of random walks that move together, of mean 0 and variance about 1.

    Args:
        stormy: with volatility that comes in clusters and tails as heavy as Student's with four degrees of freedom.
    """
    common, own = rng.standard_normal(candles), rng.standard_normal((SYMBOLS, candles))
    walk: Floats = TOGETHER**0.5 * common + (1 - TOGETHER) ** 0.5 * own
    if stormy:
        spell = 30  # candles of one volatility
        level = np.empty(candles // spell + 1)
        level[0] = rng.standard_normal()
        for number in range(1, len(level)):
            level[number] = 0.94 * level[number - 1] + (1 - 0.94**2) ** 0.5 * rng.standard_normal()
        walk *= np.exp(0.5 * np.repeat(level, spell)[:candles] - 0.25)
        walk *= np.sqrt(2 / rng.chisquare(4, candles))
    return walk


def ahead(walk: Floats, steps: int) -> Floats:
    """Sum of the ``steps`` returns from each candle on; as many candles fewer."""
    total = np.cumsum(np.pad(walk, ((0, 0), (1, 0))), axis=1)
    later: Floats = total[:, steps:] - total[:, :-steps]
    return later


def noise_forecasts(rng: np.random.Generator, walk: Floats, noise: Noise, memory: int) -> Floats:
    """``(SYMBOLS, candles - memory)`` of variance about 1; row ``t`` reads returns before candle ``t + memory``."""
    read = rng.standard_normal(walk.shape) if noise is Noise.UNRELATED else walk
    forecast: Floats = ahead(read, memory)[:, :-1] / memory**0.5
    return -forecast if noise is Noise.AGAINST else forecast


def said(size: Size, forecast: Floats, came_true: Floats) -> list[TopicForecasts]:
    """A forecaster's rows of every symbol."""
    rows = forecast.shape[1]
    horizon_min = size.steps * size.interval_ms // MINUTE_MS
    return [
        TopicForecasts(
            topic=Topic(topic_id=n + 1, token="ETH", symbol=f"S{n}", target=Target.LOG_RETURN, horizon_min=horizon_min),
            open_time_ms=np.arange(rows, dtype=np.int64) * size.interval_ms,
            came_true=SIGMA * came_true[n],
            forecast=SIGMA * forecast[n],
            naive=np.zeros(rows),
            close=np.ones(rows),
            std=1.0,
        )
        for n in range(SYMBOLS)
    ]


def promotions(
    size: Size,
    noise: Noise,
    share: float,
    markets: int,
    seed: int,
    *,
    stormy: bool = False,
    memory: int = 0,
    edge: float = 0.0,
) -> npt.NDArray[np.bool_]:
    """Which challengers the gate promotes, as the first of their topics.

    Args:
        share: the size of the noise in their forecasts over that of what comes true.
        memory: candles that a forecast looks back over; 0 is the horizon.
        edge: share of the variance of what comes true that they forecast, besides the noise.
    Returns:
        ``(markets, SYMBOLS)``.
    """
    rng, memory, steps = np.random.default_rng(seed), memory or size.steps, size.steps
    candles = memory + size.rows + steps - 1
    found = np.zeros((markets, SYMBOLS), np.bool_)
    for market in range(markets):
        walk = returns(rng, candles, stormy=stormy)
        came_true = ahead(walk, steps)[:, memory:]
        forecast = share * steps**0.5 * noise_forecasts(rng, walk, noise, memory)[:, : came_true.shape[1]]
        if edge:
            known = ahead(returns(rng, candles, stormy=False), steps)[:, memory : memory + came_true.shape[1]]
            came_true = came_true * (1 - edge) ** 0.5 + known * edge**0.5
            forecast = forecast + 0.5 * known * edge**0.5  # a forecaster that trusts itself by half
        decisions = judge_topics(said(size, forecast, came_true), {}, size.interval_ms)
        found[market] = [decision.promoted for decision in decisions.values()]
    return found
