"""The network's criteria on the rows of a walk: an epoch apart, of volatility beyond its baselines, looked at daily."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from admission.criteria import Record, criteria
from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats, Ints
from research.backtest.admission import admission

RETURN = Topic(
    topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.LOG_RETURN, horizon_min=15, epoch_length_blocks=60
)
VOLATILITY = replace(RETURN, target=Target.VOLATILITY)
START_MS = 1_700_006_400_000  # a midnight
RNG = np.random.default_rng(3)


def minutes(days: float, apart_min: int = 1) -> Ints:
    return START_MS + np.arange(0, round(days * 1440), apart_min) * MINUTE_MS


def judged(base_ms: Ints, topic: Topic = RETURN, worth: float = 0.5) -> dict[str, Any]:
    """Of forecasts that know so much of the truth."""
    truth = 1e-3 * RNG.standard_normal(len(base_ms))
    served = worth * truth + 3e-4 * RNG.standard_normal(len(base_ms))
    naive = np.zeros(len(base_ms))
    return admission(topic, base_ms, truth, naive, {"served": served, "newest": naive})


def test_rows_are_an_epoch_apart_and_a_gap_is_counted() -> None:
    base_ms = minutes(2)
    truth, served = 1e-3 * RNG.standard_normal((2, len(base_ms)))
    there = (base_ms < base_ms[600]) | (base_ms >= base_ms[700])
    rows = admission(RETURN, base_ms[there], truth[there], 0 * truth[there], {"served": served[there]})
    of_epochs = np.arange(0, len(base_ms), 5)
    of_epochs = of_epochs[(of_epochs < 600) | (of_epochs >= 700)]
    expected = criteria(
        Record(
            truth=truth[of_epochs],
            forecast=served[of_epochs],
            gap=np.diff(of_epochs // 5, prepend=-1),
            horizon_min=15,
            ratio=3,
            submitted=len(of_epochs),
            expected=576,
        )
    )
    assert (rows["epoch_min"], rows["ratio"], rows["rows"]) == (5, 3, 556)
    for name, one in rows["criteria"]["no change"]["served"].items():
        assert one["value"] == pytest.approx(expected[name].value), name
        assert one["bound"] == pytest.approx(expected[name].bound), name


@pytest.mark.parametrize(
    ("apart_min", "blocks", "epoch_min", "ratio"),
    [
        pytest.param(1, 35, 35 / 12, 5, id="epochs that are no whole minutes"),
        pytest.param(30, 60, 30, 1, id="rows further apart than epochs"),
        pytest.param(1, None, 15, 1, id="a topic whose epochs nobody knows"),
    ],
)
def test_an_epoch_is_no_shorter_than_rows_are_apart(
    apart_min: int, blocks: int | None, epoch_min: float, ratio: int
) -> None:
    told = judged(minutes(2, apart_min), replace(RETURN, epoch_length_blocks=blocks))
    assert (told["epoch_min"], told["ratio"]) == (pytest.approx(epoch_min), ratio)
    assert told["criteria"]["no change"]["served"]["participation"]["value"] == 1.0


def test_the_days_until_all_hold_are_those_of_the_starts() -> None:
    told = judged(minutes(5))
    assert (told["eligible"], told["holds"]) == (True, 1.0)
    assert told["days"] == {"median": 1, "p90": 1, "never": 0}
    assert told["words"] == "would be admitted after a median of 1 day; the criteria hold on 100 % of the later days"
    assert all(one["passed"] for one in told["criteria"]["no change"]["served"].values())


def test_what_is_short_is_named() -> None:
    told = judged(minutes(3), worth=0.0)
    assert told["eligible"] is False
    assert told["days"]["median"] is told["holds"] is None
    assert told["words"].startswith("would not be admitted: short of right directions, correlation, ")
    of_naive = told["criteria"]["no change"]["newest"]
    assert [name for name, one in of_naive.items() if one["passed"]] == ["n_eff", "participation"]


def test_what_held_from_some_starts_alone_is_told_as_that() -> None:
    base_ms = minutes(8)
    truth = 1e-3 * RNG.standard_normal(len(base_ms))
    served = np.where(base_ms < base_ms[5 * 1440], 0.5, -0.5) * truth
    told = admission(RETURN, base_ms, truth, 0 * truth, {"served": served})
    assert told["eligible"] is False
    assert told["words"].startswith("would not be admitted: over all days short of ")
    assert told["words"].endswith(", though records begun on 100 % of the days met all seven at some time")


@pytest.mark.parametrize("topic", [RETURN, VOLATILITY], ids=["return", "volatility"])
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_a_short_span_is_short_of_rows(rows: int, topic: Topic) -> None:
    truth = np.full(rows, 1e-3)
    told = admission(topic, minutes(1)[:rows], truth, truth, {"served": truth})
    assert told["eligible"] is False
    assert told["words"].startswith(("would not be admitted: short of rows", "too short a span"))


def volatility(base_ms: Ints) -> tuple[Floats, Floats]:
    """Of an interval and of the window before it: a level that returns to its mean."""
    level, noise = np.zeros(len(base_ms) + 15), 0.2 * RNG.standard_normal(len(base_ms) + 15)
    for row in range(1, len(level)):
        level[row] = 0.97 * level[row - 1] + noise[row]
    values = 1e-3 * np.exp(level)
    return values[15:], values[:-15]


def test_volatility_must_beat_both_baselines() -> None:
    base_ms = minutes(9)
    truth, naive = volatility(base_ms)
    known = truth * np.exp(0.3 * RNG.standard_normal(len(truth)))
    back = naive ** (0.97**15) * 1e-3 ** (1 - 0.97**15)  # what the level's return to its mean alone tells
    told = admission(VOLATILITY, base_ms, truth, naive, {"served": known, "newest": back})
    assert list(told["criteria"]) == ["back to the day's mean", "trailing fit"]
    assert told["eligible"]
    passed = {
        baseline: [all(one["passed"] for one in found[name].values()) for name in ("served", "newest")]
        for baseline, found in told["criteria"].items()
    }
    assert passed["trailing fit"] == [True, False], "a return to the mean is what the fit expects"
    assert passed["back to the day's mean"][0]


def test_a_market_that_stood_still_is_no_change() -> None:
    base_ms = minutes(2)
    truth, naive = volatility(base_ms)
    truth[::7], naive[::5] = 0.0, 0.0
    told = admission(VOLATILITY, base_ms, truth, naive, {"served": truth})
    assert told["rows"] == 2 * DAY_MS // (5 * MINUTE_MS)
    assert told["criteria"]["back to the day's mean"]["served"]["n_eff"]["value"] < 0.75 * told["rows"]
