"""On a market without skill none is shown, and the same tests see it where there is some to be had."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.topic import horizon_text
from klines.klines import FLOW_COLUMNS, Floats, Klines
from model.evaluation import forecasts, onnx_network, outputs
from model.features import rows_needed
from model.forecaster import BiRNNForecaster, Forecasts
from model.heads import HOUR, LEADER, MINUTE, Head, Kind, Panel, head_of, truth
from model.losses import loss
from model.registry.versions import Registry
from model.training.config import TrainingConfig
from model.training.fit import TrainedPanel, torch_network, train_panel
from model.windows import build
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.model.leaks import SYMBOLS, Market, plan_of
from updater.round import run_round

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


def told(klines: Klines, panel: Panel, horizon_min: int) -> Klines:
    """The same prices with a leak in the flow: takers know the return to come, the volume knows the volatility."""
    moves = truth(klines, panel, Head(Kind.RETURN, horizon_min))
    calm = truth(klines, panel, Head(Kind.VOLATILITY, horizon_min))
    moves, calm = np.nan_to_num(moves / np.nanstd(moves)), np.nan_to_num(calm / np.nanmean(calm), nan=1.0)
    volume = 20 * calm**2 + 1
    taker = volume * np.clip(0.5 + moves / 8, 0.02, 0.98)
    return replace(
        klines,
        volume=volume,
        quote_volume=volume * klines.close,
        trades=np.round(volume * 3) + 1,
        taker_buy_base=taker,
        taker_buy_quote=taker * klines.close,
    )


def elsewhere(klines: Klines, rows: int) -> Klines:
    """The same prices with the flow of ``rows`` candles earlier, in a circle."""
    flows: dict[str, Any] = {name: np.roll(getattr(klines, name), rows) for name in FLOW_COLUMNS}
    return replace(klines, **flows)


def skill(trained: TrainedPanel, constants: Mapping[str, float]) -> dict[str, float]:
    """By topic: t-value of what the network gains over the best constant on its judge rows, in the topic's loss.

    And by return head and symbol: that of forecast times truth before shrinkage, which would hide a small leak.
    The last window's volatility is no yardstick on a walk: knowing its constant is no leak, and wins.

    Args:
        constants: by head key; a return's is 0.
    """
    windows, split, panel, heads = trained.windows, trained.split, trained.windows.plan.panel, trained.plan.heads
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    said = outputs(torch_network(trained.model), windows, rows)
    found = {}
    for one in forecasts(windows, rows, said, heads, trained.calibration):
        head = head_of(one.topic)
        least = one.losses_of(np.full(len(one.came_true), constants.get(head.key, 0.0)))
        name = f"{one.topic.symbol} {one.topic.target} {head.key}"
        found[name] = t_value(least - one.losses, panel.steps(head))
    for column, head in enumerate(heads):
        for place, symbol in enumerate(windows.plan.symbols):
            mine = (windows.symbol[rows] == place) & np.isfinite(windows.truth[rows, column])
            if head.kind is Kind.RETURN:
                agreed = said[mine, column] * windows.truth[rows[mine], column]
                found[f"{symbol} {head.key} as the network says"] = t_value(agreed, panel.steps(head))
    return found


def t_value(gain: Floats, steps: int) -> float:
    """Mean over its standard error, of gains at candles that follow each other and whose truths span ``steps``.

    Newey and West, Econometrica 55(3), 1987, over twice the horizon. 0 where nothing was gained or lost.
    """
    centred, lags = gain - gain.mean(), min(2 * steps, len(gain) - 1)
    variance = float(centred @ centred)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return float(gain.mean() * len(gain) / variance**0.5) if variance > 0 else 0.0


def skill_in(panel: Panel, kind: str, klines: Market) -> dict[str, float]:
    return skill(train_panel(WALKED[panel], klines, SMALL, seed=1), best_constants(panel, kind))


@pytest.mark.parametrize("kind", WALKS)
@pytest.mark.parametrize("panel", WALKED, ids=lambda panel: str(panel.name))
def test_a_random_walk_shows_no_skill(panel: Panel, kind: str) -> None:
    found = skill_in(panel, kind, walks(panel, kind))
    assert len(found) > len(WALKED[panel].topics)
    assert max(found.values()) < NOISE, found


@pytest.mark.parametrize("panel", WALKED, ids=lambda panel: str(panel.name))
def test_a_market_that_gives_its_future_away_shows_skill(panel: Panel) -> None:
    """The same test on the same walk, but each candle's flow tells what comes next: it would see a leak."""
    horizon = WALKED[panel].heads[0].horizon_min
    market = {symbol: told(run, panel, horizon) for symbol, run in walks(panel, "normal").items()}
    found = skill_in(panel, "normal", market)
    its = [t for name, t in found.items() if horizon_text(horizon) in name.replace("-", " ").split()]
    assert min(its) > NOISE, found


@pytest.mark.parametrize("panel", WALKED, ids=lambda panel: str(panel.name))
def test_labels_from_elsewhere_in_time_show_no_skill(panel: Panel) -> None:
    """The same flow, told by other candles' futures, at a distance drawn at random."""
    horizon, rng = WALKED[panel].heads[0].horizon_min, np.random.default_rng(8)
    market = {
        symbol: elsewhere(told(run, panel, horizon), int(rng.integers(1500, 4000)))
        for symbol, run in walks(panel, "normal").items()
    }
    found = skill_in(panel, "normal", market)
    assert max(found.values()) < NOISE, found


@pytest.mark.parametrize("panel", WALKED, ids=lambda panel: str(panel.name))
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
