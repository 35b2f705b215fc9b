"""The folds of a tuning: judged apart from each other, and before what the next gates judge on."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS
from core.errors import ConfigError
from core.topic import Target, Topic
from model.panels import HOUR, LONGEST_LOOKBACK, PanelPlan, panels_for
from model.windows import Split, build, purged_split
from research.data import Recording
from research.tune.folds import CONFIRMED, JUDGE_SHARE, SEARCHED, Fold, folds_of
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

PLAN = panels_for([Topic(topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=480)])[HOUR]
LONGEST_DAYS = 200
WALK = random_walk_klines(LONGEST_DAYS * 24, interval_ms=HOUR_MS, seed=3, sigma=6e-3)


def recording(days: int) -> Recording:
    walk = WALK.between(0, START_MS + days * DAY_MS)
    return Recording(source="a walk", simulated="", series={("BTCUSDT", HOUR_MS): walk})


def split_of(fold: Fold, days: int, plan: PanelPlan = PLAN) -> Split:
    klines = recording(days).until(plan, fold.klines_from_ms(plan.panel), fold.end_ms)
    return purged_split(build(plan, klines))


@given(days=st.integers(90, LONGEST_DAYS), training_days=st.integers(3, 30))
def test_judge_parts_are_apart_and_the_gates_own_is_left_out(days: int, training_days: int) -> None:
    folds = folds_of(recording(days), PLAN, training_days)
    assert len(folds) == SEARCHED + CONFIRMED
    judged = [split_of(fold, days) for fold in folds]
    assert judged[0].train_start_ms >= START_MS
    for earlier, later in pairwise(judged):
        assert earlier.judge_end_ms <= later.judge_start_ms
    longest_ms = (training_days * HOUR.days_per_training_day + 1) * DAY_MS  # a training begins with a whole day
    history_ms = min(longest_ms, days * DAY_MS - HOUR.rows_needed * HOUR_MS)
    next_gate_ms = START_MS + days * DAY_MS - JUDGE_SHARE * history_ms
    assert folds[-1].end_ms <= next_gate_ms, "the rows of the next gate's judge part are nobody's here"


def test_an_end_that_is_given_is_kept() -> None:
    end_ms = START_MS + 120 * DAY_MS
    assert folds_of(recording(150), PLAN, 5, end_ms)[-1].end_ms == end_ms


@pytest.mark.parametrize("lookback", [8, 32, LONGEST_LOOKBACK])
def test_every_lookback_is_judged_on_the_same_rows(lookback: int) -> None:
    fold = folds_of(recording(150), PLAN, 5)[0]
    assert split_of(fold, 150, PLAN.reading(lookback)) == split_of(fold, 150)


def test_too_few_klines_are_said() -> None:
    with pytest.raises(ConfigError, match=r"a walk: \d.* days of windows before .* are too few to tune the hour panel"):
        folds_of(recording(45), PLAN, 90)
