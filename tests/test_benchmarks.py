"""What benchmarks compute of simulated blocks."""

import numpy as np
import pytest

from admission.replay import row_of
from benchmarks.admission import known_minutes, nonces_between, topic_of, waited
from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target
from tests.fakes.klines import random_walk_klines


def test_nonce_blocks_fall_anywhere_in_their_minute() -> None:
    nonce_ms = nonces_between(100 * DAY_MS, 130 * DAY_MS, seed=0)
    assert len(nonce_ms) == pytest.approx(30 * 288, abs=10)
    assert nonce_ms[0] >= 100 * DAY_MS
    assert nonce_ms[-1] < 130 * DAY_MS
    assert np.diff(nonce_ms).mean() == pytest.approx(300_000, rel=0.001)
    shares = np.bincount(nonce_ms % MINUTE_MS // 10_000) / len(nonce_ms)
    np.testing.assert_allclose(shares, np.full(6, 1 / 6), atol=0.03)


@pytest.mark.parametrize(
    ("second", "wait_s", "minutes"),
    [(0, 0, 0), (56, 0, 0), (57, 0, 1), (20, 30, 0), (58, 30, 1), (0, 60, 1), (59, 60, 1), (59, 120, 2)],
)
def test_the_minutes_known_are_those_that_closed_by_the_answer(second: int, wait_s: int, minutes: int) -> None:
    """The node asks 3 s after the nonce block, and the wait counts from the minute's beginning."""
    assert known_minutes(np.array([DAY_MS + 1000 * second]), wait_s).tolist() == [minutes]


def test_an_answer_is_the_move_of_the_minutes_known_at_its_own_epoch() -> None:
    day = random_walk_klines(1440, seed=3)
    first_ms = int(day.open_time_ms[0])
    nonce_ms = first_ms + np.array([600_000, 657_000, 1_259_000])
    past, said = waited(topic_of("BTC", Target.LOG_RETURN, 15), day, None, nonce_ms, 0)
    assert (past.epochs.base_ms - first_ms).tolist() == [600_000, 600_000, 1_200_000]
    row = row_of(day, past.epochs.base_ms)
    np.testing.assert_allclose(said, np.log(day.close[row + np.array([0, 1, 1])] / day.close[row]), atol=1e-12)
