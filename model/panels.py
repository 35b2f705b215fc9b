"""Panels: a panel is one network, for all symbols, horizons and kinds of target of a candle interval."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import LONGEST_MINUTE_HORIZON_MIN, Topic, horizon_text
from model.heads import Head, head_of

LEADER = "BTCUSDT"  # the symbol whose features stand beside every symbol's own

SHORTEST_LOOKBACK, LONGEST_LOOKBACK = 4, 512  # candles; serving keeps enough for the longest


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Panel:
    """One network: a candle interval, the window it reads and the history it is trained on."""

    name: str
    interval_ms: int
    # Candles in a window: the default of TrainingConfig; a network's manifest has its own. Longer windows gain nothing,
    # because the features remember more.
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
            ConfigError: the horizon is not a whole number of candles.
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
    """The data and the topics of one panel's network."""

    panel: Panel
    symbols: tuple[str, ...]  # the leader first, which is always trained on: its klines are needed anyway
    heads: tuple[Head, ...]  # the network's outputs, in this order
    topics: tuple[Topic, ...]

    @property
    def gap_ms(self) -> int:
        """The longest horizon: the gap that keeps labels of a part of a split out of the next part."""
        return max(head.horizon_min for head in self.heads) * MINUTE_MS

    def reading(self, lookback: int) -> "PanelPlan":
        """The same plan with windows of another length; see ``Panel.reading``."""
        return replace(self, panel=self.panel.reading(lookback))


def panel_of(horizon_min: int) -> Panel:
    """The panel that serves a horizon: one-minute candles up to 4 h, hourly candles above.

    >>> panel_of(240).name, panel_of(480).name
    ('minute', 'hour')
    """
    return MINUTE if horizon_min <= LONGEST_MINUTE_HORIZON_MIN else HOUR


def panels_for(topics: Iterable[Topic]) -> dict[Panel, PanelPlan]:
    """The panels that the topics need, the minute panel first.

    Raises:
        ConfigError: no panel can serve a topic's horizon; names the topic.
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
    """The first open time that a training reads: ``TRAINING_DAYS`` of windows (eight times as many for the hour panel)
    and the memory of the first window, from the start of a UTC day on, so that whole archive days fit."""
    windows_ms = training_days * panel.days_per_training_day * DAY_MS
    return (now_ms - windows_ms - panel.rows_needed * panel.interval_ms) // DAY_MS * DAY_MS
