"""The gate's rules, each outcome by its reason; and that it lets through no more noise than it says."""

from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats
from model.judging.comparison import LEVEL, Comparison, compare, compare_pooled
from model.judging.evaluation import TopicForecasts
from model.judging.gate import OLD_H, SCORED_TICKS, Contest, decide, judge_topics, scored_from, why_demoted
from tests.noise import Noise, Size, promotions

STEPS = 15
ROWS = 3000
NOISE = np.random.default_rng(0).standard_normal((4, ROWS))
TICKS = np.arange(ROWS)


def against(lead: float, spread: float = 1.0) -> Comparison:
    """A comparison whose mean is ``lead``, with so much noise in it."""
    noise = spread * (NOISE[0] - NOISE[0].mean())
    return compare(TICKS, 2.0 + lead + noise, np.full(ROWS, 2.0), STEPS)


BETTER, BY_CHANCE, EQUAL, NOT_SURELY_WORSE, WORSE = (against(lead) for lead in (-0.5, -0.01, 0.0, 0.01, 0.5))
SHORT = compare(TICKS[:200], np.full(200, 0.5), np.ones(200), STEPS)
UNSOUND = compare(TICKS, np.full(ROWS, np.nan), np.ones(ROWS), STEPS)
NO_ROWS = compare(TICKS[:0], NOISE[0][:0], NOISE[0][:0], STEPS)
ONE_GOOD_BLOCK = compare(TICKS, np.where(TICKS < 600, 0.1, 1.001), np.ones(ROWS), 1)


def first(naive: Comparison, pooled: Comparison | None = None) -> Contest:
    return Contest(naive=naive, pooled=pooled)


def beside(champion: Comparison, **more: bool | float) -> Contest:
    """A challenger that beats the naive forecast, and a champion."""
    return replace(first(BETTER), champion=champion, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("contest", "promoted", "reason"),
    [
        pytest.param(first(BETTER), True, "better than the naive forecast; there was no champion", id="skill"),
        pytest.param(first(BY_CHANCE), False, "may be chance: p 0.", id="better by chance"),
        pytest.param(first(EQUAL), False, "no better than the naive", id="equal losses of other forecasts"),
        pytest.param(first(WORSE), False, "worse than the naive", id="worse"),
        pytest.param(first(SHORT), False, "too little time to tell", id="short"),
        pytest.param(first(UNSOUND), False, "not finite", id="not finite"),
        pytest.param(first(NO_ROWS), False, "no row", id="no rows"),
        pytest.param(first(ONE_GOOD_BLOCK), False, "in only 1 of 5 blocks", id="one lucky stretch"),
        pytest.param(
            first(replace(BETTER, won=2)), False, "better than the naive forecast in only 2 of 5 blocks", id="blocks"
        ),
        pytest.param(first(BY_CHANCE, BETTER), True, "better than the naive", id="the pooled test carries it"),
        pytest.param(first(NOT_SURELY_WORSE, BETTER), False, "worse than the naive", id="what helps others harms here"),
        pytest.param(first(BY_CHANCE, replace(BETTER, won=2)), False, "2 of 5 blocks", id="blocks of the pooled test"),
        pytest.param(first(BETTER, UNSOUND), True, "better than the naive", id="pooled without a figure"),
        pytest.param(replace(first(EQUAL), is_naive=True), True, "naive: the network adds nothing", id="naive itself"),
        pytest.param(replace(first(UNSOUND), is_naive=True), False, "not finite", id="naive is not finite"),
        pytest.param(beside(BETTER), True, "no worse than the champion", id="champion beaten"),
        pytest.param(beside(EQUAL), True, "no worse than the champion", id="champion equalled"),
        pytest.param(beside(NOT_SURELY_WORSE), False, "but worse than the champion", id="young champion"),
        pytest.param(
            beside(NOT_SURELY_WORSE, champion_age_h=OLD_H + 1), True, "the champion is 49 h old", id="old champion"
        ),
        pytest.param(beside(WORSE, champion_age_h=OLD_H + 1), False, "but worse than the champion", id="old, but good"),
        pytest.param(
            beside(compare(TICKS[:200], np.full(200, 1.1), np.ones(200), STEPS), champion_age_h=OLD_H + 1),
            False,
            "but worse than the champion",
            id="old, too little time to tell",
        ),
        pytest.param(beside(UNSOUND), True, "there was no champion", id="champion not finite"),
        pytest.param(beside(WORSE, champion_is_naive=True), True, "the champion is equal to", id="naive champion"),
        pytest.param(
            replace(first(BY_CHANCE), champion=BETTER), False, "may be chance", id="a champion's place is no merit"
        ),
        pytest.param(
            replace(first(EQUAL), is_naive=True, champion=BY_CHANCE),
            True,
            "naive: the network adds nothing, and no worse than the champion",
            id="naive beats the champion",
        ),
        pytest.param(
            replace(first(EQUAL), is_naive=True, champion=WORSE),
            False,
            "naive: the network adds nothing, but worse than the champion",
            id="the champion beats naive",
        ),
        pytest.param(
            replace(first(EQUAL), is_naive=True, champion=EQUAL, champion_is_naive=True),
            True,
            "naive: the network adds nothing",
            id="naive after naive",
        ),
    ],
)
def test_the_gate(contest: Contest, promoted: bool, reason: str) -> None:
    decision = decide(contest)
    assert decision.promoted is promoted
    assert reason in decision.reason


def test_two_chances_cost_twice_the_p() -> None:
    alone, beside_pooled = decide(first(against(-0.15, 4.0))), decide(first(against(-0.15, 4.0), WORSE))
    assert alone.p is not None
    assert beside_pooled.p == pytest.approx(2 * alone.p)


def test_a_champion_that_is_worse_than_naive_is_demoted() -> None:
    assert "worse than the naive forecast on its last 3000 rows: p 0.000" in why_demoted(WORSE)
    for kept in (BETTER, EQUAL, NOT_SURELY_WORSE, SHORT, UNSOUND, NO_ROWS):
        assert why_demoted(kept) == ""


def test_a_champion_is_scored_on_what_came_after_its_promotion() -> None:
    ticks = np.arange(50_000)
    assert scored_from(ticks, 49_000, 15) == 49_000
    assert scored_from(ticks, 49_900, 15) == 50_000 - SCORED_TICKS, "too few of those: all that it has not seen"
    assert scored_from(ticks, 0, 15) == 50_000 - SCORED_TICKS


def test_the_blocks_keep_a_horizon_apart() -> None:
    lead = np.full(ROWS, -1.0)
    steps, length = 100, (ROWS - 4 * 100) // 5
    for block in range(5):
        start = block * (length + steps)
        lead[start : start + length] = 1.0  # what lies between the blocks is left
    found = compare(TICKS, 2 + lead, np.full(ROWS, 2.0), steps)
    assert (found.won, found.blocks) == (0, 5), "the gaps count for nothing"
    assert compare(TICKS, 2 - lead, np.full(ROWS, 2.0), steps).won == 5


def test_blocks_without_rows_are_not_counted() -> None:
    kept = (TICKS < 700) | (TICKS > 2600)
    found = compare(TICKS[kept], np.full(int(kept.sum()), 0.5), np.ones(int(kept.sum())), 1)
    assert (found.won, found.blocks) == (3, 3)


def test_where_both_say_the_same_there_is_no_block_to_win() -> None:
    losses = np.where(TICKS < 1300, 1.0, 0.9)
    found = compare(TICKS, losses, np.ones(ROWS), 1)
    assert (found.won, found.blocks) == (3, 3), "the first two of five are silent"
    assert (compare(TICKS, np.ones(ROWS), np.ones(ROWS), 1).blocks) == 0


def test_symbols_that_move_together_are_one_observation() -> None:
    losses = 0.998 + 0.1 * (NOISE - NOISE.mean(axis=1, keepdims=True))
    alone = compare(TICKS, losses[0], np.ones(ROWS), 1)
    copies = compare_pooled([(TICKS, losses[0], np.ones(ROWS))] * 4, 1)
    apart = compare_pooled([(TICKS, of_one, np.ones(ROWS)) for of_one in losses], 1)
    assert copies is not None
    assert apart is not None
    assert copies.better == pytest.approx(alone.better)
    assert alone.better is not None
    assert apart.better is not None
    assert apart.effective > 0.8 * ROWS
    assert apart.better < alone.better, "four that move each for itself say more"


def test_a_symbol_counts_by_its_own_size_and_a_broken_one_for_nothing() -> None:
    good, dear = (TICKS, 0.9 + 0.1 * NOISE[0], np.ones(ROWS)), (TICKS, 1.1e6 + 1e5 * NOISE[1], np.full(ROWS, 1e6))
    pooled = compare_pooled([good, dear], 1)
    assert pooled is not None
    assert abs(pooled.mean) < 0.01, "a tenth better and a tenth worse"
    broken = [(TICKS, np.full(ROWS, np.inf), np.ones(ROWS)), (TICKS[:0], NOISE[0][:0], NOISE[0][:0])]
    silent = (TICKS, np.zeros(ROWS), np.zeros(ROWS))
    assert compare_pooled([good, *broken, silent], 1) is None, "one symbol is not several"


def topic(number: int, symbol: str = "ETHUSDT", horizon_min: int = 5) -> Topic:
    return Topic(topic_id=number, token="A", symbol=symbol, target=Target.LOG_RETURN, horizon_min=horizon_min)


def said(of: Topic, forecast: Floats, came_true: Floats, first_row: int = 0) -> TopicForecasts:
    return TopicForecasts(
        topic=of,
        open_time_ms=(first_row + np.arange(len(forecast), dtype=np.int64)) * MINUTE_MS,
        came_true=came_true,
        forecast=forecast,
        naive=np.zeros(len(forecast)),
        close=np.ones(len(forecast)),
        std=1.0,
    )


def test_two_topics_that_ask_the_same_are_one_symbol() -> None:
    rng = np.random.default_rng(6)
    came_true, forecast = rng.standard_normal(2000), 0.1 * rng.standard_normal(2000)
    alone = judge_topics([said(topic(1), forecast, came_true)], {}, MINUTE_MS)["1"]
    both = judge_topics([said(topic(number), forecast, came_true) for number in (1, 2)], {}, MINUTE_MS)
    assert both == {"1": alone, "2": alone}


def test_a_challenger_that_beats_naive_must_be_no_worse_than_the_champion() -> None:
    rng = np.random.default_rng(7)
    edge, noise = rng.standard_normal(3000), rng.standard_normal(3000)
    came_true = edge + noise
    ours, champion = said(topic(1), 0.5 * edge, came_true), said(topic(1), 0.9 * edge, came_true)
    assert judge_topics([ours], {}, MINUTE_MS)["1"].promoted
    assert "worse than the champion" in judge_topics([ours], {"1": (champion, 1.0)}, MINUTE_MS)["1"].reason
    assert judge_topics([champion], {"1": (ours, 1.0)}, MINUTE_MS)["1"].promoted


def test_evidence_decides_what_ten_days_cannot() -> None:
    rng, rows, earlier = np.random.default_rng(3), 1000, 40_000
    edge, noise = rng.standard_normal(earlier + rows + 100), rng.standard_normal(earlier + rows + 100)
    came_true, forecast = 0.03 * edge + noise, 0.02 * edge
    late = slice(earlier + 100, None)
    ours = [said(topic(1), forecast[late], came_true[late], earlier + 100)]
    half = earlier // 2
    evidence = [
        said(topic(1), forecast[:half], came_true[:half]),
        said(topic(1), forecast[half:earlier], came_true[half:earlier], half),
    ]
    assert not judge_topics(ours, {}, MINUTE_MS)["1"].promoted
    with_it = judge_topics(ours, {}, MINUTE_MS, evidence)["1"]
    assert with_it.promoted
    assert with_it.p is not None
    assert with_it.p < LEVEL
    assert judge_topics(ours, {}, MINUTE_MS, [said(topic(2), forecast, came_true)]) == judge_topics(ours, {}, MINUTE_MS)


def test_evidence_does_not_excuse_the_newest_rows() -> None:
    rng, rows, earlier = np.random.default_rng(4), 3000, 20_000
    edge, noise = rng.standard_normal(earlier + rows), rng.standard_normal(earlier + rows)
    came_true, forecast = 0.5 * edge + noise, 0.5 * edge
    evidence = [said(topic(1), forecast[:earlier], came_true[:earlier])]
    gone_wrong = [said(topic(1), -0.3 * forecast[earlier:], came_true[earlier:], earlier)]
    decision = judge_topics(gone_wrong, {}, MINUTE_MS, evidence)["1"]
    assert not decision.promoted
    assert "on the newest rows" in decision.reason


def test_a_challenger_equal_to_naive_claims_nothing_whatever_was_evident() -> None:
    rng = np.random.default_rng(5)
    came_true = rng.standard_normal(2000)
    evidence = [said(topic(1), 0.9 * came_true[:1500], came_true[:1500])]
    decision = judge_topics([said(topic(1), np.zeros(500), came_true[1500:], 1500)], {}, MINUTE_MS, evidence)["1"]
    assert decision.promoted
    assert "naive: the network adds nothing" in decision.reason


@pytest.mark.parametrize("noise", list(Noise))
@pytest.mark.parametrize("size", [Size("15 min of 5 days", 7200, 15), Size("8 h of 85 days", 2040, 8, HOUR_MS)])
def test_no_more_noise_gets_through_than_stated(size: Size, noise: Noise) -> None:
    promoted = promotions(size, noise, 0.01, 500, seed=1)
    chance = 2.33 * (LEVEL * (1 - LEVEL) / len(promoted)) ** 0.5  # one test in 100 of the stated rate shows more
    assert promoted.mean() <= LEVEL + chance
