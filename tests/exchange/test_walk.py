"""Invented candles: the same for ever, driftless, with volatility that clusters; and the candle of this moment."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import CLASSIFICATION, catalogue, default_symbol
from exchange.sources.source import POINTS, path_inside
from exchange.sources.walk import EPOCH_DAY, LISTINGS, REFERENCE_DAY, RandomWalk
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Floats, Klines
from klines.spans import INTERVALS_MS
from tests.fakes.clock import START_MS
from tests.fakes.klines import assert_exact, assert_same

WALK = RandomWalk(seed=0)
GOLDEN_HOUR = [2199.59, 2212.94, 2197.62, 2209.39]


@cache
def two_months(symbol: str) -> Klines:
    return WALK.klines(symbol, MINUTE_MS, START_MS, START_MS + 60 * DAY_MS)


def log_returns(klines: Klines) -> Floats:
    return np.diff(np.log(klines.close))


def correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# -- the same for ever


@settings(deadline=None)
@given(
    symbol=st.sampled_from(["BTCUSDT", "ARBUSDT"]),
    interval_ms=st.sampled_from([m for m in INTERVALS_MS.values() if m <= HOUR_MS * 4]),
    start_ms=st.integers(START_MS, START_MS + 2 * DAY_MS),
    length_ms=st.integers(0, DAY_MS),
)
def test_any_part_is_what_it_is_in_the_whole(symbol: str, interval_ms: int, start_ms: int, length_ms: int) -> None:
    whole = two_months(symbol).between(START_MS, START_MS + 4 * DAY_MS)
    whole = whole if interval_ms == MINUTE_MS else whole.resample(interval_ms)
    part = WALK.klines(symbol, interval_ms, start_ms, start_ms + length_ms)
    assert_exact(part, whole.between(start_ms, start_ms + length_ms), PRICE_COLUMNS)
    assert_same(part, whole.between(start_ms, start_ms + length_ms), FLOW_COLUMNS, rtol=1e-12, atol=0.0)


def test_another_instance_asked_in_another_order_has_the_same_prices() -> None:
    other = RandomWalk(seed=0, symbols=["ETHUSDT"])
    other.klines("ETHUSDT", HOUR_MS, START_MS - 40 * DAY_MS, START_MS + 40 * DAY_MS)
    other.klines("ETHUSDT", MINUTE_MS, START_MS + 300 * DAY_MS, START_MS + 301 * DAY_MS)
    days = START_MS, START_MS + 3 * DAY_MS
    assert_exact(other.klines("ETHUSDT", MINUTE_MS, *days), WALK.klines("ETHUSDT", MINUTE_MS, *days))


def test_the_prices_are_these() -> None:
    """Golden: whoever kept klines of an earlier release must not find others after an update."""
    hour = WALK.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + HOUR_MS).resample(HOUR_MS)
    assert [float(getattr(hour, name)[0]) for name in PRICE_COLUMNS] == GOLDEN_HOUR


def test_other_seeds_and_symbols_have_other_moves() -> None:
    days = MINUTE_MS, START_MS, START_MS + 5 * DAY_MS
    bitcoin, other_seed = (log_returns(tape.klines("BTCUSDT", *days)) for tape in (WALK, RandomWalk(seed=1)))
    assert abs(correlation(bitcoin, other_seed)) < 0.05
    assert 0.5 < correlation(bitcoin, log_returns(WALK.klines("ETHUSDT", *days))) < 0.95


@pytest.mark.parametrize("symbol", LISTINGS)
def test_candles_begin_at_the_listing_s_price_connect_and_lie_on_ticks(symbol: str) -> None:
    start_ms = (EPOCH_DAY + REFERENCE_DAY) * DAY_MS
    klines = WALK.klines(symbol, MINUTE_MS, start_ms, start_ms + 3 * DAY_MS)
    assert len(klines) == 3 * 1_440
    assert klines.open[0] == LISTINGS[symbol].price
    np.testing.assert_array_equal(klines.open[1:], klines.close[:-1])
    for name in PRICE_COLUMNS:
        prices = getattr(klines, name)
        np.testing.assert_array_equal(prices, np.round(prices, WALK.symbols[symbol].decimals))
    assert (klines.taker_buy_base <= klines.volume).all()
    assert (klines.taker_buy_quote <= klines.quote_volume).all()
    assert (klines.trades >= 1).all()


def test_there_is_nothing_before_its_epoch_and_after_its_end() -> None:
    first_ms = WALK.symbols["BTCUSDT"].first_ms
    opening = WALK.klines("BTCUSDT", HOUR_MS, first_ms - 2 * HOUR_MS, first_ms + HOUR_MS)
    assert opening.open_time_ms.tolist() == [first_ms]
    assert len(WALK.klines("BTCUSDT", HOUR_MS, first_ms + 8_000 * DAY_MS, first_ms + 8_001 * DAY_MS)) == 0
    assert len(WALK.klines("BTCUSDT", HOUR_MS, START_MS, START_MS - HOUR_MS)) == 0


def test_every_asset_of_the_catalogue_is_traded() -> None:
    assets = {topic.asset for topic in catalogue().values() if topic.target != CLASSIFICATION}
    assert {default_symbol(asset) for asset in assets} <= set(LISTINGS)


def test_a_symbol_that_nobody_invented_is_refused() -> None:
    with pytest.raises(ConfigError, match="'DOGEUSDT' is not invented here; give some of BTCUSDT"):
        RandomWalk(symbols=["BTCUSDT", "DOGEUSDT"])


# -- what can be foreseen and what cannot


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "ARBUSDT"])
def test_returns_tell_nothing_of_the_next_one_but_volatility_clusters(symbol: str) -> None:
    klines = two_months(symbol)
    returns = log_returns(klines)
    assert abs(correlation(returns[1:], returns[:-1])) < 0.02
    assert abs(correlation(returns[1:], log_returns(two_months("BTCUSDT"))[:-1])) < 0.02
    hourly = returns[: len(returns) // 60 * 60].reshape(-1, 60).sum(axis=1)
    assert abs(correlation(hourly[1:], hourly[:-1])) < 0.08
    size = np.abs(returns)
    assert correlation(size[1:], size[:-1]) > 0.1
    quarter = np.sqrt((size[: len(size) // 15 * 15].reshape(-1, 15) ** 2).mean(axis=1))
    assert correlation(quarter[1:], quarter[:-1]) > 0.5
    assert correlation(np.log(klines.volume[1:]), size) > 0.3
    assert 0.3 < size.std() / (0.5 / np.sqrt(365 * 1_440)) < 1.5


# -- the candle of this moment


@settings(deadline=None)
@given(
    prices=st.lists(st.integers(1_000, 9_000), min_size=4, max_size=4),
    key=st.integers(0, 2**32),
    minute=st.integers(0, 10**7),
)
def test_a_path_leads_from_open_to_close_and_touches_both_extremes(prices: list[int], key: int, minute: int) -> None:
    low, opened, close, high = (price / 100 for price in (min(prices), prices[1], prices[2], max(prices)))
    columns = dict.fromkeys(FLOW_COLUMNS, np.ones(1)) | {
        name: np.array([price]) for name, price in zip(PRICE_COLUMNS, (opened, high, low, close), strict=True)
    }
    candle = Klines(interval_ms=MINUTE_MS, open_time_ms=np.array([minute * MINUTE_MS]), **columns)
    path = path_inside(candle, 2, key)
    assert (path[0], path[-1], path.min(), path.max(), len(path)) == (opened, close, low, high, POINTS)


@settings(deadline=None)
@given(
    interval_ms=st.sampled_from(list(INTERVALS_MS.values())),
    share=st.floats(0, 1, exclude_max=True),
    step_ms=st.integers(0, HOUR_MS),
)
def test_the_open_candle_only_widens(interval_ms: int, share: float, step_ms: int) -> None:
    open_ms = START_MS + 5 * DAY_MS
    early_ms = open_ms + int(share * interval_ms)
    late_ms = min(early_ms + step_ms, open_ms + interval_ms - 1)
    early, late = (WALK.unfinished("ETHUSDT", interval_ms, now_ms) for now_ms in (early_ms, late_ms))
    assert early.open_time_ms.tolist() == late.open_time_ms.tolist() == [open_ms]
    assert early.open[0] == late.open[0]
    assert early.high[0] <= late.high[0]
    assert early.low[0] >= late.low[0]
    assert early.volume[0] <= late.volume[0] + 1e-9
    assert WALK.price_at("ETHUSDT", early_ms) == early.close[0]


@pytest.mark.parametrize("interval", INTERVALS_MS)
def test_the_open_candle_ends_as_the_closed_one(interval: str) -> None:
    interval_ms, open_ms = INTERVALS_MS[interval], START_MS + 6 * DAY_MS
    last = WALK.unfinished("BTCUSDT", interval_ms, open_ms + interval_ms - 1)
    closed = WALK.klines("BTCUSDT", interval_ms, open_ms, open_ms + interval_ms)
    assert_exact(last, closed, PRICE_COLUMNS)
    assert_same(last, closed, FLOW_COLUMNS, rtol=1e-12, atol=0.0)
