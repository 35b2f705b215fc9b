"""The known beginning of an interval and the forecast of its rest, put together."""

import numpy as np
import pytest

from core.clock import MINUTE_MS
from klines.klines import Floats
from model.heads import Kind
from model.known import NOTHING, Known, whole_return

HORIZON = 15


def walk(seed: int, minutes: int = HORIZON) -> Floats:
    """``(minutes + 1,)`` closes."""
    moves = np.random.default_rng(seed).normal(1e-4, 1e-3, minutes)
    closes: Floats = 100 * np.exp(np.concatenate([[0.0], np.cumsum(moves)]))
    return closes


def known_of(closes: Floats, newest: float, elapsed_ms: int) -> Known:
    """What the base price, the closes of the whole minutes since, and the newest price tell."""
    returns = np.diff(np.log(closes))
    return Known(
        elapsed_ms=elapsed_ms,
        minutes=len(returns),
        total=float(returns.sum()),
        squares=float(returns @ returns),
        running=float(np.log(newest / closes[-1])),
    )


@pytest.mark.parametrize("kind", [Kind.VOLATILITY, Kind.RMS])
@pytest.mark.parametrize("seed", range(3))
def test_a_wholly_known_interval_is_its_own_truth(kind: Kind, seed: int) -> None:
    closes = walk(seed)
    known = known_of(closes, closes[-1], HORIZON * MINUTE_MS)
    truth = kind.measure.of_returns(np.diff(np.log(closes)), MINUTE_MS)
    assert kind.measure.whole(known, 99.0, HORIZON) == pytest.approx(truth, rel=1e-12)
    assert whole_return(known, 99.0, HORIZON) == pytest.approx(np.log(closes[-1] / closes[0]), rel=1e-12)


@pytest.mark.parametrize("kind", [Kind.VOLATILITY, Kind.RMS])
def test_where_nothing_is_known_the_forecast_is_the_answer(kind: Kind) -> None:
    assert kind.measure.whole(NOTHING, 0.0012, HORIZON) == pytest.approx(0.0012, rel=1e-12)
    assert whole_return(NOTHING, -0.003, HORIZON) == pytest.approx(-0.003, rel=1e-12)


@pytest.mark.parametrize("kind", [Kind.VOLATILITY, Kind.RMS])
@pytest.mark.parametrize("known_min", [0, 1, 4])
def test_volatility_is_expected_over_what_the_rest_may_bring(kind: Kind, known_min: int) -> None:
    """The square is the mean square over many ways in which the rest may go; half a minute of it is running."""
    closes, per_minute, rng = walk(7)[: known_min + 1], 0.0009, np.random.default_rng(1)
    newest = closes[-1] * np.exp(0.002)
    known = known_of(closes, newest, known_min * MINUTE_MS + MINUTE_MS // 2)
    ways, left = 200_000, HORIZON - known_min
    rest = rng.normal(0.0, per_minute, (ways, left))
    rest[:, 0] = 0.002 + rest[:, 0] * 0.5**0.5
    returns = np.concatenate([np.broadcast_to(np.diff(np.log(closes)), (ways, known_min)), rest], axis=1)
    squares = np.var(returns, axis=1, ddof=1) if kind is Kind.VOLATILITY else np.mean(returns**2, axis=1)
    assert kind.measure.whole(known, per_minute, HORIZON) ** 2 == pytest.approx(squares.mean(), rel=5e-3)


def test_of_the_forecast_of_a_return_the_share_of_the_rest_counts() -> None:
    known = known_of(np.array([100.0]), 101.0, 90_000)
    assert whole_return(known, 0.01, 15) == pytest.approx(np.log(1.01) + 0.01 * 13.5 / 15, rel=1e-12)


def test_a_late_candle_leaves_its_minute_to_the_running_move() -> None:
    """After 130 s with one candle: 70 s of running move, and 12 5/6 minutes are left."""
    closes = np.array([100.0, 100.1])
    known = known_of(closes, 100.3, 130_000)
    first, running = np.log(100.1 / 100), np.log(100.3 / 100.1)
    squares = first**2 + running**2 + (HORIZON - 130 / 60) * 0.001**2
    assert Kind.RMS.measure.whole(known, 0.001, HORIZON) == pytest.approx((squares / HORIZON) ** 0.5, rel=1e-12)


def test_many_rows_are_as_each_of_them() -> None:
    rows = [known_of(walk(seed)[:3], walk(seed)[2] * 1.001, 150_000) for seed in range(4)]
    many = Known(
        elapsed_ms=np.full(4, 150_000),
        minutes=np.full(4, 2),
        total=np.array([row.total for row in rows]),
        squares=np.array([row.squares for row in rows]),
        running=np.array([row.running for row in rows]),
    )
    forecast = np.linspace(0.001, 0.002, 4)
    for kind in (Kind.VOLATILITY, Kind.RMS):
        each = [kind.measure.whole(row, one, HORIZON) for row, one in zip(rows, forecast, strict=True)]
        assert np.asarray(kind.measure.whole(many, forecast, HORIZON)) == pytest.approx(np.asarray(each), rel=1e-14)
    returns = [whole_return(row, one, HORIZON) for row, one in zip(rows, forecast, strict=True)]
    assert np.asarray(whole_return(many, forecast, HORIZON)) == pytest.approx(np.asarray(returns), rel=1e-14)
