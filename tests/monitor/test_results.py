"""Where we stand, from epochs that a real chain settled: the numbers are the chain's own."""

from decimal import Decimal, localcontext
from typing import Any

import pytest

from core.clock import DAY_MS
from ledger.epochs import Arrival, Detail, Epoch, Inferer, Stage
from monitor.chain.filled import EpochRow
from monitor.chain.results import OnChain, Result, on_chain, result_of, results_of
from tests.monitor.economy import OURS, epoch_rows, recorded

LOST = {(1, 297), (3, 343)}
NEVER_SETTLED = {(1, 267), (1, 327)}  # their reputer missed them


def by_nonce(topic_id: int) -> dict[int, Result]:
    return {result.epoch.nonce: result for result in results_of(epoch_rows(topic_id))}


def one_of(topic_id: int, nonce: int) -> dict[str, Any]:
    return next(one for one in recorded() if (one["topic"], one["nonce"]) == (topic_id, nonce))


def seen(rows: list[EpochRow]) -> OnChain:
    newest_ms = rows[0][0].block_ms
    assert newest_ms is not None
    one = on_chain(rows, newest_ms)
    assert one is not None
    return one


def epoch_of(*inferers: Inferer, **changes: Any) -> Epoch:
    """An epoch of two hours ago whose worker is ``a``."""
    epoch = Epoch("net-1", 1, 60, 0, 0, Stage.SETTLED.value, worker="a", arrival=Arrival.EQUAL.value, active=True)
    return epoch._replace(detail=Detail(inferers).packed(), **changes)


@pytest.mark.parametrize("topic_id", [1, 2, 3])
def test_each_epoch_is_won_but_those_that_our_node_missed(topic_id: int) -> None:
    for nonce, result in by_nonce(topic_id).items():
        lost = (topic_id, nonce) in LOST
        if (topic_id, nonce) in NEVER_SETTLED:
            assert (result.won, result.reason) == (None, "in the active set, and not seen to be settled")
        else:
            assert result.won is not lost
            assert result.reason == ("not asked, or not answered" if lost else "in the active set")


@pytest.mark.parametrize("topic_id", [1, 2, 3])
def test_the_contribution_in_the_network_s_loss_is_our_score_to_the_last_digit(topic_id: int) -> None:
    scored = [result for result in by_nonce(topic_id).values() if result.epoch.score is not None]
    assert scored
    for result in scored:
        assert result.contribution is not None
        assert Decimal(result.contribution) == Decimal(str(result.epoch.score))


def test_scores_and_rewards_are_the_chain_s_own_texts() -> None:
    for topic_id in (1, 2, 3):
        for nonce, result in by_nonce(topic_id).items():
            there = one_of(topic_id, nonce)
            assert result.epoch.score == there["scores"].get(OURS)
            assert result.epoch.reward == there["rewards"].get(OURS)


def test_rank_and_share_are_by_reward_and_the_worker_one_place_above_is_named() -> None:
    one = by_nonce(1)[237]  # rewards in 10^17 uallo: 3.625, 3.506 (ours), 2.707, 1.841, 1.141
    assert (one.rank, one.of) == (2, 5)
    rewards = [float(reward) for reward in one_of(1, 237)["rewards"].values()]
    assert one.share == pytest.approx(350616107602189111.25 / sum(rewards), rel=1e-12)
    assert one.above is not None
    assert one.above.reward == "362517303271199268.8872437850114652"
    assert one.above.score == "0.214352845334849121941256334647704"
    first = by_nonce(1)[567]
    assert (first.rank, first.above) == (1, None)


def test_among_equals_our_worker_comes_first_and_nobody_stands_above_it() -> None:
    paid = result_of(epoch_of(*(Inferer(who, "1", "-1", "0", "5") for who in "bca")), None)
    assert (paid.rank, paid.of, paid.above) == (1, 3, None)
    unpaid = result_of(epoch_of(Inferer("b", "1", "-1", "2"), *(Inferer(who, "1", "-1", "0") for who in "cda")), None)
    assert unpaid.above is not None
    assert (unpaid.rank, unpaid.above.address) == (2, "b")


def test_a_lost_epoch_took_nothing_of_what_was_paid() -> None:
    lost = by_nonce(3)[343]
    assert (lost.rank, lost.of, lost.share) == (None, 4, 0.0)


def test_the_median_is_of_all_inferers_losses() -> None:
    assert by_nonce(1)[237].median_loss == "3.077157968278107146274451555946341"  # the third of five
    four = [Inferer(name, loss=loss) for name, loss in zip("abcd", ("1", "2", "4", "9"), strict=True)]
    assert result_of(epoch_of(*four), None).median_loss == "3"


def test_a_topic_s_epochs_are_counted_and_its_settled_ones_averaged() -> None:
    one = seen(epoch_rows(1))
    assert (one.won, one.lost, one.unknown) == (10, 1, 2)
    assert one.mean.epochs == 10  # not those that were never settled
    assert one.logarithms is True
    assert one.mean.rank == 2.4
    with localcontext() as context:
        context.prec = 60
        assert one.reward == str(sum(Decimal(result.epoch.reward or 0) for result in by_nonce(1).values()))
    assert one.mean.contribution == pytest.approx(0.40066, abs=1e-5)


def test_an_open_epoch_is_neither_won_nor_lost_and_an_unseen_one_is_not_known() -> None:
    rows = epoch_rows(1)
    newest, answer = rows[0]
    started = newest._replace(stage=Stage.OPEN.value, active=None, arrival=Arrival.UNKNOWN.value, combined_loss=None)
    unseen = started._replace(stage=Stage.GONE.value)
    assert result_of(started, answer).word == "open"
    assert result_of(unseen, answer).word == "not known"
    assert seen([(started, answer), *rows[1:]]).unknown == 2
    assert seen([(unseen, answer), *rows[1:]]).unknown == 3


def test_epochs_older_than_the_span_do_not_count() -> None:
    rows = epoch_rows(1)
    newest_ms = rows[0][0].block_ms or 0
    assert on_chain(rows, newest_ms + 8 * DAY_MS) is None
    assert on_chain([], newest_ms) is None


def test_a_single_inferer_equal_values_and_losses_of_zero_are_no_trouble() -> None:
    single = result_of(epoch_of(Inferer("a", "1", "0", "0", "0"), loss="0", combined_loss="0"), None)
    assert (single.rank, single.of, single.share, single.above, single.contribution) == (1, 1, None, None, None)
    equal = result_of(
        epoch_of(
            Inferer("a", "1e-18", "0", "0", "5"),
            Inferer("b", "1e-18", "0", "0", "5"),
            combined_loss="0",
            combined_loss_without="0",
        ),
        None,
    )
    assert (equal.share, equal.contribution) == (0.5, "0")
    nobody = result_of(epoch_of(active=False, arrival=Arrival.ABSENT.value), None)
    assert (nobody.word, nobody.median_loss, nobody.of) == ("lost", None, 0)


@pytest.mark.parametrize(("loss", "is_log", "told"), [("-0.1", None, True), ("0", None, None), ("3", False, False)])
def test_a_loss_below_0_is_a_logarithm_and_else_the_recovered_truths_decide(
    loss: str, is_log: bool | None, told: bool | None
) -> None:
    one = on_chain([(epoch_of(Inferer("a", "1", loss), combined_loss="5"), None)], 0, is_log=is_log)
    assert one is not None
    assert one.logarithms is told


def test_a_reward_that_was_not_seen_is_never_taken_for_none() -> None:
    result = result_of(epoch_of(Inferer("a", "1", "2", "0.1", "5"), Inferer("b", "1", "2", "0.2")), None)
    assert result.share is None
    assert (result.rank, result.of) == (2, 2)  # by score
