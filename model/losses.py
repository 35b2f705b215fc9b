"""The network's loss functions, by the names topics use.

``y`` is what came true, ``p`` the forecast, both in the topic's unit and of shapes that broadcast. The z-losses
look at ``z = y / std`` and ``q = p / std``: the mean is 0, ``std`` the standard deviation of past returns over
the same horizon. The others ignore ``std``.
"""

from collections.abc import Callable

import numpy as np

from core.errors import ConfigError
from klines.klines import Floats

Loss = Callable[[Floats, Floats, float], Floats]

CZAR_ALPHA, CZAR_EPSILON, CZAR_TAU = 1.0, 1.0, 0.05
ZPTAE_ALPHA, ZPTAE_BETA = 0.25, 2.0


def squared_error(y: Floats, p: Floats, std: float = 1.0) -> Floats:
    """``(y - p)^2``, in the unit squared."""
    return np.square(y - p)


def absolute_error(y: Floats, p: Floats, std: float = 1.0) -> Floats:
    """``|y - p|``, in the unit."""
    return np.abs(y - p)


def huber(y: Floats, p: Floats, std: float = 1.0) -> Floats:
    """Half the squared error up to an error of 1, linear with slope 1 beyond.

    >>> huber(np.array([0.0, 0.0]), np.array([0.5, 3.0])).tolist()
    [0.125, 2.5]
    """
    error = np.abs(y - p)
    return np.where(error <= 1.0, 0.5 * error**2, error - 0.5)


def logcosh(y: Floats, p: Floats, std: float = 1.0) -> Floats:
    """``ln cosh (y - p)``, written so that a large error does not overflow.

    >>> logcosh(np.array([0.0, 0.0]), np.array([0.0, 1000.0])).round(3).tolist()
    [0.0, 999.307]
    """
    error = np.abs(y - p)
    result: Floats = error + np.log1p(np.exp(-2 * error)) - np.log(2.0)
    return result


def ztae(y: Floats, p: Floats, std: float) -> Floats:
    """``|tanh z - tanh q|``: between 0 and 2. Source: ``loss_methods`` of the package allora-sdk."""
    result: Floats = np.abs(np.tanh(y / std) - np.tanh(p / std))
    return result


def zptae(y: Floats, p: Floats, std: float) -> Floats:
    """``|P(z) - P(q)| + (0.01 |q - z|)^4`` with ``P(x) = x / (1 + |x|^beta)^((1 - alpha) / beta)``.

    Source: ``loss_methods`` of the package allora-sdk; alpha 0.25, beta 2.
    """
    z, q = y / std, p / std

    def power_tanh(x: Floats) -> Floats:
        squashed: Floats = x / (1 + np.abs(x) ** ZPTAE_BETA) ** ((1 - ZPTAE_ALPHA) / ZPTAE_BETA)
        return squashed

    result: Floats = np.abs(power_tanh(z) - power_tanh(q)) + (0.01 * np.abs(q - z)) ** 4
    return result


def czar(y: Floats, p: Floats, std: float) -> Floats:
    """Composite zero-agnostic returns, for log-returns; alpha 1, epsilon 1, tau 0.05.

    A term that depends on the truth alone softens small truths: it moves no decision, but it does move the ratio
    to the naive forecast, so the difference is to be reported beside the ratio.

    Source: allora-network/allora-forge-builder-kit, ``shared/loss-design.md``.
    """
    z = np.asarray(y / std, np.float64)
    return _czar_core(z, np.asarray(p / std, np.float64)) + _czar_softening(np.abs(z))


_D = CZAR_ALPHA / 3.0**0.5
_K = 1 + _D**2


def _gain(a: Floats) -> Floats:
    """``k (arctan(a + d) - arctan d)``: what a perfect forecast of size ``a`` saves against one of 0."""
    result: Floats = _K * (np.arctan(a + _D) - np.arctan(_D))
    return result


def _curvature(x: Floats) -> Floats:
    result: Floats = 2 * np.abs(x) / (1 + x**2) ** 2
    return result


def _czar_core(z: Floats, q: Floats) -> Floats:
    a = np.abs(z)
    u = np.where(z >= 0, q, -q)  # the forecast in the direction of the truth
    wrong_sign = 0.5 * _K * _curvature(_D) * q**2 - u + _gain(a)
    too_small = _K * (np.arctan(a + _D) - np.arctan(u + _D))
    steep = np.minimum(_K * _curvature(a + _D), _K * _curvature(_D))
    too_large = 0.5 * steep * (u - a) ** 2 + _K / (1 + (a + _D) ** 2) * (u - a)
    result: Floats = np.where(u <= 0, wrong_sign, np.where(u <= a, too_small, too_large))
    return result


def _czar_softening(a: Floats) -> Floats:
    bend, worth = _D / _K, float(_gain(np.array(CZAR_EPSILON)))
    e = ((1 + 4 * bend * worth) ** 0.5 - 1) / (2 * bend)  # the positive root of bend e^2 + e = worth
    full = e + bend * e**2
    size = _czar_core(np.zeros(1), np.full(1, e))[0]  # of forecasting e when nothing moved
    temperature = CZAR_TAU * abs(1 - _K * (np.pi / 2 - np.arctan(_D)) / full)

    def softplus(x: Floats | float) -> Floats:
        softened: Floats = np.logaddexp(0.0, x)
        return softened

    margin = (1 - _gain(a) / full) / temperature
    result: Floats = softplus(margin) / softplus(1 / temperature) * size
    return result


_LOSSES: dict[str, Loss] = {
    "mse": squared_error,
    "sqe": squared_error,
    "se": squared_error,
    "mae": absolute_error,
    "abse": absolute_error,
    "ae": absolute_error,
    "huber": huber,
    "logcosh": logcosh,
    "ztae": ztae,
    "zptae": zptae,
    "czar": czar,
}
NAMES = tuple(_LOSSES)
OF_STANDARDISED_RETURNS = frozenset({"ztae", "zptae", "czar"})  # their std matters, and their y is a return


def loss(name: str) -> Loss:
    """The loss function a topic names.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> loss("ae")(np.array([3.0]), np.array([1.0]), 1.0).tolist()
    [2.0]
    """
    try:
        return _LOSSES[name]
    except KeyError:
        raise ConfigError(f"Loss must be one of {', '.join(NAMES)}, was {name!r}") from None
