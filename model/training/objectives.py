"""The network's losses for training: what ``model.losses`` computes, in torch and with a gradient.

``y`` is what came true, ``p`` the forecast, ``std`` the standard deviation of past truths; their shapes broadcast.
All losses but ``mse`` and ``mae`` change with the unit: hand them what the topic's own loss is computed of. czar lacks
its term of the truth alone, which moves no gradient: only differences between two forecasts are the network's.
"""

from collections.abc import Callable
from math import atan, log

import torch
from torch import Tensor

from core.errors import ConfigError
from core.topic import LOSS_NAMES
from model.losses import CZAR_ALPHA, ZPTAE_ALPHA, ZPTAE_BETA

TorchLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _squared_error(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    return torch.square(y - p)


def _absolute_error(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    return torch.abs(y - p)


def _huber(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    error = torch.abs(y - p)
    near = error.clamp(max=1.0)
    return near * (error - 0.5 * near)  # no branch whose square overflows beside the one that is taken


def _logcosh(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    error = torch.abs(y - p)
    return error + torch.log1p(torch.exp(-2 * error)) - log(2.0)


def _ztae(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    return torch.abs(torch.tanh(y / std) - torch.tanh(p / std))


def _zptae(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    z, q = y / std, p / std

    def power_tanh(x: Tensor) -> Tensor:
        length = torch.hypot(torch.ones_like(x), x)  # 1 + x^2 overflows in float32 long before x does
        return x / length ** (2 * (1 - ZPTAE_ALPHA) / ZPTAE_BETA)

    return torch.abs(power_tanh(z) - power_tanh(q)) + (0.01 * torch.abs(q - z)) ** 4


_D = CZAR_ALPHA / 3.0**0.5
_K = 1 + _D**2


def _czar(y: Tensor, p: Tensor, std: Tensor) -> Tensor:
    z, q = y / std, p / std
    a = torch.abs(z)
    u = torch.where(z >= 0, q, -q)  # the forecast in the direction of the truth
    gain = _K * (torch.atan(a + _D) - atan(_D))
    bend = _K * 2 * _D / _K**2  # k g(d), with 1 + d^2 = k
    wrong_sign = 0.5 * bend * q**2 - u + gain
    too_small = _K * (torch.atan(a + _D) - torch.atan(u + _D))
    steep = (_K * 2 * (a + _D) / (1 + (a + _D) ** 2) ** 2).clamp(max=bend)
    too_large = 0.5 * steep * (u - a) ** 2 + _K / (1 + (a + _D) ** 2) * (u - a)
    return torch.where(u <= 0, wrong_sign, torch.where(u <= a, too_small, too_large))


_LOSSES: dict[str, TorchLoss] = {
    "mse": _squared_error,
    "mae": _absolute_error,
    "huber": _huber,
    "logcosh": _logcosh,
    "ztae": _ztae,
    "zptae": _zptae,
    "czar": _czar,
}


def torch_loss(name: str) -> TorchLoss:
    """The loss of that name, row by row: ``(y, p, std)`` that broadcast to the losses in that shape.

    Gradients by ``p`` are finite for every finite forecast up to the size whose square float32 can hold. That of ztae
    fades out some standard deviations from 0: whoever trains with it starts near 0, as the network does.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> torch_loss("abse")(torch.tensor([3.0]), torch.tensor([1.0, 5.0]), torch.tensor(1.0)).tolist()
    [2.0, 2.0]
    """
    try:
        return _LOSSES[LOSS_NAMES[name]]
    except KeyError:
        raise ConfigError(f"Loss must be one of {', '.join(LOSS_NAMES)}, was {name!r}") from None
