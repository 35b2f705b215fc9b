"""Heads: what one output of the network means, its truth, its naive forecast and its scaling.

A panel is one network: all symbols, horizons and kinds of target of one candle interval. A head is one output
of it, (kind, horizon, loss). Price and log-return topics of one loss share a return head; a topic is (symbol, head).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import LONGEST_MINUTE_HORIZON_MIN, LOSS_NAMES, Target, Topic, horizon_text
from klines.klines import Floats, Klines
from klines.returns import candle_returns, realised_volatility, rolling_sum

LEADER = "BTCUSDT"  # the symbol whose features stand beside every symbol's own

SQUARED = "mse"  # the loss that a head's key does not name

SHORTEST_LOOKBACK, LONGEST_LOOKBACK = 4, 512  # candles; what serving keeps is measured for the longest

BACKTEST_DAYS = 92  # it walks over the last three months, and trains before their first day

QUIET = 0.05  # of the present volatility, added before the logarithm: a silent market is not minus infinity


class Kind(StrEnum):
    """What a head forecasts. Unitless all."""

    RETURN = "return"  # ln(price at the horizon / price now)
    VOLATILITY = "volatility"  # standard deviation of one-minute log-returns over the horizon, per minute
    RMS = "rms"  # square root of their mean square, per minute

    @property
    def is_volatility(self) -> bool:
        """Of either measure: never below 0, and learnt as a logarithm over the present volatility."""
        return self is not Kind.RETURN

    @property
    def about_mean(self) -> bool:
        """True if the measure is a deviation about the mean."""
        return self is Kind.VOLATILITY


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
            ConfigError: it is no head's key.
        """
        kind, horizon, loss = (*key.split("-"), SQUARED, SQUARED)[:3]
        units = {"m": 1, "h": 60, "d": 1440}
        fit = kind in set(Kind) and horizon[-1:] in units and horizon[:-1].isdecimal() and loss in LOSS_NAMES.values()
        if not fit or cls(Kind(kind), int(horizon[:-1]) * units[horizon[-1]], loss).key != key:
            raise ConfigError(f"a head is written like 'return-10m', 'return-8h-czar' or 'volatility-8h', was {key!r}")
        return cls(Kind(kind), int(horizon[:-1]) * units[horizon[-1]], loss)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Panel:
    """One network: a candle interval, the window it reads and the history it is trained on."""

    name: str
    interval_ms: int
    # Candles in a window. This is the default of TrainingConfig; a network's own stands in its manifest. Longer ones
    # gain nothing, for the features remember more.
    lookback: int = 32
    memory: int = 1440  # candles that the features with the longest memory are means over
    days_per_training_day: int = 1  # hours are sparse and long horizons need years: the hour panel takes 8

    def __post_init__(self) -> None:
        if not SHORTEST_LOOKBACK <= self.lookback <= LONGEST_LOOKBACK:
            raise ConfigError(f"lookback must be {SHORTEST_LOOKBACK} to {LONGEST_LOOKBACK}, was {self.lookback}")

    def reading(self, lookback: int) -> "Panel":
        """The same panel with windows of another length.

        Raises:
            ConfigError: shorter than SHORTEST_LOOKBACK or longer than LONGEST_LOOKBACK.
        """
        return replace(self, lookback=lookback)

    @property
    def rows_needed(self) -> int:
        """Candles that a window's features read: lookback, memory, and the close before the first return."""
        return self.lookback + self.memory

    def steps(self, head: Head) -> int:
        """The head's horizon in candles.

        Raises:
            ConfigError: it is not a whole number of them.
        """
        steps, rest = divmod(head.horizon_min * MINUTE_MS, self.interval_ms)
        if rest:
            raise ConfigError(
                f"Horizon {horizon_text(head.horizon_min)} is above 4h and must then be whole hours; "
                "give one such as 5h, 8h or 24h"
            )
        return steps

    @property
    def per_minute(self) -> float:
        """Factor from the volatility of one candle to that of one minute."""
        return float((self.interval_ms / MINUTE_MS) ** -0.5)


MINUTE = Panel(name="minute", interval_ms=MINUTE_MS)
HOUR = Panel(name="hour", interval_ms=HOUR_MS, memory=480, days_per_training_day=8)
PANELS = {panel.name: panel for panel in (MINUTE, HOUR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelPlan:
    """What one panel's network is trained on and for."""

    panel: Panel
    symbols: tuple[str, ...]  # the leader first: its klines are always needed, so it is always trained on
    heads: tuple[Head, ...]  # the network's outputs, in this order
    topics: tuple[Topic, ...]

    @property
    def gap_ms(self) -> int:
        """The longest horizon: what keeps the labels of one part of a split out of the next."""
        return max(head.horizon_min for head in self.heads) * MINUTE_MS

    def reading(self, lookback: int) -> "PanelPlan":
        """The same plan with windows of another length; see ``Panel.reading``."""
        return replace(self, panel=self.panel.reading(lookback))


def panel_of(horizon_min: int) -> Panel:
    """The panel that serves a horizon: one-minute candles up to 4 h, hourly ones above.

    >>> panel_of(240).name, panel_of(480).name
    ('minute', 'hour')
    """
    return MINUTE if horizon_min <= LONGEST_MINUTE_HORIZON_MIN else HOUR


def head_of(topic: Topic) -> Head:
    """The head that answers a topic."""
    kind = Kind.RETURN
    if topic.target is Target.VOLATILITY:
        kind = Kind.RMS if topic.volatility.about_zero else Kind.VOLATILITY
    return Head(kind, topic.horizon_min, topic.loss)


def panels_for(topics: Iterable[Topic]) -> dict[Panel, PanelPlan]:
    """The panels that the topics need, the minute panel first.

    Raises:
        ConfigError: a horizon that no panel can serve, with the topic.
    """
    grouped: dict[Panel, list[Topic]] = {}
    for topic in topics:
        panel = panel_of(topic.horizon_min)
        try:
            panel.steps(head_of(topic))
        except ConfigError as error:
            raise ConfigError(f"topic {topic.key}: {error}") from error
        grouped.setdefault(panel, []).append(topic)
    return {
        panel: PanelPlan(
            panel=panel,
            symbols=(LEADER, *sorted({topic.symbol for topic in grouped[panel]} - {LEADER})),
            heads=tuple(sorted({head_of(topic) for topic in grouped[panel]})),
            topics=tuple(grouped[panel]),
        )
        for panel in PANELS.values()
        if panel in grouped
    }


def training_start_ms(panel: Panel, training_days: int, now_ms: int) -> int:
    """Where the klines of a training begin: ``TRAINING_DAYS`` of windows (eight times as many for the hour panel) and
    what the first of them reads, from the start of a UTC day on, so that whole archive days fit."""
    windows_ms = training_days * panel.days_per_training_day * DAY_MS
    return (now_ms - windows_ms - panel.rows_needed * panel.interval_ms) // DAY_MS * DAY_MS


def klines_kept_from_ms(panel: Panel, training_days: int, now_ms: int) -> int:
    """Where stored klines may begin: what a training reads, and before it the months that a backtest walks over."""
    return training_start_ms(panel, training_days, now_ms) - BACKTEST_DAYS * DAY_MS


def _ahead(values: Floats, rows: int) -> Floats:
    """Each row holds what will be there ``rows`` later; NaN at the end."""
    tail: Floats = np.concatenate([values[rows:], np.full(min(rows, len(values)), np.nan)])
    return tail


def truth(klines: Klines, panel: Panel, head: Head) -> Floats:
    """What came true after each row, in the head's unit.

    Returns:
        ``(T,)``: row ``t`` reads candles ``t`` to ``t + steps``; NaN where one of them is missing or not yet there.
    """
    steps = panel.steps(head)
    if head.kind.is_volatility:
        return _ahead(realised_volatility(klines, steps, about_mean=head.kind.about_mean), steps)
    return _ahead(rolling_sum(candle_returns(klines), steps), steps)


def naive(klines: Klines, panel: Panel, head: Head) -> Floats:
    """The naive forecast at each row: no move, or the volatility of the last window of the horizon's length.

    Returns:
        ``(T,)`` in the head's unit; reads nothing after its row; NaN where a candle it needs is missing.
    """
    if head.kind.is_volatility:
        return realised_volatility(klines, panel.steps(head), about_mean=head.kind.about_mean)
    return np.zeros(len(klines))


def encode(value: Floats, scale: Floats, panel: Panel, head: Head) -> Floats:
    """A truth in the head's unit as the network's target; 0 is "as now".

    Args:
        value: log-return, or volatility per minute.
        scale: volatility of one candle at the window's end (``FeatureTable.scale``).
    Returns:
        the return in standard deviations of the horizon, or the logarithm of the volatility over the present one.
    """
    target: Floats = value / (scale * panel.steps(head) ** 0.5)
    if head.kind.is_volatility:
        target = np.log((value / (scale * panel.per_minute) + QUIET) / (1 + QUIET))
    return target


def decode(output: Floats, scale: Floats, panel: Panel, head: Head) -> Floats:
    """The network's output in the head's unit: the inverse of ``encode``; a volatility is never below 0."""
    value: Floats = output * (scale * panel.steps(head) ** 0.5)
    if head.kind.is_volatility:
        value = np.maximum(np.exp(output) * (1 + QUIET) - QUIET, 0.0) * (scale * panel.per_minute)
    return value
