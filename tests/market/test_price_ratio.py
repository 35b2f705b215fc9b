"""The ratio of two venues' levels: exact where it is constant, robust where minutes are wrong, and silent in doubt."""

import math
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SLACK_MS
from core.errors import MalformedKlines
from klines.klines import COLUMNS, PRICE_COLUMNS, Floats, Klines
from market.price_ratio import HALF_LIFE_MIN, KEPT, MIN_MINUTES, MOST_AGE_MS, MOST_APART, MOST_SPREAD, Basis, Ratio
from tests.fakes.klines import random_walk_klines

ETH = "ETHUSDT"
KLINES = random_walk_klines(KEPT)
NOW_MS = KLINES.end_ms


def times(klines: Klines, factor: float | Floats) -> Klines:
    """The same minutes at another level."""
    return replace(klines, **{name: getattr(klines, name) * factor for name in PRICE_COLUMNS})


def some(klines: Klines, rows: Sequence[int]) -> Klines:
    """Those rows alone."""
    take = np.array(sorted(set(rows)), dtype=np.int64)
    columns = {name: getattr(klines, name)[take] for name in ("open_time_ms", *COLUMNS)}
    return Klines(interval_ms=MINUTE_MS, **columns)


def later(klines: Klines, ms: int) -> Klines:
    return replace(klines, open_time_ms=klines.open_time_ms + ms)


def basis_of(spot: Klines, other: Klines) -> Basis:
    basis = Basis()
    basis.learn(ETH, "spot", spot)
    basis.learn(ETH, "other", other)
    return basis


def ratio_of(basis: Basis, now_ms: int = NOW_MS) -> Ratio | None:
    """Of the other venue over spot."""
    return basis.ratio(ETH, of="other", to="spot", now_ms=now_ms)


def value_of(basis: Basis, now_ms: int = NOW_MS) -> float:
    ratio = ratio_of(basis, now_ms)
    assert ratio is not None
    return ratio.value


@given(
    factor=st.floats(math.exp(-0.029), math.exp(0.029)),
    batches=st.lists(st.tuples(st.booleans(), st.integers(0, KEPT - 1), st.integers(1, KEPT)), max_size=12),
)
def test_a_constant_factor_is_found_whatever_the_order_and_the_overlaps(
    factor: float, batches: list[tuple[bool, int, int]]
) -> None:
    basis, other = Basis(), times(KLINES, factor)
    for is_other, first, count in [*batches, (False, 0, 90), (True, 60, 90)]:
        rows = range(first, min(first + count, KEPT))
        basis.learn(ETH, "other" if is_other else "spot", some(other if is_other else KLINES, rows))
    ratio = ratio_of(basis)
    assert ratio is not None
    assert ratio.value == pytest.approx(factor, rel=1e-12)
    assert ratio.minutes >= 30
    assert ratio.spread < 1e-12


@given(order=st.permutations(range(6)))
def test_the_order_of_batches_changes_nothing(order: list[int]) -> None:
    wide = random_walk_klines(6 * 50)
    other = times(wide, np.exp(2e-4 * np.random.default_rng(1).standard_normal(len(wide))))
    whole, basis = basis_of(wide, other), Basis()
    for part in order:
        for venue, run in (("spot", wide), ("other", other)):
            basis.learn(ETH, venue, some(run, range(50 * part, 50 * part + 50)))
    assert ratio_of(basis, wide.end_ms) == ratio_of(whole, wide.end_ms) is not None


def test_a_price_times_the_ratio_is_at_the_other_level_and_back() -> None:
    basis = basis_of(KLINES, times(KLINES, 0.999))
    there = basis.ratio(ETH, of="other", to="spot", now_ms=NOW_MS)
    back = basis.ratio(ETH, of="spot", to="other", now_ms=NOW_MS)
    assert there is not None
    assert back is not None
    assert 2000.0 * there.value == pytest.approx(1998.0)
    assert there.value * back.value == pytest.approx(1.0)
    assert there.newest_ms == NOW_MS
    assert there.minutes == KEPT


@given(
    offset=st.integers(0, 4),
    size=st.floats(0.001, 5.0),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=KEPT, max_size=KEPT),
)
def test_every_fifth_minute_wrong_does_not_move_it(offset: int, size: float, signs: list[float]) -> None:
    is_wrong = np.arange(KEPT) % 5 == offset
    read = np.exp(np.where(is_wrong, size * np.array(signs), 5e-4))
    assert value_of(basis_of(KLINES, times(KLINES, read))) == pytest.approx(math.exp(5e-4), rel=1e-12)


@given(wrong=st.sets(st.integers(0, KEPT - 1), max_size=120), size=st.floats(-1.0, 1.0))
def test_wrong_minutes_of_less_than_half_the_weight_leave_it_among_the_right_ones(wrong: set[int], size: float) -> None:
    is_wrong = np.isin(np.arange(KEPT), list(wrong))
    weights = 0.5 ** ((KEPT - np.arange(KEPT)) / HALF_LIFE_MIN)
    assume(weights[is_wrong].sum() < 0.49 * weights.sum())
    right = 5e-4 + 2e-4 * np.random.default_rng(2).standard_normal(KEPT)
    ratio = ratio_of(basis_of(KLINES, times(KLINES, np.exp(np.where(is_wrong, size, right)))))
    if ratio is not None:  # or they were so many that the spread says it
        assert right[~is_wrong].min() <= math.log(ratio.value) + 1e-12
        assert math.log(ratio.value) - 1e-12 <= right[~is_wrong].max()


def test_a_level_that_has_jumped_is_followed_once_half_the_weight_is_new() -> None:
    read = np.full(KEPT, 1.0)
    followed = []
    for minutes in range(1, 12):
        read[-minutes:] = 1.002
        ratio = ratio_of(basis_of(KLINES, times(KLINES, read)))
        followed.append(ratio is not None and ratio.value > 1.001)
    assert followed == [minutes >= HALF_LIFE_MIN for minutes in range(1, 12)]


def test_the_median_is_the_weighted_one_of_the_common_minutes() -> None:
    """Of twelve minutes, added up from the smallest ratio on."""
    shifts = 1e-4 * np.array([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0, 0.0, -1.0, -2.0])
    klines = some(KLINES, range(KEPT - 12, KEPT))
    weights = {shift: 2.0 ** (-(11 - place) / HALF_LIFE_MIN) for place, shift in enumerate(shifts.tolist())}
    reached, expected = 0.0, math.nan
    for shift in sorted(weights):
        reached += weights[shift]
        if reached >= sum(weights.values()) / 2:
            expected = shift
            break
    assert math.log(value_of(basis_of(klines, times(klines, np.exp(shifts))))) == pytest.approx(expected, abs=1e-12)


def test_a_corrected_candle_replaces_the_one_before() -> None:
    basis = basis_of(KLINES, times(KLINES, 1.02))
    assert value_of(basis) == pytest.approx(1.02)
    basis.learn(ETH, "other", times(KLINES, 1.001))
    assert value_of(basis) == pytest.approx(1.001, rel=1e-12)


def test_the_newest_minutes_stay() -> None:
    wide = random_walk_klines(3 * KEPT)
    basis = basis_of(wide, wide)
    basis.learn(ETH, "other", times(some(wide, range(KEPT)), 1.01))  # older ones, told late
    ratio = ratio_of(basis, wide.end_ms)
    assert ratio is not None
    assert (ratio.minutes, ratio.value) == (KEPT, 1.0)


def test_what_is_kept_does_not_grow() -> None:
    weeks = random_walk_klines(20_000)
    basis = basis_of(weeks.tail(KEPT), KLINES)
    tracemalloc.start()
    for first_ms in range(int(weeks.open_time_ms[0]), weeks.end_ms, 100 * MINUTE_MS):
        basis.learn(ETH, "other", weeks.between(first_ms, first_ms + 100 * MINUTE_MS))
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 150_000  # all of them would be 320,000
    assert value_of(basis, weeks.end_ms) == 1.0


def test_venues_and_symbols_are_kept_apart() -> None:
    basis = basis_of(KLINES, times(KLINES, 1.001))
    basis.learn("BTCUSDT", "other", times(KLINES, 1.02))
    basis.learn(ETH, "third", times(KLINES, 1.003))
    assert value_of(basis) == pytest.approx(1.001)
    assert basis.ratio("BTCUSDT", of="other", to="spot", now_ms=NOW_MS) is None
    assert basis.ratio(ETH, of="other", to="nowhere", now_ms=NOW_MS) is None


@pytest.mark.parametrize(("common", "known"), [(0, False), (MIN_MINUTES - 1, False), (MIN_MINUTES, True)])
def test_too_few_common_minutes_say_nothing(common: int, known: bool) -> None:
    spot, other = some(KLINES, range(100)), some(KLINES, range(100 - common, KEPT))
    assert (ratio_of(basis_of(spot, other), spot.end_ms) is not None) == known


def test_only_minutes_of_the_last_hours_count() -> None:
    """Nine fresh ones do not become enough by those of yesterday."""
    old = later(KLINES, -DAY_MS)
    for fresh, known in ((MIN_MINUTES - 1, False), (MIN_MINUTES, True)):
        newest = old.merge(some(KLINES, range(KEPT - fresh, KEPT)))
        ratio = ratio_of(basis_of(newest, times(newest, 1.001)))
        assert (ratio is not None) == known
        assert ratio is None or ratio.minutes == fresh


@pytest.mark.parametrize(
    ("after_ms", "known"), [(0, True), (MOST_AGE_MS, True), (MOST_AGE_MS + 1, False), (DAY_MS, False)]
)
def test_a_ratio_has_an_age_and_is_not_told_beyond_it(after_ms: int, known: bool) -> None:
    ratio = ratio_of(basis_of(KLINES, KLINES), NOW_MS + after_ms)
    assert (ratio is not None) == known
    assert ratio is None or ratio.newest_ms == NOW_MS


def test_one_venue_that_goes_on_alone_does_not_keep_it_young() -> None:
    basis = basis_of(KLINES, KLINES)
    alone = random_walk_klines(150, start_ms=NOW_MS)
    basis.learn(ETH, "spot", alone)
    assert ratio_of(basis, alone.end_ms) is None


def test_minutes_of_the_future_do_not_count() -> None:
    basis = basis_of(KLINES, times(KLINES, 1.001))
    for venue, factor in (("spot", 1.0), ("other", 1.02)):
        basis.learn(ETH, venue, times(later(some(KLINES, range(20)), 7 * DAY_MS), factor))
    ratio = ratio_of(basis)
    assert ratio is not None
    assert ratio.value == pytest.approx(1.001)
    assert ratio.newest_ms == NOW_MS
    set_back = ratio_of(basis, NOW_MS - SLACK_MS - 1)
    assert set_back is not None
    assert set_back.newest_ms == NOW_MS - MINUTE_MS


def test_a_minute_without_a_trade_says_nothing_of_the_level() -> None:
    """An exchange that stands still repeats its last close, while the other one's prices move on."""
    stands = np.arange(KEPT) >= KEPT - 30
    still = np.where(stands, KLINES.close[KEPT - 31], KLINES.close)
    other = replace(KLINES, open=still, high=still, low=still, close=still, volume=np.where(stands, 0.0, KLINES.volume))
    moved = times(KLINES, np.where(stands, 1.004, 1.0))
    ratio = ratio_of(basis_of(moved, other))
    assert ratio is not None
    assert (ratio.value, ratio.newest_ms) == (1.0, NOW_MS - 30 * MINUTE_MS)


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_too_far_apart_is_not_the_same_thing(sign: int) -> None:
    for apart, known in ((0.99 * MOST_APART, True), (1.01 * MOST_APART, False), (math.log(1000), False)):
        assert (ratio_of(basis_of(KLINES, times(KLINES, math.exp(sign * apart)))) is not None) == known


def test_what_does_not_move_together_has_no_ratio() -> None:
    for spread, known in ((0.9 * MOST_SPREAD, True), (1.1 * MOST_SPREAD, False)):
        # A third of them at the median, and two thirds as far from it as the spread.
        read = np.exp(np.where(np.arange(KEPT) % 3 == 0, 0.0, np.where(np.arange(KEPT) % 3 == 1, spread, -spread)))
        ratio = ratio_of(basis_of(KLINES, times(KLINES, read)))
        assert (ratio is not None) == known
        assert ratio is None or ratio.spread == pytest.approx(spread)
    another = random_walk_klines(KEPT, seed=9, sigma=2e-3)
    assert ratio_of(basis_of(random_walk_klines(KEPT, sigma=2e-3), another)) is None


def test_a_currency_that_loses_its_peg_is_not_followed_and_is_again_once_it_is_back() -> None:
    """An hour at par, an hour on the way to 0.93 and there, an hour back."""
    level = np.concatenate([np.ones(60), np.linspace(1.0, 0.93, 30), np.full(30, 0.93), np.full(60, 0.9995)])
    spot = random_walk_klines(len(level))
    other, basis, told = times(spot, level), Basis(), []
    for row in range(len(level)):
        for venue, run in (("spot", spot), ("other", other)):
            basis.learn(ETH, venue, some(run, [row]))
        told.append(ratio_of(basis, int(spot.open_time_ms[row]) + MINUTE_MS))
    values = np.array([math.nan if ratio is None else ratio.value for ratio in told])
    assert np.isnan(values[: MIN_MINUTES - 1]).all()
    assert (values[MIN_MINUTES - 1 : 60] == 1.0).all()
    assert np.isnan(values[85:120]).all(), "lost: no value is given"
    assert values[-1] == pytest.approx(0.9995, rel=1e-12)
    assert np.nanmin(values) >= math.exp(-MOST_APART)


def test_only_minutes_are_taken() -> None:
    with pytest.raises(MalformedKlines, match="60000 ms, was 3600000 ms"):
        Basis().learn(ETH, "spot", random_walk_klines(3, HOUR_MS))


def test_nothing_learnt_changes_nothing() -> None:
    basis = basis_of(KLINES, KLINES)
    before = ratio_of(basis)
    basis.learn(ETH, "other", Klines.empty(MINUTE_MS))
    assert ratio_of(basis) == before is not None


def test_readers_get_it_whole_while_others_tell() -> None:
    """Each round of both writers puts one venue to another level, minute by minute: no reader sees a mixture that is
    neither of the two, and every minute that was told is there in the end."""
    levels, basis = (1.0, 1.001), basis_of(KLINES, KLINES)
    parts = [some(KLINES, range(first, first + 20)) for first in range(0, KEPT, 20)]
    seen: list[Ratio | None] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            seen.append(ratio_of(basis))

    def tell(venue: str, mine: Sequence[Klines]) -> None:
        for round_ in range(40):
            for part in mine:
                basis.learn(ETH, venue, times(part, levels[round_ % 2]))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=tell, args=("other", parts[side::2])) for side in (0, 1)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    finished.set()
    reader.join()
    assert seen
    assert {ratio.minutes for ratio in seen if ratio} == {KEPT}
    assert all(min(abs(ratio.value - level) for level in levels) < 1e-12 for ratio in seen if ratio)
    assert value_of(basis) == pytest.approx(levels[1], rel=1e-12), "both told the second level last"
