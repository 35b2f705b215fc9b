"""The judgement of a round: which champions have to go, and which topics the challenger serves from now on.

The rules are ``model.judging.gate``'s; docs/decisions/0004 gives the reasons. Champions are looked at first. A champion
that has to go is demoted at once, with one swap of the champions file: it goes whatever becomes of the challenger, and
the challenger meets the champion that serves then.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import structlog

from core.clock import HOUR_MS
from core.errors import IncompatibleModel, UnusableForecast
from core.sources import ADDS_NOTHING
from core.topic import Topic
from klines.klines import Floats
from model.calibration import Calibration
from model.features import Floats32
from model.forecaster import BiRNNForecaster
from model.heads import Head, Kind, head_of
from model.judging.evaluation import TopicForecasts, forecasts, outputs
from model.judging.gate import SCORED_TICKS, Decision, compare, judge_topics, scored_from, why_demoted
from model.network import MOST_MOVED, onnx_network
from model.registry.artefact import Artefact
from model.registry.versions import Champion, Registry, check
from model.training.panel import TrainedPanel
from model.windows import Rows, Split, Windows, spread
from updater.state import Verdict

NOTHING_TO_JUDGE = Decision(promoted=False, reason="no row to judge on, or a loss that is not finite")

WITHIN = 1 - 1e-6  # of the bound, for what is rounded on the way

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Heard:
    """A network, and what it says of the newest rows that it has not seen."""

    artefact: Artefact
    forecaster: BiRNNForecaster
    windows: Windows
    rows: Rows  # (N,) rising
    output: Floats32  # (N, O)

    def forecasts(self, rows: Rows) -> dict[str, TopicForecasts]:
        """By ``Topic.key``, of some of its rows."""
        output = self.output[np.searchsorted(self.rows, rows)]
        known = forecasts(self.windows, rows, output, self.forecaster.heads, self.forecaster.calibration)
        return {one.topic.key: one for one in known}

    @cached_property
    def _unseen(self) -> dict[str, TopicForecasts]:
        return self.forecasts(self.rows)

    def why_demoted(self, topic: Topic) -> str:
        """Why it may not serve a topic any longer; empty while it may, and where it has no row to tell by."""
        if (of_topic := self._unseen.get(topic.key)) is None:
            return ""
        interval_ms = self.windows.plan.panel.interval_ms
        ticks, steps = of_topic.open_time_ms // interval_ms, topic.horizon_ms // interval_ms
        # When it was made it was judged and began to serve; the champions file's date may be that of its return.
        counts = ticks >= scored_from(ticks, self.artefact.manifest.created_ms // interval_ms, steps)
        return why_demoted(compare(ticks[counts], of_topic.losses[counts], of_topic.naive_losses[counts], steps))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hearing:
    """Networks on the newest rows of a panel, each asked once however many topics it serves."""

    registry: Registry
    windows: Windows
    split: Split  # the challenger's
    oldest_ms: int  # a network made before this may not answer any more
    heard: dict[str, _Heard | None] = field(default_factory=dict)  # by version

    def hear(self, artefact: Artefact) -> _Heard:
        """Ask a network about the judge rows and those that a champion is looked at by, as far as it has not seen them.

        What it was trained, stopped and calibrated on ends a longest horizon before its own judge part begins, so no
        label reaches over. It reads windows of its own length.

        Raises:
            IncompatibleModel, UnusableForecast: it cannot answer, or not within bounds.
        """
        plan, end_ms = self.windows.plan, self.split.judge_end_ms
        looked_at_ms = end_ms - SCORED_TICKS * plan.panel.interval_ms - plan.gap_ms
        start_ms = max(artefact.manifest.split.judge_start_ms, min(self.split.judge_start_ms, looked_at_ms))
        own = self.windows.reading(artefact.manifest.lookback)
        rows = own.rows(start_ms, end_ms)
        forecaster = BiRNNForecaster(artefact)
        output = outputs(onnx_network(artefact.onnx), own, rows)
        forecaster.check_jumps(own.gather(spread(rows)))
        return _Heard(
            artefact=artefact,
            forecaster=forecaster,
            windows=self.windows,
            rows=rows,
            output=output,
        )

    def published(self, version: str, manifest_sha256: str | None = None) -> _Heard | None:
        """A version that can still be used and is not too old."""
        try:
            artefact = self.registry.open(version, manifest_sha256)
            if artefact.manifest.created_ms < self.oldest_ms:
                return None
            if version not in self.heard:
                self.heard[version] = None  # not asked again if it cannot answer
                self.heard[version] = self.hear(artefact)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
            return None
        return self.heard[version]

    def champions(self) -> dict[str, tuple[Champion, _Heard]]:
        """The champions that answer now, by ``Topic.key``. One that cannot, or is too old, is none."""
        try:
            entries = self.registry.champions()
        except IncompatibleModel as error:
            log.warning("champions_unreadable", reason=str(error))
            return {}
        found = {}
        for topic in self.windows.plan.topics:
            if (entry := entries.get(topic.key)) is None:
                continue
            try:
                check(topic, entry)
            except IncompatibleModel as error:
                log.warning("champion_unusable", topic=topic.key, version=entry.version, reason=str(error))
                continue
            if heard := self.published(entry.version, entry.manifest_sha256):
                found[topic.key] = entry, heard
        return found


def judge(
    trained: TrainedPanel, challenger: Artefact, registry: Registry, now_ms: int, *, oldest_champion_ms: int = 0
) -> tuple[Verdict, ...]:
    """Look at each topic's champion anew, then decide for each whether the challenger serves it.

    Champions that have to go are demoted; nothing is promoted. Challenger, champions and the naive forecast are scored
    on the same rows: the newest, after all that the challenger or a champion was trained, stopped or calibrated on, and
    none too near a hole for the longest of their windows.

    Args:
        oldest_champion_ms: a champion made before this defends nothing.
    Raises:
        UnusableForecast: the challenger cannot be judged; what was demoted stays so.
    """
    windows, split, interval_ms = trained.windows, trained.split, trained.windows.plan.panel.interval_ms
    hearing = _Hearing(registry=registry, windows=windows, split=split, oldest_ms=oldest_champion_ms)
    demoted = _look_anew(hearing, now_ms)
    champions = {key: heard for key, (_, heard) in hearing.champions().items()}
    ours = hearing.hear(challenger)
    manifests = [network.artefact.manifest for network in (ours, *champions.values())]
    rows = windows.reading(max(manifest.lookback for manifest in manifests)).rows(
        max(manifest.split.judge_start_ms for manifest in manifests), split.judge_end_ms
    )
    said = ours.forecasts(rows)
    by_version = {heard.artefact.version: heard.forecasts(rows) for heard in champions.values()}
    theirs = {
        key: (its, (now_ms - heard.artefact.manifest.created_ms) / HOUR_MS)
        for key, heard in champions.items()
        if (its := by_version[heard.artefact.version].get(key))
    }
    decisions = judge_topics(list(said.values()), theirs, interval_ms, trained.evidence)
    return tuple(
        _verdict(
            topic,
            decisions.get(topic.key, NOTHING_TO_JUDGE),
            said.get(topic.key),
            theirs[topic.key][0] if topic.key in theirs else None,
            champions[topic.key].artefact.version if topic.key in theirs else None,
            demoted,
        )
        for topic in trained.plan.topics
    )


def bounded(trained: TrainedPanel, challenger: Artefact) -> Artefact:
    """A challenger whose returns are trusted no further than a single feature may move them.

    Where the past was one straight line a return is trusted wholly, and every training would be refused for ever.
    """
    windows, split = trained.windows, trained.split
    forecaster = BiRNNForecaster(challenger)
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    most_O = forecaster.jumps(windows.gather(spread(rows))).max(axis=0)
    shares = {
        head.key: WITHIN * MOST_MOVED / float(most)
        for head, most in zip(forecaster.heads, most_O, strict=True)
        if head.kind is Kind.RETURN and most > MOST_MOVED
    }
    if not shares:
        return challenger
    log.warning("returns_trusted_less", heads=sorted(shares), reason="a single feature would move them too far")
    factors = {
        symbol: {head: factor * shares.get(head, 1.0) for head, factor in heads.items()}
        for symbol, heads in forecaster.calibration.factors.items()
    }
    calibration = Calibration(factors=factors).to_json()
    return replace(challenger, manifest=challenger.manifest.model_copy(update={"calibration": calibration}))


def without_unproven(challenger: Artefact, verdicts: Sequence[Verdict]) -> tuple[Artefact, tuple[Verdict, ...]]:
    """Take the edges out of a challenger that the gate did not let through, where nobody serves but the naive forecast.

    It, or a champion equal to it, would go on answering there. The network without the edge says the same to the last
    bit, and the topic has a published network: ``NO_MODEL_POLICY=refuse`` is for topics that have none. An edge that
    was let through for another topic of the same symbol and head stays, and so does whoever serves now.

    Returns:
        the challenger with a ``lambda`` of 0 there, and the verdicts, which say so.
    """
    proven = {(verdict.symbol, verdict.head) for verdict in verdicts if verdict.promoted}

    def unproven(verdict: Verdict) -> bool:
        return (
            not verdict.promoted
            and verdict.naive is not None
            and verdict.challenger is not None
            and (verdict.champion_version is None or verdict.champion == verdict.naive)  # equal forecasts, equal losses
            and Head.parse(verdict.head).kind is Kind.RETURN
            and (verdict.symbol, verdict.head) not in proven
        )

    silenced = {(verdict.symbol, verdict.head) for verdict in verdicts if unproven(verdict)}
    if not silenced:
        return challenger, tuple(verdicts)
    known = Calibration.from_json(challenger.manifest.calibration).factors
    factors = {
        symbol: {head: 0.0 if (symbol, head) in silenced else factor for head, factor in heads.items()}
        for symbol, heads in known.items()
    }
    calibration = Calibration(factors=factors).to_json()
    return (
        replace(challenger, manifest=challenger.manifest.model_copy(update={"calibration": calibration})),
        tuple(
            verdict.model_copy(
                update={
                    "promoted": unproven(verdict),
                    "challenger": verdict.naive,
                    "reason": f"naive: {ADDS_NOTHING}: an edge was taken out ({verdict.reason})",
                }
            )
            if (verdict.symbol, verdict.head) in silenced
            else verdict
            for verdict in verdicts
        ),
    )


def _look_anew(hearing: _Hearing, now_ms: int) -> dict[str, str]:
    """Demote champions that are worse than the naive forecast; what is said of each, by ``Topic.key``."""
    champions, demoted = hearing.champions(), {}
    for topic in hearing.windows.plan.topics:
        if topic.key not in champions:
            continue
        entry, heard = champions[topic.key]
        if not (why := heard.why_demoted(topic)):
            continue
        successor = _successor(hearing, topic, entry)
        hearing.registry.demote(topic, why, now_ms, back_to=successor)
        log.warning("champion_demoted", topic=topic.key, version=entry.version, reason=why, back_to=successor)
        demoted[topic.key] = f"{entry.version} was {why}"
    return demoted


def _successor(hearing: _Hearing, topic: Topic, gone: Champion) -> str | None:
    """The version that served before a champion, if it may serve again; None is the naive forecast."""
    demotions = hearing.registry.demotions().get(topic.key, ())
    if gone.previous is None or gone.previous in {demotion.champion.version for demotion in demotions}:
        return None
    heard = hearing.published(gone.previous)
    return gone.previous if heard and not heard.why_demoted(topic) else None


def _verdict(
    topic: Topic,
    decision: Decision,
    ours: TopicForecasts | None,
    its: TopicForecasts | None,
    champion_version: str | None,
    demoted: Mapping[str, str],
) -> Verdict:
    return Verdict(
        topic=topic.key,
        symbol=topic.symbol,
        head=head_of(topic).key,
        loss=topic.loss,
        rows=len(ours.came_true) if ours else 0,
        challenger=_mean(ours.losses if ours else None),
        naive=_mean(ours.naive_losses if ours else None),
        champion=_mean(its.losses if its else None),
        champion_version=champion_version,
        promoted=decision.promoted,
        reason=decision.reason,
        p=decision.p,
        effective=decision.effective,
        won=decision.won,
        blocks=decision.blocks,
        pooled=decision.pooled,
        demoted=demoted.get(topic.key, ""),
    )


def _mean(losses: Floats | None) -> float | None:
    mean = math.nan if losses is None else float(np.mean(losses))
    return mean if math.isfinite(mean) else None
