"""A head's truth, naive forecast and scaling: the numbers that the network learns, and their decoding."""

import numpy as np

from klines.klines import Floats, Klines
from model.features import FLAT
from model.heads import Head
from model.panels import Panel

QUIET = 0.05  # of the present volatility, added before the logarithm: a silent market is not minus infinity


def truth(klines: Klines, panel: Panel, head: Head) -> Floats:
    """Return the truth after each row, in the head's unit.

    Returns:
        ``(T,)``: row ``t`` reads candles ``t`` to ``t + steps``; NaN where one of them is missing or not yet there.
    """
    steps = panel.steps(head)
    trailing = head.kind.measure.trailing(klines, steps)
    ahead: Floats = np.concatenate([trailing[steps:], np.full(min(steps, len(klines)), np.nan)])
    return ahead


def naive(klines: Klines, panel: Panel, head: Head) -> Floats:
    """The naive forecast at each row: no move, or the volatility of the last window of the horizon's length.

    Returns:
        ``(T,)`` in the head's unit; reads nothing after its row; NaN where a needed candle is missing.
    """
    if head.kind.is_volatility:
        return head.kind.measure.trailing(klines, panel.steps(head))
    return np.zeros(len(klines))


def encode(value: Floats, scale: Floats, panel: Panel, head: Head) -> Floats:
    """A truth in the head's unit as the network's target; 0 is "as now".

    Args:
        value: log-return, or volatility per minute.
        scale: volatility of one candle at the window's end (``FeatureTable.scale``).
    Returns:
        the return in standard deviations of the horizon, or the logarithm of the volatility over the present one.
    """
    target: Floats = value / (scale * panel.steps(head) ** 0.5)
    if head.kind.is_volatility:
        target = np.log((value / (scale * panel.per_minute) + QUIET) / (1 + QUIET))
    return target


def decode(output: Floats, scale: Floats, panel: Panel, head: Head) -> Floats:
    """The network's output in the head's unit: the inverse of ``encode``; a volatility is never below 0.

    A volatility is 0 if no candle of its scale has moved: then the scale is FLAT, which no market has.
    """
    if head.kind.is_volatility:
        value = np.maximum(np.exp(output) * (1 + QUIET) - QUIET, 0.0) * (scale * panel.per_minute)
        return np.where(scale > FLAT * (1 + 1e-6), value, 0.0)
    moved: Floats = output * (scale * panel.steps(head) ** 0.5)
    return moved
