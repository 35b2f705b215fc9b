"""The criteria of ``admission.criteria`` for many spans of a series at once, from running totals.

A topic that is judged daily from each of ninety starts has four thousand records of up to 26,000 rows each. All
criteria but czar's are made of moments, whose totals are taken once. Czar depends on the record's own standard
deviation, and smoothly: a polynomial through its values at a few tens of deviations is exact to the last digits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from admission.criteria import (
    ASPECT,
    BOTH_SIDES,
    FLOOR,
    LEAST_PARTICIPATION,
    LEAST_ROWS,
    SHORT_MIN,
    STEP,
    SURE,
    Criterion,
    czar,
)
from klines.klines import Floats, Ints
from model.features import Bools

# Czar's terms are analytic in ln(deviation) this far from the real line: its softplus has a pole at ±iπ.
STRIP = math.atan(math.tanh(math.pi * math.pi / 40)) * 2
DIGITS = 34.0  # natural logarithm of how exact the polynomial is
FLAT = 1e-24  # of a variance in units of the series' own: rounding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looks:
    """One criterion of R records. NaN: not defined."""

    value: Floats  # (R,)
    bound: Floats  # (R,)
    passed: Bools  # (R,)

    def at(self, row: int) -> Criterion:
        """The criterion of a single record."""
        value, bound = (float(number[row]) for number in (self.value, self.bound))
        return Criterion(
            value=value if math.isfinite(value) else None,
            bound=bound if math.isfinite(bound) else None,
            passed=bool(self.passed[row]),
        )


def looks(
    truth: Floats, forecast: Floats, first: Ints, last: Ints, *, horizon_min: int, ratio: int
) -> Mapping[str, Looks]:
    """The seven criteria of each record, in the order of ``admission.criteria`` and equal to it.

    Args:
        truth, forecast: ``(E,)`` a row for each epoch; a row that is not finite was not submitted.
        first, last: ``(R,)`` a record's first epoch, and the epoch after its last.
    """
    there = np.isfinite(truth) & np.isfinite(forecast)
    unit = float(np.std(truth[there])) if there.any() else 0.0
    unit = unit if unit > 0 else 1.0
    y, p = (np.where(there, values, 0.0) / unit for values in (truth, forecast))
    known, w = there & (y != 0), np.abs(y)
    ours, zero, weight = w * (y - p) ** 2, w * y**2, there.astype(np.float64)
    columns = {
        "n": weight, "y": y, "p": p, "yy": y * y, "yp": y * p, "pp": p * p, "yyy": y**3, "yyp": y * y * p,
        "ypp": y * p * p, "ppp": p**3, "yyyy": y**4, "yypp": (y * p) ** 2, "pppp": p**4, "o": ours, "z": zero,
        "oo": ours**2, "zz": zero**2, "oz": ours * zero, "known": known.astype(np.float64),
        "right": (known & (y * p > 0)).astype(np.float64),
    }  # fmt: skip
    totals = _totals(np.stack([*columns.values()]))
    of = dict(zip(columns, totals[:, last] - totals[:, first], strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        n_eff = _effective(y, known, first, last, of["known"], ratio)
        rows = n_eff * math.sqrt(max(1.0, horizon_min / SHORT_MIN))
        moments = {name: of[name] / of["n"] for name in columns}
        share = of["n"] / (last - first)
        return {
            "n_eff": Looks(value=n_eff, bound=n_eff, passed=n_eff >= LEAST_ROWS),
            "direction": _direction(of["right"] / of["known"], rows),
            "pearson": _pearson(moments, of["n"], n_eff),
            "wrmse": _wrmse(moments, of["n"], rows),
            "wczar": _wczar(y, p, there, first, last, moments, of["n"], rows, FLOOR / unit),
            "log_aspect": _log_aspect(moments, of["n"], n_eff, FLOOR / unit),
            "participation": Looks(value=share, bound=share, passed=share > LEAST_PARTICIPATION),
        }


def _totals(columns: Floats) -> Floats:
    """``(C, E + 1)`` totals of the rows before each row."""
    totals: Floats = np.concatenate([np.zeros((len(columns), 1)), np.cumsum(columns, axis=1)], axis=1)
    return totals


def _effective(y: Floats, known: Bools, first: Ints, last: Ints, count: Floats, ratio: int) -> Floats:
    alike = np.zeros(len(first))
    for lag in range(1, min(ratio, len(y))):
        paired = known[:-lag] & known[lag:]
        a, b = np.where(paired, y[:-lag], 0.0), np.where(paired, y[lag:], 0.0)
        totals = _totals(np.stack([paired.astype(np.float64), a, b, a * a, a * b, b * b]))
        begin, end = np.minimum(first, len(a)), np.clip(last - lag, first, len(a))
        n, sa, sb, saa, sab, sbb = totals[:, np.maximum(begin, end)] - totals[:, begin]
        power = (saa - sa * sa / n) * (sbb - sb * sb / n)
        r = np.where((n >= 2) & (power > (FLAT * n) ** 2), (sab - sa * sb / n) / np.sqrt(power), 0.0)
        alike += np.where(r > 1.96 / np.sqrt(n), np.minimum(r, 1.0), 0.0)
    return count / (1 + 2 * alike)


def _direction(share: Floats, rows: Floats) -> Looks:
    corrected, z2 = share - 0.5 / rows, SURE**2
    inner = corrected * (1 - corrected) / rows + z2 / (4 * rows**2)
    bound = (corrected + z2 / (2 * rows) - SURE * np.sqrt(np.maximum(inner, 0.0))) / (1 + z2 / rows)
    return Looks(value=share, bound=bound, passed=bound > 0.5)


def _pearson(of: Mapping[str, Floats], n: Floats, n_eff: Floats) -> Looks:
    variances = [of["yy"] - of["y"] ** 2, of["pp"] - of["p"] ** 2]
    varies = (n >= 2) & (variances[0] > FLAT) & (variances[1] > FLAT)
    r = np.where(varies, (of["yp"] - of["y"] * of["p"]) / np.sqrt(variances[0] * variances[1]), np.nan)
    r = np.clip(r, -1.0, 1.0)
    rows = np.minimum(np.maximum(n_eff, 3.0), n)
    bound = np.where(np.abs(r) >= 1, r, np.tanh(np.arctanh(r) - BOTH_SIDES / np.sqrt(rows - 3)))
    bound = np.where(rows > 3, bound, np.nan)
    return Looks(value=r, bound=bound, passed=bound > 0)


def _wrmse(of: Mapping[str, Floats], n: Floats, rows: Floats) -> Looks:
    root = np.sqrt(of["o"] / of["z"])
    spread = of["oo"] / of["o"] ** 2 - 2 * of["oz"] / (of["o"] * of["z"]) + of["zz"] / of["z"] ** 2
    variance = np.where(of["o"] > 0, 0.25 * root**2 * spread, 0.0)
    return _gain(np.where((n >= 2) & (of["z"] > 0), 1 - root, np.nan), variance, n, rows)


def _gain(value: Floats, variance: Floats, n: Floats, rows: Floats) -> Looks:
    """Variance: of the influence, about a mean of 0, divided by ``n``."""
    bound = value - SURE * np.sqrt(np.maximum(variance, 0.0) * n / (n - 1) / rows)
    bound = np.where(rows > 0, bound, np.nan)
    return Looks(value=value, bound=bound, passed=bound > 0)


def _log_aspect(of: Mapping[str, Floats], n: Floats, n_eff: Floats, floor: float) -> Looks:
    """The influence is a difference of squares about the mean, so its variance is made of fourth moments."""
    y, p = of["y"], of["p"]
    vy, vp = (np.maximum(v, 0.0) for v in (of["yy"] - y * y, of["pp"] - p * p))
    fourth_y = of["yyyy"] - 4 * y * of["yyy"] + 6 * y * y * of["yy"] - 3 * y**4
    fourth_p = of["pppp"] - 4 * p * of["ppp"] + 6 * p * p * of["pp"] - 3 * p**4
    mixed = of["yypp"] - 2 * p * of["yyp"] - 2 * y * of["ypp"] + p * p * of["yy"] + y * y * of["pp"]
    mixed += 4 * y * p * of["yp"] - 3 * (y * p) ** 2
    ay, ap = (np.where(v > floor**2, 1 / np.maximum(v, floor**2), 0.0) for v in (vy, vp))
    mean = ap * vp - ay * vy
    variance = fourth_p * ap**2 - 2 * mixed * ap * ay + fourth_y * ay**2 - mean**2
    value = 0.5 * np.log10(np.maximum(vp, floor**2) / np.maximum(vy, floor**2))
    error = np.sqrt(np.maximum(variance, 0.0) * n / (n - 1) / n_eff) / (2 * math.log(10))
    low, high = value - error, value + error
    fit = (n >= 2) & (n_eff > 0)
    return Looks(
        value=np.where(fit, value, np.nan),
        bound=np.where(fit, np.where(np.abs(low) <= np.abs(high), low, high), np.nan),
        passed=fit & (low <= ASPECT) & (high >= -ASPECT),
    )


def _wczar(
    y: Floats,
    p: Floats,
    there: Bools,
    first: Ints,
    last: Ints,
    of: Mapping[str, Floats],
    n: Floats,
    rows: Floats,
    floor: float,
) -> Looks:
    std = np.maximum(np.sqrt(np.maximum(of["yy"] - of["y"] ** 2, 0.0)), floor)
    fit = n >= 2
    if not fit.any():
        nothing = np.full(len(n), np.nan)
        return Looks(value=nothing, bound=nothing, passed=np.zeros(len(n), np.bool_))
    nodes = _Nodes.around(std[fit])
    edges, at = np.unique(np.concatenate([first, last]), return_inverse=True)
    begin, end = at[: len(first)], at[len(first) :]
    y, p, number = y[there], p[there], np.concatenate([[0], np.cumsum(there)])[edges]
    w = np.abs(y)
    sums = np.empty((9, len(edges), len(nodes.log_std)))
    for node, deviation in enumerate(np.exp(nodes.log_std).tolist()):
        ours, zero = w * czar(y, p, deviation), w * czar(y, np.zeros(len(y)), deviation)
        both = (ours, zero, ours * ours, zero * zero, ours * zero, ours * y, ours * y * y, zero * y, zero * y * y)
        sums[:, :, node] = _totals(np.stack(both))[:, number]
    exact = nodes.weights(np.log(std))
    above, below = nodes.weights(np.log(std * (1 + STEP))), nodes.weights(np.log(std * (1 - STEP)))
    record = (sums[:, end] - sums[:, begin]) / n[:, np.newaxis]
    o, z, oo, zz, oz, oy, oyy, zy, zyy = np.einsum("crm,rm->cr", record, exact)
    slope, slope_at_zero = np.einsum("crm,rm->cr", record[:2], above - below) / (2 * STEP * std)
    by_std = -slope / z + o * slope_at_zero / z**2
    # The influence is a (ours - o) + b (zero - z) + c ((y - mean)^2 - std^2), each term with a mean of 0.
    a, b, c, m = -1 / z, o / z**2, by_std / (2 * std), of["y"]
    variance_y = of["yy"] - m * m
    fourth = of["yyyy"] - 4 * m * of["yyy"] + 6 * m * m * of["yy"] - 3 * m**4
    with_ours = oyy - 2 * m * oy + m * m * o - o * variance_y
    with_zero = zyy - 2 * m * zy + m * m * z - z * variance_y
    variance = (
        a * a * (oo - o * o)
        + b * b * (zz - z * z)
        + c * c * (fourth - variance_y**2)
        + 2 * (a * b * (oz - o * z) + a * c * with_ours + b * c * with_zero)
    )
    return _gain(np.where(fit & (z > 0), 1 - o / z, np.nan), variance, n, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Nodes:
    """Chebyshev's points of the first kind. Source: Berrut and Trefethen, SIAM Review 46(3), 2004."""

    log_std: Floats  # (M,)
    factor: Floats  # (M,)

    @classmethod
    def around(cls, std: Floats) -> "_Nodes":
        low, high = math.log(float(std.min())) - 2 * STEP, math.log(float(std.max())) + 2 * STEP
        half = max((high - low) / 2, 0.05)
        many = math.ceil(DIGITS / math.asinh(STRIP / half)) + 4
        angle = (2 * np.arange(many) + 1) * math.pi / (2 * many)
        return cls(
            log_std=(low + high) / 2 + half * np.cos(angle),
            factor=np.where(np.arange(many) % 2, -1.0, 1.0) * np.sin(angle),
        )

    def weights(self, log_std: Floats) -> Floats:
        """``(R, M)`` weights of the M points for the polynomial's value at each of R deviations."""
        apart = log_std[:, np.newaxis] - self.log_std
        hit = apart == 0
        raw = self.factor / np.where(hit, 1.0, apart)
        raw = np.where(hit.any(axis=1, keepdims=True), hit.astype(np.float64), raw)
        result: Floats = raw / raw.sum(axis=1, keepdims=True)
        return result
