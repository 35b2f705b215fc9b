"""The network's inference by the chain's own formula, against what a real chain published."""

from decimal import Decimal
from typing import Any

import pytest

from chain.synthesis import C_NORM, DIGITS, EPSILON, EXPERIENCED, P_NORM, Regrets, weighted, weights_of
from tests.monitor.economy import recorded

LAST_DIGIT = Decimal("2e-33")  # of 34, relative


def published(topic_id: int, nonce: int) -> dict[str, Any]:
    return next(one for one in recorded() if (one["topic"], one["nonce"]) == (topic_id, nonce))


def weights(topic_id: int, nonce: int) -> dict[str, Decimal]:
    return {address: Decimal(text) for address, text in published(topic_id, nonce)["network"]["weights"].items()}


def regrets_of(weights: dict[str, Decimal]) -> dict[str, Decimal]:
    """The regrets that published weights came from."""
    scaled = {
        address: C_NORM - DIGITS.divide(DIGITS.ln(DIGITS.divide(P_NORM, weight) - 1), P_NORM)
        for address, weight in weights.items()
    }
    mean = sum(scaled.values(), Decimal(0)) / len(scaled)
    deviation = DIGITS.sqrt(sum(((one - mean) ** 2 for one in scaled.values()), Decimal(0)) / (len(scaled) - 1))
    spread = DIGITS.divide(EPSILON * deviation, 1 - deviation) + EPSILON
    return {address: one * spread for address, one in scaled.items()}


@pytest.mark.parametrize(("topic_id", "nonce"), [(1, 567), (1, 597), (2, 905), (2, 935)])
def test_the_network_s_inference_is_the_mean_by_the_published_weights(topic_id: int, nonce: int) -> None:
    made = weighted(published(topic_id, nonce)["inferences"], weights(topic_id, nonce))
    assert made is not None
    there = Decimal(published(topic_id, nonce)["network"]["combined"])
    assert abs(Decimal(made) / there - 1) <= LAST_DIGIT


def test_while_all_workers_are_new_the_mean_is_plain() -> None:
    values = published(1, 237)["inferences"]
    made = weighted(values, dict.fromkeys(values, Decimal(1)))
    assert made is not None
    assert Decimal(made) == Decimal(published(1, 237)["network"]["combined"])


def test_a_settled_epoch_leads_from_weights_to_the_next_weights() -> None:
    """The weights at 567 are of the epochs up to 507; those at 597 have taken in 537 as well."""
    before, losses = regrets_of(weights(1, 567)), published(1, 537)["losses"]
    regrets = Regrets(before)
    regrets.settle(losses["combined"], losses["inferers"])
    made = regrets.inference(published(1, 597)["inferences"])
    assert made is not None
    assert abs(Decimal(made) / Decimal(published(1, 597)["network"]["combined"]) - 1) <= 10 * LAST_DIGIT


def test_a_weight_is_never_negative_and_never_above_the_norm() -> None:
    some = weights_of({"a": Decimal(1000), "b": Decimal(0), "c": Decimal(-1000), "d": Decimal("1e-18")})
    assert all(0 <= weight < P_NORM for weight in some.values())
    assert weights_of({"a": Decimal(5), "b": Decimal(5)})["a"] == weights_of({"a": Decimal(5), "b": Decimal(5)})["b"]
    assert weighted({"a": "1"}, {"a": Decimal(0)}) is None


def test_a_worker_with_few_epochs_or_alone_gives_no_inference() -> None:
    regrets = Regrets()
    for _ in range(EXPERIENCED - 1):
        regrets.settle("1", {"a": "0.5", "b": "2"})
    assert regrets.inference({"a": "1", "b": "2"}) is None
    regrets.settle("1", {"a": "0.5", "b": "2"})
    assert regrets.inference({"a": "1", "b": "2"}) is not None
    assert regrets.inference({"a": "1"}) is None
    assert regrets.inference({"a": "1", "b": "2", "c": "3"}) is None


def test_a_copy_of_what_the_others_say_changes_nothing() -> None:
    regrets = Regrets()
    for _ in range(EXPERIENCED):
        regrets.settle("1", {"a": "0.5", "b": "2", "copy": "1"})
    alike = regrets.inference({"a": "3", "b": "3", "copy": "3"})
    assert alike is not None
    assert abs(Decimal(alike) / 3 - 1) <= LAST_DIGIT
