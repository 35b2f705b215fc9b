"""How far a network's outputs may be trusted, fitted on validation rows: shrinkage of returns, bias of volatility.

``lambda`` per (symbol, return head) in [0, 1]: the least-squares slope of what came true on what was forecast, less
``CAUTION`` of its standard errors, clipped. Where there is no skill it is 0 and the forecast is persistence.
``bias`` per (symbol, volatility head): the factor that minimises the squared error in volatility.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import ConfigError, IncompatibleModel
from market.klines import Floats, Ints
from model.features import Floats32
from model.heads import Head, Kind, decode
from model.windows import Rows, Windows

CAUTION = 3.0  # standard errors taken off a slope: an edge that could be luck counts for nothing
LEAST_HORIZONS = 50  # of validation time below which no slope is believed: overlapping rows are not evidence
POOLED = "*"  # stands for any symbol that was not trained on
BIAS_LIMITS = (0.5, 2.0)
LEAST_WINDOWS = 20  # horizons' worth of validation rows below which a symbol's own bias is luck: it gets the pooled one


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Factors by symbol and head key; ``POOLED`` is every other symbol."""

    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def factor(self, symbol: str, head: Head) -> float:
        """``lambda`` of a return head, ``bias`` of a volatility head; for an unknown symbol 0 and the pooled bias."""
        known = self.factors.get(symbol, {}).get(head.key)
        if known is not None:
            return known
        return 0.0 if head.kind is Kind.RETURN else self.factors.get(POOLED, {}).get(head.key, 1.0)

    def apply(self, decoded: Floats, symbol: str, head: Head) -> Floats:
        """A decoded output of the network as the forecast to serve, in the head's unit."""
        return decoded * self.factor(symbol, head)

    def to_json(self) -> dict[str, dict[str, dict[str, float]]]:
        """For the manifest: ``{"ETHUSDT": {"return-10m": {"lambda": 0.0}, "volatility-15m": {"bias": 0.97}}}``."""
        return {
            symbol: {key: {_name(Head.parse(key)): value} for key, value in heads.items()}
            for symbol, heads in self.factors.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> "Calibration":
        """The inverse of ``to_json``.

        Raises:
            IncompatibleModel: it is something else, or a factor is not finite or out of its range.
        """
        try:
            factors = {
                symbol: {key: float(entry[_name(Head.parse(key))]) for key, entry in heads.items()}
                for symbol, heads in value.items()
            }
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleModel(f"calibration is malformed: {error!r}; train again") from error
        for symbol, heads in factors.items():
            for key, factor in heads.items():
                low, high = (0.0, 1.0) if Head.parse(key).kind is Kind.RETURN else BIAS_LIMITS
                if not low <= factor <= high:
                    raise IncompatibleModel(
                        f"calibration of {symbol} {key} must lie in [{low}, {high}], was {factor}; train again"
                    )
        return cls(factors=factors)


def _name(head: Head) -> str:
    return "lambda" if head.kind is Kind.RETURN else "bias"


def fit(windows: Windows, rows: Rows, output: Floats32) -> Calibration:
    """Calibrate on validation rows.

    Args:
        windows: the panel's windows.
        rows: ``(N,)`` which of them, in no part trained on.
        output: ``(N, O)`` the network's outputs there, one column per head of the plan.
    """
    factors = {
        POOLED: {
            head.key: _factor(windows, rows, output, column)
            for column, head in enumerate(windows.plan.heads)
            if head.kind.is_volatility
        }
    }
    for index, symbol in enumerate(windows.plan.symbols):
        chosen = windows.symbol[rows] == index
        factors[symbol] = {
            head.key: _factor(windows, rows[chosen], output[chosen], column)
            for column, head in enumerate(windows.plan.heads)
            if _is_enough(windows, rows[chosen], column)
        }
    return Calibration(factors=factors)


def _is_enough(windows: Windows, rows: Rows, column: int) -> bool:
    """Whether one symbol's rows say something about its own factor."""
    head = windows.plan.heads[column]
    least = LEAST_WINDOWS * windows.plan.panel.steps(head) if head.kind.is_volatility else 1
    return int(np.isfinite(windows.truth[rows, column]).sum()) >= least


def _factor(windows: Windows, rows: Rows, output: Floats32, column: int) -> float:
    panel, head = windows.plan.panel, windows.plan.heads[column]
    known = np.isfinite(windows.truth[rows, column])
    rows, came_true = rows[known], windows.truth[rows[known], column]
    forecast = decode(output[known, column].astype(np.float64), windows.scale[rows], panel, head)
    if head.kind.is_volatility:
        return bias(forecast, came_true)
    ticks = windows.open_time_ms[rows] // panel.interval_ms
    return shrinkage(forecast, came_true, ticks, panel.steps(head))


def bias(forecast: Floats, came_true: Floats) -> float:
    """The factor that minimises the squared error, within BIAS_LIMITS; 1 without rows.

    >>> bias(np.array([1.0, 2.0]), np.array([1.1, 2.2]))
    1.1
    """
    power = float(forecast @ forecast)
    return float(np.clip(forecast @ came_true / power, *BIAS_LIMITS)) if power > 0 else 1.0


def shrinkage(forecast: Floats, came_true: Floats, ticks: Ints, steps: int) -> float:
    """``lambda``: the slope of truth on forecast less CAUTION standard errors, clipped to [0, 1].

    Args:
        forecast, came_true: ``(N,)`` log-returns, in time order.
        ticks: ``(N,)`` the rows' place in time, in candles.
        steps: the horizon in candles; rows closer than that share a part of their truth.

    The error allows for that overlap: Newey and West, Econometrica 55(3), 1987, over twice the horizon.
    """
    power = float(forecast @ forecast)
    if power == 0 or not len(ticks) or ticks[-1] - ticks[0] < LEAST_HORIZONS * steps:
        return 0.0
    slope = float(forecast @ came_true) / power
    moments = np.zeros(int(ticks[-1] - ticks[0]) + 1)  # by candle, 0 where there is no row
    moments[ticks - ticks[0]] = forecast * (came_true - slope * forecast)
    lags = min(2 * steps, len(moments) - 1)
    spectrum = np.fft.rfft(moments, 2 * len(moments))
    covariances = np.fft.irfft(np.abs(spectrum) ** 2)[: lags + 1]
    weights = 1 - np.arange(lags + 1) / (lags + 1)  # Bartlett
    variance = float(2 * (weights @ covariances) - covariances[0])
    return float(np.clip(slope - CAUTION * max(variance, float(covariances[0])) ** 0.5 / power, 0.0, 1.0))
