"""The unit of our answers: right units pass, each known mistake is named, and odd values are told and not judged."""

from collections.abc import Callable, Sequence
from math import exp, log

import numpy as np
import pytest

from core.topic import Target, Topic, Volatility
from truth.unit import unit_check, unit_of

PRICE = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
RETURN = Topic(topic_id=2, token="ETH", symbol="ETHUSDT", target=Target.LOG_RETURN, horizon_min=480)
VOLATILITY = Topic(topic_id=3, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15)
BASE = 2_755.0
Rows = list[tuple[float, float | None, Sequence[float]]]


def rows(topic: Topic, epochs: int = 20, others: int = 5, seed: int = 7) -> Rows:
    """Epochs of honest workers: each is off by its own noise from what comes true."""
    random = np.random.default_rng(seed)
    made: Rows = []
    for _ in range(epochs):
        if topic.target is Target.LOG_RETURN:
            truth, noise = random.normal(0, 0.012), 0.002
            values = truth + random.normal(0, noise, others + 1)
        else:
            level, noise = (BASE, 0.002) if topic.target is Target.PRICE else (0.003, 0.18)
            values = level * np.exp(random.normal(0, noise) + random.normal(0, noise, others + 1))
        made.append((float(values[0]), float(np.mean(values)), [float(one) for one in values[1:]]))
    return made


def changed(given: Rows, change: Callable[[float], float]) -> Rows:
    return [(change(ours), combined, others) for ours, combined, others in given]


@pytest.mark.parametrize("topic", [PRICE, RETURN, VOLATILITY], ids=lambda topic: topic.target)
def test_honest_answers_have_no_fault(topic: Topic) -> None:
    for seed in range(200):
        assert unit_check(topic, rows(topic, seed=seed), base=BASE) is None, seed


@pytest.mark.parametrize("epochs", [3, 20])
@pytest.mark.parametrize("bad", [0, 1], ids=["all well", "one of the others answers in another unit"])
@pytest.mark.parametrize(
    ("topic", "mistake", "cause"),
    [
        pytest.param(
            VOLATILITY, lambda v: v * 525_600**0.5, "ours is annualised (the square root of a year's minutes, 725)"
        ),
        pytest.param(
            VOLATILITY, lambda v: v * 187.19, "ours is annualised (the square root of the horizons in a year)"
        ),
        pytest.param(VOLATILITY, lambda v: v * 100, "ours is in per cent, theirs as a share"),
        pytest.param(VOLATILITY, lambda v: v / 100, "ours is as a share, theirs in per cent"),
        pytest.param(PRICE, lambda v: v * 100, "ours is in per cent"),
        pytest.param(PRICE, lambda v: -v, "the sign"),
        pytest.param(PRICE, lambda v: log(v / BASE), "none that is known"),
        pytest.param(RETURN, lambda v: v * 100, "ours is in per cent, theirs as a share"),
        pytest.param(RETURN, lambda v: BASE * exp(v), "none that is known"),
        pytest.param(VOLATILITY, lambda v: 1e12, "none that is known"),
        pytest.param(VOLATILITY, lambda v: 1e-18, "none that is known"),
    ],
)
def test_a_large_mistake_is_named(
    topic: Topic, mistake: Callable[[float], float], cause: str, epochs: int, bad: int
) -> None:
    given = rows(topic, epochs)
    if bad:
        given = [(ours, combined, [*others, 725 * others[0]]) for ours, combined, others in given]
    assert unit_check(topic, given) is None
    fault = unit_check(topic, changed(given, mistake))
    assert fault
    assert f"likely cause: {cause}" in fault.what
    assert fault.off > 10
    assert fault.remedy


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (15**0.5, "ours is over the horizon (the square root of 15 minutes), theirs per minute"),
        (15**-0.5, "ours is per minute, theirs over the horizon (the square root of 15 minutes)"),
    ],
)
def test_the_square_root_of_a_short_horizon_is_named_although_the_others_differ_as_much(
    factor: float, cause: str
) -> None:
    given = changed(rows(VOLATILITY), lambda value: value * factor)
    fault = unit_check(VOLATILITY, given, most=1_000.0)
    assert fault
    assert cause in fault.what
    assert unit_check(VOLATILITY, given[:9], most=1_000.0) is None, "too few epochs to be sure"
    few = rows(VOLATILITY)
    assert unit_check(VOLATILITY, changed(few, lambda value: 1.3 * value)) is None, "a level, and no unit"


def test_a_price_in_place_of_a_return_and_the_other_way_round() -> None:
    returns, prices = rows(RETURN), rows(PRICE)
    ours_price = unit_check(RETURN, changed(returns, lambda value: BASE * exp(value)), base=BASE)
    # A topic that the chain means as returns and we as a price, and the opposite.
    price_for_return = unit_check(PRICE, changed(returns, lambda value: BASE * exp(value)), base=BASE)
    return_for_price = unit_check(RETURN, changed(prices, lambda value: log(value / BASE)), base=BASE)
    assert ours_price
    assert "ours is a price, theirs a log-return" in ours_price.what
    assert price_for_return
    assert "ours is a price, theirs a log-return" in price_for_return.what
    assert return_for_price
    assert "ours is a log-return, theirs a price" in return_for_price.what


def test_a_return_of_the_wrong_sign_is_named() -> None:
    fault = unit_check(RETURN, changed(rows(RETURN), lambda value: -value))
    assert fault
    assert "the sign: ours is negative where theirs is positive" in fault.what


def test_a_small_and_steady_distance_is_another_venue_or_moment() -> None:
    given = [(1.004 * BASE, BASE, [BASE, 1.00001 * BASE, 0.99999 * BASE]) for _ in range(5)]
    fault = unit_check(PRICE, given)
    assert fault
    assert "another venue, another quote currency or another moment (ours over theirs is 1.004)" in fault.what
    assert "birnn truth" in fault.remedy


def test_a_topic_in_each_unit_names_what_differs() -> None:
    for volatility in Volatility:
        topic = Topic(
            topic_id=3,
            token="BTC",
            symbol="BTCUSDT",
            target=Target.VOLATILITY,
            horizon_min=15,
            volatility=volatility,
        )
        fault = unit_check(topic, changed(rows(topic), lambda value: 725 * value))
        assert fault
        assert f"now volatility {volatility}" in fault.remedy


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param([], "no epoch has an answer of ours", id="no epochs"),
        pytest.param([(1.0, None, ())], "no other inferer answered in the last epoch", id="zero inferers"),
        pytest.param([(1.0, 1.0, ())] * 4, "no other inferer answered in the last 4 epochs", id="zero, four times"),
        pytest.param([(1.0, 5.0, (9.0,))] * 4, "a single other inferer answered in the last 4 epochs", id="one"),
        pytest.param([(1.0, 1.0, (1.0, 1.0))] * 2, "2 epochs with two other inferers", id="too few epochs"),
        pytest.param([(1.0, 0.0, (0.0, 0.0))] * 3, "answered nothing but 0", id="all zero"),
        pytest.param([(float("nan"), 1.0, (1.0, 1.0))] * 3, "no epoch has an answer of ours", id="not a number"),
        pytest.param([(1.0, 1.0, (float("inf"), float("nan")))] * 3, "no other inferer", id="others not numbers"),
    ],
)
def test_what_cannot_be_compared_is_a_line_that_says_so(given: Rows, says: str) -> None:
    for topic in (PRICE, RETURN, VOLATILITY):
        found = unit_of(topic, given)
        assert says in found.line
        assert (found.deviations, found.fault) == (None, None)


@pytest.mark.parametrize("value", [1e-18, 0.003, 1e12, 1e-300, 1.7e308])
@pytest.mark.parametrize("topic", [PRICE, RETURN, VOLATILITY], ids=lambda topic: topic.target)
def test_equal_values_of_any_size_are_told_and_are_no_fault(topic: Topic, value: float) -> None:
    found = unit_of(topic, [(value, value, [value] * 4)] * 5)
    assert found.line == "0 robust deviations from the others in the last 5 epochs, who all answered the same"
    assert found.fault is None


@pytest.mark.parametrize("odd", [1e-18, 1e12, 0.0, -1.0])
def test_a_single_odd_value_among_the_others_changes_nothing(odd: float) -> None:
    for topic in (PRICE, RETURN, VOLATILITY):
        given = [(ours, combined, [*others, odd]) for ours, combined, others in rows(topic)]
        assert unit_check(topic, given, base=BASE) is None


# Values of topic 2 of the recorded local chain, 2026-11-30, epochs 245 to 575: planted is a volatility per minute.
RECORDED = {
    "noise of 4.5 %": "0.000102452 0.00009527 0.000096038 0.000100733 0.000095434 0.000101404 0.000104149 0.000096434",
    "noise of 15 %": "0.000095291 0.000085381 0.00007646 0.00009679 0.000110404 0.000114264 0.000099278 0.000081529",
    "noise of 30 %": "0.00008803 0.00011376 0.00011774 0.000169597 0.000072219 0.00011 0.00008 0.00012",
    "this product": "0.000090927 0.000085969 0.000085969 0.000097549 0.000093828 0.000114853 0.000119929 0.000131384",
    "wrong unit": " ".join(["0.072498"] * 8),
}


@pytest.mark.parametrize("who", RECORDED)
def test_of_the_recorded_workers_the_one_with_the_wrong_unit_is_found(who: str) -> None:
    values = {name: [float(one) for one in text.split()] for name, text in RECORDED.items()}
    given: Rows = [
        (values[who][epoch], None, [values[name][epoch] for name in values if name != who]) for epoch in range(8)
    ]
    fault = unit_check(VOLATILITY, given)
    assert (fault is not None) == (who == "wrong unit")
    assert (
        fault is None or "ours is annualised (the square root of a year's minutes, 725), theirs per min" in fault.what
    )
