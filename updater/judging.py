"""The judgement of a round: which champions have to go, and which topics the challenger serves from now on.

The rules are ``model.judging.gate``'s; docs/decisions/0004 gives the reasons. Champions are looked at first. A champion
that has to go is demoted at once, with one swap of the champions file: it goes whatever becomes of the challenger, and
the challenger meets the champion that serves then.
"""

import math
from collections.abc import Callable, Mapping, Sequence
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
from model.heads import Head, head_of
from model.judging.comparison import compare
from model.judging.evaluation import TopicForecasts, forecasts, outputs
from model.judging.gate import SCORED_TICKS, Decision, judge_topics, scored_from, why_demoted
from model.network import MOST_MOVED
from model.registry.artefact import Artefact
from model.registry.champions import Champion, check
from model.registry.versions import Registry
from model.training.panel import TrainedPanel
from model.windows import Rows, Split, Windows, spread
from updater.state import Verdict

WITHIN = 1 - 1e-6  # of the bound: room for rounding

NOTHING_TO_JUDGE = Decision(promoted=False, reason="no row to judge on, or a loss that is not finite")

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scored:
    """A network, and its outputs at the newest rows that it has not seen."""

    artefact: Artefact
    forecaster: BiRNNForecaster
    windows: Windows
    rows: Rows  # (N,) rising
    output: Floats32  # (N, O)

    def forecasts(self, rows: Rows) -> dict[str, TopicForecasts]:
        """The network's forecasts of some of its rows, by ``Topic.key``."""
        output = self.output[np.searchsorted(self.rows, rows)]
        known = forecasts(self.windows, rows, output, self.forecaster.heads, self.forecaster.calibration)
        return {of_topic.topic.key: of_topic for of_topic in known}

    @cached_property
    def _unseen(self) -> dict[str, TopicForecasts]:
        return self.forecasts(self.rows)

    def why_demoted(self, topic: Topic) -> str:
        """Why the network may not serve a topic any longer; empty if it may, or if no row tells."""
        if (of_topic := self._unseen.get(topic.key)) is None:
            return ""
        interval_ms = self.windows.plan.panel.interval_ms
        ticks, steps = of_topic.open_time_ms // interval_ms, topic.horizon_ms // interval_ms
        # When it was made it was judged and began to serve; the champions file's date may be that of its return.
        counts = ticks >= scored_from(ticks, self.artefact.manifest.created_ms // interval_ms, steps)
        return why_demoted(compare(ticks[counts], of_topic.losses[counts], of_topic.naive_losses[counts], steps))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidates:
    """The networks that may answer a panel's topics. Each runs once, however many topics it serves."""

    registry: Registry
    windows: Windows
    split: Split  # the challenger's
    oldest_ms: int  # a network made before this may not answer any more
    scored: dict[str, _Scored | None] = field(default_factory=dict)  # by version

    def score(self, artefact: Artefact) -> _Scored:
        """Run a network at the judge rows and the rows that decide a demotion, as far as it has not seen them.

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
        output = outputs(forecaster.network, own, rows)
        forecaster.check_jumps(own.gather(spread(rows)))
        return _Scored(artefact=artefact, forecaster=forecaster, windows=self.windows, rows=rows, output=output)

    def published(self, version: str, manifest_sha256: str | None = None) -> _Scored | None:
        """A published version; None if it cannot be used or is too old."""
        try:
            artefact = self.registry.open(version, manifest_sha256)
            if artefact.manifest.created_ms < self.oldest_ms:
                return None
            if version not in self.scored:
                self.scored[version] = None  # not run again if it fails
                self.scored[version] = self.score(artefact)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
            return None
        return self.scored[version]

    def champions(self) -> dict[str, tuple[Champion, _Scored]]:
        """The champions that can answer now, by ``Topic.key``."""
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
            if scored := self.published(entry.version, entry.manifest_sha256):
                found[topic.key] = entry, scored
        return found


def judge(
    trained: TrainedPanel, challenger: Artefact, registry: Registry, now_ms: int, *, oldest_champion_ms: int = 0
) -> tuple[Verdict, ...]:
    """Look at each topic's champion anew, then decide for each topic whether the challenger serves it.

    Champions that have to go are demoted; nothing is promoted. Challenger, champions and the naive forecast are scored
    on the same rows: the newest, after all that the challenger or a champion was trained, stopped or calibrated on, and
    far enough from a hole for the longest of their windows.

    Args:
        oldest_champion_ms: a champion made before this defends nothing.
    Raises:
        UnusableForecast: the challenger cannot be judged; what was demoted stays so.
    """
    windows, split, interval_ms = trained.windows, trained.split, trained.windows.plan.panel.interval_ms
    candidates = _Candidates(registry=registry, windows=windows, split=split, oldest_ms=oldest_champion_ms)
    demoted = _look_anew(candidates, now_ms)
    champions = {key: scored for key, (_, scored) in candidates.champions().items()}
    ours = candidates.score(challenger)
    manifests = [network.artefact.manifest for network in (ours, *champions.values())]
    rows = windows.reading(max(manifest.lookback for manifest in manifests)).rows(
        max(manifest.split.judge_start_ms for manifest in manifests), split.judge_end_ms
    )
    our_forecasts = ours.forecasts(rows)
    by_version = {scored.artefact.version: scored.forecasts(rows) for scored in champions.values()}
    theirs = {
        key: (of_topic, (now_ms - scored.artefact.manifest.created_ms) / HOUR_MS)
        for key, scored in champions.items()
        if (of_topic := by_version[scored.artefact.version].get(key))
    }
    decisions = judge_topics(list(our_forecasts.values()), theirs, interval_ms, trained.evidence)
    return tuple(
        _verdict(
            topic,
            decisions.get(topic.key, NOTHING_TO_JUDGE),
            our_forecasts.get(topic.key),
            theirs[topic.key][0] if topic.key in theirs else None,
            champions[topic.key].artefact.version if topic.key in theirs else None,
            demoted,
        )
        for topic in trained.plan.topics
    )


def bounded(trained: TrainedPanel, challenger: Artefact) -> Artefact:
    """A challenger whose returns are trusted no further than a single feature may move them.

    If the past was one straight line a return is trusted wholly, and every training would be refused for ever.
    """
    windows, split = trained.windows, trained.split
    forecaster = BiRNNForecaster(challenger)
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    most_O = forecaster.jumps(windows.gather(spread(rows))).max(axis=0)
    shares = {
        head.key: WITHIN * MOST_MOVED / float(most)
        for head, most in zip(forecaster.heads, most_O, strict=True)
        if not head.kind.is_volatility and most > MOST_MOVED
    }
    if not shares:
        return challenger
    log.warning("returns_trusted_less", heads=sorted(shares), reason="a single feature would move them too far")
    return _recalibrated(challenger, lambda _, head, factor: factor * shares.get(head, 1.0))


def without_unproven(challenger: Artefact, verdicts: Sequence[Verdict]) -> tuple[Artefact, tuple[Verdict, ...]]:
    """Take out the edges that the gate did not let through, of topics that the naive forecast serves.

    Such an edge, or a champion's equal one, would go on answering there. The network without the edge gives the naive
    forecast to the last bit, and the topic has a published network: ``NO_MODEL_POLICY=refuse`` is for topics that have
    none. An edge that was let through for another topic of the same symbol and head stays, and so does the champion
    that serves now.

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
            and not Head.parse(verdict.head).kind.is_volatility
            and (verdict.symbol, verdict.head) not in proven
        )

    silenced = {(verdict.symbol, verdict.head) for verdict in verdicts if unproven(verdict)}
    if not silenced:
        return challenger, tuple(verdicts)
    return (
        _recalibrated(challenger, lambda symbol, head, factor: 0.0 if (symbol, head) in silenced else factor),
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


def _recalibrated(challenger: Artefact, factor_of: Callable[[str, str, float], float]) -> Artefact:
    """The challenger with other factors, by symbol, head key and the present factor."""
    present = Calibration.from_json(challenger.manifest.calibration).factors
    calibration = Calibration(
        factors={
            symbol: {head: factor_of(symbol, head, factor) for head, factor in heads.items()}
            for symbol, heads in present.items()
        }
    ).to_json()
    return replace(challenger, manifest=challenger.manifest.model_copy(update={"calibration": calibration}))


def _look_anew(candidates: _Candidates, now_ms: int) -> dict[str, str]:
    """Demote champions that are worse than the naive forecast; the reasons by ``Topic.key``."""
    champions, demoted = candidates.champions(), {}
    for topic in candidates.windows.plan.topics:
        if topic.key not in champions:
            continue
        entry, scored = champions[topic.key]
        if not (why := scored.why_demoted(topic)):
            continue
        successor = _successor(candidates, topic, entry)
        candidates.registry.demote(topic, why, now_ms, back_to=successor)
        log.warning("champion_demoted", topic=topic.key, version=entry.version, reason=why, back_to=successor)
        demoted[topic.key] = f"{entry.version} was {why}"
    return demoted


def _successor(candidates: _Candidates, topic: Topic, gone: Champion) -> str | None:
    """The version that served before a champion, if it may serve again; None is the naive forecast."""
    demotions = candidates.registry.demotions().get(topic.key, ())
    if gone.previous is None or gone.previous in {demotion.champion.version for demotion in demotions}:
        return None
    scored = candidates.published(gone.previous)
    return gone.previous if scored and not scored.why_demoted(topic) else None


def _verdict(
    topic: Topic,
    decision: Decision,
    ours: TopicForecasts | None,
    champions: TopicForecasts | None,
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
        champion=_mean(champions.losses if champions else None),
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
