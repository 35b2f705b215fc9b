"""The linear path of the return heads: ridge regression on the features that have a direction, in closed form.

What little can be known of a return here is that moves of minutes fall back a little, above all those that takers and
large volume have made. Four months of minutes say so in every one of them, and a heavily penalised line finds it more
reliably than the recurrent network does, which has a hundred times as many weights to fit to the same noise
(docs/decisions/0003). A mirrored market gives the mirrored forecast: there is no intercept and no calendar in it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from core.clock import MINUTE_MS
from klines.klines import Floats, Ints
from model.features import FEATURES, LIMIT, SIGNED, varying
from model.windows import LEAST_ROWS, Rows, Split, Windows

PENALTY = 1.0  # on squared weights, in units of the features' mean square
FOLDS, FIRST = 8, 2  # equal stretches of the training part; the first of them that is forecast by a line of the others
STRIDE = 3  # every third candle: neighbours say nearly the same
TARGET_LIMIT = 3.0  # standard deviations of the horizon: a crash must not steer the line
MOST_SAID = 1.0  # likewise, by one feature at its limit; of three months of minutes it is 0.3 (docs/decisions/0003)

_SIGNED = np.array([FEATURES.index(name) for name in SIGNED])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearPath:
    """Weights of the newest feature row, and what lines fitted on the past said of the rows that came after it."""

    weights: Floats  # (O, F); 0 for volatility heads and for features without a direction
    stretches: tuple[tuple[int, int], ...]  # from, until, in ms: of each another line speaks
    rows: Rows  # (N,) of all stretches, by symbol and time
    unseen: (
        Floats  # (N, O) targets forecast for them; NaN for volatility heads and where too few rows were there to fit
    )

    def __call__(self, windows: Windows, rows: Rows) -> Floats:
        """``(N, O)``: what it says of some rows, in the network's targets."""
        said: Floats = windows.x[rows].astype(np.float64) @ self.weights.T
        return said


def fit(windows: Windows, split: Split) -> LinearPath:
    """Fit on the training part, for each horizon, all symbols together.

    The same is done at the beginning of each stretch of that part but the first ones, on what was known by then, and
    kept for the rows that follow. The last stretch is the validation part, of which the final line speaks.
    """
    edges = np.linspace(split.train_start_ms, split.train_end_ms, FOLDS + 1).astype(np.int64).tolist()
    stretches = (*list(pairwise(edges))[FIRST:], (split.validate_start_ms, split.validate_end_ms))
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
                x_NS, windows.target[rows, column], time_ms, known_ms, stretches, split.train_end_ms
            )
        weights[column, _SIGNED], unseen[:, column] = by_horizon[head.horizon_min]
    within = (time_ms >= stretches[0][0]) & ((time_ms < split.train_end_ms) | (time_ms >= split.validate_start_ms))
    return LinearPath(weights=weights, stretches=stretches, rows=rows[within], unseen=unseen[within])


def _fit_horizon(
    x_NS: Floats, target: Floats, time_ms: Ints, known_ms: Ints, stretches: tuple[tuple[int, int], ...], end_ms: int
) -> tuple[Floats, Floats]:
    """``(S,)`` the final weights; ``(N,)`` what the line of its stretch says of each row."""
    there, unseen = np.isfinite(target) & (time_ms < end_ms), np.full(len(target), np.nan)
    final = _ridge(x_NS[there], target[there])
    for start_ms, until_ms in stretches:
        mine, past = (time_ms >= start_ms) & (time_ms < until_ms), there & (known_ms <= start_ms)
        if start_ms >= end_ms:
            unseen[mine] = x_NS[mine] @ final
        elif past.sum() >= LEAST_ROWS:
            unseen[mine] = x_NS[mine] @ _ridge(x_NS[past], target[past])
    return final, unseen


def _ridge(x_NS: Floats, target: Floats) -> Floats:
    """Weights whose forecasts are as large as a line without penalty would make them if features were unrelated.

    A feature that does not vary has none, and a feature at its limit says no more than MOST_SAID.
    """
    weights, used = np.zeros(x_NS.shape[1]), varying(x_NS)
    size = np.sqrt(np.mean(x_NS[:, used] ** 2, axis=0))
    scaled = x_NS[:, used] / size
    power = scaled.T @ scaled + PENALTY * len(scaled) * np.eye(len(size)) + np.eye(len(size)) * 1e-9
    slopes = np.linalg.solve(power, scaled.T @ np.clip(target, -TARGET_LIMIT, TARGET_LIMIT))
    weights[used] = np.clip((1 + PENALTY) * slopes / size, -MOST_SAID / LIMIT, MOST_SAID / LIMIT)
    return weights
