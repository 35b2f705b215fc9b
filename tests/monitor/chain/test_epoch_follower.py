"""Epochs of a recorded chain as the follower keeps them: what was seen, what was missed, and what became of answers."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chain.events import settled_of
from chain.shapes import Settled
from ledger.epochs import Arrival, Epoch, Stage
from monitor.chain.outcome import NOT_ACTIVE, NOT_ASKED, NOT_SEEN, NOT_SUBMITTED, OTHER_VALUE, WON, outcome
from tests.fakes.busy_chain import API, EPOCH, LAG, WINDOW, BusyChain
from tests.fakes.chain_replay import DOWN, HTML, HTML_PAGE, OURS, ChainReplay, recorded
from tests.fakes.clock import FakeClock, eventually
from tests.fakes.venue_server import Answer
from tests.monitor.chain.follow import BLOCK_MS, Desk, answer, desk, submitted, topics

LINES = recorded()
ANSWERS = [answer(topic_id, nonce, value) for (topic_id, nonce), value in submitted(LINES).items()]
FIRST, *_, LAST = [line["block"] for line in LINES if "block" in line]
WORKERS = [f"allo1{letter}{'q' * 37}" for letter in "023456"]
LOCAL = "allora-local-1"


def replay(**options: Any) -> tuple[ChainReplay, FakeClock]:
    """The committed cut, and the clock that lets it run."""
    clock = FakeClock()
    return ChainReplay(LINES, clock=clock, **options), clock


def settled() -> dict[tuple[int, int], Settled]:
    """What the recording's own events say, by topic id and nonce."""
    blocks = [line for line in LINES if "block" in line]
    return {
        (one.topic_id, one.nonce): one
        for line in blocks
        for one in settled_of({"height": str(line["block"]), "finalize_block_events": line["events"]})
    }


def reasons(made: Desk, topic_id: int) -> dict[int, tuple[bool | None, str]]:
    """What became of a topic's epochs."""
    rows = made.book.epochs_of(f"{made.network}/{topic_id}", 1000)
    return {epoch.nonce: tuple(outcome(epoch, given)) for epoch, given in rows}  # type: ignore[misc]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Epoch]:
    """The rows that a follower writes that runs from the beginning of the cut to its end."""
    chain, clock = replay()
    with desk(tmp_path_factory.mktemp("ledger"), chain, clock, topics(1, 2, 3), ANSWERS) as made:
        made.run(chain.last)
        return {(topic_id, nonce): row for topic_id in (1, 2, 3) for nonce, row in made.rows(topic_id).items()}


def followed(rows: dict[tuple[int, int], Epoch]) -> dict[tuple[int, int], Epoch]:
    """Those rows whose epochs opened after the cut's beginning and were settled before its end."""
    return {
        key: row
        for key, row in rows.items()
        if key[1] >= FIRST and (row.settled_height is not None or not row.inside.inferers)
    }


def test_every_settled_epoch_has_all_that_the_chain_told(undisturbed: dict[tuple[int, int], Epoch]) -> None:
    told = {key: one for key, one in settled().items() if key[1] >= FIRST and one.height < LAST}
    assert len(told) >= 7
    for key, one in told.items():
        row = undisturbed[key]
        assert (row.stage, row.settled_height, row.missing) == (Stage.SETTLED, one.height, "")
        assert one.losses is not None
        assert (row.combined_loss, row.naive_loss) == (one.losses.combined, one.losses.naive)
        assert row.combined_loss_without == one.losses.one_out.get(OURS)
        assert {at.address: at.loss for at in row.inside.inferers} == one.losses.inferers
        assert {at.address: at.score for at in row.inside.inferers} == one.scores
        assert {at.address: at.reward for at in row.inside.inferers} == one.rewards
        assert (row.loss, row.score, row.reward, row.score_ema) == (
            one.losses.inferers.get(OURS),
            one.scores.get(OURS),
            one.rewards.get(OURS),
            one.score_emas.get(OURS),
        )
        assert row.combined is not None
        assert row.combined_without == next((at.one_out for at in row.inside.inferers if at.address == OURS), None)


def test_epochs_are_won_and_lost_for_the_right_reason(tmp_path: Path) -> None:
    chain, clock = replay()
    lost = answer(3, 343, "0.0001")  # the recorded node did not submit for it
    others = [one._replace(value="1") if (one.topic_id, one.height) == (2, 365) else one for one in ANSWERS]
    with desk(tmp_path, chain, clock, topics(1, 2, 3), [*others, lost]) as made:
        made.run(390)
        assert reasons(made, 3)[343] == (False, NOT_SUBMITTED)
        assert reasons(made, 2)[365] == (False, OTHER_VALUE)
        assert reasons(made, 2)[335] == (True, WON)
        row = made.epoch(2, 335)
        assert row is not None
        assert (row.arrival, row.value) == (Arrival.EQUAL, submitted(LINES)[2, 335])


def test_an_epoch_without_our_answer_is_lost_as_not_asked(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(3), ANSWERS) as made:
        made.run(360)
        assert reasons(made, 3)[343] == (False, NOT_ASKED)
        row = made.epoch(3, 343)
        assert row is not None
        assert (row.arrival, row.active, row.value) == (Arrival.ABSENT, False, None)


@pytest.mark.parametrize("every", [3, 11])
def test_a_follower_that_is_killed_again_and_again_writes_the_same_rows(
    tmp_path: Path, undisturbed: dict[tuple[int, int], Epoch], every: int
) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(1, 2, 3), ANSWERS) as made:
        while chain.height < chain.last:
            made.run(min(chain.height + every, chain.last))
            made.restart()
        whole = followed(undisturbed)
        assert len(whole) >= 7
        assert {key: made.epoch(*key) for key in whole} == whole


def test_without_rpc_all_but_rewards_is_there_and_what_is_not_is_named(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2), ANSWERS, has_rpc=False) as made:
        made.run(400)
        row = made.epoch(2, 335)
    one = settled()[2, 335]
    assert row is not None
    assert one.losses is not None
    assert (row.stage, row.active, row.arrival) == (Stage.SETTLED, True, Arrival.EQUAL)
    assert (row.loss, row.score, row.combined_loss) == (
        one.losses.inferers[OURS],
        one.scores[OURS],
        one.losses.combined,
    )
    assert row.reward is None
    assert row.settled_height is None
    assert row.missing.split(",") == ["reward"]
    assert row.block_ms == chain.time_of(335)


def test_while_rpc_tells_nothing_lcd_says_how_far_the_chain_is_and_nothing_begins_anew(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2), ANSWERS) as made, capture_logs() as logs:
        made.run(330)
        chain.faults["/status"] = HTML
        eventually(lambda: bool(made.heights.fault), what="the fault of RPC")
        while chain.height < 370:
            clock.time_ms += 2_000
            made.follower.step()
        assert made.follower.newest is not None
        assert made.follower.newest.height >= 368
        del chain.faults["/status"]
        clock.time_ms += 60_000  # RPC has rested
        eventually(lambda: not made.heights.fault, what="RPC in use again")
        made.run(chain.height + 3)
        row = made.epoch(2, 335)
    assert row is not None
    assert (row.arrival, row.active, row.stage) == (Arrival.EQUAL, True, Stage.SETTLED)
    assert row.reward == settled()[2, 335].rewards[OURS]
    assert "chain_began_anew" not in {line["event"] for line in logs}


def test_a_window_that_was_missed_is_not_known_and_what_was_seen_later_is_there(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2), ANSWERS) as made:
        made.run(340)  # in the window of nonce 335
        made.kill()
        made.sleep(367)  # two blocks into the next epoch
        made.start()
        made.run(400)
        row = made.epoch(2, 335)
    assert row is not None
    assert (row.arrival, row.active) == (Arrival.EQUAL, True)  # by the active set
    assert row.combined is None
    assert row.missing == "combined,naive"
    assert row.reward == settled()[2, 335].rewards[OURS]


def test_an_epoch_that_had_just_opened_before_a_gap_is_read_after_it(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2), ANSWERS) as made:
        made.run(337)  # nonce 335 was foreseen, and the chain has not told of it yet
        made.sleep(368)  # in the next epoch
        made.run(400)
        row = made.epoch(2, 335)
    assert row is not None
    assert (row.stage, row.active, row.arrival) == (Stage.SETTLED, True, Arrival.EQUAL)
    assert row.reward == settled()[2, 335].rewards[OURS]


def test_our_worker_outside_the_active_set_is_lost_only_as_far_as_was_seen(tmp_path: Path) -> None:
    other = "allo1" + "q" * 38
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2, worker=other), ANSWERS) as made:
        made.sleep(350)  # after the window of 335
        made.step()
        made.run(352)
        row = made.epoch(2, 335)
        assert row is not None
        assert (row.active, row.arrival) == (False, Arrival.UNKNOWN)
        assert "value" in row.missing.split(",")
        won, _ = reasons(made, 2)[335]
        assert won is False


def test_epochs_that_were_forgotten_are_written_as_missing_and_never_as_zero(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    given = topics(1, network=LOCAL, worker=WORKERS[0])
    with desk(tmp_path, chain, clock, given) as made:
        made.run(chain.height + 2 * EPOCH, stride=2)
        known = set(made.rows(1))
        made.kill()
        made.sleep(chain.height + 20 * EPOCH)
        made.start()
        made.run(chain.height + 2)
        rows = made.rows(1)
    nonces = sorted(rows)
    assert [later - earlier for earlier, later in pairwise(nonces)] == [EPOCH] * (len(rows) - 1)
    gone = [row for nonce, row in rows.items() if row.stage == Stage.GONE and nonce not in known]
    assert len(gone) >= 6  # of those that are asked for, the blocks' events still tell
    for row in gone:
        assert (row.value, row.loss, row.score, row.reward, row.combined, row.active) == (None,) * 6
        assert set(row.missing.split(",")) >= {"inferers", "combined", "loss", "score", "reward"}
        assert outcome(row, None) == (None, NOT_SEEN)


def test_a_chain_that_begins_anew_leaves_the_old_epochs_as_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(chain.height + EPOCH + 20)
        old = [nonce for nonce, row in made.rows(1).items() if row.stage != Stage.SETTLED]
        assert old
        chain.restart(1_000, blocks=200)
        made.run(1_000 + LAG + 2 * EPOCH, stride=2)
        rows = made.rows(1)
    assert {rows[nonce].stage for nonce in old} == {Stage.GONE}
    new = [row for nonce, row in rows.items() if nonce < 2_000]
    assert {row.stage for row in new} >= {Stage.SETTLED, Stage.CLOSED}


def test_while_no_host_answers_nothing_is_written_and_afterwards_it_goes_on(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(2), ANSWERS) as made:
        made.run(330)
        seen_ms = made.follower.seen_ms
        chain.faults[""] = DOWN
        made.sleep(350)
        made.follower.step()
        made.follower.step()
        assert made.epoch(2, 335) is None
        assert made.follower.seen_ms == seen_ms
        chain.faults.clear()
        clock.time_ms += 60_000  # the hosts have rested
        made.run(chain.height + 2)
        row = made.epoch(2, 335)
        assert row is not None
        assert row.active is True
        assert made.follower.fault == ""


def test_a_topic_that_is_answered_oddly_does_not_hold_up_the_others(tmp_path: Path) -> None:
    chain, clock = replay()
    with desk(tmp_path, chain, clock, topics(1, 2), ANSWERS) as made:
        chain.faults["/emissions/v5/topics/1"] = HTML_PAGE
        made.run(380)
        assert made.rows(1) == {}
        assert made.rows(2) == {} or made.epoch(2, 335) is not None


def test_a_topic_that_is_not_on_chain_costs_a_request_in_a_hundred_blocks(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    with desk(tmp_path, chain, clock, topics(7, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(chain.height + 205, stride=5)
        assert made.rows(7) == {}
        assert chain.counted["topics"] == 3


def test_an_epoch_that_nobody_answered_lacks_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], [], clock, block_ms=BLOCK_MS)
    chain.answers_own = False
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        begun = chain.height
        made.run(begun + LAG + 3 * EPOCH, stride=2)
        rows = [row for nonce, row in made.rows(1).items() if row.stage == Stage.SETTLED and nonce > begun]
    assert rows
    assert {(row.active, row.arrival, row.missing) for row in rows} == {(False, Arrival.ABSENT, "")}


def test_an_active_set_that_was_not_there_yet_and_then_forgotten_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0]), has_rpc=False) as made:
        made.run(chain.height + 2)
        nonce = chain.newest_nonce(1, chain.height) + EPOCH
        chain.faults[f"/emissions/{API}/inferences/1/{nonce}"] = Answer('{"inferences":{"inferences":[]}}')
        made.run(nonce + WINDOW + 2)
        row = made.epoch(1, nonce)
        assert row is not None
        assert (row.stage, row.detail) == (Stage.OPEN, None)
        chain.faults.clear()
        made.sleep(nonce + 10 * EPOCH)
        made.run(chain.height + 4)
        row = made.epoch(1, nonce)
    assert row is not None
    assert (row.stage, row.active) == (Stage.GONE, None)


def test_a_value_that_is_not_in_the_active_set_is_lost_as_such(tmp_path: Path) -> None:
    clock = FakeClock()
    outsider = WORKERS[-1]
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    chain.outside = {outsider}
    begun = chain.height
    given = [
        answer(1, nonce, chain.value(1, nonce, outsider), LOCAL) for nonce in range(begun - EPOCH, begun + 9 * EPOCH)
    ]
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=outsider), given) as made:
        made.run(begun + 2 * EPOCH)
        nonce = chain.newest_nonce(1, chain.height - WINDOW)
        assert reasons(made, 1)[nonce] == (False, NOT_ACTIVE)


def test_a_follower_asks_little_while_nothing_is_due(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(chain.height + 3 * EPOCH, stride=2)
        before = chain.counted.copy()
        made.run(chain.height + 4 * EPOCH, stride=2)
        asked = chain.counted - before
    # Four epochs: own value, active set, network's inference and the settling block of each.
    of_epochs = {kind: count for kind, count in asked.items() if kind in {"inferences", "latest_network_inferences"}}
    assert of_epochs == {"inferences": 4, "latest_network_inferences": 4}
    assert asked["topics"] == 4
    assert asked["block_results"] == 4
