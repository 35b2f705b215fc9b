"""Days that really happened, through sync, features, training and serving: the collapse of FTX, and the day that
Binance stood still. Every answer is a number that the market bears out, or a refusal with a reason."""

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import WorkerError
from core.settings import NoModelPolicy, Objective
from core.topic import Target, Topic
from inference.answering import InferenceService
from inference.forecast_cache import ForecastCache, rows_to_keep
from inference.stretches import Stretches
from inference.topic_state import Limits
from klines.klines import Klines
from ledger.answer_log import Ledger
from market.live.live_market import opening_of
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.recording import load_recording
from market.store.sync import sync_all
from market.venue import Opening, Price
from market.venues.binance.rest import Binance
from model.panels import MINUTE, panels_for
from model.registry.versions import Registry
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Venue
from updater.round import run_round
from updater.training_settings import training_config

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
TOPICS = tuple(
    Topic(topic_id=3 * at + number, token=symbol[:3], symbol=symbol, target=target, horizon_min=10)
    for at, symbol in enumerate(SYMBOLS)
    for number, target in enumerate((Target.PRICE, Target.LOG_RETURN, Target.VOLATILITY), 1)
)
PLAN = panels_for(TOPICS)[MINUTE]
SMALL = {"lookback": 8, "hidden_layer_size": 8, "epochs": 1, "stride": 4, "seeds": 1}
LIMITS = Limits(anchor_ms=30 * SECOND_MS, klines_ms=180 * SECOND_MS, model_ms=10**12, policy=NoModelPolicy.PERSISTENCE)


class Played:
    """A market as it was at a moment: candles closed by then, and the last one's close as a price a second old."""

    stream_fault = ""

    def __init__(self, klines: Mapping[str, Klines], clock: FakeClock, rows: int) -> None:
        self._klines, self._clock, self._rows = klines, clock, rows

    def snapshot(self, interval_ms: int) -> Mapping[str, Klines]:
        return {symbol: klines.closed(self._clock.now_ms()).tail(self._rows) for symbol, klines in self._klines.items()}

    def anchor(self, symbol: str) -> Price | None:
        known = self._klines[symbol].closed(self._clock.now_ms())
        return Price(price=float(known.close[-1]), asof_ms=known.end_ms) if len(known) else None

    def opening(self, symbol: str, since_ms: int) -> Opening | None:
        return opening_of(self._klines[symbol].closed(self._clock.now_ms()), since_ms, lambda _: "")

    def last_before(self, symbol: str, moment_ms: int) -> Price | None:
        return None

    def kline_fault(self, symbol: str, interval_ms: int) -> str:
        return "halted"

    def price_fault(self, symbol: str) -> str:
        return "halted"

    def source(self, symbol: str, interval_ms: int) -> str:
        return "binance"


@pytest.mark.parametrize(
    ("pattern", "holes"),
    [
        pytest.param("1m-20221106-20221112", 0, id="the FTX week"),
        pytest.param("1m-20230322-20230325", 1, id="the halt"),
    ],
)
def test_it_goes_through_without_a_wrong_answer(shared_data: Path, tmp_path: Path, pattern: str, holes: int) -> None:
    files = tmp_path / "recorded"
    files.mkdir()
    for file in (shared_data / "spot").glob(f"*-{pattern}.parquet"):
        (files / file.name).symlink_to(file)
    real = {symbol: klines for (symbol, _), klines in load_recording(files, SYMBOLS).items()}
    start_ms, end_ms = int(real["BTCUSDT"].open_time_ms[0]), real["BTCUSDT"].end_ms
    clock = FakeClock(end_ms)
    store, quarantine = KlineStore(tmp_path / "klines"), Quarantine()
    with Venue().running() as server:
        for symbol, klines in real.items():
            server.add(symbol, klines)
        venue = Binance([server.url], server.url, clock, quarantine=quarantine)
        reports = sync_all(
            store, venue, [(symbol, MINUTE_MS, start_ms) for symbol in SYMBOLS], end_ms, quarantine=quarantine
        )
    assert [report.failure for report in reports] == [None] * 3
    assert quarantine.counts == {}  # it was wild, and it was true
    stored = {symbol: store.read(symbol, MINUTE_MS, start_ms, end_ms) for symbol in SYMBOLS}
    for symbol, klines in stored.items():
        np.testing.assert_allclose(klines.close, real[symbol].close, rtol=1e-8)
        assert len([*klines.gaps()]) == holes

    registry = Registry(tmp_path)
    outcome = run_round(PLAN, stored, training_config("minute", SMALL), 0, registry, clock)
    assert outcome.ok
    registry.promote(TOPICS, str(outcome.version), clock.now_ms())

    answers, refusals = walk(stored, registry, tmp_path, clock)
    assert answers > 1000
    if holes:
        assert refusals > 0  # while it stood still nobody could be answered, and each was told why


def walk(stored: Mapping[str, Klines], registry: Registry, folder: Path, clock: FakeClock) -> tuple[int, int]:
    """Ask every topic at every seventh minute, and compare each answer with what the candles then were."""
    rows = rows_to_keep(TOPICS)["BTCUSDT", MINUTE_MS]
    with closing(Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", TOPICS, "BINANCE", clock, folder)) as ledger:
        market = Played(stored, clock, rows)
        forecasts, stretches = ForecastCache(TOPICS, market, registry, clock), Stretches(Objective.LOSS, folder)
        service = InferenceService(
            forecasts, TOPICS, market, ledger, clock, limits=LIMITS, market="BINANCE", stretches=stretches
        )
        forecasts.choose()
        answers = refusals = 0
        first_ms = int(stored["BTCUSDT"].open_time_ms[0])
        for at_ms in range(first_ms + rows * MINUTE_MS // 2, stored["BTCUSDT"].end_ms, 7 * MINUTE_MS):
            clock.time_ms = at_ms + SECOND_MS
            forecasts.candles_closed(MINUTE_MS)
            for topic in TOPICS:
                try:
                    value = float(service.answer(topic, None).value)
                except WorkerError as error:
                    refusals += f"topic {topic.key}" in str(error)
                    continue
                answers += 1
                check(topic, value, stored[topic.symbol].closed(clock.time_ms), clock.time_ms)
    return answers, refusals


def check(topic: Topic, value: float, known: Klines, now_ms: int) -> None:
    """An answer is near what the market was, and rests on candles of the last minutes."""
    assert now_ms - known.end_ms <= LIMITS.klines_ms
    close = float(known.close[-1])
    usual = float(np.std(np.diff(np.log(known.tail(240).close)))) + 1e-6
    if topic.target is Target.PRICE:
        assert now_ms - known.end_ms <= LIMITS.anchor_ms
        assert abs(math.log(value / close)) < 10 * usual * math.sqrt(topic.horizon_min)
    elif topic.target is Target.LOG_RETURN:
        assert abs(value) < 10 * usual * math.sqrt(topic.horizon_min)
    else:
        assert 0 <= value < 20 * max(usual, float(np.max(np.abs(np.diff(np.log(known.tail(60).close))))))
