"""The admission criteria: the published vectors, and what must hold for any series."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.criteria import Record, criteria, czar
from core.errors import ConfigError
from klines.klines import Floats

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "admission_vectors.json").read_text("utf-8"))["cases"]
NAMES = ["n_eff", "direction", "pearson", "wrmse", "wczar", "log_aspect", "participation"]


def series(name: str) -> dict[str, Any]:
    """The published series of a name."""
    rng = np.random.default_rng(43)
    truth = rng.normal(0, 0.01, 300)
    forecast = truth * 0.1 + rng.normal(0, 0.008, 300)
    if name == "zero":
        truth[::4] = 0
    if name == "constant":
        forecast[:] = 0.001
    if name == "nonfinite":
        truth[3], forecast[10] = np.nan, np.nan
    return {"truth": truth, "forecast": forecast, "gap": np.concatenate([[1], rng.integers(1, 4, 299)])}


def random_record(truth: Floats, forecast: Floats, ratio: int = 3, horizon_min: int = 15) -> Record:
    count = len(truth)
    return Record(
        truth=truth,
        forecast=forecast,
        gap=np.ones(count, np.int64),
        horizon_min=horizon_min,
        ratio=ratio,
        submitted=count,
        expected=count,
    )


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c['series']}-{c['horizon_min']}m") for c in PUBLISHED])
def test_the_published_vectors_agree(case: dict[str, Any]) -> None:
    given = series(case["series"])
    found = criteria(Record(**given, horizon_min=case["horizon_min"], ratio=case["ratio"], submitted=95, expected=100))
    assert list(found) == NAMES
    for name, (value, bound, passed) in case["criteria"].items():
        expected = [None if number is None else pytest.approx(number, rel=1e-10) for number in (value, bound)]
        assert [found[name].value, found[name].bound] == expected, name
        assert found[name].passed is passed, name


def test_the_shared_vectors_agree(shared_data: Path) -> None:
    for case in json.loads((shared_data / "admission_golden.json").read_text("utf-8"))["cases"]:
        given, figures = series(case["series"]), case["figures"]
        record = Record(**given, horizon_min=case["horizon_min"], ratio=case["ratio"], submitted=95, expected=100)
        found = criteria(record)
        for name, of_figure in {"wrmse": "wrmse_gain", "wczar": "wczar_gain"}.items():
            assert found[name].value == pytest.approx(figures[of_figure], rel=1e-10)
        for name in ("direction", "pearson", "wrmse", "wczar"):
            bound = figures[f"{name}_interval"][0]
            assert found[name].bound == (None if bound is None else pytest.approx(bound, rel=1e-10)), name
        assert {name: int(one.passed) for name, one in found.items()} == case["passed"]


def test_overlapping_truths_count_for_fewer_rows() -> None:
    rng = np.random.default_rng(5)
    moves = rng.standard_normal(3002)
    overlapping = moves[:-2] + moves[1:-1] + moves[2:]
    record = random_record(overlapping, rng.standard_normal(3000), ratio=3)
    assert criteria(record)["n_eff"].value == pytest.approx(1000, rel=0.1)
    apart = random_record(overlapping[::3], rng.standard_normal(1000), ratio=3)
    assert criteria(apart)["n_eff"].value == pytest.approx(1000, rel=0.1)


@given(
    rows=st.integers(0, 40),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.0, 1e-9, 1e-3, 1.0]),
    ratio=st.integers(1, 6),
    odd=st.sampled_from([math.nan, math.inf, 0.0]),
)
def test_any_series_has_criteria(rows: int, seed: int, scale: float, ratio: int, odd: float) -> None:
    rng = np.random.default_rng(seed)
    truth, forecast = rng.standard_normal(rows), scale * rng.standard_normal(rows)
    truth[::7], forecast[3::5] = odd, odd
    found = criteria(random_record(truth, forecast, ratio))
    assert list(found) == NAMES
    for one in found.values():
        assert all(number is None or math.isfinite(number) for number in (one.value, one.bound))
        assert one.bound is not None or not one.passed


def test_the_right_forecasts_pass_and_the_wrong_ones_do_not() -> None:
    truth = 1e-3 * np.random.default_rng(1).standard_normal(500)
    right, wrong, still = (criteria(random_record(truth, factor * truth, 1)) for factor in (0.8, -0.8, 0.0))
    assert all(one.passed for one in right.values())
    assert [name for name, one in wrong.items() if one.passed] == ["n_eff", "log_aspect", "participation"]
    assert [name for name, one in still.items() if one.passed] == ["n_eff", "participation"]
    assert still["pearson"].bound is None


def test_czar_of_the_truth_itself_is_the_least() -> None:
    truth = np.linspace(-3, 3, 61)
    for shift in (-1.0, -0.1, 0.1, 1.0):
        assert (czar(truth, truth + shift, 1.0) >= czar(truth, truth, 1.0)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"gap": np.array([1, 0, 1])}, "row 2: gap is 0", id="gap"),
        pytest.param({"forecast": np.zeros(2)}, "3, 2 and 3 rows", id="lengths"),
        pytest.param({"ratio": 0}, "ratio must be 1 or more, were 15 min and 0", id="ratio"),
        pytest.param({"submitted": 4}, "were 4 of 3", id="more than expected"),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused(change: dict[str, Any], says: str) -> None:
    given = {name: getattr(random_record(np.ones(3), np.ones(3)), name) for name in Record.__slots__}
    with pytest.raises(ConfigError, match=says):
        Record(**given | change)
    assert asdict(criteria(Record(**given))["participation"]) == {"value": 1.0, "bound": 1.0, "passed": True}
