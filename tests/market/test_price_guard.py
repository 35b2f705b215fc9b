"""Which price is believed: newer ones, near ones, and far ones once others confirm them."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from klines.klines import Klines
from market.price_guard import CONFIRMATIONS, LEAST_LIMIT, MOST_LIMIT, RANGE_ROWS, Anchors
from market.store.recording import load_recording
from market.venue import Price, Verdict
from tests.fakes.klines import random_walk_klines

ETH = "ETHUSDT"
KLINES = random_walk_klines(60)
CLOSE = float(KLINES.close[-1])
NOW_MS = KLINES.end_ms + 10_000


def at(price: float, after_ms: int = 0) -> Price:
    return Price(price=price, asof_ms=NOW_MS + after_ms)


def believes(anchors: Anchors, price: Price, now_ms: int | None = None, *, asked: bool = False) -> bool:
    verdict = anchors.offer(ETH, price, price.asof_ms if now_ms is None else now_ms, asked=asked)
    return verdict is Verdict.BELIEVED


def learnt(klines: Klines = KLINES) -> Anchors:
    anchors = Anchors()
    anchors.learn(ETH, klines)
    return anchors


@pytest.fixture
def anchors() -> Anchors:
    anchors = learnt()
    assert believes(anchors, at(CLOSE), NOW_MS)
    return anchors


def test_the_first_price_is_held_against_the_newest_candle_if_one_is_known() -> None:
    unlearnt, anchors = Anchors(), learnt()
    assert unlearnt.get(ETH) is None
    assert believes(unlearnt, at(1.0), NOW_MS)
    assert unlearnt.get(ETH) == at(1.0)
    assert not believes(anchors, at(10 * CLOSE), NOW_MS)
    assert anchors.get(ETH) is None
    assert believes(anchors, at(1.0001 * CLOSE), NOW_MS)


@pytest.mark.parametrize("after_ms", [-1, -60_000])
def test_an_older_price_changes_nothing(anchors: Anchors, after_ms: int) -> None:
    assert not believes(anchors, at(CLOSE * 1.0001, after_ms), NOW_MS)
    assert anchors.get(ETH) == at(CLOSE)
    assert anchors.doubted == 0


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03, 10.0, 1e-6, 1e6])
def test_one_far_price_is_not_believed_and_the_next_usual_one_is(anchors: Anchors, factor: float) -> None:
    assert not believes(anchors, at(CLOSE * factor, 100))
    assert anchors.get(ETH) == at(CLOSE)
    assert believes(anchors, at(CLOSE * 1.0001, 200))
    assert anchors.doubted == 1


@pytest.mark.parametrize(
    "far",
    [
        pytest.param([at(CLOSE * 0.97, 100 + number) for number in range(50)], id="a burst at one moment"),
        pytest.param([at(CLOSE * (0.9, 1.1)[number % 2], 400 * number) for number in range(20)], id="not alike"),
    ],
)
def test_far_prices_confirm_nothing_at_one_moment_or_where_they_do_not_agree(
    anchors: Anchors, far: list[Price]
) -> None:
    assert not any(believes(anchors, price) for price in far)
    assert anchors.get(ETH) == at(CLOSE)


def test_a_jump_that_others_confirm_over_a_second_is_believed(anchors: Anchors) -> None:
    fallen = [at(CLOSE * factor, after_ms) for factor, after_ms in ((0.97, 500), (0.9695, 1_000), (0.969, 1_500))]
    assert [believes(anchors, price, NOW_MS + 2_000) for price in fallen] == [False, False, True]
    assert len(fallen) == CONFIRMATIONS
    assert anchors.get(ETH) == fallen[-1]
    assert believes(anchors, at(CLOSE * 0.9691, 1_600), NOW_MS + 2_000), "the last seconds are the new ones"


def test_a_usual_price_in_between_ends_the_doubt(anchors: Anchors) -> None:
    far = [at(CLOSE * 0.97, ms) for ms in (100, 1_500, 3_000, 4_500)]
    near = [at(CLOSE * 1.0001, ms) for ms in (800, 2_200, 3_700)]
    for price in sorted([*far, *near], key=lambda price: price.asof_ms):
        assert believes(anchors, price) == (price in near)


def test_how_far_is_too_far_grows_with_the_time_since() -> None:
    quiet = random_walk_klines(60, sigma=1e-6)
    anchors = learnt(quiet)
    close, after_ms = float(quiet.close[-1]), quiet.end_ms
    assert believes(anchors, Price(price=close, asof_ms=after_ms))
    for minutes, factor, usual in ((0.5, 1.1, False), (0.5, 0.9, True), (9, 2.8, True), (9, 3.2, False)):
        price = Price(price=close * math.exp(factor * LEAST_LIMIT), asof_ms=after_ms + round(minutes * MINUTE_MS))
        assert anchors.is_usual(ETH, price) == usual


def test_a_newer_candle_is_the_measure_after_a_silence(anchors: Anchors) -> None:
    anchors.learn(ETH, random_walk_klines(60, start_ms=NOW_MS + MINUTE_MS, first=CLOSE * 1.2, sigma=1e-5))
    assert believes(anchors, at(CLOSE * 1.2, 62 * MINUTE_MS))
    assert not believes(anchors, at(CLOSE, 62 * MINUTE_MS + 100))


def test_a_clock_that_was_set_back_does_not_freeze_the_price(anchors: Anchors) -> None:
    hour_ago = -60 * MINUTE_MS
    assert believes(anchors, at(CLOSE * 1.0001, hour_ago), NOW_MS + hour_ago)
    assert anchors.get(ETH) == at(CLOSE * 1.0001, hour_ago)


@given(
    prices=st.lists(
        st.tuples(st.integers(0, 20_000), st.floats(1e-9, 1e9, allow_nan=False, allow_infinity=False)), max_size=40
    )
)
def test_whatever_is_offered_time_never_goes_back(prices: list[tuple[int, float]]) -> None:
    anchors, seen_ms = learnt(), 0
    for after_ms, price in prices:
        believes(anchors, at(price, after_ms), NOW_MS + 20_000)
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
        known = anchors.doubted
        for quarter, price in enumerate(prices):
            asof_ms = int(opened_ms) + quarter * MINUTE_MS // 4
            anchors.offer("BTCUSDT", Price(price=float(price), asof_ms=asof_ms), asof_ms)
        doubted += anchors.doubted > known
        believed = anchors.get("BTCUSDT")
        assert believed
        late += believed.price != prices[-1]
    days = len(klines) / 1440
    assert 0 < doubted / days < 6, "as docs/decisions/0006 has it"
    assert late <= doubted


@pytest.mark.parametrize("goes", [1, -1])
@pytest.mark.parametrize(
    ("a_minute", "venues"), [(0.05, "a"), (0.05, "ab"), (0.2, "ab"), (0.7, "ab"), (1.5, "ab"), (0.2, "a"), (1.5, "a")]
)
def test_a_market_that_runs_after_it_stood_still_is_followed_by_prices_of_once_a_second(
    a_minute: float, venues: str, goes: int
) -> None:
    """Each price is further from the one before than quiet candles know. Beyond what is possible within a minute a
    second venue has to say so: one alone is followed that far, and then waits for the candle."""
    quiet = random_walk_klines(60, sigma=1e-9)
    anchors, close, oldest_ms = learnt(quiet), float(quiet.close[-1]), 0
    for second in range(61):
        now_ms, venue = quiet.end_ms + 1_000 * second, venues[second % len(venues)]
        price = close * math.exp(goes * a_minute * second / 60)
        anchors.offer(ETH, Price(price=price, asof_ms=now_ms, venue=venue), now_ms)
        believed = anchors.get(ETH)
        assert believed is not None
        oldest_ms = max(oldest_ms, now_ms - believed.asof_ms)
        assert len(venues) > 1 or abs(math.log(believed.price / close)) <= MOST_LIMIT + 1e-6
    assert (oldest_ms <= 10_000) is (len(venues) > 1 or a_minute <= MOST_LIMIT)


@pytest.mark.parametrize("factor", [1000.0, 1.08, 0.92, 0.001])
def test_what_no_market_does_in_a_minute_takes_a_second_venue_or_a_candle(anchors: Anchors, factor: float) -> None:
    def offered(second: int, venue: str) -> bool:
        price = Price(price=CLOSE * factor, asof_ms=NOW_MS + 1_000 * second, venue=venue)
        return believes(anchors, price, asked=True)

    assert not any(offered(second, "a") for second in range(1, 20))
    assert anchors.get(ETH) == at(CLOSE)
    assert offered(20, "b")
    assert all(offered(second, "a") for second in range(21, 30)), "from then on it is measured by the new level"
    anchors.learn(ETH, random_walk_klines(60, first=CLOSE, start_ms=NOW_MS - 59 * MINUTE_MS))
    assert anchors.get(ETH) is None, "the next candle is of the old one"
    assert believes(anchors, at(CLOSE, 30_000))


def test_prices_that_were_asked_for_are_confirmed_whatever_a_stream_tells_between_them(anchors: Anchors) -> None:
    """All are far from what is known: only those that were asked for agree with each other."""
    for tenth in range(31):
        wild = at(CLOSE * (0.5 if tenth % 2 else 2.0), 100 * tenth)
        assert not believes(anchors, wild)
        if tenth % 10 == 5:
            assert believes(anchors, at(CLOSE * 1.04, 100 * tenth + 50), asked=True) == (tenth == 25)


def test_a_price_that_was_asked_for_and_goes_with_the_candles_takes_the_place_of_one_that_does_not() -> None:
    anchors = Anchors()
    assert believes(anchors, at(1.03 * CLOSE, 100))
    anchors.learn(ETH, KLINES)
    assert not anchors.agrees(ETH)
    assert not believes(anchors, at(CLOSE, 50), NOW_MS + 150), "a stream's counts by its time"
    assert believes(anchors, at(CLOSE, 50), NOW_MS + 150, asked=True)
    assert anchors.agrees(ETH)
    assert not believes(anchors, at(1.03 * CLOSE, 200))


@pytest.mark.parametrize(("minutes", "away", "possible"), [(1, 0.055, True), (1, 0.075, False), (50, 0.075, True)])
def test_where_hours_are_the_only_candles_a_price_may_go_as_far_as_in_an_hour(
    minutes: int, away: float, possible: bool
) -> None:
    hours = random_walk_klines(60, interval_ms=60 * MINUTE_MS, sigma=6e-3)
    anchors = learnt(hours)
    price, since_ms = float(hours.close[-1]) * math.exp(away), hours.end_ms + minutes * MINUTE_MS
    offers = [Price(price=price, asof_ms=since_ms + 1_000 * second) for second in range(3)]
    assert [believes(anchors, offer, asked=True) for offer in offers][-1] is possible


def test_a_price_of_before_the_first_candle_is_given_up_where_the_candle_excludes_it() -> None:
    anchors = Anchors()
    assert believes(anchors, at(2 * CLOSE, 100))
    anchors.learn(ETH, KLINES)
    assert anchors.get(ETH) is None
    assert anchors.offer(ETH, at(2 * CLOSE, 200), NOW_MS + 200, asked=True) is Verdict.FAR


@pytest.mark.parametrize(
    ("seconds", "learnt", "frozen"),
    [
        pytest.param(4, True, True, id="asked for every four seconds"),
        pytest.param(4, False, False, id="no candle meanwhile"),
        pytest.param(20, True, False, id="not asked for in between: it may have been another one"),
    ],
)
def test_a_repeated_price_that_the_candles_have_left_is_frozen(
    anchors: Anchors, seconds: int, learnt: bool, frozen: bool
) -> None:
    longer = random_walk_klines(64)
    still = longer.close[-1] * 1.004
    verdicts = []
    for after_s in range(0, 240, seconds):
        now_ms = NOW_MS + 1_000 * after_s
        if learnt:
            anchors.learn(ETH, longer.between(0, now_ms - MINUTE_MS + 1))
        verdicts.append(anchors.offer(ETH, at(still, 1_000 * after_s), now_ms, asked=True))
    assert (Verdict.FROZEN in verdicts) is frozen
    assert not frozen or believes(anchors, at(float(longer.close[-1]), 240_000), asked=True)


def test_a_clock_that_is_set_back_makes_no_healthy_price_frozen(anchors: Anchors) -> None:
    """Candles that were known before look as if they came after the price, and have others."""
    back_ms = -4 * MINUTE_MS
    for after_ms in range(back_ms, 0, 4_000):
        verdict = anchors.offer(ETH, at(CLOSE * 1.01, after_ms), NOW_MS + after_ms, asked=True)
        assert verdict is not Verdict.FROZEN
