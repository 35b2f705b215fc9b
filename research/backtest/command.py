"""``birnn backtest``: from the command line to a walk and the lines about it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from core.clock import moment_ms
from core.errors import ConfigError
from core.show.words import counted
from core.topic import Topic
from research.backtest.backtest import fingerprint
from research.backtest.baselines import BASELINES
from research.backtest.folder import Folder
from research.backtest.walk import (
    EVERY_DAYS,
    QUICK_EVERY_DAYS,
    QUICK_SPAN_DAYS,
    QUICK_STRIDE,
    SPAN_DAYS,
    Walk,
    catalogue_topics,
    short_history,
    span_of,
    with_unseen,
)
from research.data import Recording, recording_of, span_text
from updater.training_settings import settings_file, settings_in_use


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of a backtest; None for an option not given."""

    topics: Sequence[Topic]
    data_dir: Path
    data: Path | None = None
    venues: Sequence[str]  # MARKET_VENUES, for klines of the store
    start: str | None = None  # a UTC day or moment
    end: str | None = None
    every_days: int | None = None
    training_days: int = 90
    seed: int = 0
    stride: int | None = None
    out: Path | None = None
    training_file: Path | None = None
    unseen: Sequence[str] = ()
    baselines: Sequence[str] | None = None
    quick: bool = False
    command: str = "birnn backtest"


def chosen_topics(network: str, ids: Sequence[int], configured: Sequence[Topic] | None) -> tuple[Topic, ...]:
    """The topics asked for: all or some of a config, or of the catalogue.

    Raises:
        ConfigError: an unknown id, or no id.
    """
    if configured is None:
        return catalogue_topics(network, ids)
    for topic_id in ids:
        if topic_id not in {topic.topic_id for topic in configured}:
            there = ", ".join(str(topic.topic_id) for topic in configured)
            raise ConfigError(f"--topic {topic_id}: the config has no such topic; it has {there}")
    return tuple(topic for topic in configured if not ids or topic.topic_id in ids)


def walk_of(asked: Asked) -> tuple[Walk, Recording]:
    """Return the walk that the command line asks for, and the klines.

    Raises:
        ConfigError: a topic, a name, the folder or the span is wrong, in one line.
    """
    known = tuple(BASELINES)
    for name in asked.baselines or ():
        if name not in known:
            raise ConfigError(f"--baseline {name}: there is no such baseline; choose among {', '.join(known)}")
    for option, value in (("--every", asked.every_days), ("--stride", asked.stride), ("--days", asked.training_days)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be 1 or more, was {value}")
    walk = Walk(
        topics=with_unseen(asked.topics, asked.unseen),
        unseen=tuple(dict.fromkeys(asked.unseen)),
        start_ms=0,
        end_ms=0,
        every_days=asked.every_days or (QUICK_EVERY_DAYS if asked.quick else EVERY_DAYS),
        training_days=asked.training_days,
        stride=asked.stride or (QUICK_STRIDE if asked.quick else 1),
        seed=asked.seed,
        training={},
        baselines=known if asked.baselines is None else tuple(name for name in known if name in asked.baselines),
        quick=asked.quick,
    )
    start_ms, end_ms = moment_ms(asked.start, "--start"), moment_ms(asked.end, "--end")
    panels = [plan.panel.name for plan in walk.plans()]
    training = settings_in_use(settings_file(asked.data_dir, asked.training_file), panels)
    recording = recording_of(walk.plans(), asked.data, asked.data_dir, asked.venues)
    start_ms, end_ms = span_of(
        recording,
        walk.plans(),
        start_ms=start_ms,
        end_ms=end_ms,
        training_days=asked.training_days,
        span_days=QUICK_SPAN_DAYS if asked.quick else SPAN_DAYS,
    )
    return replace(walk, start_ms=start_ms, end_ms=end_ms, training=training), recording


def folder_of(asked: Asked, walk: Walk, recording: Recording) -> Folder:
    """The folder of the walk: equal commands find the same folder.

    Raises:
        ConfigError: the folder holds another backtest; the text says how they differ.
    """
    about = fingerprint(walk, recording)
    if asked.out:
        folder = Folder(asked.out)
        folder.refuse_another(about)
        return folder
    went_in = json.dumps(about, sort_keys=True).encode()
    days = "-".join(
        datetime.fromtimestamp(edge / 1000, UTC).strftime("%Y%m%d") for edge in (walk.start_ms, walk.end_ms)
    )
    return Folder(asked.data_dir / "backtests" / f"{days}-{hashlib.sha256(went_in).hexdigest()[:8]}")


def introduction(walk: Walk, recording: Recording, folder: Folder) -> list[str]:
    """Lines about the walk to come."""
    done = sum(folder.step(plan.panel.name, date) is not None for date, _ in walk.dates for plan in walk.plans())
    steps = len(walk.dates) * len(walk.plans())
    panels = " and ".join(plan.panel.name for plan in walk.plans())
    apart = f", {counted(walk.every_days, 'day')} apart" if len(walk.dates) > 1 else ""
    baselines = ", ".join(walk.baselines) or "no baselines"
    lines = [
        *([recording.simulated] if recording.simulated else []),
        f"{counted(len(walk.topics), 'topic')} from {span_text(walk.start_ms, walk.end_ms)}; "
        f"{counted(len(walk.dates), 'training')} of the {panels} panel{apart}; {baselines}",
        *(f"note: {sentence}" for sentence in short_history(recording, walk)),
        f"kept in {folder.root}" + (f"; {done} of {steps} steps are there already" if done else ""),
    ]
    return lines
