"""The training objective: the losses of ``core.losses``, computed with torch and with a gradient."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from core.losses import loss_named
from klines.klines import Floats
from model.features import FLAT
from model.heads import SQUARED
from model.training.calibrating import returns_std
from model.training.config import TrainingConfig
from model.training.linear import LinearPath
from model.windows import Rows, Split, Windows

TARGET_LIMIT = 5.0  # training labels are clipped here: one crash must not steer the network


def torch_loss(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of that name, row by row: ``(y, p, std)`` that broadcast to the losses in that shape.

    czar lacks its term of the truth alone, which moves no gradient: only differences between two forecasts are the
    network's. Gradients by ``p`` are finite for every finite forecast up to the size whose square float32 can hold.
    That of ztae fades out some standard deviations from 0: a training with it has to start near 0, as ours does.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> torch_loss("abse")(torch.tensor([3.0]), torch.tensor([1.0, 5.0]), torch.tensor(1.0)).tolist()
    [2.0, 2.0]
    """
    return partial(loss_named(name).forecast_part, torch)


class Objective:
    """The mean loss over heads and over the windows whose future has no hole.

    A volatility head, and a head of the squared loss, minimises half the squared error of its targets, which adapt to
    the volatility of the moment. A return head of another loss minimises that loss itself, in standard deviations of
    the symbol's past returns, as the network computes it.
    """

    def __init__(self, windows: Windows, split: Split, config: TrainingConfig, path: LinearPath) -> None:
        plan = windows.plan
        self.weights = torch.tensor([1.0 if head.kind.is_volatility else config.return_weight for head in plan.heads])
        self._windows = windows
        self._path_FO = torch.from_numpy(path.weights.T.astype(np.float32).copy())
        self._others = {
            column: (torch_loss(head.loss), self._spread(split, column))
            for column, head in enumerate(plan.heads)
            if not head.kind.is_volatility and head.loss != SQUARED
        }

    def __call__(self, y_BO: Tensor, rows: Rows) -> Tensor:
        losses_BO, known_BO = self._losses(y_BO, rows)
        return (losses_BO * self.weights).sum() / (known_BO * self.weights).sum().clamp(min=1e-9)

    def by_head(self, y_NO: Tensor, rows: Rows) -> Floats:
        """``(O,)`` mean loss of each head; 0 for a head without rows."""
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
        """``(S,)`` by symbol: standard deviation of a head's past returns, over the root of the horizon in candles."""
        windows = self._windows
        rows = windows.rows(split.train_start_ms, split.train_end_ms)
        rows = rows[np.isfinite(windows.truth[rows, column])]
        steps = windows.plan.panel.steps(windows.plan.heads[column])
        std = returns_std(
            windows.truth[rows, column], windows.symbol[rows], len(windows.plan.symbols), FLAT * steps**0.5
        )
        spread_S: Floats = std / steps**0.5
        return spread_S
