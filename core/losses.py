"""The table of the network's loss functions. A new loss is a new ``Loss`` in ``LOSSES`` and nothing else.

A formula takes the library it computes with: numpy for scores and serving, torch for training, so that serving needs no
torch. ``y`` is what came true, ``p`` the forecast, both in the topic's unit and of shapes that broadcast; ``std`` is
the standard deviation of past returns over the same horizon, whose mean is taken to be 0. The losses of returns look at
``z = y / std`` and ``q = p / std``; the others ignore ``std``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import atan, exp, log, log1p, pi
from types import MappingProxyType
from typing import Any

from core.errors import ConfigError

Array = Any  # of the library
Formula = Callable[[Any, Array, Array, Array], Array]  # library, y, p, std

CZAR_ALPHA, CZAR_EPSILON, CZAR_TAU = 1.0, 1.0, 0.05
ZPTAE_ALPHA, ZPTAE_BETA = 0.25, 2.0


def _squared_error(xp: Any, y: Array, p: Array, std: Array) -> Array:
    return xp.square(y - p)


def _absolute_error(xp: Any, y: Array, p: Array, std: Array) -> Array:
    return xp.abs(y - p)


def _huber(xp: Any, y: Array, p: Array, std: Array) -> Array:
    """Half the squared error up to an error of 1, linear with slope 1 beyond."""
    error = xp.abs(y - p)
    near = xp.clip(error, None, 1.0)
    return near * (error - 0.5 * near)  # no branch whose square overflows beside the one that is taken


def _logcosh(xp: Any, y: Array, p: Array, std: Array) -> Array:
    """``ln cosh (y - p)``, written so that a large error does not overflow."""
    error = xp.abs(y - p)
    return error + xp.log1p(xp.exp(-2 * error)) - log(2.0)


def _ztae(xp: Any, y: Array, p: Array, std: Array) -> Array:
    """``|tanh z - tanh q|``: between 0 and 2. Source: ``loss_methods`` of the package allora-sdk."""
    return xp.abs(xp.tanh(y / std) - xp.tanh(p / std))


def _zptae(xp: Any, y: Array, p: Array, std: Array) -> Array:
    """``|P(z) - P(q)| + (0.01 |q - z|)^4`` with ``P(x) = x / (1 + |x|^beta)^((1 - alpha) / beta)``.

    Source: ``loss_methods`` of the package allora-sdk; alpha 0.25, beta 2.
    """
    z, q = y / std, p / std

    def power_tanh(x: Array) -> Array:
        length = xp.hypot(xp.ones_like(x), x)  # 1 + x^2 overflows in float32 long before x does
        return x / length ** (2 * (1 - ZPTAE_ALPHA) / ZPTAE_BETA)

    return xp.abs(power_tanh(z) - power_tanh(q)) + (0.01 * xp.abs(q - z)) ** 4


_D = CZAR_ALPHA / 3.0**0.5
_K = 1 + _D**2


def _czar(xp: Any, y: Array, p: Array, std: Array) -> Array:
    """Composite zero-agnostic returns, for log-returns; alpha 1, epsilon 1, tau 0.05. ``_czar_softening`` is added.

    Source: allora-network/allora-forge-builder-kit, ``shared/loss-design.md``.
    """
    z, q = y / std, p / std
    a = xp.abs(z)
    u = xp.where(z >= 0, q, -q)  # the forecast in the direction of the truth
    bend = _K * 2 * _D / _K**2  # the curvature at 0, with 1 + d^2 = k
    wrong_sign = 0.5 * bend * q**2 - u + _czar_gain(xp, a)
    too_small = _K * (xp.arctan(a + _D) - xp.arctan(u + _D))
    steep = xp.clip(_K * 2 * (a + _D) / (1 + (a + _D) ** 2) ** 2, None, bend)
    too_large = 0.5 * steep * (u - a) ** 2 + _K / (1 + (a + _D) ** 2) * (u - a)
    return xp.where(u <= 0, wrong_sign, xp.where(u <= a, too_small, too_large))


def _czar_gain(xp: Any, a: Array) -> Array:
    """``k (arctan(a + d) - arctan d)``: the saving of a perfect forecast of size ``a`` over a forecast of 0."""
    return _K * (xp.arctan(a + _D) - atan(_D))


def _czar_softening(xp: Any, y: Array, std: Array) -> Array:
    """Softens small truths: it moves no decision, but it does move the ratio to the naive forecast.

    The design's ``e``, of which ``d / k e^2 + e`` is the gain of a perfect forecast of size epsilon, enters by that sum
    alone: in the temperature, in the margin, and as the loss of a forecast of ``e`` when nothing moved.
    """
    full = _K * (atan(CZAR_EPSILON + _D) - atan(_D))
    temperature = CZAR_TAU * abs(1 - _K * (pi / 2 - atan(_D)) / full)
    margin = (1 - _czar_gain(xp, xp.abs(y / std)) / full) / temperature
    return xp.logaddexp(xp.zeros_like(margin), margin) / log1p(exp(1 / temperature)) * full


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss function by the names that topics use."""

    name: str
    spellings: tuple[str, ...] = ()  # other names that the network has for it
    of_returns: bool = False  # True if it needs returns and their ``std``: it is not defined for volatility
    forecast_part: Formula  # all that depends on the forecast: what is trained towards
    truth_part: Callable[[Any, Array, Array], Array] | None = None  # library, y, std: added to it in scores

    def __call__(self, xp: Any, y: Array, p: Array, std: Array) -> Array:
        """Losses, row by row."""
        losses = self.forecast_part(xp, y, p, std)
        return losses if self.truth_part is None else losses + self.truth_part(xp, y, std)


LOSSES = (
    Loss(name="mse", spellings=("sqe", "se"), forecast_part=_squared_error),
    Loss(name="mae", spellings=("abse", "ae"), forecast_part=_absolute_error),
    Loss(name="huber", forecast_part=_huber),
    Loss(name="logcosh", forecast_part=_logcosh),
    Loss(name="ztae", of_returns=True, forecast_part=_ztae),
    Loss(name="zptae", of_returns=True, forecast_part=_zptae),
    Loss(name="czar", of_returns=True, forecast_part=_czar, truth_part=_czar_softening),
)
_BY_NAME = {loss.name: loss for loss in LOSSES} | {name: loss for loss in LOSSES for name in loss.spellings}

# Each spelling the network uses for a loss, and the name we use.
LOSS_NAMES: Mapping[str, str] = MappingProxyType({spelling: loss.name for spelling, loss in _BY_NAME.items()})


def loss_named(name: str) -> Loss:
    """The loss that a topic names.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> loss_named("ae").name
    'mae'
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ConfigError(f"Loss must be one of {', '.join(LOSS_NAMES)}, was {name!r}") from None
