"""The state of a topic between two candles, and how old its parts may be. Values, no I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.clock import HOUR_MS, MINUTE_MS, is_ahead, iso
from core.settings import NoModelPolicy
from core.topic import Target, Topic
from inference.base import Base, BaseSource
from market.venue import Opening, Price
from model.answer import Start
from model.forecaster import HeadForecast
from model.known import NOTHING, Known
from model.panels import Panel

CLOCK_SET_BACK = "the machine's clock was set back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of age of the parts of an answer, and the policy without a model."""

    anchor_ms: int
    klines_ms: int  # for one-minute candles; longer ones close less often and get the difference on top
    model_ms: int
    policy: NoModelPolicy

    def klines_of_ms(self, interval_ms: int) -> int:
        """Return how long ago the newest candle may have closed, in ms.

        >>> limits = Limits(anchor_ms=30_000, klines_ms=180_000, model_ms=1, policy=NoModelPolicy.REFUSE)
        >>> limits.klines_of_ms(60_000), limits.klines_of_ms(3_600_000)
        (180000, 3720000)
        """
        return self.klines_ms + interval_ms - MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """All that an answer to one topic needs beside the anchor. Made in the background, replaced as a whole."""

    topic: Topic
    panel: Panel
    klines_end_ms: int  # close of the newest kline
    close: float  # of the newest kline
    champion: str  # version in use; empty without one
    created_ms: int  # when that version was trained
    forecast: HeadForecast | None  # the champion's
    window_close: float | None  # of the last kline that the forecast has read; it need not be the newest
    fault: str  # of the champion, or of the version that should be champion
    fallback: HeadForecast | None  # the naive forecast
    fallback_fault: str
    starts: Mapping[int, Start]  # of the newest whole minutes, of a volatility topic

    def why_no_champion(self, now_ms: int, limits: Limits) -> str:
        """Return why the champion's forecast cannot be used now; empty if it can."""
        if not self.champion:
            return self.fault or "no champion yet"
        if now_ms - self.created_ms > limits.model_ms:
            return (
                f"{self.champion} was trained {iso(self.created_ms)}, more than {limits.model_ms // HOUR_MS} h ago: "
                "MAX_MODEL_AGE_H"
            )
        if self.forecast is None or now_ms - self.forecast.asof_ms > limits.klines_of_ms(self.panel.interval_ms):
            return self.fault or f"{self.champion} gave no forecast from the newest klines"
        if is_ahead(self.forecast.asof_ms, now_ms):
            return f"{self.champion} read klines up to {iso(self.forecast.asof_ms)}, which is not yet: {CLOCK_SET_BACK}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeForecast:
    """A number made for a topic, before it is given as an answer."""

    number: float
    value: str  # its decimal
    forecast: HeadForecast
    anchor: Price
    reason: str  # why the forecast is not the champion's; empty if it is
    base: Base
    elapsed_ms: int  # of the interval that was known
    truth_ratio: float = 1.0  # factor on the anchor


def known_of(topic: Topic, anchor: Price, base: Base, opening: Opening | None) -> Known:
    """Return how much is known of a question's interval.

    Args:
        opening: how the interval began; None if it begins now, or if only the anchor of a price is known.
    """
    if base.source is BaseSource.ASKED:
        return NOTHING
    if opening is None:
        return Known(elapsed_ms=max(0, anchor.asof_ms - base.ms))
    price, asof_ms = opening.last, opening.end_ms
    if anchor.venue == opening.venue and opening.end_ms <= anchor.asof_ms:
        price, asof_ms = anchor.price, anchor.asof_ms
    if topic.target is Target.PRICE:  # it starts from its anchor, of whatever venue
        asof_ms = anchor.asof_ms
    return Known(
        elapsed_ms=max(0, asof_ms - base.ms),
        minutes=opening.minutes,
        total=opening.total,
        squares=opening.squares,
        running=math.log(price / opening.last),
    )
