"""The network's loss functions for scores: those of ``core.losses``, computed with numpy."""

from collections.abc import Callable
from functools import partial

import numpy as np

from core.losses import loss_named
from klines.klines import Floats


def loss(name: str) -> Callable[[Floats, Floats, float], Floats]:
    """The loss function that a topic names: what came true, the forecast and ``std`` to the losses.

    Raises:
        ConfigError: no such loss, with the names there are.

    >>> loss("ae")(np.array([3.0]), np.array([1.0]), 1.0).tolist()
    [2.0]
    """
    return partial(loss_named(name), np)
