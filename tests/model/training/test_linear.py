"""The linear path: finds what falls back, mirrors a mirrored market, and is told nothing of what comes."""

from dataclasses import replace

import numpy as np
import pytest

from core.clock import MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from model.features import FEATURES, LEAST_SPREAD, LIMIT, SIGNED
from model.heads import Kind
from model.panels import LEADER, MINUTE, panels_for
from model.training import linear
from model.windows import Split, Windows, build, purged_split
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

TOPICS = tuple(
    Topic(topic_id=number, token="ETH", symbol="ETHUSDT", target=target, horizon_min=horizon_min)
    for number, (target, horizon_min) in enumerate([(Target.PRICE, 5), (Target.VOLATILITY, 5), (Target.PRICE, 15)], 1)
)
PLAN = panels_for(TOPICS)[MINUTE]
ROWS = 12_000


def market(seed: int, fall_back: float) -> dict[str, Klines]:
    """Random walks, of which a share of the last ten minutes' moves is taken back in the next minutes."""
    found = {}
    for place, symbol in enumerate(PLAN.symbols):
        walk = random_walk_klines(ROWS, seed=seed + place)
        moves = np.diff(np.log(walk.close), prepend=np.log(walk.close[0]))
        for row in range(10, ROWS):
            moves[row] -= fall_back * moves[row - 10 : row].mean()
        found[symbol] = walk_of(walk, moves)
    return found


def walk_of(like: Klines, moves: Floats) -> Klines:
    """Candles of these returns with the flow of others."""
    close = 100 * np.exp(np.cumsum(moves))
    start = np.concatenate([[100.0], close[:-1]])
    return Klines(
        interval_ms=MINUTE_MS,
        open_time_ms=like.open_time_ms,
        open=start,
        high=np.maximum(start, close) * 1.0001,
        low=np.minimum(start, close) / 1.0001,
        close=close,
        volume=like.volume,
        quote_volume=like.quote_volume,
        trades=like.trades,
        taker_buy_base=like.taker_buy_base,
        taker_buy_quote=like.taker_buy_quote,
    )


def fitted(klines: dict[str, Klines]) -> tuple[Windows, Split, linear.LinearPath]:
    windows = build(PLAN, klines)
    split = purged_split(windows)
    return windows, split, linear.fit(windows, split)


def agreement(windows: Windows, path: linear.LinearPath, column: int) -> float:
    said, came_true = path.unseen[:, column], windows.target[path.rows, column]
    known = np.isfinite(said) & np.isfinite(came_true)
    return float(np.corrcoef(said[known], came_true[known])[0, 1])


def test_what_falls_back_is_found_on_rows_that_were_not_fitted_on() -> None:
    windows, split, path = fitted(market(1, fall_back=0.4))
    column = 0
    assert PLAN.heads[column].kind is Kind.RETURN
    assert agreement(windows, path, column) > 0.15
    assert path.weights[column, FEATURES.index("move_5")] < 0
    judge = windows.rows(split.judge_start_ms, split.judge_end_ms)
    assert np.corrcoef(path(windows, judge)[:, column], windows.target[judge, column])[0, 1] > 0.15


def test_in_a_random_walk_nothing_is_found() -> None:
    windows, _, path = fitted(market(2, fall_back=0.0))
    assert abs(agreement(windows, path, 0)) < 0.06


def test_a_mirrored_market_is_forecast_the_other_way_round() -> None:
    klines = market(3, fall_back=0.4)
    mirrored = {
        symbol: Klines(
            interval_ms=MINUTE_MS,
            open_time_ms=run.open_time_ms,
            open=1e4 / run.open,
            high=1e4 / run.low,
            low=1e4 / run.high,
            close=1e4 / run.close,
            volume=run.volume,
            quote_volume=run.quote_volume,
            trades=run.trades,
            taker_buy_base=run.volume - run.taker_buy_base,
            taker_buy_quote=run.quote_volume - run.taker_buy_quote,
        )
        for symbol, run in klines.items()
    }
    windows, split, path = fitted(klines)
    theirs, _, other = fitted(mirrored)
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    for name in SIGNED:
        column = FEATURES.index(name)
        np.testing.assert_allclose(windows.x[rows, column], -theirs.x[rows, column], atol=2e-3, err_msg=name)
    np.testing.assert_allclose(path(windows, rows), -other(theirs, rows), atol=2e-3)
    for name in set(FEATURES) - set(SIGNED):
        column = FEATURES.index(name)
        np.testing.assert_allclose(windows.x[rows, column], theirs.x[rows, column], atol=2e-3, err_msg=name)


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_line_of_the_past_is_not_moved_by_what_comes_after_its_rows(share: float) -> None:
    klines = market(4, fall_back=0.4)
    cut_ms = START_MS + int(share * ROWS) * MINUTE_MS
    others = market(99, fall_back=-0.4)
    changed = {
        symbol: run.between(0, cut_ms).merge(others[symbol].between(cut_ms, 2**62)) for symbol, run in klines.items()
    }
    windows, _, path = fitted(klines)
    _, _, again = fitted(changed)
    for start_ms, until_ms in path.spans:
        time_ms = windows.open_time_ms[path.rows]
        mine = (time_ms >= start_ms) & (time_ms < min(until_ms, cut_ms))
        if start_ms <= cut_ms and mine.any():
            np.testing.assert_array_equal(path.unseen[mine], again.unseen[mine])


@pytest.mark.parametrize("size", [0.0, 1e-10, 1e-5, 0.5 * LEAST_SPREAD])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_feature_that_is_rounding_noise_gets_no_weight(size: float, level: float) -> None:
    """However well its noise happens to fit; the others' weights are what they would be without it."""
    windows = build(PLAN, market(5, fall_back=0.4))
    split, column, noisy = purged_split(windows), 0, FEATURES.index("taker_share")
    told = np.where(windows.usable, np.nan_to_num(windows.target[:, column].astype(np.float64)), 0.0)
    known = replace(windows, x=windows.x.copy())
    known.x[:, noisy] = level + size * told / told.std()
    without = replace(windows, x=windows.x.copy())
    without.x[:, noisy] = 0.0
    path, plain = linear.fit(known, split), linear.fit(without, split)
    assert not path.weights[:, noisy].any()
    np.testing.assert_array_equal(path.weights, plain.weights)


@pytest.mark.parametrize("size", [1.01 * LEAST_SPREAD, 0.2, 1.0])
def test_a_feature_at_its_limit_says_no_more_than_it_may(size: float) -> None:
    """Even one that knows what comes."""
    windows = build(PLAN, market(5, fall_back=0.4))
    split, column, knowing = purged_split(windows), 0, FEATURES.index("taker_share")
    told = np.where(windows.usable, np.nan_to_num(windows.target[:, column].astype(np.float64)), 0.0)
    windows.x[:, knowing] = size * told / told.std()
    path = linear.fit(windows, split)
    assert path.weights[column, knowing] * LIMIT == pytest.approx(linear.MOST_FORECAST)
    assert np.abs(path.weights * LIMIT).max() <= linear.MOST_FORECAST


def test_heads_of_volatility_have_no_path() -> None:
    _, _, path = fitted({symbol: random_walk_klines(4000, seed=5) for symbol in (LEADER, "ETHUSDT")})
    column = next(place for place, head in enumerate(PLAN.heads) if head.kind.is_volatility)
    assert not path.weights[column].any()
    assert np.isnan(path.unseen[:, column]).all()
