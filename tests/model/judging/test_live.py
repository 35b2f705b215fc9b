"""Champions are judged by what they answered at few looks, however often somebody asks."""

import numpy as np
import pytest

from benchmarks.gate_live import HARMLESS, SERVICES, answered
from klines.klines import Ints
from model.judging.comparison import LEAST_HORIZONS
from model.judging.live import GROWTH, LIVE_LEVEL, looks, why_demoted_live
from tests.noise import Noise


def spans(rows: int, hole_at: int = 0, hole: int = 0) -> Ints:
    ticks = 5 * np.arange(rows)
    ticks[hole_at:] += hole
    return ticks


def test_to_ask_after_each_answer_is_to_ask_at_the_looks() -> None:
    random = np.random.default_rng(6)
    ticks, steps, rows = spans(700), 15, 700
    naive = random.standard_normal(rows) ** 2
    ours = naive + 0.2 * random.standard_normal(rows) + 0.03
    said = [why_demoted_live(ticks[:n], [(ours[:n], naive[:n])], steps) for n in range(rows + 1)]
    changes = {n for n in range(1, rows + 1) if said[n] != said[n - 1]}
    assert changes
    assert changes <= set(looks(ticks, steps))
    assert any(said)


def test_looks_lie_apart_by_evidence_and_not_by_time() -> None:
    steps = 15
    first, second, *_ = looks(spans(700), steps)
    assert first == pytest.approx(LEAST_HORIZONS * steps // 5, abs=1)
    assert second == pytest.approx(first * GROWTH, abs=1)
    held_up = looks(spans(700, hole_at=50, hole=10_000), steps)
    assert held_up[0] == pytest.approx(first, abs=3), "an hour without answers is a single horizon"


def test_every_pair_must_show_it() -> None:
    ticks = spans(700)
    worse, naive = np.full(700, 1.2), np.full(700, 1.0)
    assert why_demoted_live(ticks, [(worse, naive)], 15)
    assert not why_demoted_live(ticks, [(worse, naive), (naive, naive)], 15)
    assert not why_demoted_live(ticks, [(naive, naive), (worse, naive)], 15)
    assert not why_demoted_live(ticks, [(np.where(ticks == 10, np.inf, worse), naive)], 15)
    assert not why_demoted_live(ticks[:0], [(worse[:0], naive[:0])], 15)


@pytest.mark.parametrize("noise", Noise)
def test_harmless_champions_keep_their_topic_for_a_week(noise: Noise) -> None:
    service = SERVICES[1]
    found = [answered(service, noise, HARMLESS, seed, stormy=seed % 2 == 0) for seed in range(60)]
    gone = sum(one.demoted_after() is not None for one in found)
    assert gone <= 8, "of 60, twenty times more likely with 5 % than a chance of one in a thousand"
    assert LIVE_LEVEL * len(found[0].rows) < 0.05


def test_a_harmful_champion_goes_within_days_stretched_or_not() -> None:
    for stretch, known in ((1.0, 0.0), (2.5, 0.2)):
        made = answered(SERVICES[0], Noise.UNRELATED, 0.4, 3, stormy=False, stretch=stretch, known=known)
        after_min = made.demoted_after()
        assert after_min is not None
        assert after_min < 3 * 24 * 60
