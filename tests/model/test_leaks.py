"""No feature, label, split, fit or forecast knows the future; and the detectors catch whatever is planted."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from core.topic import LOSS_NAMES, Target, Topic, Volatility, horizon_text
from market.klines import Klines
from model import calibration as calibrations
from model.calibration import Calibration
from model.evaluation import forecasts, onnx_network, outputs
from model.features import FEATURES, Floats32, rows_needed
from model.forecaster import BiRNNForecaster, Forecasts
from model.heads import HOUR, LEADER, MINUTE, Head, Kind, Panel, PanelPlan, head_of, panels_for, truth
from model.losses import loss
from model.registry import Registry
from model.training import TrainedPanel, TrainingConfig, torch_network, train_panel
from model.windows import build, purged_split
from tests.fakes import FakeClock, random_walk_klines
from tests.model.leaks import (
    Market,
    Seen,
    elsewhere,
    fitted,
    inputs,
    labels,
    labels_across,
    moved_by_the_judge_part,
    reach,
    readers_of_more,
    readers_of_the_future,
    skill,
    told,
)
from updater.refresh import run_round

OTHER = "ETHUSDT"
SYMBOLS = (LEADER, OTHER)
HORIZONS = {MINUTE: (5, 15, 240), HOUR: (480, 10080)}
LOSSES = tuple(sorted(set(LOSS_NAMES.values())))


MEANINGS = [(target, Volatility.STD) for target in Target] + [(Target.VOLATILITY, Volatility.RMS)]


def plan_of(panel: Panel, horizons: tuple[int, ...], losses: tuple[str, ...]) -> PanelPlan:
    """Both symbols, all that can be asked of these horizons, each in these losses: a head of every kind."""
    asked = [
        (symbol, target, volatility, horizon, loss)
        for symbol in SYMBOLS
        for target, volatility in MEANINGS
        for horizon in horizons
        for loss in losses
    ]
    topics = [
        Topic(
            topic_id=number,
            token=symbol[:3],
            symbol=symbol,
            target=target,
            volatility=volatility,
            horizon_min=horizon,
            loss=loss,
        )
        for number, (symbol, target, volatility, horizon, loss) in enumerate(asked, 1)
    ]
    plan = panels_for(topics)[panel]
    assert {head.kind for head in plan.heads} == set(Kind)
    return plan


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
        return replace(made, calibration=calibrations.fit(made.windows, rows, said))

    assert moved_by_the_judge_part(careless, history(MINUTE)) == {"calibration"}


def test_weights_fitted_on_the_judge_part_are_caught() -> None:
    def careless(klines: Market) -> TrainedPanel:
        """Fits once more on all there is, as one would before publishing."""
        made = train(MINUTE, klines)
        whole = train_panel(TRAINED_ON[MINUTE], {s: run.tail(len(run) - 300) for s, run in klines.items()}, TINY, 0)
        return replace(whole, split=replace(whole.split, judge_start_ms=made.split.validate_start_ms))

    assert {"model", "calibration"} <= moved_by_the_judge_part(careless, history(MINUTE))


# Markets without skill, and the same with some to be had.

WALKS = ("normal", "fat tails")
WALKED = {
    MINUTE: plan_of(MINUTE, (5, 15), ("czar", "mse")),
    HOUR: plan_of(HOUR, (480,), ("mse", "zptae")),
}
NOISE = 4.0  # standard errors; the largest of some twenty numbers that are not independent
SMALL = TrainingConfig(
    lookback=8, hidden_layer_size=8, epochs=4, stride=4, batch_size=128, learning_rate=0.01, return_weight=1.0
)


def walk(panel: Panel, kind: str, seed: int, rows: int) -> Klines:
    """Independent returns of one size. With fat tails they are Student's with five degrees of freedom."""
    shocks = np.random.default_rng(1000 + seed).standard_t(5, rows) * 0.6**0.5 if kind == "fat tails" else None
    return random_walk_klines(rows, panel.interval_ms, seed, shocks=shocks)


@cache
def walks(panel: Panel, kind: str) -> Market:
    rows = rows_needed(panel) + 5500
    return {symbol: walk(panel, kind, seed, rows) for seed, symbol in enumerate(SYMBOLS, 21)}


@cache
def best_constants(panel: Panel, kind: str) -> dict[str, float]:
    """By volatility head: the constant that loses least, of a walk of the same kind and eighty thousand candles."""
    long = walk(panel, kind, 5, 80_000)
    found = {}
    for head in WALKED[panel].heads:
        if head.kind is not Kind.RETURN:
            came_true = truth(long, panel, head)[: -panel.steps(head)][panel.steps(head) :]
            choice = [came_true.mean(), *np.quantile(came_true, np.linspace(0.3, 0.7, 21))]
            std = float(came_true.std())
            losses = [float(loss(head.loss)(came_true, np.full_like(came_true, one), std).mean()) for one in choice]
            found[head.key] = float(choice[int(np.argmin(losses))])
    return found


def skill_in(panel: Panel, kind: str, klines: Market) -> dict[str, float]:
    return skill(train_panel(WALKED[panel], klines, SMALL, seed=1), best_constants(panel, kind))


@pytest.mark.parametrize("kind", WALKS)
@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_a_random_walk_shows_no_skill(panel: Panel, kind: str) -> None:
    found = skill_in(panel, kind, walks(panel, kind))
    assert len(found) > len(WALKED[panel].topics)
    assert max(found.values()) < NOISE, found


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_a_market_that_gives_its_future_away_shows_skill(panel: Panel) -> None:
    """The same test on the same walk, but each candle's flow tells what comes next: it would see a leak."""
    horizon = WALKED[panel].heads[0].horizon_min
    market = {symbol: told(run, panel, horizon) for symbol, run in walks(panel, "normal").items()}
    found = skill_in(panel, "normal", market)
    its = [t for name, t in found.items() if horizon_text(horizon) in name.replace("-", " ").split()]
    assert min(its) > NOISE, found


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_labels_from_elsewhere_in_time_show_no_skill(panel: Panel) -> None:
    """The same flow, told by other candles' futures, at a distance drawn at random."""
    horizon, rng = WALKED[panel].heads[0].horizon_min, np.random.default_rng(8)
    market = {
        symbol: elsewhere(told(run, panel, horizon), int(rng.integers(1500, 4000)))
        for symbol, run in walks(panel, "normal").items()
    }
    found = skill_in(panel, "normal", market)
    assert max(found.values()) < NOISE, found


@pytest.mark.parametrize("panel", PLANS, ids=lambda panel: str(panel.name))
def test_a_round_on_random_walks(panel: Panel, tmp_path: Path) -> None:
    """No forecast of a return is promoted that is not the naive one; and what was judged is what serving says.

    Serving is handed what it has at each moment, the candles up to then, and says what was judged at that candle.
    """
    plan, klines, registry = WALKED[panel], walks(panel, "normal"), Registry(tmp_path)
    clock = FakeClock(klines[LEADER].end_ms)
    outcome = run_round(plan, klines, SMALL, 1, registry, clock)
    for verdict in outcome.verdicts:
        if verdict.head.startswith(Kind.RETURN) and verdict.promoted:
            assert verdict.challenger == pytest.approx(verdict.naive, rel=1e-6)
    assert outcome.version is not None
    published = registry.open(outcome.version)
    network = BiRNNForecaster(published)
    windows = build(plan.reading(SMALL.lookback), klines)
    rows = windows.rows(published.manifest.split.judge_start_ms, published.manifest.split.judge_end_ms, stride=150)
    said = outputs(onnx_network(published.onnx), windows, rows)
    live: dict[int, Forecasts] = {}
    for asof_ms in np.unique(windows.open_time_ms[rows]).tolist():
        live[asof_ms], reasons = network.forecast({s: run.between(0, asof_ms + 1) for s, run in klines.items()})
        assert not reasons
    for one in forecasts(windows, rows, said, plan.heads, network.calibration):
        head = head_of(one.topic)
        for asof_ms, expected in zip(one.open_time_ms.tolist(), one.forecast.tolist(), strict=True):
            answer = live[asof_ms][one.topic.symbol, head]
            assert answer.asof_ms == asof_ms + panel.interval_ms
            number = answer.log_return if head.kind is Kind.RETURN else answer.volatility
            assert number == pytest.approx(expected, rel=1e-4, abs=1e-12)
