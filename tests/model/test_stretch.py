"""The stretch of a topic's answers: how it is applied, fitted, and left away."""

import math
from dataclasses import replace

import numpy as np
import pytest

from admission.criteria import ASPECT, effective_rows, log_aspect
from admission.replay import Past, answers, epochs_between, past_of
from admission.stretch_fit import stretched
from core.clock import DAY_MS
from core.errors import IncompatibleModel
from core.settings import Objective
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from model.stretch import (
    NONE,
    Stretch,
    before_data,
    objective_of,
    stretched_price,
    stretched_return,
    stretched_volatility,
)
from tests.fakes.klines import random_walk_klines

RETURN = Topic(
    topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=20, epoch_length_blocks=60
)
VOLATILITY = replace(RETURN, target=Target.VOLATILITY, horizon_min=15)
MONTH = random_walk_klines(40 * 1440, seed=11)


def replayed(topic: Topic, klines: Klines = MONTH, known_min: int = 1) -> tuple[Past, Floats]:
    past = past_of(topic, klines, epochs_between(topic, int(klines.open_time_ms[0]), klines.end_ms))
    return past, answers(past, klines, None, known_min)


def test_a_stretch_survives_its_file() -> None:
    stretch = Stretch(factor=1.3, shift=-0.09, middle=0.01, intercept=-0.02, slope=-0.4)
    assert Stretch.from_json(stretch.to_json()) == stretch


@pytest.mark.parametrize(
    "value", [None, [], "1", {"factor": 0.9}, {"factor": math.nan}, {"factor": "wide"}, {"width": 1.0}]
)
def test_what_is_no_stretch_is_refused(value: object) -> None:
    with pytest.raises(IncompatibleModel, match="a stretch is"):
        Stretch.from_json(value)


def test_none_leaves_every_answer_as_it_is() -> None:
    assert stretched_return(0.003, NONE) == 0.003
    assert stretched_price(101.7, 100.0, NONE) == 101.7
    assert stretched_volatility(math.log(0.002), 0.001, 0.3, NONE) == pytest.approx(0.002, rel=1e-12)


def test_a_price_is_stretched_as_its_return() -> None:
    stretch = Stretch(factor=1.5)
    assert math.log(float(stretched_price(101.0, 100.0, stretch)) / 100) == pytest.approx(1.5 * math.log(1.01))


def test_a_volatility_is_stretched_about_its_middle() -> None:
    stretch = Stretch(factor=2.0, shift=-0.1, middle=0.05, intercept=-0.02, slope=-0.4)
    base, dev, expected = 0.001, 0.3, math.log(0.0015) - 0.1
    b = -0.02 - 0.4 * dev
    x = expected - math.log(base) - b
    answer = base * math.exp(b + 0.05 + 2.0 * (x - 0.05))
    assert stretched_volatility(math.log(0.0015), base, dev, stretch) == pytest.approx(answer, rel=1e-12)


def test_before_data_it_is_what_the_known_part_of_a_random_walk_asks_for() -> None:
    assert before_data(60, 1).factor == pytest.approx(0.33 * math.sqrt(60))
    assert before_data(60, 0) == before_data(5, 4) == NONE


@pytest.mark.parametrize(
    ("own", "setting", "network", "made_for"),
    [
        (None, Objective.AUTO, "allora-testnet-1", Objective.ADMISSION),
        (None, Objective.AUTO, "allora-mainnet-1", Objective.AUTO),
        (None, Objective.AUTO, None, Objective.LOSS),
        ("loss", Objective.AUTO, "allora-testnet-1", Objective.LOSS),
        ("admission", Objective.LOSS, None, Objective.ADMISSION),
    ],
)
def test_what_an_objective_means(own: str | None, setting: Objective, network: str | None, made_for: Objective) -> None:
    assert objective_of(replace(RETURN, objective=own, network=network), setting) is made_for


def test_the_fitted_stretch_keeps_the_aspect_of_nearly_every_week() -> None:
    past, said = replayed(RETURN)
    walked = stretched(past, said, 1, Objective.ADMISSION)
    assert walked.newest.factor > 1
    held = []
    for day in range(16, 40):
        week = slice(*np.searchsorted(past.epochs.base_ms, MONTH.open_time_ms[0] + np.array([day - 7, day]) * DAY_MS))
        truth, answer = past.truth[week], said[week] * walked.newest.factor
        there = np.isfinite(truth) & (truth != 0)
        value, error = log_aspect(truth[there], answer[there], effective_rows(truth[there], np.flatnonzero(there), 4))
        held.append(value + error >= -ASPECT)
    assert np.mean(held) >= 0.9
    month = np.isfinite(past.truth)
    assert math.log10(np.std(walked.newest.factor * said[month]) / np.std(past.truth[month])) > -ASPECT


def test_it_is_fitted_by_the_past_alone() -> None:
    past, said = replayed(RETURN)
    cut = 25 * DAY_MS + int(MONTH.open_time_ms[0])
    late = past.epochs.base_ms + past.topic.horizon_ms > cut
    other = replace(past, truth=np.where(late, -3 * past.truth, past.truth))
    mine, theirs = (stretched(one, said, 1, Objective.ADMISSION).answers for one in (past, other))
    until = past.epochs.base_ms < cut
    np.testing.assert_array_equal(mine[until], theirs[until])
    assert not np.array_equal(mine, theirs, equal_nan=True)


def test_before_a_week_of_epochs_the_rule_of_thumb_is_used() -> None:
    past, said = replayed(RETURN, random_walk_klines(3 * 1440, seed=2))
    assert stretched(past, said, 1, Objective.ADMISSION).newest == before_data(20, 1)
    assert stretched(past, said, 1, Objective.AUTO).newest == NONE


def test_where_nothing_is_said_there_is_nothing_to_stretch() -> None:
    past, said = replayed(RETURN, known_min=0)
    assert stretched(past, said, 0, Objective.ADMISSION).newest == NONE


def test_a_mainnet_stretches_only_what_still_loses_less_than_the_plain_naive_forecast() -> None:
    """A known minute of 20 (r = .22) carries the stretch to an aspect of -.48; one of four hours (r = .06) does not."""
    for horizon_min, stretches in ((20, True), (240, False)):
        past, said = replayed(replace(RETURN, horizon_min=horizon_min))
        assert (stretched(past, said, 1, Objective.AUTO).newest.factor > 1) is stretches
        assert stretched(past, said, 1, Objective.LOSS).newest == NONE


def test_a_volatilitys_logarithm_is_met_in_the_mean() -> None:
    """The logarithm of an expected volatility is too high by .09 and more: the shift takes that off."""
    past, said = replayed(VOLATILITY)
    there = np.isfinite(past.truth + past.fitted + said) & (past.epochs.base_ms > MONTH.open_time_ms[0] + 12 * DAY_MS)
    walked = stretched(past, said + 0.2, 1, Objective.ADMISSION)
    assert walked.newest.shift == pytest.approx(-0.2, abs=0.05)
    assert np.mean((walked.answers - past.truth)[there]) == pytest.approx(0.0, abs=0.02)
