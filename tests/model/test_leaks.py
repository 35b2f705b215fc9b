"""No feature, label, split, fit or forecast knows the future; and the detectors catch whatever is planted."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from core.topic import LOSS_NAMES, Target
from model import calibration as calibrations
from model.calibration import Calibration, Evidence
from model.evaluation import TopicForecasts, forecasts, outputs
from model.features import FEATURES, Floats32, rows_needed
from model.heads import HOUR, LEADER, MINUTE, Head, Kind, Panel, head_of
from model.training.config import TrainingConfig
from model.training.fit import TrainedPanel, torch_network, train_panel
from model.windows import build, purged_split
from tests.fakes.klines import random_walk_klines
from tests.model.leaks import (
    OTHER,
    SYMBOLS,
    Market,
    Seen,
    evidence_that_reads_ahead,
    fitted,
    inputs,
    labels,
    labels_across,
    moved_by_the_judge_part,
    plan_of,
    reach,
    readers_of_more,
    readers_of_the_future,
)

HORIZONS = {MINUTE: (5, 15, 240), HOUR: (480, 10080)}
LOSSES = tuple(sorted(set(LOSS_NAMES.values())))


PLANS = {panel: plan_of(panel, horizons, LOSSES) for panel, horizons in HORIZONS.items()}
EVERY_HEAD = [pytest.param(panel, head, id=head.key) for panel, plan in PLANS.items() for head in plan.heads]
EVERY_INPUT = [
    pytest.param(panel, name, id=f"{panel.name} {name}")
    for panel, plan in PLANS.items()
    for name in (*FEATURES, "scale", "usable", "close", *(f"naive {head.key}" for head in plan.heads))
]


@cache
def market(panel: Panel, rows_more: int = 400) -> Market:
    """Candles of both symbols: what one window reads, and some more."""
    rows = rows_needed(panel) + rows_more
    return {symbol: random_walk_klines(rows, panel.interval_ms, seed) for seed, symbol in enumerate(SYMBOLS, 1)}


def cuts(panel: Panel) -> list[int]:
    """Moments to cut at: soon after the first window, in the middle, and before the last candle."""
    times = market(panel)[LEADER].open_time_ms
    return [int(times[row]) for row in (rows_needed(panel) + 1, rows_needed(panel) + 177, -1)]


def see_inputs(panel: Panel, klines: Market) -> Seen:
    return inputs(build(PLANS[panel], klines))


def see_labels(panel: Panel, klines: Market) -> Seen:
    return labels(build(PLANS[panel], klines))


@cache
def inputs_that_read_the_future(panel: Panel) -> dict[str, str]:
    caught: dict[str, str] = {}
    for seed, cut_ms in enumerate(cuts(panel)):
        caught |= readers_of_the_future(lambda k: see_inputs(panel, k), market(panel), cut_ms, seed)
    return caught


@cache
def inputs_that_read_more_than_serving_has(panel: Panel) -> set[str]:
    found = [readers_of_more(lambda k: see_inputs(panel, k), market(panel), panel, cut_ms) for cut_ms in cuts(panel)]
    return set.union(*found)


@cache
def reached(panel: Panel, symbol: str, row: int) -> dict[str, tuple[set[int], set[int]]]:
    """Which inputs and labels read one candle; places are rows after it, of its symbol and of the other."""
    return {
        **reach(lambda k: see_inputs(panel, k), market(panel), symbol, row),
        **reach(lambda k: see_labels(panel, k), market(panel), symbol, row),
    }


@pytest.mark.parametrize(("panel", "name"), EVERY_INPUT)
def test_no_input_reads_the_future(panel: Panel, name: str) -> None:
    assert name not in inputs_that_read_the_future(panel)


@pytest.mark.parametrize(("panel", "name"), EVERY_INPUT)
def test_every_input_is_the_same_from_the_candles_that_serving_has(panel: Panel, name: str) -> None:
    assert name not in inputs_that_read_more_than_serving_has(panel)


@pytest.mark.parametrize(("panel", "name"), EVERY_INPUT)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_candle_is_read_by_later_rows_within_reach(panel: Panel, name: str, symbol: str) -> None:
    for row in (300, rows_needed(panel) + 60):
        for places in reached(panel, symbol, row)[name]:
            assert all(0 <= place < rows_needed(panel) for place in places)


@pytest.mark.parametrize(("panel", "head"), EVERY_HEAD)
def test_a_truth_reads_its_own_horizon_and_nothing_else(panel: Panel, head: Head) -> None:
    """Row t reads candles t to t + steps of its symbol: a candle moves the steps + 1 rows that end at it, no others.

    A return does not depend on the closes between its two, but for rounding.
    """
    row, steps = rows_needed(panel) + 60, panel.steps(head)
    for symbol in SYMBOLS:
        own, others = reached(panel, symbol, row)[head.key]
        assert own <= set(range(-steps, 1))
        assert {-steps, 0} <= own
        assert not others
        if head.kind is not Kind.RETURN:
            assert own == set(range(-steps, 1))


class Readout:
    """A network that needs no training: all of a window moves all of its outputs."""

    def __init__(self, features: int, heads: int) -> None:
        rng = np.random.default_rng(0)
        self.mean_FO, self.last_FO = rng.normal(0, 0.2, (2, features, heads)).astype(np.float32)

    def __call__(self, x_BLF: Floats32) -> Floats32:
        y_BO: Floats32 = np.tanh(x_BLF.mean(1) @ self.mean_FO + x_BLF[:, -1] @ self.last_FO)
        return y_BO


def see_forecasts(panel: Panel, klines: Market, until_ms: int) -> Seen:
    """What is said of every topic at the last ten rows before a moment; all of it is shrunk, none of it to nothing."""
    plan = PLANS[panel]
    windows = build(plan, klines)
    ends = (windows.open_time_ms < until_ms) & (windows.open_time_ms >= until_ms - 10 * panel.interval_ms)
    rows = np.flatnonzero(ends & windows.usable)
    calibration = Calibration(factors={symbol: {head.key: 0.6 for head in plan.heads} for symbol in SYMBOLS})
    said = outputs(Readout(len(FEATURES), len(plan.heads)), windows, rows)
    made = forecasts(windows, rows, said, plan.heads, calibration)
    assert {one.topic.symbol for one in made} == set(SYMBOLS)
    columns: dict[str, npt.NDArray[Any]] = {}
    for one in made:
        place = slice(0, 10) if one.topic.symbol == LEADER else slice(10, 20)
        for what in ("forecast", "naive", "close", "std"):
            column = columns.setdefault(f"{what} {head_of(one.topic).key} {one.topic.target}", np.zeros(20))
            column[place] = getattr(one, what)
    return Seen(symbol=windows.symbol[rows], open_time_ms=windows.open_time_ms[rows], columns=columns)


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_no_forecast_reads_the_future(panel: Panel) -> None:
    """Of every topic: target, horizon and loss. The rows' own truths must be there, or they are not scored at all."""
    longest = panel.steps(PLANS[panel].heads[-1])
    klines = market(panel, 400 + longest)
    cut_ms = int(klines[LEADER].open_time_ms[rows_needed(panel) + 100])
    futures = readers_of_the_future(lambda k: see_forecasts(panel, padded(k, klines), cut_ms), klines, cut_ms)
    assert futures == {}


def padded(klines: Market, whole: Market) -> Market:
    """Where there is no future, one like the past: a row without a truth is no row of a score."""
    return {
        symbol: run.merge(whole[symbol].between(run.end_ms, 2**62)) if len(run) < len(whole[symbol]) else run
        for symbol, run in klines.items()
    }


# The detectors themselves: each planted leak is one that a person could write by mistake.


def ahead(column: "npt.NDArray[Any]", rows: int = 1) -> "npt.NDArray[Any]":
    """Each row holds what the row after it should."""
    return np.concatenate([column[rows:], column[-rows:]])


def planted(view: Seen, name: str, column: "npt.NDArray[Any]") -> Seen:
    return replace(view, columns={**view.columns, name: column})


def leaky_inputs(klines: Market) -> Seen:
    """Right inputs, and wrong ones beside them."""
    seen = see_inputs(MINUTE, klines)
    close, moves = seen.columns["close"], seen.columns["return"]
    centred = np.concatenate([np.convolve(np.log(run.close), np.ones(3) / 3, "same") for run in klines.values()])
    for name, column in {
        "a feature shifted by one": ahead(moves),
        "a feature shifted by sixty": ahead(moves, 60),
        "the scale shifted by one": ahead(seen.columns["scale"]),
        "the naive forecast shifted by one": ahead(seen.columns["naive volatility-15m"]),
        "a centred mean": centred,
        "a scaling by all of history": (close - close.mean()) / close.std(),
        "a rank in all of history": np.argsort(np.argsort(close)).astype(np.float64),
        "a backward fill": np.where(moves > 0.5, ahead(moves), moves),
    }.items():
        seen = planted(seen, name, column)
    return seen


def test_inputs_that_read_the_future_are_caught() -> None:
    honest = see_inputs(MINUTE, market(MINUTE)).columns.keys()
    caught = readers_of_the_future(leaky_inputs, market(MINUTE), cuts(MINUTE)[1])
    assert caught.keys() == leaky_inputs(market(MINUTE)).columns.keys() - honest


def test_inputs_without_an_end_to_their_memory_are_caught() -> None:
    def view(klines: Market) -> Seen:
        seen = see_inputs(MINUTE, klines)
        closes = [run.close for run in klines.values()]
        sums = planted(seen, "a running mean", np.concatenate([c.cumsum() / np.arange(1, len(c) + 1) for c in closes]))
        faded = []
        for close in closes:
            level = [close[0]]
            for price in close[1:]:
                level.append(level[-1] + (price - level[-1]) / 200)
            faded.append(np.array(level))
        return planted(sums, "an exponential mean", np.concatenate(faded))

    caught = readers_of_more(view, market(MINUTE), MINUTE, cuts(MINUTE)[1])
    assert caught == {"a running mean", "an exponential mean"}
    row = rows_needed(MINUTE) + 60
    assert max(reach(view, market(MINUTE), OTHER, row - 1000)["a running mean"][0]) > 1000


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_truth_of_another_horizon_is_caught(shift: int) -> None:
    key = Head(Kind.VOLATILITY, 15).key

    def view(klines: Market) -> Seen:
        seen = see_labels(MINUTE, klines)
        return planted(seen, key, np.roll(seen.columns[key], shift))

    own, _ = reach(view, market(MINUTE), OTHER, rows_needed(MINUTE) + 200)[key]
    assert own == set(range(-15 + shift, 1 + shift))


def test_a_truth_that_reads_another_symbol_is_caught() -> None:
    def view(klines: Market) -> Seen:
        seen = see_labels(MINUTE, klines)
        column = seen.columns["return-5m"]
        return planted(seen, "return-5m", column + np.roll(column, len(column) // 2))

    _, others = reach(view, market(MINUTE), OTHER, rows_needed(MINUTE) + 200)["return-5m"]
    assert others


# Splits and what is fitted on them.

TRAINED_ON = {
    MINUTE: plan_of(MINUTE, (5, 15), ("czar", "mse")),
    HOUR: plan_of(HOUR, (480, 1440), ("mae", "zptae")),
}
TINY = TrainingConfig(lookback=8, hidden_layer_size=4, epochs=2, stride=4, batch_size=128)


def history(panel: Panel, rows_more: int = 1500) -> Market:
    return market(panel, rows_more)


def train(panel: Panel, klines: Market) -> TrainedPanel:
    return train_panel(TRAINED_ON[panel], klines, TINY, seed=0)


@cache
def trained(panel: Panel) -> TrainedPanel:
    return train(panel, history(panel))


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_no_label_of_one_part_reads_a_candle_of_the_next(panel: Panel) -> None:
    assert labels_across(trained(panel).windows, trained(panel).split) == {}
    windows = build(PLANS[panel], history(panel, 3000))
    assert labels_across(windows, purged_split(windows)) == {}


def test_a_split_without_a_gap_is_caught_to_the_candle() -> None:
    windows, split = trained(MINUTE).windows, trained(MINUTE).split
    horizons = {head.key: head.horizon_min for head in windows.plan.heads}
    abutting = replace(split, validate_start_ms=split.train_end_ms)
    assert labels_across(windows, abutting) == {key: 2 * steps for key, steps in horizons.items()}  # of both symbols
    by_one = replace(split, judge_start_ms=split.judge_start_ms - MINUTE.interval_ms)
    assert labels_across(windows, by_one) == {key: 2 for key, steps in horizons.items() if steps == 15}


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_what_is_fitted_does_not_see_the_judge_part(panel: Panel) -> None:
    """Weights, calibration, early stopping and whatever else a training gives."""
    assert {"model", "calibration", "validation", "best_epoch"} <= fitted(trained(panel)).keys()
    assert moved_by_the_judge_part(lambda klines: train(panel, klines), history(panel)) == set()


def test_a_calibration_fitted_on_the_judge_part_is_caught() -> None:
    def careless(klines: Market) -> TrainedPanel:
        made = train(MINUTE, klines)
        rows = made.windows.rows(made.split.judge_start_ms, made.split.judge_end_ms)
        said = outputs(torch_network(made.model), made.windows, rows)
        return replace(made, calibration=calibrations.fit(made.windows, Evidence(rows=rows, output=said)))

    assert moved_by_the_judge_part(careless, history(MINUTE)) == {"calibration"}


def test_weights_fitted_on_the_judge_part_are_caught() -> None:
    def careless(klines: Market) -> TrainedPanel:
        """Fits once more on all there is, as one would before publishing."""
        made = train(MINUTE, klines)
        whole = train_panel(TRAINED_ON[MINUTE], {s: run.tail(len(run) - 300) for s, run in klines.items()}, TINY, 0)
        return replace(whole, split=replace(whole.split, judge_start_ms=made.split.validate_start_ms))

    assert {"model", "calibration"} <= moved_by_the_judge_part(careless, history(MINUTE))


def evidence_of(made: TrainedPanel) -> tuple[TopicForecasts, ...]:
    """The honest forecasts made inside a training, where there are such."""
    return made.evidence


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_evidence_from_inside_a_training_is_of_the_past_alone(panel: Panel) -> None:
    made, judged_ms = evidence_of(trained(panel)), trained(panel).split.judge_start_ms
    assert all(one.open_time_ms.max() + one.topic.horizon_ms < judged_ms for one in made)
    if made:
        cut_ms = int(np.median(made[0].open_time_ms))
        assert not evidence_that_reads_ahead(lambda k: evidence_of(train(panel, k)), history(panel), cut_ms)


def test_evidence_calibrated_on_all_of_itself_is_caught() -> None:
    def careless(klines: Market) -> tuple[TopicForecasts, ...]:
        windows = build(TRAINED_ON[MINUTE], klines)
        rows, heads = windows.rows(0, 2**62), windows.plan.heads
        said = outputs(Readout(len(FEATURES), len(heads)), windows, rows)
        return forecasts(windows, rows, said, heads, calibrations.fit(windows, Evidence(rows=rows, output=said)))

    cut_ms = trained(MINUTE).split.validate_start_ms
    caught = evidence_that_reads_ahead(careless, history(MINUTE), cut_ms)
    volatility = {t.key for t in TRAINED_ON[MINUTE].topics if t.target is Target.VOLATILITY}
    assert caught & volatility  # a bias, unless both are at its limit
