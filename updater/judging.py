"""The judgement of a round: which champions are demoted, and which topics the challenger serves from now on.

``model.judging.gate`` holds the rules, docs/decisions/0004 the reasons. Champions are checked first. A champion that is
worse than the naive forecast is demoted at once, even if the challenger fails afterwards; the challenger is then
compared with the champion that took over.
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

WITHIN = 1 - 1e-6  # share of the bound that is used; the rest is room for rounding

NOTHING_TO_JUDGE = Decision(promoted=False, reason="no row to judge on, or a loss that is not finite")

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scored:
    """A network, and the outputs at the newest rows that the network has not seen."""

    artefact: Artefact
    forecaster: BiRNNForecaster
    windows: Windows
    rows: Rows  # (N,) rising
    output: Floats32  # (N, O)

    def forecasts(self, rows: Rows) -> dict[str, TopicForecasts]:
        """Return the network's forecasts for a part of ``self.rows``, by ``Topic.key``."""
        output = self.output[np.searchsorted(self.rows, rows)]
        known = forecasts(self.windows, rows, output, self.forecaster.heads, self.forecaster.calibration)
        return {of_topic.topic.key: of_topic for of_topic in known}

    @cached_property
    def _unseen(self) -> dict[str, TopicForecasts]:
        return self.forecasts(self.rows)

    def why_demoted(self, topic: Topic) -> str:
        """Say why the network may not serve a topic any longer; empty if it may, or if no row can decide."""
        if (of_topic := self._unseen.get(topic.key)) is None:
            return ""
        interval_ms = self.windows.plan.panel.interval_ms
        ticks, steps = of_topic.open_time_ms // interval_ms, topic.horizon_ms // interval_ms
        # Counted from the time of publication: the champions file may hold a later date, of a return after a demotion.
        counts = ticks >= scored_from(ticks, self.artefact.manifest.created_ms // interval_ms, steps)
        return why_demoted(compare(ticks[counts], of_topic.losses[counts], of_topic.naive_losses[counts], steps))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidates:
    """The networks that may answer a panel's topics. Each runs once, however many topics it serves."""

    registry: Registry
    windows: Windows
    split: Split  # of the challenger
    oldest_ms: int  # networks made before this may not answer
    scored: dict[str, _Scored | None] = field(default_factory=dict)  # by version

    def score(self, artefact: Artefact) -> _Scored:
        """Run a network at the judge rows and the rows that decide a demotion, without rows that the network has seen.

        A network's judge part begins one longest horizon after the rows used for training, stopping and calibration,
        so no label of those rows reaches into the judge part.

        Raises:
            IncompatibleModel, UnusableForecast: the network cannot answer, or moves an answer too far.
        """
        plan, end_ms = self.windows.plan, self.split.judge_end_ms
        demotion_ms = end_ms - SCORED_TICKS * plan.panel.interval_ms - plan.gap_ms
        start_ms = max(artefact.manifest.split.judge_start_ms, min(self.split.judge_start_ms, demotion_ms))
        windows = self.windows.reading(artefact.manifest.lookback)
        rows = windows.rows(start_ms, end_ms)
        forecaster = BiRNNForecaster(artefact)
        output = outputs(forecaster.network, windows, rows)
        forecaster.check_jumps(windows.gather(spread(rows)))
        return _Scored(artefact=artefact, forecaster=forecaster, windows=self.windows, rows=rows, output=output)

    def published(self, version: str, manifest_sha256: str | None = None) -> _Scored | None:
        """Return a published version with outputs; None if the version is too old or cannot be used."""
        try:
            artefact = self.registry.open(version, manifest_sha256)
            if artefact.manifest.created_ms < self.oldest_ms:
                return None
            if version not in self.scored:
                self.scored[version] = None  # a network that fails is not run again
                self.scored[version] = self.score(artefact)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
            return None
        return self.scored[version]

    def champions(self) -> dict[str, tuple[Champion, _Scored]]:
        """Return the champions that can answer now, by ``Topic.key``."""
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
    """Demote champions that are worse than the naive forecast, then decide which topics the challenger serves.

    Nothing is promoted here. Challenger, champions and the naive forecast are scored on the same rows: the newest rows,
    which none of these networks used for training, stopping or calibration, and whose longest window has no hole.

    Args:
        oldest_champion_ms: champions made before this are ignored.
    Raises:
        UnusableForecast: the challenger cannot be judged; demotions stay in force.
    """
    windows, split, interval_ms = trained.windows, trained.split, trained.windows.plan.panel.interval_ms
    candidates = _Candidates(registry=registry, windows=windows, split=split, oldest_ms=oldest_champion_ms)
    demoted = _demote_worse(candidates, now_ms)
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
    """Reduce the lambda of each return head until no single feature moves a forecast further than ``MOST_MOVED``.

    Without this, a past in a straight line would give a lambda of 1, and every challenger would fail ``check_jumps``.
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
    """Set ``lambda`` to 0 where the naive forecast serves a topic and the gate refused the challenger.

    The challenger then serves the topic with exactly the naive forecast. So the topic has a published network, which
    matters to ``NO_MODEL_POLICY=refuse``. ``lambda`` stays where the gate promoted the challenger for another topic of
    the same symbol and head. A champion that is not naive stays too.

    Returns:
        The changed challenger, and the verdicts with the change as their reason.
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
    """Replace each calibration factor with ``factor_of(symbol, head key, present factor)``."""
    present = Calibration.from_json(challenger.manifest.calibration).factors
    calibration = Calibration(
        factors={
            symbol: {head: factor_of(symbol, head, factor) for head, factor in heads.items()}
            for symbol, heads in present.items()
        }
    ).to_json()
    return replace(challenger, manifest=challenger.manifest.model_copy(update={"calibration": calibration}))


def _demote_worse(candidates: _Candidates, now_ms: int) -> dict[str, str]:
    """Demote champions that are worse than the naive forecast; return the reasons by ``Topic.key``."""
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
    """Return the version that served before a champion, if that may serve again; None means the naive forecast."""
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
