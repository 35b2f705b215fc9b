"""A replay as people read it, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from cli.replay.replayed import Epoch, Replay
from cli.scores.summary import Summary, summary_of
from cli.scores.tables import (
    LEGEND,
    NUMBERS,
    number_cells,
    skill_cells,
    span_words,
    summary_fields,
    topic_fields,
)
from cli.screen import Column, plain, table_of
from core.clock import MINUTE_MS, iso
from core.logs import short_version
from core.show.words import counted
from core.topic import Topic
from ledger.scores import Score
from model.judging.skill import Skill, skill_of
from model.registry.artefact import Manifest
from monitor.api import AnswerShape

WARNING = "yellow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A replay summed up."""

    every: Summary  # the network, on every epoch
    unseen: Summary  # the network, on the epochs that it was not trained on
    there: Summary  # the network, where an answer was given and scored: on unseen epochs alone, if there are any
    given: Summary  # the answers, on the same epochs
    over_given: Skill  # the share of the answers' loss that the network would have saved there
    seen: int  # epochs that the network was trained, stopped or calibrated on


def compared(topic: Topic, found: Replay, manifest: Manifest) -> Compared:
    """Sum a replay up.

    Args:
        manifest: of the network.
    """
    unseen = [epoch for epoch in found.epochs if not was_seen(epoch, manifest)]
    fair = unseen or found.epochs  # a comparison on epochs that the network was trained on says nothing of it
    both = [(epoch.replayed, epoch.recorded) for epoch in fair if _is_scored(epoch.recorded)]
    there, given = [one for one, _ in both], [one for _, one in both if one]
    losses, others = (np.array([one.loss for one in some], np.float64) for some in (there, given))
    ticks = np.array([one.end_ms // MINUTE_MS for one in there], np.int64)
    return Compared(
        every=summary_of(topic, [epoch.replayed for epoch in found.epochs]),
        unseen=summary_of(topic, [epoch.replayed for epoch in unseen]),
        there=summary_of(topic, there),
        given=summary_of(topic, given),
        over_given=skill_of(ticks, losses, others, topic.horizon_min),
        seen=len(found.epochs) - len(unseen),
    )


def was_seen(epoch: Epoch, manifest: Manifest) -> bool:
    """True if the network was trained, stopped or calibrated on the window of an epoch."""
    opened_ms = epoch.given.asof_ms - manifest.interval_ms
    return manifest.split.train_start_ms <= opened_ms < manifest.split.judge_start_ms


def _is_scored(score: Score | None) -> bool:
    return score is not None and score.loss is not None


def replay_json(
    topic: Topic, version: str, found: Replay, summed: Compared, manifest: Manifest, since_ms: int, until_ms: int
) -> dict[str, Any]:
    """The document of ``birnn replay --json``."""
    trained = manifest.split.train_start_ms, manifest.split.judge_start_ms
    return {
        **topic_fields(topic),
        "version": version,
        "since": iso(since_ms),
        "until": iso(until_ms),
        "trained": [iso(ms) for ms in trained],
        "seen": summed.seen,
        "not_replayed": dict(found.unanswered),
        "every": summary_fields(summed.every),
        "unseen": summary_fields(summed.unseen),
        "where_answered": summary_fields(summed.there),
        "answered": summary_fields(summed.given),
        "over_answered": asdict(summed.over_given),
        "epochs": [_epoch_fields(epoch, manifest) for epoch in found.epochs],
    }


def _epoch_fields(epoch: Epoch, manifest: Manifest) -> dict[str, Any]:
    """An epoch; its answer by the names of the monitor's ``/api/``, null where none was given."""
    again = epoch.replayed
    return {
        "base": iso(again.start_ms),
        "truth": again.truth,
        "naive_loss": again.naive_loss,
        "plain_naive_loss": again.plain_naive_loss,
        "seen": was_seen(epoch, manifest),
        "replayed": {
            "value": again.value,
            "loss": again.loss,
            "right_direction": again.right_direction,
            "error_bp": again.error_bp,
        },
        "answer": AnswerShape.of(epoch.given, epoch.recorded).model_dump() if epoch.was_given else None,
    }


def replay_parts(
    topic: Topic, version: str, found: Replay, summed: Compared, manifest: Manifest, span: Sequence[int], width: int
) -> Iterator[RenderableType]:
    """The same as people read it.

    Args:
        span: first and last moment, ms.
        width: of the screen, in columns.
    """
    epochs = counted(len(found.epochs), "epoch")
    yield Text(f"topic {topic.topic_id} replayed with {version}: {epochs} {span_words(*span)}", style="bold")
    if summed.seen:
        first, last = (iso(ms)[:16].replace("T", " ") for ms in _trained(manifest))
        yield Text(
            f"warning: the network was trained, stopped and calibrated on candles from {first} to {last} UTC, and "
            f"{summed.seen:,} of these epochs lie there: it answers them better than it could have. "
            + ("All rows but the first leave them out." if summed.unseen.skill.n else "Choose a later span."),
            style=WARNING,
        )
    short = short_version(version)
    rows = [("all", short, summed.every)]
    if summed.seen and summed.unseen.skill.n:
        rows.append(("unseen", short, summed.unseen))
    if summed.given.skill.n:
        rows += [("answered", short, summed.there), ("answered", "as answered", summed.given)]
    columns = (Column(heading="epochs"), Column(heading="by", wraps=True), *NUMBERS)
    yield table_of(columns, [(name, by, *number_cells(one)) for name, by, one in rows], width)
    yield _verdict(summed)
    for reason, count in found.unanswered.most_common():
        yield Text(plain(f"{counted(count, 'epoch')} not replayed: {reason}"))
    yield Text(LEGEND)


def _trained(manifest: Manifest) -> tuple[int, int]:
    return manifest.split.train_start_ms, manifest.split.judge_start_ms


def _verdict(summed: Compared) -> Text:
    one = summed.over_given
    if one.skill is None:
        return Text("nothing that was answered in this span has a score: there is nothing to compare with")
    more = "less" if one.skill >= 0 else "more"
    skill, interval = skill_cells(one)
    words = f"where an answer was given, the network would have lost {100 * abs(one.skill):.1f} % {more} than it"
    return Text(f"{words} (saved: {skill}, 95 % interval {interval})", style=skill.style)
