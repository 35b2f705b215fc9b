"""The plan of a backtest: topics, span, training dates and baselines, checked against the klines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from core.clock import DAY_MS, iso
from core.errors import ConfigError
from core.losses import LOSS_NAMES
from core.topic import CLASSIFICATION, Target, Topic, catalogue, default_symbol, parse_horizon, split_symbol
from klines.spans import interval_name
from model.panels import LEADER, Panel, PanelPlan, panels_for, training_start_ms
from research.data import Recording, span_text
from updater.training_settings import Knobs

NETWORK = "allora-testnet-1"
EVERY_DAYS = 14
SPAN_DAYS = 91  # three months
QUICK_EVERY_DAYS, QUICK_SPAN_DAYS, QUICK_STRIDE = 30, 60, 5
LEAST_TRAINING_DAYS = 3  # as TRAINING_DAYS: with fewer, nothing that could be judged comes out of a training
STAND_IN_IDS = 1_000_000  # topic ids from here on are of topics that no network asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One backtest. At each of ``dates`` panels are trained and judged; champions serve until the next date."""

    topics: tuple[Topic, ...]  # including those of unseen symbols
    unseen: tuple[str, ...]  # symbols that no training sees
    start_ms: int
    end_ms: int  # nothing of this moment or later is read
    every_days: int
    training_days: int  # as TRAINING_DAYS
    stride: int  # minutes between scored forecasts of the minute panel; the hour panel scores all
    seed: int
    training: Mapping[str, Knobs]  # by panel, fields of TrainingConfig that differ from their defaults
    baselines: tuple[str, ...]
    quick: bool  # smaller baselines

    @property
    def dates(self) -> list[tuple[int, int]]:
        """Start and end of each training's service, in ms."""
        trainings = range(self.start_ms, self.end_ms, self.every_days * DAY_MS)
        return list(pairwise([*trainings, self.end_ms]))

    def plans(self) -> list[PanelPlan]:
        """Plans to forecast, by panel, unseen symbols last; see ``trained`` for the plans to train."""
        return [
            replace(
                plan,
                symbols=(
                    *(symbol for symbol in plan.symbols if symbol not in self.unseen),
                    *(symbol for symbol in plan.symbols if symbol in self.unseen),
                ),
            )
            for plan in panels_for(self.topics).values()
        ]

    def trained(self, plan: PanelPlan) -> PanelPlan:
        """The plan without unseen symbols. Heads stay: they are trained on the other symbols."""
        return replace(
            plan,
            symbols=tuple(symbol for symbol in plan.symbols if symbol not in self.unseen),
            topics=tuple(topic for topic in plan.topics if topic.symbol not in self.unseen),
        )


def catalogue_topics(network: str, ids: Sequence[int]) -> tuple[Topic, ...]:
    """Topics by their ids on a network.

    Raises:
        ConfigError: the catalogue does not know the network or the id, or it is a classification topic.
    """
    networks = sorted({name for name, _ in catalogue()})
    if network not in networks:
        raise ConfigError(f"--network {network}: not in the catalogue; it knows {', '.join(networks)}")
    topics = []
    for topic_id in dict.fromkeys(ids):
        entry = catalogue().get((network, topic_id))
        if entry is None:
            raise ConfigError(
                f"--topic {topic_id}: {network} has no such topic; birnn topics --catalogue lists them, "
                "and --config takes topics of your own"
            )
        if entry.target == CLASSIFICATION:
            raise ConfigError(
                f"--topic {topic_id}: {entry.asset} {entry.horizon} on {network} is a classification topic, "
                "which this worker cannot answer yet; leave it out"
            )
        topics.append(
            Topic(
                topic_id=topic_id,
                token=entry.asset,
                symbol=default_symbol(entry.asset),
                target=Target(entry.target),
                horizon_min=parse_horizon(entry.horizon),
                loss=LOSS_NAMES[entry.loss],
                network=network,
                epoch_length_blocks=entry.epoch_length_blocks,
            )
        )
    return tuple(topics)


def with_unseen(topics: Sequence[Topic], unseen: Sequence[str]) -> tuple[Topic, ...]:
    """The topics, and copies of them for each unseen symbol without a topic.

    Raises:
        ConfigError: the leader, which is in every training, or nothing left to train on.
    """
    if LEADER in unseen:
        raise ConfigError(f"--unseen {LEADER}: it stands beside every symbol in every training; choose another")
    seen = [topic for topic in topics if topic.symbol not in unseen]
    if not seen:
        raise ConfigError("--unseen leaves no topic to train for; add --topic of other symbols")
    asked = list(topics)
    questions = {(topic.target, topic.horizon_min, topic.loss): topic for topic in seen}
    for symbol in unseen:
        if any(topic.symbol == symbol for topic in topics):
            continue
        for topic in questions.values():
            token, _ = split_symbol(symbol, "")
            stand_in = replace(topic, topic_id=STAND_IN_IDS + len(asked), token=token, symbol=symbol)
            asked.append(replace(stand_in, network=None, epoch_length_blocks=None))
    return tuple(asked)


def span_of(
    recording: Recording,
    plans: Sequence[PanelPlan],
    *,
    start_ms: int | None,
    end_ms: int | None,
    training_days: int,
    span_days: int,
) -> tuple[int, int]:
    """Start and end of a walk, as asked or as the klines allow.

    The default end is where the first series ends, the default start ``span_days`` earlier; or later, so that the
    history of a training, or at least half of all klines, lies before the start.

    Raises:
        ConfigError: too few klines before the start, or no kline after it; the message says what is needed.
    """
    last_ms = min(recording.span(plan.symbols, plan.panel.interval_ms)[1] for plan in plans)
    end_ms = last_ms if end_ms is None else end_ms
    recording.check_end(end_ms, last_ms)
    first_ms = max(recording.span(plan.symbols, plan.panel.interval_ms)[0] for plan in plans)
    if end_ms <= first_ms:
        raise ConfigError(
            f"--end {iso(end_ms)[:16]}: klines of {recording.source} begin at {iso(first_ms)[:16]}: give a later day"
        )
    if start_ms is None:
        begins = {plan.panel: recording.span([LEADER], plan.panel.interval_ms)[0] for plan in plans}
        wanted_ms = [
            begins_ms
            + min(
                -training_start_ms(panel, training_days, 0),
                max((end_ms - begins_ms) // 2, int(_days(panel, LEAST_TRAINING_DAYS) * DAY_MS)),
            )
            for panel, begins_ms in begins.items()
        ]
        earliest_ms = max(end_ms - span_days * DAY_MS, *wanted_ms)
        midnight_ms = -(-earliest_ms // DAY_MS) * DAY_MS
        start_ms = midnight_ms if midnight_ms < end_ms else min(earliest_ms, end_ms - 1)
    if start_ms >= end_ms:
        raise ConfigError(
            f"the span must begin before it ends, was {span_text(start_ms, end_ms)}; {recording.source} has klines "
            f"until {iso(last_ms)[:16]}: give another --start or --end"
        )
    for plan in plans:
        have, needed = _history(recording, plan.panel, start_ms, training_days), _days(plan.panel, LEAST_TRAINING_DAYS)
        if have < needed:
            raise ConfigError(
                f"the span begins on {iso(start_ms)[:10]}, and before it {recording.source} has {have:.2f} days of "
                f"{interval_name(plan.panel.interval_ms)} klines of {LEADER}; the smallest training of the "
                f"{plan.panel.name} panel needs {needed:.2f}: add older klines, or give a later --start"
            )
    return start_ms, end_ms


def short_history(recording: Recording, walk: Walk) -> list[str]:
    """A sentence for each panel whose first training has a short history."""
    said = []
    for plan in walk.plans():
        have = _history(recording, plan.panel, walk.start_ms, walk.training_days)
        wanted = _days(plan.panel, walk.training_days)
        if have < wanted - 1:
            said.append(f"{plan.panel.name} panel: the first training has {have:.0f} days of klines, not {wanted:.0f}")
    return said


def _history(recording: Recording, panel: Panel, start_ms: int, training_days: int) -> float:
    """Days of the leader's klines that the first training would read."""
    klines = recording.series[LEADER, panel.interval_ms]
    return len(klines.between(training_start_ms(panel, training_days, start_ms), start_ms)) * panel.interval_ms / DAY_MS


def _days(panel: Panel, training_days: int) -> float:
    """Days of klines of a training, with those that the first window reads."""
    return training_days * panel.days_per_training_day + panel.rows_needed * panel.interval_ms / DAY_MS
