"""The criteria of many records from running totals are those of each record on its own."""

import numpy as np
import pytest

from admission.criteria import Record, criteria
from admission.records import looks
from klines.klines import Floats


def series(rows: int, seed: int, *, skill: float = 0.4, unit: float = 1e-3) -> tuple[Floats, Floats]:
    """Overlapping truths of heavy tails in a market whose volatility changes, and forecasts of them."""
    random = np.random.default_rng(seed)
    volatility = np.exp(np.cumsum(random.normal(0, 0.03, rows)))
    step = unit * volatility * random.standard_t(4, rows)
    truth = np.convolve(step, np.ones(3))[:rows] + 1e-5
    forecast = skill * step + 0.3 * unit * random.normal(size=rows)
    truth[random.random(rows) < 0.02] = 0.0
    truth[random.random(rows) < 0.02] = np.nan
    forecast[random.random(rows) < 0.03] = np.nan
    return truth, forecast


@pytest.mark.parametrize("ratio", [1, 3, 4])
@pytest.mark.parametrize("horizon_min", [15, 60])
def test_every_record_is_judged_as_on_its_own(ratio: int, horizon_min: int) -> None:
    truth, forecast = series(1200, seed=ratio)
    first, last = (edges.ravel() for edges in np.meshgrid(np.arange(0, 900, 150), np.arange(930, 1201, 90)))
    found = looks(truth, forecast, first, last, horizon_min=horizon_min, ratio=ratio)
    for row, (begin, end) in enumerate(zip(first, last, strict=True)):
        there = np.flatnonzero(np.isfinite(truth[begin:end]) & np.isfinite(forecast[begin:end])) + begin
        record = Record(
            truth=truth[there],
            forecast=forecast[there],
            gap=np.diff(there, prepend=there[0] - 1),
            horizon_min=horizon_min,
            ratio=ratio,
            submitted=len(there),
            expected=int(end - begin),
        )
        for name, alone in criteria(record).items():
            together = found[name].at(row)
            assert together.passed == alone.passed, name
            assert together.value == pytest.approx(alone.value, rel=1e-10, abs=1e-10), name
            assert together.bound == pytest.approx(alone.bound, rel=1e-10, abs=1e-10), name


@pytest.mark.parametrize("what", ["nothing forecast", "nothing submitted", "nothing came true"])
def test_what_is_not_defined_does_not_pass(what: str) -> None:
    truth, forecast = series(300, seed=7)
    if what == "nothing forecast":
        forecast = np.zeros(300)
    elif what == "nothing submitted":
        forecast = np.full(300, np.nan)
    else:
        truth = np.zeros(300)
    found = looks(truth, forecast, np.array([0]), np.array([300]), horizon_min=15, ratio=3)
    assert not all(of.passed[0] for of in found.values())
    assert found["pearson"].at(0).bound is None
