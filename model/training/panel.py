"""Training of a panel: windows, networks, linear path, calibration, and evidence for the gate."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from klines.klines import Floats, Klines
from model.calibration import Calibration
from model.features import Floats32
from model.judging.evaluation import TopicForecasts, forecasts, outputs
from model.network import MOST_MOVED, Network, jumps
from model.panels import PanelPlan
from model.training import calibrating, linear
from model.training.birnn import BiRNNModel, PanelNetwork, torch_network
from model.training.calibrating import Evidence
from model.training.config import TrainingConfig
from model.training.fit import Progress, Validated, fit, torch_settings
from model.training.linear import LinearPath
from model.windows import Split, Windows, build, purged_split, spread

SPARE = 0.8  # of the bound: the windows that are judged on may move a head farther than those of the validation part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedPanel:
    """A trained network with all data that judging and publishing need."""

    plan: PanelPlan
    config: TrainingConfig
    seed: int
    model: PanelNetwork
    calibration: Calibration
    windows: Windows
    split: Split
    rows: Mapping[str, int]  # windows in train (of one epoch), validate and judge
    epochs: tuple[int, ...]  # run, for each member
    best_epoch: tuple[int, ...]  # from 1; the model has the weights of this epoch
    validation: Mapping[str, float]  # loss of each head on the validation rows, by key; mean over the members
    gains: Mapping[str, float]  # factors on the members' outputs beside the linear path, by key of return heads
    # What trainings of earlier moments would have served, span by span of training and validation part: of return
    # topics whose members have a gain of 0.
    evidence: tuple[TopicForecasts, ...]


def train_panel(
    plan: PanelPlan,
    klines: Mapping[str, Klines],
    config: TrainingConfig,
    seed: int,
    progress: Progress = lambda _epoch, _batch, _batches, _loss: None,
    validated: Validated = lambda _epoch, _loss: None,
) -> TrainedPanel:
    """Features, windows, split, training and calibration of one panel.

    Args:
        plan: the symbols, heads and topics; the configuration gives the length of the windows.
        klines: the panel's candles by symbol, the leader's among them.
        seed: the same seed, klines, config and machine give the same weights.
        progress: called after each batch; epochs are counted through all members.
        validated: called after each epoch of the first member; an exception of it ends the training.
    Raises:
        TrainingFailed: too few windows, or a loss that is not finite.
    """
    plan = plan.reading(config.lookback)
    windows = build(plan, klines)
    split = purged_split(windows)
    validate = windows.rows(split.validate_start_ms, split.validate_end_ms)
    path = linear.fit(windows, split)
    with torch_settings(seed, config.threads):
        members = [
            fit(
                windows,
                split,
                config,
                np.random.default_rng([seed, number] if number else seed),
                path,
                partial(_of_member, progress, number, config.epochs),
                (lambda _epoch, _loss: None) if number else validated,
            )
            for number in range(config.seeds)
        ]
        models = [member.model for member in members]
        recurrent = outputs(torch_network(PanelNetwork(models)), windows, validate)
    linear_there, unseen = path(windows, validate), Evidence(rows=path.rows, output=path.unseen)
    gains_O = calibrating.gains(windows, validate, linear_there, recurrent, unseen)
    gains_O *= _within_bounds(plan, torch_network(PanelNetwork(models)), windows.gather(spread(validate)))
    for model in models:
        _scale_outputs(model, gains_O)
    network = PanelNetwork(models, torch.from_numpy(path.weights.astype(np.float32))).eval()
    validated_rows = Evidence(rows=validate, output=recurrent * gains_O + linear_there)
    calibration = calibrating.fit(windows, validated_rows, unseen)
    alone = np.where(gains_O > 0, np.nan, path.unseen)  # with a gain, the path alone is not what is served
    returns = [column for column, head in enumerate(plan.heads) if not head.kind.is_volatility]
    return TrainedPanel(
        plan=plan,
        config=config,
        seed=seed,
        model=network,
        calibration=calibration,
        windows=windows,
        split=split,
        rows={
            "train": len(windows.rows(split.train_start_ms, split.train_end_ms, stride=config.stride)),
            "validate": len(validate),
            "judge": len(windows.rows(split.judge_start_ms, split.judge_end_ms)),
        },
        epochs=tuple(member.epochs for member in members),
        best_epoch=tuple(member.best_epoch for member in members),
        validation={
            head.key: float(np.mean([member.validation[column] for member in members]))
            for column, head in enumerate(plan.heads)
        },
        gains={plan.heads[column].key: float(gains_O[column]) for column in returns},
        evidence=_evidence(windows, path, alone),
    )


def _within_bounds(plan: PanelPlan, network: Network, x_NLF: Floats32) -> Floats:
    """``(O,)``: factors on the volatility heads, so that no feature alone throws a head; 1 for returns.

    If the past was one straight line, such a head has learnt arbitrary weights of features that never varied.
    """
    nothing_1LF = np.zeros((1, *x_NLF.shape[1:]), np.float32)
    most_O = jumps(network, np.concatenate([nothing_1LF, x_NLF])).max(axis=0).astype(np.float64)
    bounded_O = np.minimum(1.0, SPARE * MOST_MOVED / np.maximum(most_O, SPARE * MOST_MOVED))
    thrown_O = most_O > MOST_MOVED
    volatility_O = np.array([head.kind.is_volatility for head in plan.heads])
    return np.where(thrown_O & volatility_O, bounded_O, 1.0)


def _of_member(progress: Progress, number: int, epochs: int, epoch: int, batch: int, batches: int, loss: float) -> None:
    progress(number * epochs + epoch, batch, batches, loss)


def _scale_outputs(model: BiRNNModel, gains_O: Floats) -> None:
    factors_O = torch.from_numpy(gains_O.astype(np.float32))
    with torch.no_grad():
        model.linear.weight.mul_(factors_O[:, None])
        model.linear.bias.mul_(factors_O)


def _evidence(windows: Windows, path: LinearPath, alone: Floats) -> tuple[TopicForecasts, ...]:
    """Forecasts that would have been served in each span but the first: the span's line, with the ``lambda``
    that the earlier spans give.

    Args:
        alone: ``(N, O)`` at ``path.rows``; NaN for heads to leave out.
    """
    heads = windows.plan.heads
    found: list[TopicForecasts] = []
    time_ms = windows.open_time_ms[path.rows]
    for start_ms, until_ms in path.spans[1:]:
        now = (time_ms >= start_ms) & (time_ms < until_ms)
        known = time_ms < start_ms - windows.plan.gap_ms
        columns = [column for column in range(len(heads)) if now.any() and np.isfinite(alone[now, column]).all()]
        past = Evidence(rows=path.rows[known], output=alone[known])
        factors: dict[str, dict[str, float]] = {symbol: {} for symbol in windows.plan.symbols}
        for column in columns:
            for symbol, share in calibrating.shares(windows, past, column).items():
                factors[symbol][heads[column].key] = share
        if columns:
            found += forecasts(
                windows,
                path.rows[now],
                alone[now][:, columns].astype(np.float32),
                [heads[column] for column in columns],
                Calibration(factors=factors),
            )
    return tuple(found)
