"""The judgement of a round: which champions are demoted, and which topics the challenger serves from now on.

``model.judging.gate`` holds the rules, docs/decisions/0004 the reasons. Champions are checked first. A champion that is
worse than the naive forecast is demoted at once, even if the challenger fails afterwards; the challenger is then
compared with the champion that took over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import structlog

from core.clock import HOUR_MS
from core.sources import ADDS_NOTHING
from core.topic import Topic
from klines.klines import Floats
from model.calibration import Calibration
from model.forecaster import BiRNNForecaster
from model.heads import Head, head_of
from model.judging.evaluation import TopicForecasts
from model.judging.gate import Decision, judge_topics
from model.network import MOST_MOVED
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from model.training.panel import TrainedPanel
from model.windows import spread
from updater.candidates import Candidates, demotion_rows_ms
from updater.state import Verdict

WITHIN = 1 - 1e-6  # share of the bound that is used; the rest is room for rounding

NOTHING_TO_JUDGE = Decision(promoted=False, reason="no row to judge on, or a loss that is not finite")

log = structlog.get_logger()


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
    candidates = Candidates(
        registry=registry,
        windows=windows,
        start_ms=min(split.judge_start_ms, demotion_rows_ms(windows.plan, split.judge_end_ms)),
        end_ms=split.judge_end_ms,
        oldest_ms=oldest_champion_ms,
    )
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


def _demote_worse(candidates: Candidates, now_ms: int) -> dict[str, str]:
    """Demote champions that are worse than the naive forecast; return the reasons by ``Topic.key``."""
    champions, demoted = candidates.champions(), {}
    for topic in candidates.windows.plan.topics:
        if topic.key not in champions:
            continue
        entry, scored = champions[topic.key]
        if why := scored.why_demoted(topic):
            candidates.demote(topic, entry, why, now_ms)
            demoted[topic.key] = f"{entry.version} was {why}"
    return demoted


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
