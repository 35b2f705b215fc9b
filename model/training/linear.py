"""The linear path of the return heads: ridge regression on the features that have a direction, in closed form.

The little that is known of a return is that moves of minutes fall back a little, above all the moves of takers and of
large volume. This holds in each of four months of minutes, and a heavily penalised line finds it more reliably than the
recurrent network, which has a hundred times as many weights to fit to the same noise (docs/decisions/0003). A mirrored
market gives the mirrored forecast: the line has no intercept and no calendar.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from core.clock import MINUTE_MS
from klines.klines import Floats, Ints
from model.features import FEATURES, LIMIT, SIGNED, varying
from model.windows import LEAST_ROWS, Rows, Split, Windows

PENALTY = 1.0  # on squared weights, in units of the features' mean square
FOLDS, FIRST = 8, 2  # equal spans of the training part; the first that is forecast, by a line of those before
STRIDE = 3  # every third candle: neighbours hold nearly the same information
TARGET_LIMIT = 3.0  # standard deviations of the horizon: a crash must not steer the line
MOST_FORECAST = 1.0  # likewise, by a feature at its limit; on three months of minutes 0.3 (docs/decisions/0003)

_SIGNED = np.array([FEATURES.index(name) for name in SIGNED])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearPath:
    """Weights of the newest feature row, and forecasts of lines fitted on the past of each span."""

    weights: Floats  # (O, F); 0 for volatility heads and for features without a direction
    spans: tuple[tuple[int, int], ...]  # from, until, in ms: each has a line of its own
    rows: Rows  # (N,) of all spans, by symbol and time
    # (N, O) targets forecast for these rows; NaN for volatility heads and where too few rows were there to fit on
    unseen: Floats

    def __call__(self, windows: Windows, rows: Rows) -> Floats:
        """``(N, O)``: the path's forecasts at some rows, in the network's targets."""
        output: Floats = windows.x[rows].astype(np.float64) @ self.weights.T
        return output


def fit(windows: Windows, split: Split) -> LinearPath:
    """Fit on the training part, for each horizon, all symbols together.

    Each span of the training part after the first ones is also forecast by a line fitted on the rows known at its
    beginning. The last span is the validation part, which the final line forecasts.
    """
    edges = np.linspace(split.train_start_ms, split.train_end_ms, FOLDS + 1).astype(np.int64).tolist()
    spans = (*list(pairwise(edges))[FIRST:], (split.validate_start_ms, split.validate_end_ms))
    rows = windows.rows(split.train_start_ms, split.validate_end_ms, stride=STRIDE)
    time_ms, heads = windows.open_time_ms[rows], windows.plan.heads
    x_NS = windows.x[rows][:, _SIGNED].astype(np.float64)
    weights, unseen = np.zeros((len(heads), len(FEATURES))), np.full((len(rows), len(heads)), np.nan)
    by_horizon: dict[int, tuple[Floats, Floats]] = {}
    for column, head in enumerate(heads):
        if head.kind.is_volatility:
            continue
        if head.horizon_min not in by_horizon:
            known_ms = time_ms + head.horizon_min * MINUTE_MS + windows.plan.panel.interval_ms
            by_horizon[head.horizon_min] = _fit_horizon(
                x_NS, windows.target[rows, column], time_ms, known_ms, spans, split.train_end_ms
            )
        weights[column, _SIGNED], unseen[:, column] = by_horizon[head.horizon_min]
    within = (time_ms >= spans[0][0]) & ((time_ms < split.train_end_ms) | (time_ms >= split.validate_start_ms))
    return LinearPath(weights=weights, spans=spans, rows=rows[within], unseen=unseen[within])


def _fit_horizon(
    x_NS: Floats, target: Floats, time_ms: Ints, known_ms: Ints, spans: tuple[tuple[int, int], ...], end_ms: int
) -> tuple[Floats, Floats]:
    """``(S,)`` the final weights; ``(N,)`` each row's forecast by the line of its span."""
    there, unseen = np.isfinite(target) & (time_ms < end_ms), np.full(len(target), np.nan)
    final = _ridge(x_NS[there], target[there])
    for start_ms, until_ms in spans:
        mine, past = (time_ms >= start_ms) & (time_ms < until_ms), there & (known_ms <= start_ms)
        if start_ms >= end_ms:
            unseen[mine] = x_NS[mine] @ final
        elif past.sum() >= LEAST_ROWS:
            unseen[mine] = x_NS[mine] @ _ridge(x_NS[past], target[past])
    return final, unseen


def _ridge(x_NS: Floats, target: Floats) -> Floats:
    """Weights whose forecasts are as large as those of a line without penalty if features were unrelated.

    A feature that does not vary gets weight 0, and a feature at its limit forecasts no more than MOST_FORECAST.
    """
    weights, used = np.zeros(x_NS.shape[1]), varying(x_NS)
    size = np.sqrt(np.mean(x_NS[:, used] ** 2, axis=0))
    scaled = x_NS[:, used] / size
    power = scaled.T @ scaled + PENALTY * len(scaled) * np.eye(len(size)) + np.eye(len(size)) * 1e-9
    slopes = np.linalg.solve(power, scaled.T @ np.clip(target, -TARGET_LIMIT, TARGET_LIMIT))
    weights[used] = np.clip((1 + PENALTY) * slopes / size, -MOST_FORECAST / LIMIT, MOST_FORECAST / LIMIT)
    return weights
