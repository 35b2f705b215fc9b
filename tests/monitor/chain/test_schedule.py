"""When an epoch's parts are read, by the heights that the chain tells."""

import pytest

from chain.shapes import TopicSeen
from monitor.chain.schedule import Due, Track, Want
from tests.monitor.chain.follow import topics


def track(*, epoch: int = 30, lag: int = 30, window: int = 12, newest: int = 537, in_seconds: bool = False) -> Track:
    """A topic as the chain tells of it."""
    seen = TopicSeen(
        topic_id=1,
        metadata="",
        loss_method="mse",
        epoch_length=epoch,
        ground_truth_lag=lag,
        window=window,
        in_seconds=in_seconds,
        newest_nonce=newest,
        allow_negative=True,
    )
    return Track(topic=topics(1)[0], seen=seen, newest=newest)


def test_the_parts_of_the_recorded_epoch_are_read_while_they_are_there() -> None:
    """Nonce 537: open to 548, the active set from 549 on, settled at 597."""
    known = track()
    assert (known.last_third(537), known.closes(537), known.settles(537)) == (545, 549, 597)


@pytest.mark.parametrize(("height", "nonce"), [(566, None), (567, 567), (596, 567), (597, None), (900, None)])
def test_the_next_nonce_is_foreseen_for_an_epoch_and_asked_for_after_a_gap(height: int, nonce: int | None) -> None:
    assert track().foresee(height) == nonce


def test_a_nonce_that_did_not_open_is_not_foreseen_again() -> None:
    known = track()
    known.unopened = 567
    assert known.foresee(570) is None


def test_nothing_is_foreseen_where_epochs_are_timed_by_the_clock_or_no_epoch_was_opened() -> None:
    assert track(in_seconds=True).foresee(567) is None
    assert track(newest=0).foresee(20) is None
    assert Track(topic=topics(1)[0]).foresee(567) is None


def test_lengths_in_seconds_are_blocks_by_the_measured_block_time() -> None:
    known = track(epoch=300, lag=300, window=60, in_seconds=True)
    known.block_ms = 5_000.0
    assert (known.epoch, known.window, known.settles(1000)) == (60, 12, 1120)


def test_an_epoch_settles_as_the_last_one_did() -> None:
    known = track()
    known.settles_after = 75
    assert known.settles(537) == 612


def test_an_epoch_that_is_begun_after_its_window_is_not_asked_for_our_value() -> None:
    known = track()
    assert known.begin(567, 570, sure=True).want is Want.VALUE
    assert known.begin(597, 609, sure=True).want is Want.ACTIVE_SET
    assert known.newest == 597


@pytest.mark.parametrize(("late", "pause"), [(0, 1), (1, 1), (7, 7), (30, 30), (500, 30), (2_000, 2_000)])
def test_what_is_late_is_asked_for_ever_more_seldom_but_within_each_epoch(late: int, pause: int) -> None:
    """Where an epoch may be forgotten four epochs after its nonce, a pause of more than one would lose it."""
    known = track()
    due = Due(nonce=537, want=Want.SETTLED, height=0, sure=True)
    assert known.later(due, 597 + late) == 597 + late + pause
