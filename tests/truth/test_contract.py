"""The contract of a topic, agreed and broken in each of its parts."""

from dataclasses import replace

import pytest

from chain.shapes import TopicSeen
from core.topic import Target, Topic
from truth.contract import ARITY, HORIZON, LOSS, SIGN, contract_faults

OURS = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10, network="allora-testnet-1")
SEEN = TopicSeen(
    topic_id=1,
    metadata="ETH 10min Price Prediction",
    loss_method="mse",
    epoch_length=105,
    ground_truth_lag=105,
    window=12,
    allow_negative=False,
)
BLOCK_MS = 5_710.0


def names(topic: Topic, seen: TopicSeen, block_ms: float | None = BLOCK_MS, most_off: float = 0.25) -> list[str]:
    return [fault.name for fault in contract_faults(topic, seen, block_ms, most_off)]


def test_a_topic_that_is_the_same_on_chain_has_no_fault() -> None:
    assert names(OURS, SEEN) == []


@pytest.mark.parametrize(
    ("lag", "block_ms", "off"),
    [
        pytest.param(105, 5_710.0, False, id="as long as the horizon"),
        pytest.param(131, 5_710.0, False, id="a quarter longer, just"),
        pytest.param(132, 5_710.0, True, id="more than a quarter longer"),
        pytest.param(79, 5_710.0, False, id="a quarter shorter, just"),
        pytest.param(78, 5_710.0, True, id="more than a quarter shorter"),
        pytest.param(30, 2_040.0, True, id="as on the recorded chain"),
        pytest.param(0, 5_710.0, True, id="no lag"),
        pytest.param(30, None, False, id="the time of a block is not known"),
    ],
)
def test_the_lag_in_blocks_is_held_against_the_horizon(lag: int, block_ms: float | None, off: bool) -> None:
    assert names(OURS, replace(SEEN, ground_truth_lag=lag), block_ms) == ([HORIZON] if off else [])


@pytest.mark.parametrize(("lag", "off"), [(600, False), (751, True), (105, True)])
def test_a_lag_in_seconds_needs_no_block_time(lag: int, off: bool) -> None:
    seen = replace(SEEN, ground_truth_lag=lag, in_seconds=True)
    assert names(OURS, seen, None) == names(OURS, seen, BLOCK_MS) == ([HORIZON] if off else [])


def test_the_horizon_that_is_named_is_the_chains() -> None:
    (fault,) = contract_faults(OURS, replace(SEEN, ground_truth_lag=5_148), 5_592.0)
    assert "about 8h after the base" in fault.what
    assert "5148 blocks of 5.59 s" in fault.what
    assert "answer for 10m" in fault.what
    assert "'ETH 10min Price Prediction'" in fault.remedy
    assert fault.off == pytest.approx(5_148 * 5.592 / 600 - 1)


@pytest.mark.parametrize(("spelling", "ours"), [("sqe", "mse"), (" MSE ", "mse"), ("abse", "mae"), ("zptae", "zptae")])
def test_every_spelling_of_a_loss_is_that_loss(spelling: str, ours: str) -> None:
    assert names(replace(OURS, loss=ours), replace(SEEN, loss_method=spelling)) == []


def test_another_loss_is_a_fault_and_an_unknown_name_may_be_right() -> None:
    (other,) = contract_faults(OURS, replace(SEEN, loss_method="ae"), BLOCK_MS)
    assert (other.name, other.is_sure) == (LOSS, True)
    assert "scores by mae, and we train for mse" in other.what
    (unknown,) = contract_faults(OURS, replace(SEEN, loss_method="focal\n<b>"), BLOCK_MS)
    assert (unknown.name, unknown.is_sure) == (LOSS, False)
    assert "'focal\\n<b>', which is no loss that we know" in unknown.what
    (none,) = contract_faults(OURS, replace(SEEN, loss_method=""), BLOCK_MS)
    assert "the chain names no loss" in none.what


@pytest.mark.parametrize(
    ("target", "allow_negative", "found"),
    [
        (Target.LOG_RETURN, False, [SIGN]),
        (Target.LOG_RETURN, True, []),
        (Target.PRICE, False, []),
        (Target.VOLATILITY, True, []),
    ],
)
def test_a_return_where_nothing_may_be_negative_is_doubted(
    target: Target, allow_negative: bool, found: list[str]
) -> None:
    faults = contract_faults(replace(OURS, target=target), replace(SEEN, allow_negative=allow_negative), BLOCK_MS)
    assert [fault.name for fault in faults] == found
    assert not any(fault.is_sure for fault in faults)


def test_a_topic_of_several_labels_cannot_be_answered_by_one_value() -> None:
    (fault,) = contract_faults(OURS, replace(SEEN, is_multi=True, labels=("up", "down")), BLOCK_MS)
    assert (fault.name, fault.is_sure) == (ARITY, True)
    assert "(up, down)" in fault.what


def test_the_remedy_is_no_parameter_that_contradicts_the_catalogue() -> None:
    seen = replace(SEEN, ground_truth_lag=30, loss_method="mae")
    for topic, remedies in (
        (OURS, ("take the topic out",) * 2),
        (replace(OURS, topic_id=999), ("set Horizon", "set Loss")),
    ):
        faults = contract_faults(topic, seen, BLOCK_MS, 0.25)
        assert [fault.remedy.startswith(remedy) for fault, remedy in zip(faults, remedies, strict=True)] == [True, True]
