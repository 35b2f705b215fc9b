"""Training of one network of a panel: by epochs, stopped by the validation part."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.errors import TrainingFailed
from klines.klines import Floats
from model.features import FEATURES, varying
from model.panels import PanelPlan
from model.training.birnn import BiRNNModel, torch_network
from model.training.config import TrainingConfig
from model.training.linear import LinearPath
from model.training.objectives import Objective
from model.windows import Rows, Split, Windows

Progress = Callable[[int, int, int, float], None]  # epoch from 1, batch from 1, batches in the epoch, batch loss
Validated = Callable[[int, float], None]  # epoch from 1, loss on the validation rows after it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A trained network among the several of a panel."""

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
        rng: orders the rows; torch's own generator makes the weights and goes on from member to member.
        path: the linear path that the network is added to.
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
            model.leave_out(unread_F)  # Adam turns even a gradient of rounding noise into a full step
            schedule.step()
            progress(epoch, number, len(batches), loss.item())
        heads = objective.by_head(_outputs(model, windows, validate), validate)
        total = float(heads @ objective.weights.numpy())
        if not np.isfinite(total):
            raise _not_finite(plan, config, f"the validation loss is {total} after epoch {epoch}")
        validated(epoch, total)
        if total < best_loss:
            best_loss, best_epoch, best_heads, best_state = total, epoch, heads, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    model.eval()
    return Member(model=model, epochs=epoch, best_epoch=best_epoch, validation=best_heads)


def _not_finite(plan: PanelPlan, config: TrainingConfig, fault: str) -> TrainingFailed:
    return TrainingFailed(
        f"{plan.panel.name} panel: {fault}; "
        f"lower learning_rate (was {config.learning_rate}) or clip_norm (was {config.clip_norm})"
    )


def _outputs(model: BiRNNModel, windows: Windows, rows: Rows) -> Tensor:
    """``(N, O)`` the model's outputs, batch by batch; they may be infinite or NaN."""
    network = torch_network(model)
    return torch.from_numpy(
        np.concatenate([network(windows.gather(part)) for part in np.array_split(rows, -(-len(rows) // 1024))])
    )


@contextmanager
def torch_settings(seed: int, threads: int) -> Iterator[None]:
    """Give torch a seed and a number of threads, and restore the process's own at the end."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
