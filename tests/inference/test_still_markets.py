"""Markets that stand still: a pair of two dollars, a halted pair whose candles go on, a lull of a few minutes.

No move and a volatility of 0 are right there, and are answered; the first candle that moves is heard at once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, MINUTE_MS, iso
from core.topic import Target, Topic, Volatility
from exchange.server import SimulatedExchange
from exchange.sources.replay import Replay
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from klines.returns import realised_volatility
from model.registry.versions import Registry
from tests.fakes.clock import BASE_MS, RunningClock, eventually
from tests.fakes.klines import random_walk_klines, write_klines
from tests.inference.stand import Node, node, publish, topic

FIRST_MS, ROWS = BASE_MS - 3 * DAY_MS, 13 * 1440  # ten days are left after now, so that the replay is not shifted
SILENCE = -3.5  # of a network: what it learns of a market that stands still, a volatility of 0
MOVES_MS = BASE_MS + 30 * MINUTE_MS

ETH_PRICE, ETH_RETURN = topic(1, "ETH", 10), topic(2, "ETH", 5, Target.LOG_RETURN)
ETH_15M, ETH_4H, SOL_15M, BTC_15M = (
    topic(number, token, minutes, Target.VOLATILITY)
    for number, token, minutes in ((3, "ETH", 15), (4, "ETH", 240), (5, "SOL", 15), (6, "BTC", 15))
)
LOSSES = tuple(
    replace(ETH_15M, topic_id=10 + number, loss=loss, volatility=volatility)
    for number, (loss, volatility) in enumerate(
        [
            ("mse", Volatility.STD_HORIZON),
            ("mae", Volatility.STD_ANNUAL),
            ("huber", Volatility.RMS),
            ("logcosh", Volatility.RMS_HORIZON),
            ("zptae", Volatility.STD),
        ]
    )
)
STILL = (ETH_PRICE, ETH_RETURN, ETH_15M, ETH_4H, *LOSSES)


def still(klines: Klines, from_ms: int, until_ms: int, *, traded: bool) -> Klines:
    """At the price before, between two moments."""
    there = (klines.open_time_ms >= from_ms) & (klines.open_time_ms < until_ms)
    price = float(klines.close[max(0, int(np.argmax(there)) - 1)])
    changed = {name: np.where(there, price, getattr(klines, name)) for name in PRICE_COLUMNS}
    flows = [name for name in COLUMNS if name not in PRICE_COLUMNS]
    changed |= {name: np.where(there & (not traded), 0.0, getattr(klines, name)) for name in flows}
    return replace(klines, **changed)  # type: ignore[arg-type]


def recorded(folder: Path, *, traded: bool) -> dict[str, Klines]:
    """ETH stands still until MOVES_MS, SOL for the last 20 minutes, BTC never."""
    walks = {
        symbol: random_walk_klines(ROWS, seed=seed, start_ms=FIRST_MS)
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"))
    }
    walks["ETHUSDT"] = still(walks["ETHUSDT"], 0, MOVES_MS, traded=traded)
    walks["SOLUSDT"] = still(walks["SOLUSDT"], BASE_MS - 20 * MINUTE_MS, BASE_MS + MINUTE_MS, traded=traded)
    for symbol, run in walks.items():
        write_klines(folder, symbol, run)
    return walks


@contextmanager
def standing(
    folder: Path, *topics: Topic, traded: bool = True, served: Mapping[Topic, float] | None = None
) -> Iterator[tuple[Node, RunningClock, dict[str, Klines]]]:
    """A node on such a market.

    Args:
        served: what the champion's network of a topic says, whatever it reads.
    """
    clock = RunningClock()
    klines = recorded(folder / "klines", traded=traded)
    registry = Registry(folder)
    for of_topic, output in (served or {}).items():
        version = publish(registry, output, clock.now_ms())
        registry.promote([of_topic], version, clock.now_ms())
    with (
        SimulatedExchange(source=Replay.open(folder / "klines", clock.now_ms()), clock=clock) as exchange,
        node(folder, exchange, clock, topics=topics) as running,
    ):
        yield running, clock, klines


@pytest.mark.parametrize("traded", [True, False], ids=["traded at one price", "halted"])
def test_a_market_that_stands_still_is_answered(tmp_path: Path, traded: bool) -> None:
    with standing(tmp_path, *STILL, SOL_15M, BTC_15M, traded=traded) as (running, _, klines):
        said = {
            one: running.get(f"/inference/{one.token}?topic={one.topic_id}&height=7")
            for one in (*STILL, SOL_15M, BTC_15M)
        }
        assert {one.topic_id: answer.text for one, answer in said.items() if answer.status_code != 200} == {}
        assert float(said[ETH_PRICE].text) == pytest.approx(klines["ETHUSDT"].close[0], abs=1e-8)
        for one in (*STILL[1:], SOL_15M):
            assert said[one].text == "0", one
        assert float(said[BTC_15M].text) > 0


def test_a_network_may_say_that_a_still_market_stays_so(tmp_path: Path) -> None:
    with standing(tmp_path, ETH_15M, served={ETH_15M: SILENCE}) as (running, _, _):
        answer = running.get("/inference/ETH?topic=3&height=7")
        assert (answer.text, answer.headers["X-Model-Version"][:7]) == ("0", "minute-")


def test_the_first_candle_that_moves_is_heard(tmp_path: Path) -> None:
    with standing(tmp_path, ETH_15M) as (running, clock, klines):
        assert running.get("/inference/ETH?topic=3").text == "0"
        clock.jump(MOVES_MS + MINUTE_MS - BASE_MS)
        eventually(
            lambda: running.get("/inference/ETH?topic=3").headers.get("X-As-Of") == iso(MOVES_MS + MINUTE_MS),
            what="a forecast from the first candle that moved",
        )
        known = klines["ETHUSDT"].between(0, MOVES_MS + MINUTE_MS)
        last_window = realised_volatility(known, 15)[-1]
        assert last_window > 0
        assert float(running.get("/inference/ETH?topic=3").text) == pytest.approx(ETH_15M.unit * last_window, rel=1e-6)
