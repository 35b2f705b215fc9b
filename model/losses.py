"""The functions of ``core.losses``, computed with numpy, for scores."""

from collections.abc import Callable
from functools import partial

import numpy as np

from core.losses import loss_named
from klines.klines import Floats


def loss(name: str) -> Callable[[Floats, Floats, float], Floats]:
    """Return the loss function that a topic names; it takes truths, forecasts and ``std``, and returns losses.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> loss("ae")(np.array([3.0]), np.array([1.0]), 1.0).tolist()
    [2.0]
    """
    return partial(loss_named(name), np)
