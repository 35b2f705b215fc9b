"""Fit of a calibration: how far each head of a network is trusted, measured in the head's own loss.

``lambda`` is the share of the forecast that loses least, drawn towards 0 for the part of luck. It is fitted for
all symbols together, because a single symbol has too few rows; a symbol that it has harmed gets 0.
``bias`` is the factor that loses least on the validation rows.
"""

from dataclasses import dataclass

import numpy as np

from klines.klines import Floats, Ints
from model.calibration import BIAS_LIMITS, POOLED, Calibration
from model.features import FLAT, Floats32
from model.judging.significance import mean_over_time
from model.losses import loss
from model.targets import decode
from model.windows import Rows, Windows

CAUTION = 1.0  # standard errors of the saved loss below which lambda is 0; at two, three quarters are kept
GAIN_CAUTION = 2.0  # likewise for the recurrent network's part: validation holds a few days only
LEAST_SHARE = 0.02  # smaller shares count as 0: gains divide by them
SHARES = np.linspace(0.0, 1.0, 21)  # of a forecast: candidates for lambda
LEAST_HORIZONS = 50  # of time below which lambda is 0: overlapping rows are not evidence
LEAST_WINDOWS = 20  # horizons' worth of validation rows below which a symbol's own bias is luck


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """A forecaster's outputs at N rows that it was not fitted on."""

    rows: Rows  # (N,)
    output: Floats | Floats32  # (N, O) in the network's targets, a column per head; NaN: no forecast


def fit(windows: Windows, validated: Evidence, returns: Evidence | None = None) -> Calibration:
    """Calibrate on rows that were not trained on.

    Args:
        windows: the panel's windows.
        validated: the validation rows.
        returns: more rows to calibrate the return heads on; a head without outputs there is calibrated on the
            validation rows.
    """
    panel, symbols = windows.plan.panel, windows.plan.symbols
    factors: dict[str, dict[str, float]] = {name: {} for name in (POOLED, *symbols)}
    for column, head in enumerate(windows.plan.heads):
        if not head.kind.is_volatility:
            best = returns if returns and np.isfinite(returns.output[:, column]).any() else validated
            for symbol, share in shares(windows, best, column).items():
                factors[symbol][head.key] = share
            continue
        rows, came_true, forecast = _truth_and_forecast(windows, validated, column)
        factors[POOLED][head.key] = bias(forecast, came_true, head.loss)
        for index, symbol in enumerate(symbols):
            mine = windows.symbol[rows] == index
            if mine.sum() >= LEAST_WINDOWS * panel.steps(head):
                factors[symbol][head.key] = bias(forecast[mine], came_true[mine], head.loss)
    return Calibration(factors=factors)


def _truth_and_forecast(windows: Windows, evidence: Evidence, column: int) -> tuple[Rows, Floats, Floats]:
    """The rows of a head that have truth and forecast; truths and forecasts there, in the head's unit."""
    head = windows.plan.heads[column]
    known = np.isfinite(windows.truth[evidence.rows, column]) & np.isfinite(evidence.output[:, column])
    rows = evidence.rows[known]
    output = evidence.output[known, column].astype(np.float64)
    return rows, windows.truth[rows, column], decode(output, windows.scale[rows], windows.plan.panel, head)


def shares(windows: Windows, evidence: Evidence, column: int) -> dict[str, float]:
    """``lambda`` of a return head, the ``column``-th of the plan's, by symbol; symbols without a row are absent."""
    head, steps = windows.plan.heads[column], windows.plan.panel.steps(windows.plan.heads[column])
    rows, came_true, forecast = _truth_and_forecast(windows, evidence, column)
    symbol, ticks = windows.symbol[rows], windows.open_time_ms[rows] // windows.plan.panel.interval_ms
    size = returns_std(came_true, symbol, len(windows.plan.symbols), FLAT * steps**0.5)[symbol]
    y, q = came_true / size, forecast / size
    share, found = trust(q, y, ticks, steps, head.loss), {}
    for index, name in enumerate(windows.plan.symbols):
        if (mine := symbol == index).any():
            own = saved(share, q[mine], y[mine], ticks[mine], steps, head.loss)
            found[name] = share if own > -CAUTION else 0.0
    return found


def returns_std(came_true: Floats, symbol: Ints, symbols: int, least: float) -> Floats:
    """``(symbols,)`` root mean square of each symbol's truths, never below ``least``; 1 for a symbol without truths."""
    count, power = (np.bincount(symbol, weights=w, minlength=symbols) for w in (None, came_true**2))
    std: Floats = np.where(count > 0, np.maximum(np.sqrt(power / np.maximum(count, 1)), least), 1.0)
    return std


def bias(forecast: Floats, came_true: Floats, loss_name: str = "mse") -> float:
    """The factor that loses least, within BIAS_LIMITS; 1 without rows.

    The least absolute error is that of a weighted median; at this size every other loss is as good as squared.

    >>> bias(np.array([1.0, 2.0]), np.array([1.1, 2.2]))
    1.1
    >>> bias(np.ones(5), np.array([1.1, 1.2, 1.2, 1.3, 9.0]), "mae")
    1.2
    """
    power = float(forecast @ forecast)
    if not power > 0:
        return 1.0
    factor = float(forecast @ came_true) / power
    if loss_name == "mae":
        some = forecast > 0
        ratios = came_true[some] / forecast[some]
        order = np.argsort(ratios)
        weights = np.cumsum(forecast[some][order])
        factor = float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
    return float(np.clip(factor, *BIAS_LIMITS))


def trust(
    forecast: Floats,
    came_true: Floats,
    ticks: Ints,
    steps: int,
    loss_name: str,
    *,
    beside: Floats | float = 0.0,
    caution: float = CAUTION,
) -> float:
    """``lambda``: the share in [0, 1] of a forecast that loses least, times ``1 - (caution / t)^2``.

    0 if that is below LEAST_SHARE. ``t`` is the saved loss in standard errors that allow for overlapping horizons. This
    is the positive part of James and Stein's estimator, Proc. 4th Berkeley Symposium 1, 1961, for a single number.

    Args:
        forecast, came_true: ``(N,)`` returns in standard deviations of past returns.
        ticks: ``(N,)`` the rows' place in time, in candles; rows of several symbols may share a tick.
        steps: the horizon in candles.
        loss_name: one of the values of LOSS_NAMES.
        beside: the forecast without it, to which it is added.
    """
    if not forecast.any():
        return 0.0
    loss_of = loss(loss_name)
    losses = [float(np.mean(loss_of(came_true, beside + share * forecast, 1.0))) for share in SHARES]
    share = float(SHARES[int(np.argmin(losses))])
    t = saved(share, forecast, came_true, ticks, steps, loss_name, beside=beside)
    drawn = share * (1 - (caution / t) ** 2) if t > caution else 0.0
    return drawn if drawn >= LEAST_SHARE else 0.0


def saved(
    share: float,
    forecast: Floats,
    came_true: Floats,
    ticks: Ints,
    steps: int,
    loss_name: str,
    *,
    beside: Floats | float = 0.0,
) -> float:
    """Loss that a share of a forecast saves, in standard errors; 0 if there is too little time to decide.

    Args:
        share: of the forecast. The remaining arguments are those of ``trust``.
    """
    loss_of, without = loss(loss_name), np.zeros_like(forecast) + beside
    over_time = mean_over_time(
        loss_of(came_true, without, 1.0) - loss_of(came_true, without + share * forecast, 1.0), ticks, steps
    )
    if over_time.horizons < LEAST_HORIZONS or not over_time.error > 0:
        return 0.0
    return over_time.value / over_time.error


def gains(windows: Windows, rows: Rows, path: Floats, recurrent: Floats32, trusted: Evidence) -> Floats:
    """``(O,)`` factors on the recurrent network's return outputs, before they join the linear path's; 1 for volatility.

    ``lambda`` multiplies the sum in the end. A network counts if it improves what ``lambda`` leaves of the path; if
    ``lambda`` leaves nothing, its factor is 0.

    Args:
        rows: ``(N,)`` validation rows.
        path, recurrent: ``(N, O)`` outputs of the two at these rows, in the network's targets.
        trusted: the evidence by which ``lambda`` will be fitted.
    """
    panel, found = windows.plan.panel, np.ones(len(windows.plan.heads))
    for column, head in enumerate(windows.plan.heads):
        if head.kind.is_volatility:
            continue
        mine, came_true, linear = _truth_and_forecast(windows, Evidence(rows=rows, output=path), column)
        _, _, more = _truth_and_forecast(windows, Evidence(rows=rows, output=recurrent), column)
        share = max(shares(windows, trusted, column).values(), default=0.0)
        if not share:
            found[column] = 0.0
            continue
        steps, symbol = panel.steps(head), windows.symbol[mine]
        size = returns_std(came_true, symbol, len(windows.plan.symbols), FLAT * steps**0.5)[symbol]
        ticks = windows.open_time_ms[mine] // panel.interval_ms
        believed = share * linear / size
        found[column] = (
            trust(more / size, came_true / size, ticks, steps, head.loss, beside=believed, caution=GAIN_CAUTION) / share
        )
    return found
