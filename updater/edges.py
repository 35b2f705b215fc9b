"""Edges that a challenger loses before it is published: edges too large, and edges not proven."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from core.sources import ADDS_NOTHING
from model.calibration import Calibration
from model.forecaster import BiRNNForecaster
from model.heads import Head
from model.network import MOST_MOVED
from model.registry.artefact import Artefact
from model.training.panel import TrainedPanel
from model.windows import spread
from updater.state import Verdict

WITHIN = 1 - 1e-6  # of the bound: room for rounding

log = structlog.get_logger()


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
