"""An epoch's row as it grows, and what it says of our worker."""

from dataclasses import replace
from typing import Any

import pytest

from chain.shapes import Inference, Losses, NetworkInference, Settled
from ledger.answers import Answer
from ledger.epochs import Arrival, Detail, Epoch, Inferer, Stage
from monitor.chain.checks import unit_checked
from monitor.chain.outcome import (
    NO_ADDRESS,
    NO_ANSWER,
    NOT_ACTIVE,
    NOT_ASKED,
    NOT_KNOWN_WHY,
    NOT_OVER,
    NOT_SEEN,
    NOT_SETTLED,
    NOT_SUBMITTED,
    OTHER_VALUE,
    WON,
    outcome,
)
from monitor.chain.results import on_chain, result_of
from monitor.chain.rows import are_equal, is_of, judged, opened, with_inferences, with_network, with_settled, with_value
from tests.fakes.chain_replay import OURS
from tests.monitor.chain.follow import answer, topics

OTHER = "allo1" + "q" * 38
GIVEN = answer(1, 537, "0.50")


def row(**fields: Any) -> Epoch:
    """The row of an epoch of which nothing was read."""
    return opened(topics(1)[0], 537, 1_000)._replace(**fields)


def inference(inferer: str, value: str) -> Inference:
    return Inference(nonce=537, inferer=inferer, value=value)


CLOSED = with_inferences(row(), [inference(OURS, "0.5"), inference(OTHER, "7")])


def test_values_are_compared_as_decimals_and_not_as_texts() -> None:
    assert judged(CLOSED, GIVEN).arrival == Arrival.EQUAL
    assert judged(CLOSED, answer(1, 537, "0.5000000000000000001")).arrival == Arrival.OTHER
    assert judged(CLOSED, None).arrival == Arrival.OTHER


@pytest.mark.parametrize(("one", "other"), [("", "1"), ("1", "sNaN"), ("up", "up"), ("NaN", "NaN")])
def test_what_is_no_number_equals_nothing(one: str, other: str) -> None:
    assert not are_equal(one, other)


def test_a_value_that_was_seen_is_not_lost_by_a_later_look() -> None:
    seen = judged(with_value(row(), "0.5"), GIVEN)
    assert judged(with_value(seen, None), GIVEN).arrival == Arrival.EQUAL
    assert judged(with_value(row(), None), GIVEN).arrival == Arrival.ABSENT


def test_the_networks_inference_is_of_the_epoch_whose_values_it_was_made_of() -> None:
    network = NetworkInference(height=560, combined="3", naive="4", inferers={OURS: "0.50"}, one_out={OURS: "7"})
    assert is_of(network, CLOSED)
    assert not is_of(network, with_inferences(row(), [inference(OURS, "0.6")]))
    assert not is_of(network, with_inferences(row(), [inference(OTHER, "0.5")]))
    assert not is_of(NetworkInference(height=560, combined="3", naive="4"), CLOSED)
    seen = with_network(CLOSED, network)
    assert (seen.combined, seen.naive, seen.combined_without) == ("3", "4", "7")
    assert [one.one_out for one in seen.inside.inferers] == ["7", None]


def told(**fields: Any) -> Settled:
    losses = Losses(nonce=537, combined="-1", naive="-2", inferers={OURS: "-3", OTHER: "-4"}, one_out={OURS: "-5"})
    return Settled(topic_id=1, nonce=537, height=597, losses=losses, **fields)


def test_what_a_block_settled_is_kept_worker_by_worker() -> None:
    seen = judged(
        with_settled(
            CLOSED, told(scores={OURS: "1", OTHER: "2"}, rewards={OURS: "8", OTHER: "9"}, score_emas={OURS: "6"}), 597
        ),
        GIVEN,
    )
    assert seen.inside.inferers == (
        Inferer(OURS, "0.5", "-3", "1", "8"),
        Inferer(OTHER, "7", "-4", "2", "9"),
    )
    assert (seen.loss, seen.score, seen.reward, seen.score_ema) == ("-3", "1", "8", "6")
    assert seen.combined_loss_without == "-5"
    assert seen.missing == "combined,naive"


def test_a_reward_is_nothing_only_where_the_block_named_whom_it_paid() -> None:
    assert with_settled(CLOSED, told(rewards={OTHER: "9"}), 597).reward == "0"
    unseen = judged(with_settled(CLOSED, told(), 597), GIVEN)
    assert unseen.reward is None
    assert "reward" in unseen.missing.split(",")


def test_who_is_scored_was_in_the_active_set_also_if_that_was_not_seen() -> None:
    assert with_settled(row(), told(), 597).active is True
    assert with_settled(row(worker="allo1" + "p" * 38), told(), 597).active is False
    assert with_settled(row(worker=""), told(), 597).active is None


def test_without_an_address_only_the_network_can_be_missing() -> None:
    seen = judged(with_settled(row(worker=""), told(), 597), None)
    assert seen.missing == "combined,naive"


@pytest.mark.parametrize(
    ("fields", "given", "won", "reason"),
    [
        ({"worker": ""}, GIVEN, None, NO_ADDRESS),
        ({"stage": Stage.OPEN, "arrival": Arrival.EQUAL}, GIVEN, None, NOT_OVER),
        ({}, GIVEN, None, NOT_SEEN),
        ({"stage": Stage.GONE}, GIVEN, None, NOT_SEEN),
        ({"active": True, "arrival": Arrival.EQUAL}, GIVEN, True, WON),
        ({"active": True}, GIVEN, True, WON),
        ({"active": True, "arrival": Arrival.OTHER}, GIVEN, False, OTHER_VALUE),
        ({"active": True, "arrival": Arrival.OTHER}, None, True, NO_ANSWER),
        ({"active": None, "arrival": Arrival.OTHER}, None, None, NO_ANSWER),
        ({"active": True, "arrival": Arrival.EQUAL, "stage": Stage.GONE}, GIVEN, None, NOT_SETTLED),
        ({"active": True, "arrival": Arrival.EQUAL, "stage": Stage.GONE, "score": "0.1"}, GIVEN, True, WON),
        ({"active": False, "arrival": Arrival.EQUAL}, GIVEN, False, NOT_ACTIVE),
        ({"active": False, "arrival": Arrival.ABSENT}, GIVEN, False, NOT_SUBMITTED),
        ({"active": False, "arrival": Arrival.ABSENT}, None, False, NOT_ASKED),
        ({"active": False}, None, False, NOT_ASKED),
        ({"active": False}, GIVEN, False, NOT_KNOWN_WHY),
        ({"active": None, "arrival": Arrival.ABSENT}, GIVEN, False, NOT_SUBMITTED),
    ],
)
def test_an_epoch_is_won_lost_or_not_known(
    fields: dict[str, Any], given: Answer | None, won: bool | None, reason: str
) -> None:
    assert outcome(row(**{"stage": Stage.CLOSED, **fields}), given) == (won, reason)


def test_a_detail_is_what_it_was_after_the_database() -> None:
    detail = Detail((Inferer(OURS, "1", one_out="2"),), {OTHER: {OURS: "3"}}, {OTHER: "4"})
    assert Detail.unpacked(detail.packed()) == detail


@pytest.mark.parametrize("told", ["NaN", "1e9999", '[["up","1"],["down","2"]]'])
def test_what_cannot_be_calculated_with_is_missing_and_disturbs_no_page(told: str) -> None:
    network = NetworkInference(height=560, combined=told, naive=told, inferers={}, one_out={OURS: told})
    losses = Losses(nonce=537, combined=told, naive=told, inferers={OURS: told, OTHER: "2"}, one_out={OURS: told})
    both = {OURS: told, OTHER: "3"}
    settled = Settled(
        topic_id=1, nonce=537, height=600, losses=losses, scores=both, rewards=both, score_emas={OURS: told}
    )
    inferences = [inference(OURS, told), inference(OTHER, told)]
    epoch = judged(with_settled(with_network(with_inferences(row(), inferences), network), settled, 600), GIVEN)
    assert (epoch.value, epoch.arrival) == (told, Arrival.OTHER)
    unseen = {"combined", "naive", "combined_loss", "naive_loss", "loss", "score", "score_ema", "reward"}
    assert set(epoch.missing.split(",")) == unseen
    assert unit_checked(topics(1)[0], [(epoch, None)], 10) is None
    result = result_of(epoch, GIVEN)
    assert (result.median_loss, result.of, result.share, result.contribution) == ("2", 0, None, None)
    known = with_settled(epoch, replace(settled, losses=replace(losses, combined="1")), 600)
    seen = on_chain([(known, GIVEN)], 1_000)
    assert seen is not None
    assert (seen.mean.combined_loss, seen.mean.loss) == (None, None)
