"""Training a panel's network, and handing it on: ONNX for serving, safetensors for whoever trains further."""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save
from torch import Tensor

from core.errors import TrainingFailed
from klines.klines import Floats, Klines
from model import calibration as calibrations
from model.calibration import Calibration, Evidence
from model.evaluation import Network, TopicForecasts, forecasts, onnx_network, outputs
from model.features import FEATURES, FLAT, Floats32, jumps, varying
from model.forecaster import MOST_MOVED
from model.heads import SQUARED, Kind, PanelPlan
from model.training import linear
from model.training.birnn import BiRNNModel, PanelNetwork
from model.training.config import TrainingConfig
from model.training.linear import LinearPath
from model.training.objectives import torch_loss
from model.windows import Rows, Split, Windows, build, purged_split, spread

SPARE = 0.8  # of the bound: the windows that are judged on may move a head farther than those of the validation part

Progress = Callable[[int, int, int, float], None]  # epoch from 1, batch from 1, batches in the epoch, its loss
Validated = Callable[[int, float], None]  # epoch from 1, loss on the validation rows after it

TARGET_LIMIT = 5.0  # training labels are clipped here: one crash must not steer the network
ONNX_TOLERANCE = 1e-5  # largest difference between torch and the published network, of outputs up to 1; relative beyond
OPSET = 17


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedPanel:
    """A trained network with all that is needed to judge and publish it."""

    plan: PanelPlan
    config: TrainingConfig
    seed: int
    model: PanelNetwork
    calibration: Calibration
    windows: Windows
    split: Split
    rows: Mapping[str, int]  # windows in train (of one epoch), validate and judge
    epochs: tuple[int, ...]  # run, for each member
    best_epoch: tuple[int, ...]  # from 1; its weights are the ones here
    validation: Mapping[str, float]  # loss of each head on the validation rows, by key; mean over the members
    gains: Mapping[str, float]  # what the members' word counts beside the linear path's, by key of return heads
    evidence: tuple[TopicForecasts, ...]  # of return topics, stretch by stretch of the training and the validation
    # part: what a training of then would have served; none where the members have a say


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
        plan: the symbols, heads and topics; the length of its windows is the configuration's.
        klines: the panel's candles by symbol, the leader's among them.
        seed: the same seed, klines, config and machine give the same weights.
        progress: called after each batch; epochs are counted through all members.
        validated: called after each epoch of the first member; what it raises ends the training.
    Raises:
        TrainingFailed: too few windows, or a loss that is not finite.
    """
    plan = plan.reading(config.lookback)
    windows = build(plan, klines)
    split = purged_split(windows)
    validate = windows.rows(split.validate_start_ms, split.validate_end_ms)
    path = linear.fit(windows, split)
    with _torch_settings(seed, config.threads):
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
    gains_O = calibrations.gains(windows, validate, linear_there, recurrent, unseen)
    gains_O *= _within_bounds(plan, torch_network(PanelNetwork(models)), windows.gather(spread(validate)))
    for model in models:
        _scale_outputs(model, gains_O)
    network = PanelNetwork(models, torch.from_numpy(path.weights.astype(np.float32))).eval()
    validated_rows = Evidence(rows=validate, output=recurrent * gains_O + linear_there)  # as the network says it
    calibration = calibrations.fit(windows, validated_rows, unseen)
    alone = np.where(gains_O > 0, np.nan, path.unseen)  # beside members that have a say it is not what is served
    returns = [column for column, head in enumerate(plan.heads) if head.kind is Kind.RETURN]
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
    """``(O,)``: what the volatility heads are multiplied by, so that no feature alone throws one; 1 for returns.

    Where the past was one straight line such a head learns anything of features that never had anything to say.
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
    """What would have been served in each stretch but the first: its own line, trusted as far as the stretches before
    it would have had it.

    Args:
        alone: ``(N, O)`` at ``path.rows``; NaN for heads that are not to be spoken of.
    """
    heads = windows.plan.heads
    found: list[TopicForecasts] = []
    time_ms = windows.open_time_ms[path.rows]
    for start_ms, until_ms in path.stretches[1:]:
        now = (time_ms >= start_ms) & (time_ms < until_ms)
        known = time_ms < start_ms - windows.plan.gap_ms
        columns = [column for column in range(len(heads)) if now.any() and np.isfinite(alone[now, column]).all()]
        past = Evidence(rows=path.rows[known], output=alone[known])
        factors: dict[str, dict[str, float]] = {symbol: {} for symbol in windows.plan.symbols}
        for column in columns:
            for symbol, share in calibrations.shares(windows, past, column).items():
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One trained network of a panel's."""

    model: BiRNNModel  # in evaluation mode, with its best weights
    epochs: int  # run
    best_epoch: int  # from 1
    validation: Floats  # (O,) loss of each head


def fit(
    windows: Windows,
    split: Split,
    config: TrainingConfig,
    rng: np.random.Generator,
    path: LinearPath,
    progress: Progress,
    validated: Validated,
) -> Member:
    """Train on the split's first part, stop by its second, and put the best weights back.

    Args:
        rng: orders the rows; torch's own generator makes the weights and goes on from one member to the next.
        path: what the network is added to.
    Raises:
        TrainingFailed: a loss is not finite; names epoch and batch.
    """
    plan = windows.plan
    phases = [
        windows.rows(split.train_start_ms, split.train_end_ms, stride=config.stride, phase=phase)
        for phase in range(min(config.stride, config.epochs))
    ]
    model = BiRNNModel(
        len(FEATURES), config.hidden_layer_size, len(plan.heads), config.num_layers, config.dropout, config.cell
    )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    unread_F = torch.from_numpy(~varying(windows.x[phases[0]]))
    model.leave_out(unread_F)
    objective = Objective(windows, split, config, path)
    validate = windows.rows(split.validate_start_ms, split.validate_end_ms, stride=config.stride)
    if not len(validate):  # a short part and a long stride
        validate = windows.rows(split.validate_start_ms, split.validate_end_ms)
    steps = sum(-(-len(phases[epoch % len(phases)]) // config.batch_size) for epoch in range(config.epochs))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, max(steps, 2), pct_start=0.15)
    best_loss, best_epoch, best_state, epoch = np.inf, 0, model.state_dict(), 0
    best_heads: Floats = np.zeros(len(plan.heads))
    while epoch < config.epochs and epoch - best_epoch < config.patience:
        epoch += 1
        rows = rng.permutation(phases[(epoch - 1) % len(phases)])
        batches = [rows[first : first + config.batch_size] for first in range(0, len(rows), config.batch_size)]
        model.train()
        for number, batch in enumerate(batches, 1):
            loss = objective(model(torch.from_numpy(windows.gather(batch))), batch)
            if not torch.isfinite(loss):
                raise _not_finite(plan, config, f"the loss is {loss.item()} in epoch {epoch}, batch {number}")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            model.leave_out(unread_F)  # the optimizer makes a full step of the gradient of rounding noise
            schedule.step()
            progress(epoch, number, len(batches), loss.item())
        heads = objective.by_head(_said(model, windows, validate), validate)
        total = float(heads @ objective.weights.numpy())
        if not np.isfinite(total):
            raise _not_finite(plan, config, f"the validation loss is {total} after epoch {epoch}")
        validated(epoch, total)
        if total < best_loss:
            best_loss, best_epoch, best_heads, best_state = total, epoch, heads, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    model.eval()
    return Member(model=model, epochs=epoch, best_epoch=best_epoch, validation=best_heads)


def _not_finite(plan: PanelPlan, config: TrainingConfig, what: str) -> TrainingFailed:
    return TrainingFailed(
        f"{plan.panel.name} panel: {what}; "
        f"lower learning_rate (was {config.learning_rate}) or clip_norm (was {config.clip_norm})"
    )


class Objective:
    """What the network is trained towards: a mean over heads and over the windows whose future has no hole.

    A head whose loss is squared, and every volatility head, minimises half the squared error of its targets, which
    adapt to the volatility of the moment. A return head of another loss minimises that loss itself, in standard
    deviations of the symbol's past returns, as the network computes it.
    """

    def __init__(self, windows: Windows, split: Split, config: TrainingConfig, path: LinearPath) -> None:
        plan = windows.plan
        self.weights = torch.tensor([1.0 if head.kind.is_volatility else config.return_weight for head in plan.heads])
        self._windows = windows
        self._path_FO = torch.from_numpy(path.weights.T.astype(np.float32).copy())
        self._others = {
            column: (torch_loss(head.loss), self._spread(split, column))
            for column, head in enumerate(plan.heads)
            if head.kind is Kind.RETURN and head.loss != SQUARED
        }

    def __call__(self, y_BO: Tensor, rows: Rows) -> Tensor:
        losses_BO, known_BO = self._losses(y_BO, rows)
        return (losses_BO * self.weights).sum() / (known_BO * self.weights).sum().clamp(min=1e-9)

    def by_head(self, y_NO: Tensor, rows: Rows) -> Floats:
        """``(O,)`` mean loss of each head; 0 for one that has no row."""
        losses_NO, known_NO = self._losses(y_NO, rows)
        heads_O: Floats = (losses_NO.sum(0) / known_NO.sum(0).clamp(min=1)).double().numpy()
        return heads_O

    def _losses(self, y_BO: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        target_BO = torch.from_numpy(self._windows.target[rows])
        known_BO = torch.isfinite(target_BO)
        target_BO = torch.nan_to_num(target_BO).clamp(-TARGET_LIMIT, TARGET_LIMIT)
        y_BO = y_BO + torch.from_numpy(self._windows.x[rows]) @ self._path_FO
        losses_BO = 0.5 * (y_BO - target_BO).square()
        for column, (of, spread_S) in self._others.items():
            unit_B = torch.from_numpy(
                (self._windows.scale[rows] / spread_S[self._windows.symbol[rows]]).astype(np.float32)
            )
            losses_BO[:, column] = of(target_BO[:, column] * unit_B, y_BO[:, column] * unit_B, torch.tensor(1.0))
        return losses_BO * known_BO, known_BO

    def _spread(self, split: Split, column: int) -> Floats:
        """``(S,)`` by symbol: standard deviation of a head's past returns, over the root of its horizon in candles."""
        windows = self._windows
        rows = windows.rows(split.train_start_ms, split.train_end_ms)
        rows = rows[np.isfinite(windows.truth[rows, column])]
        steps = windows.plan.panel.steps(windows.plan.heads[column])
        std = calibrations.returns_std(
            windows.truth[rows, column], windows.symbol[rows], len(windows.plan.symbols), FLAT * steps**0.5
        )
        spread_S: Floats = std / steps**0.5
        return spread_S


def _said(model: BiRNNModel, windows: Windows, rows: Rows) -> Tensor:
    """``(N, O)`` the model's outputs, batch by batch, finite or not."""
    network = torch_network(model)
    return torch.from_numpy(
        np.concatenate([network(windows.gather(part)) for part in np.array_split(rows, -(-len(rows) // 1024))])
    )


@contextmanager
def _torch_settings(seed: int, threads: int) -> Iterator[None]:
    """A seed and a number of threads for what torch does inside; the process gets its own back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def torch_network(model: BiRNNModel | PanelNetwork) -> Network:
    """The model as a function of arrays, without gradients or dropout."""

    def network(x_BLF: Floats32) -> Floats32:
        model.eval()
        with torch.no_grad():
            y_BO: Floats32 = model(torch.from_numpy(x_BLF)).numpy()
        return y_BO

    return network


def export_onnx(model: PanelNetwork, lookback: int, windows_BLF: Floats32) -> bytes:
    """The model for onnxruntime, checked against torch on random windows and on real ones.

    Args:
        model: the network, of any input size F.
        lookback: candles in a window.
        windows_BLF: ``(B, L, F)`` real windows to check with; B may be 0.
    Returns:
        the ONNX file: input ``x`` ``(batch, L, F)``, output ``y`` ``(batch, O)``, float32.
    Raises:
        TrainingFailed: an output differs from torch's by ONNX_TOLERANCE or more; names both and the window.
    """
    features = model.input_size
    model.eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # It is deprecated, but its successor unrolls the recurrence into a graph many times as large; and it warns
        # that the graph may hold for a batch of 1 alone: the check below is with other batches.
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(1, lookback, features),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        onnx = file.read_bytes()
    served, trained = onnx_network(onnx), torch_network(model)
    random = np.random.default_rng(0).normal(0, 2, (7, lookback, features)).astype(np.float32)
    for kind, x_BLF in (("random", random), ("real", windows_BLF)):
        if len(x_BLF):
            theirs_BO, ours_BO = served(x_BLF), trained(x_BLF)
            allowed = ONNX_TOLERANCE * max(1.0, float(np.abs(ours_BO).max()))
            apart_BO = np.nan_to_num(np.abs(theirs_BO - ours_BO), nan=np.inf)
            window, output = np.unravel_index(np.argmax(apart_BO), apart_BO.shape)
            if not apart_BO[window, output] < allowed:
                raise TrainingFailed(
                    f"the exported network differs from torch's by {apart_BO[window, output]:.3g}: output {output} of "
                    f"{kind} window {window} is {theirs_BO[window, output]:.9g}, torch says "
                    f"{ours_BO[window, output]:.9g}; allowed is less than {allowed:.3g}. torch {torch.__version__} and "
                    f"onnxruntime {onnxruntime.__version__} compute this network differently: the versions that were "
                    "tried together stand in requirements.lock"
                )
    return onnx


def weights_bytes(model: PanelNetwork) -> bytes:
    """The weights as safetensors; the first member's are named as the guide names them (``rnn.*``, ``linear.*``)."""
    return save({name: tensor.contiguous() for name, tensor in model.named_weights().items()})
