"""Which price is believed: newer ones, near ones, and far ones once others confirm them."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from market.price_guard import CONFIRMATIONS, LEAST_LIMIT, RANGE_ROWS, Anchors
from market.store.recording import load_recording
from market.venue import Price
from tests.fakes.klines import random_walk_klines

ETH = "ETHUSDT"
KLINES = random_walk_klines(60)
CLOSE = float(KLINES.close[-1])
NOW_MS = KLINES.end_ms + 10_000


def at(price: float, after_ms: int = 0) -> Price:
    return Price(price=price, asof_ms=NOW_MS + after_ms)


@pytest.fixture
def anchors() -> Anchors:
    anchors = Anchors()
    anchors.learn(ETH, KLINES)
    assert anchors.offer(ETH, at(CLOSE), NOW_MS)
    return anchors


def test_the_first_price_is_believed_where_nothing_is_known() -> None:
    anchors = Anchors()
    assert anchors.get(ETH) is None
    assert anchors.offer(ETH, at(1.0), NOW_MS)
    assert anchors.get(ETH) == at(1.0)


def test_the_first_price_is_held_against_the_newest_candle() -> None:
    anchors = Anchors()
    anchors.learn(ETH, KLINES)
    assert not anchors.offer(ETH, at(10 * CLOSE), NOW_MS)
    assert anchors.get(ETH) is None
    assert anchors.offer(ETH, at(1.0001 * CLOSE), NOW_MS)


@pytest.mark.parametrize("after_ms", [-1, -60_000])
def test_an_older_price_changes_nothing(anchors: Anchors, after_ms: int) -> None:
    assert not anchors.offer(ETH, at(CLOSE * 1.0001, after_ms), NOW_MS)
    assert anchors.get(ETH) == at(CLOSE)
    assert anchors.refused == 0


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03, 10.0, 1e-6, 1e6])
def test_one_far_price_is_not_believed_and_the_next_usual_one_is(anchors: Anchors, factor: float) -> None:
    assert not anchors.offer(ETH, at(CLOSE * factor, 100), NOW_MS + 100)
    assert anchors.get(ETH) == at(CLOSE)
    assert anchors.offer(ETH, at(CLOSE * 1.0001, 200), NOW_MS + 200)
    assert anchors.refused == 1


def test_a_burst_at_one_moment_confirms_nothing(anchors: Anchors) -> None:
    for number in range(50):
        assert not anchors.offer(ETH, at(CLOSE * 0.97, 100 + number), NOW_MS + 200)
    assert anchors.get(ETH) == at(CLOSE)


def test_a_jump_that_others_confirm_over_a_second_is_believed(anchors: Anchors) -> None:
    fallen = [CLOSE * 0.97, CLOSE * 0.9695, CLOSE * 0.969]
    assert len(fallen) == CONFIRMATIONS
    for number, price in enumerate(fallen):
        believed = anchors.offer(ETH, at(price, 500 * (number + 1)), NOW_MS + 2_000)
        assert believed == (number == 2)
    assert anchors.get(ETH) == at(fallen[-1], 1_500)
    assert anchors.offer(ETH, at(CLOSE * 0.9691, 1_600), NOW_MS + 2_000), "the last seconds are the new ones"


def test_far_prices_that_do_not_agree_confirm_nothing(anchors: Anchors) -> None:
    for number in range(20):
        assert not anchors.offer(ETH, at(CLOSE * (0.9 if number % 2 else 1.1), 400 * number), NOW_MS + 400 * number)
    assert anchors.get(ETH) == at(CLOSE)


def test_a_usual_price_in_between_ends_the_doubt(anchors: Anchors) -> None:
    far = [at(CLOSE * 0.97, ms) for ms in (100, 1_500, 3_000, 4_500)]
    near = [at(CLOSE * 1.0001, ms) for ms in (800, 2_200, 3_700)]
    for price in sorted([*far, *near], key=lambda price: price.asof_ms):
        assert anchors.offer(ETH, price, price.asof_ms) == (price in near)


def test_how_far_is_too_far_grows_with_the_time_since(anchors: Anchors) -> None:
    anchors = Anchors()
    quiet = random_walk_klines(60, sigma=1e-6)
    anchors.learn(ETH, quiet)
    close = float(quiet.close[-1])
    after_ms = quiet.end_ms
    assert anchors.offer(ETH, Price(price=close, asof_ms=after_ms), after_ms)
    for minutes, factor, usual in ((0.5, 1.1, False), (0.5, 0.9, True), (9, 2.8, True), (9, 3.2, False)):
        price = Price(price=close * math.exp(factor * LEAST_LIMIT), asof_ms=after_ms + round(minutes * MINUTE_MS))
        assert anchors.is_usual(ETH, price) == usual


def test_a_newer_candle_is_the_measure_after_a_silence(anchors: Anchors) -> None:
    anchors.learn(ETH, random_walk_klines(60, start_ms=NOW_MS + MINUTE_MS, first=CLOSE * 1.2, sigma=1e-5))
    assert anchors.offer(ETH, at(CLOSE * 1.2, 62 * MINUTE_MS), NOW_MS + 62 * MINUTE_MS)
    assert not anchors.offer(ETH, at(CLOSE, 62 * MINUTE_MS + 100), NOW_MS + 62 * MINUTE_MS + 100)


def test_a_clock_that_was_set_back_does_not_freeze_the_price(anchors: Anchors) -> None:
    hour_ago = -60 * MINUTE_MS
    assert anchors.offer(ETH, at(CLOSE * 1.0001, hour_ago), NOW_MS + hour_ago)
    assert anchors.get(ETH) == at(CLOSE * 1.0001, hour_ago)


@given(
    prices=st.lists(
        st.tuples(st.integers(0, 20_000), st.floats(1e-9, 1e9, allow_nan=False, allow_infinity=False)), max_size=40
    )
)
def test_whatever_is_offered_time_never_goes_back(prices: list[tuple[int, float]]) -> None:
    anchors = Anchors()
    anchors.learn(ETH, KLINES)
    seen_ms = 0
    for after_ms, price in prices:
        anchors.offer(ETH, at(price, after_ms), NOW_MS + 20_000)
        known = anchors.get(ETH)
        assert known is None or known.asof_ms >= seen_ms
        seen_ms = known.asof_ms if known else 0


def test_on_real_minutes_a_doubt_is_rare_and_short(shared_data: Path) -> None:
    """A month of BTC: each minute is told as its open, both extremes and its close, a quarter of a minute apart."""
    klines = load_recording(shared_data / "spot", ["BTCUSDT"])["BTCUSDT", MINUTE_MS].tail(30 * 1440)
    anchors, doubted, late = Anchors(), 0, 0
    columns = zip(klines.open_time_ms, klines.open, klines.low, klines.high, klines.close, strict=True)
    for row, (opened_ms, *prices) in enumerate(columns):
        if row < RANGE_ROWS:
            continue
        anchors.learn("BTCUSDT", klines.between(int(opened_ms) - RANGE_ROWS * MINUTE_MS, int(opened_ms)))
        refused = anchors.refused
        for quarter, price in enumerate(prices):
            asof_ms = int(opened_ms) + quarter * MINUTE_MS // 4
            anchors.offer("BTCUSDT", Price(price=float(price), asof_ms=asof_ms), asof_ms)
        doubted += anchors.refused > refused
        believed = anchors.get("BTCUSDT")
        assert believed
        late += believed.price != prices[-1]
    days = len(klines) / 1440
    assert 0 < doubted / days < 6, "as docs/decisions/0006 has it"
    assert late <= doubted


@pytest.mark.parametrize("goes", [1, -1])
@pytest.mark.parametrize("a_minute", [0.05, 0.2, 0.7, 1.5])
def test_a_market_that_runs_after_it_stood_still_is_followed_by_prices_of_once_a_second(
    a_minute: float, goes: int
) -> None:
    """Each price is further from the one before than quiet candles know."""
    anchors, quiet = Anchors(), random_walk_klines(60, sigma=1e-9)
    anchors.learn(ETH, quiet)
    close = float(quiet.close[-1])
    oldest_ms = 0
    for second in range(61):
        now_ms = quiet.end_ms + 1_000 * second
        anchors.offer(ETH, Price(price=close * math.exp(goes * a_minute * second / 60), asof_ms=now_ms), now_ms)
        believed = anchors.get(ETH)
        assert believed is not None
        oldest_ms = max(oldest_ms, now_ms - believed.asof_ms)
    assert oldest_ms <= 10_000


def test_prices_that_were_asked_for_are_confirmed_whatever_a_stream_tells_between_them(anchors: Anchors) -> None:
    """All are far from what is known: only those that were asked for agree with each other."""
    for tenth in range(31):
        wild = at(CLOSE * (0.5 if tenth % 2 else 2.0), 100 * tenth)
        anchors.offer(ETH, wild, wild.asof_ms)
        if tenth % 10 == 5:
            asked = at(CLOSE * 1.2, 100 * tenth + 50)
            assert anchors.offer(ETH, asked, asked.asof_ms, asked=True) == (tenth == 25)


def test_a_price_that_was_asked_for_and_goes_with_the_candles_takes_the_place_of_one_that_does_not() -> None:
    anchors = Anchors()
    anchors.offer(ETH, at(2 * CLOSE, 100), NOW_MS + 100)
    anchors.learn(ETH, KLINES)
    assert not anchors.agrees(ETH)
    assert not anchors.offer(ETH, at(CLOSE, 50), NOW_MS + 150), "a stream's counts by its time"
    assert anchors.offer(ETH, at(CLOSE, 50), NOW_MS + 150, asked=True)
    assert anchors.agrees(ETH)
    assert not anchors.offer(ETH, at(2 * CLOSE, 200), NOW_MS + 200)
