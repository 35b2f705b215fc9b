"""A topic's epochs replayed on minutes: their clock, what is known of them, and nothing of what came after."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from admission.replay import Past, answers, epochs_between, held, past_of, row_of
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from model.heads import volatility_of
from tests.fakes.klines import random_walk_klines

RETURN = Topic(
    topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=15, epoch_length_blocks=60
)
VOLATILITY = replace(RETURN, target=Target.VOLATILITY)
DAY = random_walk_klines(2 * 1440, seed=3)
TOPICS = [pytest.param(RETURN, id="return"), pytest.param(VOLATILITY, id="volatility")]


def rest_of(topic: Topic, klines: Klines) -> Floats:
    """A forecast at each candle that reads its close and those before."""
    past: Floats = np.tanh(np.log(klines.close / np.concatenate([klines.close[:1], klines.close[:-1]])))
    return past if topic is RETURN else 1e-4 + np.abs(past)


def without(klines: Klines, row: int) -> Klines:
    return klines.rows(0, row).merge(klines.rows(row + 1, len(klines)))


def test_the_interval_begins_where_the_nonce_blocks_minute_does() -> None:
    """Blocks of 5.3 s: nonces drift over the minute, and each base is cut down to it."""
    epochs = epochs_between(RETURN, 10 * DAY_MS, 11 * DAY_MS, block_ms=5300)
    assert (epochs.base_ms % MINUTE_MS == 0).all()
    nonces_ms = epochs.number * 60 * 5300
    assert ((nonces_ms - epochs.base_ms >= 0) & (nonces_ms - epochs.base_ms < MINUTE_MS)).all()
    assert set(np.diff(epochs.base_ms)) == {300_000, 360_000}
    assert epochs.ratio == 3


@pytest.mark.parametrize("nonce_ms", [9 * DAY_MS + 17_000, 12 * DAY_MS + 59_999], ids=["before", "after"])
def test_epochs_are_counted_from_a_nonce_block_that_is_known(nonce_ms: int) -> None:
    """Of the topic, before or after the span; its own base would be the minute in which it was made."""
    epochs = epochs_between(RETURN, 10 * DAY_MS, 11 * DAY_MS, block_ms=5310.5, nonce_ms=nonce_ms)
    assert epochs.base_ms[0] >= 10 * DAY_MS
    assert epochs.base_ms[-1] < 11 * DAY_MS
    blocks = 60 * np.round((epochs.base_ms + MINUTE_MS / 2 - nonce_ms) / (60 * 5310.5))
    np.testing.assert_array_equal(epochs.base_ms, (nonce_ms + blocks * 5310.5) // MINUTE_MS * MINUTE_MS)


@pytest.mark.parametrize(("blocks", "ratio"), [(60, 3), (12, 15), (360, 1), (None, 1)])
def test_the_ratio_is_the_horizon_over_the_epoch(blocks: int | None, ratio: int) -> None:
    assert epochs_between(replace(RETURN, epoch_length_blocks=blocks), 0, DAY_MS).ratio == ratio


def test_a_whole_interval_that_is_known_is_the_truth() -> None:
    """With 14 of 15 minutes known the answer lacks the last minute's move alone."""
    epochs = epochs_between(RETURN, int(DAY.open_time_ms[0]), DAY.end_ms)
    past = past_of(RETURN, DAY, epochs)
    for epoch in (20, 50):
        row = int(row_of(DAY, epochs.base_ms[epoch : epoch + 1])[0])
        assert past.base[epoch] == DAY.close[row]
        assert past.truth[epoch] == pytest.approx(np.log(DAY.close[row + 15] / DAY.close[row]), rel=1e-9)
        for known_min in (0, 1, 2):
            moved = np.log(DAY.close[row + known_min] / DAY.close[row])
            assert answers(past, DAY, None, known_min)[epoch] == pytest.approx(moved, abs=1e-12)
            rest = answers(past, DAY, np.full(len(DAY), 0.015), known_min)[epoch]
            assert rest == pytest.approx(moved + 0.001 * (15 - known_min), rel=1e-9)


def test_a_volatility_is_its_known_minutes_and_the_forecast_of_the_others() -> None:
    epochs = epochs_between(VOLATILITY, int(DAY.open_time_ms[0]), DAY.end_ms)
    past, epoch = past_of(VOLATILITY, DAY, epochs), 60
    row = int(row_of(DAY, epochs.base_ms[epoch : epoch + 1])[0])
    returns = np.diff(np.log(DAY.close))
    before, after = returns[row - 15 : row], returns[row : row + 15]
    base, truth = (volatility_of(part, MINUTE_MS, past.head.kind) for part in (before, after))
    assert past.truth[epoch] == pytest.approx(np.log(truth / base), rel=1e-9)
    assert answers(past, DAY, None, 0)[epoch] == pytest.approx(0.0, abs=1e-12)
    known = answers(past, DAY, np.full(len(DAY), 0.002), 1)[epoch]
    expected = ((after[0] ** 2 + 14 * 4e-6) - (after[0] ** 2 + 14 * 4e-6) / 15) / 14
    assert known == pytest.approx(np.log(np.sqrt(expected) / base), rel=1e-9)


def check_clock(topic: Topic, known_min: int, answered: Callable[..., Floats] = answers) -> None:
    """Fail if a candle that closes after the answer changes it, or the path inside a candle."""
    epochs = epochs_between(topic, int(DAY.open_time_ms[0]), DAY.end_ms)
    epoch = len(epochs.number) // 2
    moment_ms = int(epochs.base_ms[epoch]) + known_min * MINUTE_MS
    known = int(np.searchsorted(DAY.open_time_ms, moment_ms))  # candles that have closed by then
    order = np.concatenate([np.arange(known), np.random.default_rng(1).permutation(np.arange(known, len(DAY)))])
    close = DAY.close[order] * np.where(np.arange(len(DAY)) < known, 1.0, 1.5)
    other = replace(DAY, open=close, high=close * 1.2, low=close / 1.2, close=close)

    def before(klines: Klines) -> tuple[Floats, Floats, Floats]:
        past = past_of(topic, klines, epochs)
        said = answered(past, klines, rest_of(topic, klines), known_min)
        return said[: epoch + 1], past.back[: epoch + 1], past.fitted[: epoch + 1]

    assert np.isfinite(before(DAY)[0][epoch])
    for mine, theirs in zip(before(DAY), before(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("known_min", [0, 1, 2])
def test_nothing_after_the_answer_is_read_nor_the_path_inside_a_candle(topic: Topic, known_min: int) -> None:
    check_clock(topic, known_min)


def a_minute_too_much(past: Past, klines: Klines, rest: Floats, known_min: int) -> Floats:
    return answers(past, klines, rest, known_min + 1)


def a_base_that_is_late(past: Past, klines: Klines, rest: Floats, known_min: int) -> Floats:
    late = replace(past.epochs, base_ms=past.epochs.base_ms + MINUTE_MS)
    return answers(past_of(past.topic, klines, late), klines, rest, known_min)


def the_path_inside(past: Past, klines: Klines, rest: Floats, known_min: int) -> Floats:
    return answers(past, klines, rest + np.log(klines.high / klines.low), known_min)


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("known_min", [0, 1, 2])
@pytest.mark.parametrize("leak", [a_minute_too_much, a_base_that_is_late, the_path_inside])
def test_a_leak_of_the_clock_is_caught(topic: Topic, known_min: int, leak: Callable[..., Floats]) -> None:
    with pytest.raises(AssertionError):
        check_clock(topic, known_min, leak)


@pytest.mark.parametrize("topic", TOPICS)
def test_epochs_of_a_missing_candle_are_missing_and_no_others_change(topic: Topic) -> None:
    epochs, row = epochs_between(topic, int(DAY.open_time_ms[0]), DAY.end_ms), 1500
    whole, torn = past_of(topic, DAY, epochs), past_of(topic, without(DAY, row), epochs)
    gone_ms = int(DAY.open_time_ms[row])
    touched = np.isfinite(whole.truth) & ~np.isfinite(torn.truth)
    assert touched.any()
    assert (np.abs(epochs.base_ms[touched] - gone_ms) <= 31 * MINUTE_MS).all()
    both = np.isfinite(torn.truth)
    np.testing.assert_allclose(torn.truth[both], whole.truth[both], rtol=1e-12)


def test_the_trailing_fit_is_of_targets_that_had_ended() -> None:
    klines = random_walk_klines(10 * 1440, seed=5)
    epochs = epochs_between(VOLATILITY, int(klines.open_time_ms[0]), klines.end_ms)
    past, epoch = past_of(VOLATILITY, klines, epochs), 2500
    ended = np.flatnonzero(epochs.base_ms + 15 * MINUTE_MS <= epochs.base_ms[epoch])[-7 * 288 :]
    x, y = -past.back[ended], past.truth[ended]
    there = np.isfinite(x) & np.isfinite(y)
    slope, intercept = np.polyfit(x[there], y[there], 1)
    assert past.fitted[epoch] == pytest.approx(intercept - slope * past.back[epoch], rel=1e-8)
    now = np.log(past.base)
    assert past.back[epoch] == pytest.approx(np.nanmean(now[epoch - 287 : epoch + 1]) - now[epoch], rel=1e-9)


def test_a_market_that_stands_still_has_no_change_of_volatility() -> None:
    still = replace(DAY, open=DAY.close * 0 + 1, high=DAY.close * 0 + 1, low=DAY.close * 0 + 1, close=DAY.close * 0 + 1)
    past = past_of(VOLATILITY, still, epochs_between(VOLATILITY, int(still.open_time_ms[0]), still.end_ms))
    assert not np.isfinite(past.truth).any()
    assert not np.isfinite(answers(past, still, None, 1)).any()


def test_an_hourly_forecast_is_held_until_the_next_and_no_longer() -> None:
    close_ms = DAY.open_time_ms[0] + HOUR_MS * np.array([1, 2, 5])
    minutes = held(np.array([1.0, 2.0, 5.0]), close_ms, DAY, HOUR_MS)
    assert np.isnan(minutes[58])
    assert (minutes[59], minutes[118], minutes[119], minutes[179]) == (1.0, 1.0, 2.0, 2.0)
    assert np.isnan(minutes[181])
    assert minutes[300] == 5.0


def test_nothing_is_replayed_without_klines() -> None:
    nothing = Klines.empty(MINUTE_MS)
    past = past_of(RETURN, nothing, epochs_between(RETURN, 0, 0))
    assert len(answers(past, nothing, None, 1)) == 0
