"""One score against a calculation that shares none of its code but the truth's, straight from candles."""

import math
from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS
from core.topic import Target, Topic, Volatility
from klines.klines import Floats, Klines
from klines.truth import truth_of
from ledger.answers import Answer
from ledger.scores import Score
from model.heads import head_of
from monitor.scoring import another_question, known_of, missing_ms, scored, span_of
from tests.fakes.clock import BASE_MS, START_MS
from tests.fakes.klines import only, random_walk_klines
from tests.monitor.stand import BLOCK_MS, ELAPSED_MS, MARKET, VENUE, answers_to, topic_of

WALK = random_walk_klines(6 * 1440, start_ms=START_MS - 3 * 1440 * MINUTE_MS)
TOPICS = [
    topic_of(1, Target.PRICE, 10),
    topic_of(2, Target.PRICE, 1440, "mae"),
    topic_of(3, Target.PRICE, 20, "czar"),
    topic_of(4, Target.LOG_RETURN, 5, "zptae"),
    topic_of(5, Target.LOG_RETURN, 1440, "czar"),
    *(topic_of(10 + number, Target.VOLATILITY, 15, volatility=of) for number, of in enumerate(Volatility)),
    topic_of(20, Target.VOLATILITY, 1440, "huber"),
]
STD = 3e-3


def row(base_ms: int) -> int:
    """Row of the candle that closes at a moment."""
    return int(np.searchsorted(WALK.open_time_ms, base_ms - MINUTE_MS))


def answer_to(topic: Topic, base_ms: int = BASE_MS) -> Answer:
    return answers_to(topic, WALK, [base_ms])[0]


def score(topic: Topic, answer: Answer, klines: Klines = WALK) -> Score:
    assert missing_ms(topic, BASE_MS, klines) is None
    return scored(topic, answer, klines, VENUE, STD, 7)


def deviation(returns: Floats, measure: Volatility, minutes: int) -> float:
    """Volatility as the topic's words have it, by definition."""
    total = np.sum(returns**2) if measure.about_zero else np.sum((returns - np.mean(returns)) ** 2)
    per_minute = math.sqrt(total / (len(returns) - (not measure.about_zero)))
    return per_minute * {"std": 1.0, "rms": 1.0}.get(measure.value, measure.factor(minutes))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: f"{topic.asked} {topic.horizon} {topic.loss}")
def test_truth_and_forecasts_equal_a_separate_calculation(topic: Topic) -> None:
    answer = answer_to(topic)
    found = score(topic, answer)
    start, horizon = row(BASE_MS), topic.horizon_min
    close, moves = WALK.close, np.diff(np.log(WALK.close))
    expected = truth_of(topic, WALK.between(*span_of(topic, BASE_MS, MINUTE_MS)), BASE_MS, VENUE)
    assert (found.truth, found.truth_sd) == (expected.value, expected.sd), "to the last digit"
    seen = math.log(answer.anchor / close[start])  # one minute has closed, and 13 seconds of the next have passed
    if topic.target is Target.PRICE:
        truth, naive, plain = close[start + horizon], answer.anchor * answer.truth_ratio, close[start]
        base = close[start]
    elif topic.target is Target.LOG_RETURN:
        truth, naive, plain, base = math.log(close[start + horizon] / close[start]), seen, 0.0, 0.0
    else:
        truth = deviation(moves[start : start + horizon], topic.volatility, horizon)
        plain = base = deviation(moves[start - horizon : start], topic.volatility, horizon)
        per_minute, running = plain / topic.unit, math.log(answer.anchor / close[start + 1])
        rest = (horizon - ELAPSED_MS / MINUTE_MS) * per_minute**2
        squares = moves[start] ** 2 + running**2 + rest
        if topic.volatility.about_zero:
            naive = math.sqrt(squares / horizon) * topic.unit
        else:
            naive = math.sqrt((squares - (seen**2 + rest) / horizon) / (horizon - 1)) * topic.unit
    value = float(answer.value)
    assert found.truth == pytest.approx(truth, rel=1e-12)
    assert found.naive == pytest.approx(naive, rel=1e-9)
    assert found.plain_naive == pytest.approx(plain, rel=1e-12)
    assert found.right_direction == ((value > base) == (truth > base))
    error = value - truth if topic.target is Target.LOG_RETURN else value / truth - 1
    assert found.error_bp == pytest.approx(1e4 * error, rel=1e-6)


@pytest.mark.parametrize(("loss", "formula"), [
    ("mse", lambda y, p: (y - p) ** 2),
    ("mae", lambda y, p: abs(y - p)),
    ("ztae", lambda y, p: abs(math.tanh(y / STD) - math.tanh(p / STD))),
])  # fmt: skip
def test_losses_are_the_topics_own(loss: str, formula: object) -> None:
    assert callable(formula)
    for target in (Target.PRICE, Target.LOG_RETURN):
        topic = topic_of(1, target, 60, loss)
        found = score(topic, answer_to(topic))
        of_returns = target is Target.PRICE and loss == "ztae"
        truth, *three = (found.truth, found.value, found.naive, found.plain_naive)
        base = found.plain_naive if of_returns else None
        y, *ps = (math.log(number / base) if base else number for number in (truth, *three) if number is not None)
        losses = [found.loss, found.naive_loss, found.plain_naive_loss]
        assert losses == pytest.approx([formula(y, p) for p in ps], rel=1e-12)


def test_the_interval_begins_with_the_block_and_the_naive_forecast_knows_what_the_answer_knew() -> None:
    """The base was guessed two minutes early: of the interval only what came after its beginning was known."""
    topic = topic_of(1, Target.LOG_RETURN, 10)
    answer = answer_to(topic)
    late = answer._replace(base_ms=BASE_MS - 2 * MINUTE_MS, elapsed_ms=ELAPSED_MS + 2 * MINUTE_MS)
    assert score(topic, late) == score(topic, answer)
    later = answer._replace(block_ms=BASE_MS + BLOCK_MS + 5 * MINUTE_MS)
    assert scored(topic, later, WALK, VENUE, STD, 7).naive == 0.0, "nothing was known of an interval to come"


def test_without_a_base_nothing_was_known() -> None:
    topic = topic_of(1, Target.VOLATILITY, 15)
    at_ms = BASE_MS + 20_000
    asked = answer_to(topic)._replace(base_ms=at_ms, block_ms=None, elapsed_ms=0, base_source="asked")
    found = scored(topic, asked, WALK, VENUE, STD, 7)
    assert (found.start_ms, found.end_ms) == (at_ms, at_ms + 15 * MINUTE_MS)
    start = row(BASE_MS)
    window = np.diff(np.log(WALK.close[start - 15 : start + 1]))
    assert found.naive == pytest.approx(deviation(window, topic.volatility, 15), rel=1e-12), "up to its newest candle"


def test_the_naive_volatility_is_the_one_that_would_have_been_served() -> None:
    """Its window ends with the newest candle that the answer read, after the base or before it, not at the base."""
    topic, start = topic_of(1, Target.VOLATILITY, 15), row(BASE_MS)
    for candles in (1, 0, -1):
        answer = answer_to(topic)._replace(asof_ms=BASE_MS + candles * MINUTE_MS)
        window = np.diff(np.log(WALK.close[start + candles - 15 : start + candles + 1]))
        known = known_of(answer, WALK, VENUE, BASE_MS)
        last = deviation(window, topic.volatility, 15) / topic.unit
        served = head_of(topic).kind.measure.whole(known, last, 15) * topic.unit
        found = score(topic, answer)
        assert found.naive == pytest.approx(served, rel=1e-12)
        assert found.plain_naive == score(topic, answer_to(topic)).plain_naive
    long_ago = answer_to(topic)._replace(asof_ms=0)
    assert score(topic, long_ago).naive == score(topic, answer_to(topic)).naive, "else that of the base"


@pytest.mark.parametrize("change", [{"venue": "kraken"}, {"anchor_asof_ms": BASE_MS + ELAPSED_MS - 500}])
def test_a_price_that_the_candles_cannot_be_joined_to_is_left_out(change: dict[str, object]) -> None:
    """Another venue's price, or one older than what the answer used: whole minutes alone are known."""
    topic = topic_of(1, Target.LOG_RETURN, 10)
    found = score(topic, answer_to(topic)._replace(**change))  # type: ignore[arg-type]
    assert found.naive == pytest.approx(math.log(WALK.close[row(BASE_MS) + 1] / WALK.close[row(BASE_MS)]), rel=1e-12)


def test_minutes_after_a_hole_are_not_known() -> None:
    topic = topic_of(1, Target.LOG_RETURN, 10)
    rows = np.flatnonzero(WALK.open_time_ms != BASE_MS)
    answer = answer_to(topic)._replace(venue="kraken")
    assert score(topic, answer, only(WALK, rows)).naive == 0.0


def test_hours_tell_a_truth_too() -> None:
    """A start within an hour: the price is on the line from open to close, and the truth says how sure that is."""
    hours = random_walk_klines(900, HOUR_MS, start_ms=START_MS - 400 * HOUR_MS, sigma=5e-3)
    topic = topic_of(1, Target.LOG_RETURN, 480)
    found = score(topic, answer_to(topic), hours)
    expected = truth_of(topic, hours.between(*span_of(topic, BASE_MS, HOUR_MS)), BASE_MS, VENUE)
    assert (found.truth, found.truth_sd) == (expected.value, expected.sd)
    assert expected.sd > 1e-4


@pytest.mark.parametrize("topic", [TOPICS[0], TOPICS[3], TOPICS[5]], ids=lambda topic: topic.asked)
def test_each_candle_that_is_needed_is_missed(topic: Topic) -> None:
    start, horizon = row(BASE_MS), topic.horizon_min
    needed = [start, start + horizon]
    if topic.target is Target.VOLATILITY:
        needed = [*range(start - horizon, start + horizon + 1)]
    span = WALK.between(*span_of(topic, BASE_MS, MINUTE_MS))
    for opened_ms in span.open_time_ms.tolist():
        klines = only(span, np.flatnonzero(span.open_time_ms != opened_ms))
        is_needed = opened_ms in WALK.open_time_ms[needed]
        assert missing_ms(topic, BASE_MS, klines) == (opened_ms if is_needed else None)


def test_neither_right_nor_wrong_where_nothing_moved() -> None:
    topic = topic_of(1, Target.LOG_RETURN, 10)
    assert score(topic, answer_to(topic)._replace(value="0")).right_direction is None
    price = np.full(len(WALK), 2000.0)
    still = replace(WALK, open=price, high=price, low=price, close=price)
    assert score(topic, answer_to(topic), still).right_direction is None
    volatile = topic_of(2, Target.VOLATILITY, 10)
    found = score(volatile, answer_to(volatile)._replace(anchor=2000.0), still)
    assert (found.truth, found.error_bp, found.right_direction) == (0.0, None, None)


def test_a_loss_that_is_not_finite_is_no_score() -> None:
    topic = topic_of(1, Target.PRICE, 10)
    found = scored(topic, answer_to(topic)._replace(value="1" + "0" * 300), WALK, VENUE, STD, 7)
    assert "not finite" in found.reason
    assert found.loss is None


def test_an_answer_to_another_question_is_named() -> None:
    topic = topic_of(1, Target.VOLATILITY, 15)
    answer = answer_to(topic)
    assert another_question(topic, answer, MARKET) == ""
    assert "SIMULATED" in another_question(topic, answer, "SIMULATED")
    assert "in 20m" in another_question(topic, answer._replace(horizon_min=20), MARKET)
    assert "volatility rms" in another_question(topic, answer._replace(target="volatility rms"), MARKET)
