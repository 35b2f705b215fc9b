"""The live market over two venues: it goes on when one is gone, and its series never has two levels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.clock import MINUTE_MS, CorrectedClock
from exchange.server import SimulatedExchange
from klines.klines import PRICE_COLUMNS, Klines
from market.failover.failover import Failover
from market.live.live_market import LiveMarket
from market.quarantine import Quarantine
from market.venue import Price
from market.venues.binance.rest import Binance
from tests.fakes.clock import BASE_MS, RunningClock, eventually

BTC = ("BTCUSDT", MINUTE_MS)
ROWS = 120
APART = 1.0007


class Dearer(Binance):
    """A venue that trades the same market a little higher."""

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        told = super().klines(symbol, interval_ms, start_ms, end_ms)
        changed: dict[str, Any] = {name: getattr(told, name) * APART for name in PRICE_COLUMNS}
        return replace(told, **changed)

    def prices(self, symbols: Any) -> dict[str, Price]:
        return {s: replace(price, price=price.price * APART) for s, price in super().prices(symbols).items()}


@contextmanager
def live_over(
    *exchanges: SimulatedExchange, clock: RunningClock, left: Klines | None = None
) -> Iterator[tuple[LiveMarket, Failover]]:
    """Both run until the end.

    Args:
        left: what an earlier run kept of the series, at the first venue's level.
    """
    quarantine, ours = Quarantine(), CorrectedClock(clock)
    venues = [
        kind([exchange.url], "", ours, timeout_s=1, patience_s=0, quarantine=quarantine, name=name)
        for exchange, kind, name in zip(exchanges, (Binance, Dearer), ("binance", "binanceus"), strict=False)
    ]
    market = Failover(venues, ours, quarantine)
    if left is not None:
        market.begin("BTCUSDT", "binance")
    live = LiveMarket(market, {BTC: ROWS}, ours, tails=None if left is None else {BTC: left})
    live.start(lambda _: None)
    try:
        eventually(lambda: bool(live.anchor("BTCUSDT") and len(live.klines(*BTC))), what="the start")
        yield live, market
    finally:
        live.stop()


@pytest.fixture
def second(clock: RunningClock) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(clock=clock) as exchange:
        yield exchange


def anchor_of(live: LiveMarket) -> Price:
    anchor = live.anchor("BTCUSDT")
    assert anchor
    return anchor


def is_true(live: LiveMarket, exchange: SimulatedExchange, clock: RunningClock) -> bool:
    """Whether the anchor is a price of the last seconds, at the first venue's level."""
    anchor, now_ms = anchor_of(live), clock.now_ms()
    moments = (*range(anchor.asof_ms - 1000, now_ms, 250), now_ms)  # the tape moves every quarter second
    told = [exchange.source.price_at("BTCUSDT", at) for at in moments]
    return any(price is not None and abs(price / anchor.price - 1) < 1e-6 for price in told)


def test_another_venue_stands_in_at_the_same_level_and_the_first_comes_back(
    exchange: SimulatedExchange, second: SimulatedExchange, clock: RunningClock
) -> None:
    with live_over(exchange, second, clock=clock) as (live, _):
        exchange.outage(3600)
        eventually(lambda: anchor_of(live).venue == "binanceus", what="a switch")
        assert is_true(live, second, clock)
        clock.jump(BASE_MS + MINUTE_MS - 300 - clock.now_ms())
        eventually(lambda: live.klines(*BTC).end_ms == BASE_MS + MINUTE_MS, what="a candle of the other venue")
        assert live.source(*BTC) == "binanceus"
        known = live.klines(*BTC)
        true = second.source.klines("BTCUSDT", MINUTE_MS, int(known.open_time_ms[0]), known.end_ms)
        np.testing.assert_allclose(known.close, true.close, rtol=1e-6)
        exchange.clear_faults()
        eventually(lambda: anchor_of(live).venue == "binance", what="its price")
        clock.jump(BASE_MS + 2 * MINUTE_MS - 300 - clock.now_ms())
        eventually(lambda: live.source(*BTC) == "binance", what="its candles")
        eventually(lambda: bool(np.isfinite(live.klines(*BTC).trades).all()), what="its own in place of the other's")
        assert len([*live.klines(*BTC).gaps()]) == 0
        assert live.incidents["venue_changed"] >= 2


def test_with_every_venue_gone_the_price_grows_old_and_is_back_within_seconds(
    exchange: SimulatedExchange, second: SimulatedExchange, clock: RunningClock
) -> None:
    with live_over(exchange, second, clock=clock) as (live, _):
        for gone in (exchange, second):
            gone.outage(3600)
        eventually(lambda: "no venue has prices of BTCUSDT" in live.price_fault("BTCUSDT"), what="the reason")
        assert "binanceus" in live.price_fault("BTCUSDT")
        last = anchor_of(live)
        second.clear_faults()
        eventually(lambda: anchor_of(live) != last, timeout_s=5, what="a price again")
        assert anchor_of(live).venue == "binanceus"
        assert is_true(live, second, clock)


def test_after_a_long_time_off_the_level_is_told_by_what_is_too_old_to_be_kept(
    exchange: SimulatedExchange, second: SimulatedExchange, clock: RunningClock
) -> None:
    end_ms = BASE_MS - 2 * ROWS * MINUTE_MS
    left = exchange.source.klines("BTCUSDT", MINUTE_MS, end_ms - ROWS * MINUTE_MS, end_ms)
    exchange.outage(3600)
    with live_over(exchange, second, clock=clock, left=left) as (live, market):
        eventually(lambda: live.source(*BTC) == "binanceus", what="the other venue")
        assert market.home("BTCUSDT") == "binance"
        true = second.source.klines("BTCUSDT", MINUTE_MS, BASE_MS - ROWS * MINUTE_MS, BASE_MS)
        np.testing.assert_allclose(live.klines(*BTC).close, true.close, rtol=1e-6)
        eventually(lambda: is_true(live, second, clock), what="its price")
