"""Rounds on markets whose candles hold rounding noise, constants or next to nothing: each ends with a network that is
published, and no feature that was silent while it was trained can throw its answers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from core.clock import DAY_MS
from core.errors import IncompatibleModel
from core.topic import Target, Topic
from klines.klines import Klines
from model.evaluation import onnx_network
from model.features import FEATURES, LIMITS, compute, varying
from model.forecaster import MOST_MOVED, BiRNNForecaster, Naive, value
from model.heads import LEADER, MINUTE, head_of, panels_for
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from updater.round import run_round
from updater.state import Outcome
from updater.training_settings import training_config

DAYS = 5
NOW_MS = START_MS + DAYS * DAY_MS
PRICE, RETURN, ETH_15M, BTC_15M = (
    Topic(topic_id=number, token=token, symbol=f"{token}USDT", target=target, horizon_min=minutes, loss=loss)
    for number, (token, target, minutes, loss) in enumerate(
        [
            ("ETH", Target.PRICE, 10, "mse"),
            ("ETH", Target.LOG_RETURN, 5, "czar"),
            ("ETH", Target.VOLATILITY, 15, "mse"),
            ("BTC", Target.VOLATILITY, 15, "mae"),
        ],
        1,
    )
)
(PLAN,) = panels_for([PRICE, RETURN, ETH_15M, BTC_15M]).values()
TRAINING: dict[str, JsonValue] = {
    "lookback": 8,
    "seeds": 1,
    "hidden_layer_size": 4,
    "num_layers": 1,
    "epochs": 2,
    "learning_rate": 0.02,
    "batch_size": 64,
}
NONE = float("nan")
ROW = np.arange(DAYS * 1440)
Change = Callable[[Klines], Klines]


def filled(klines: Klines, **columns: float) -> Klines:
    return replace(klines, **{name: np.full(len(klines), number) for name, number in columns.items()})  # type: ignore[arg-type]


def priced(klines: Klines, change: Callable[["np.ndarray[tuple[int], np.dtype[np.float64]]"], object]) -> Klines:
    return replace(klines, **{name: change(getattr(klines, name)) for name in ("open", "high", "low", "close")})  # type: ignore[arg-type]


def half(klines: Klines, noise: float = 0.0) -> Klines:
    """Takers buy half of every candle, but for rounding."""
    rounding = noise * np.random.default_rng(1).standard_normal(len(klines))
    return replace(klines, taker_buy_base=klines.volume * (0.5 + rounding), taker_buy_quote=klines.quote_volume / 2)


def only_btc(change: Change) -> Change:
    return lambda klines: change(klines) if klines.close[0] == walks()[LEADER].close[0] else klines


ODD: Mapping[str, Change] = {
    "takers buy half": half,
    "takers buy half, rounded to 1e-10": lambda k: half(k, 1e-10),
    "takers buy half, rounded to 1e-5": lambda k: half(k, 1e-5),
    "takers buy half but once": lambda k: replace(half(k), taker_buy_base=k.volume * np.where(ROW == 3000, 0.9, 0.5)),
    "takers buy all": lambda k: replace(k, taker_buy_base=k.volume),
    "no taker told": lambda k: filled(k, taker_buy_base=NONE, taker_buy_quote=NONE),
    "nothing but prices": lambda k: filled(
        k, volume=0, quote_volume=NONE, trades=NONE, taker_buy_base=NONE, taker_buy_quote=NONE
    ),
    "equal volumes and trades": lambda k: filled(k, volume=10, trades=7, taker_buy_base=4),
    "candles of one price": lambda k: replace(k, open=k.close, high=k.close, low=k.close),
    "one tick": lambda k: priced(k, lambda prices: np.round(prices / 2) * 2),
    "one price": lambda k: priced(k, lambda prices: np.ones(len(prices))),
    "prices that are rounding noise": lambda k: priced(
        k, lambda prices: 1 + 1e-13 * np.random.default_rng(2).integers(0, 2, len(prices)) * (prices > 0)
    ),
    "moves an hour a day": lambda k: priced(k, lambda prices: np.where(ROW % 1440 < 60, prices, 2000.0)),
    "a straight line up": lambda k: priced(k, lambda prices: 2000.0 * np.exp(1e-5 * np.arange(len(prices)))),
    "a leader of one price": only_btc(lambda k: priced(k, lambda prices: np.ones(len(prices)))),
    "a leader whose takers buy half": only_btc(half),
}


def walks() -> dict[str, Klines]:
    return {symbol: random_walk_klines(len(ROW), seed=seed) for seed, symbol in enumerate(PLAN.symbols, 1)}


def sane(klines: Klines) -> Klines:
    """With highs and lows that hold open and close, as the store's candles have."""
    return replace(
        klines,
        high=np.maximum.reduce([klines.open, klines.high, klines.close]),
        low=np.minimum.reduce([klines.open, klines.low, klines.close]),
    )


def market(kind: str) -> dict[str, Klines]:
    return {symbol: sane(ODD[kind](run)) for symbol, run in walks().items()}


def round_on(klines: Mapping[str, Klines], registry: Registry) -> Outcome:
    clock = FakeClock(NOW_MS)
    return run_round(PLAN, klines, training_config("minute", TRAINING), 0, registry, clock)


def moved(artefact: Artefact, klines: Mapping[str, Klines]) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """``(F, O)``: how far each feature moves each output, put to its limits in the newest candle of real windows."""
    network, lookback = onnx_network(artefact.onnx), artefact.manifest.lookback
    table = compute(klines["ETHUSDT"], klines[LEADER], MINUTE.reading(lookback))
    x_NLF = np.stack([table.x[row - lookback + 1 : row + 1] for row in np.flatnonzero(table.usable)[::500]])
    found = []
    for feature in range(len(FEATURES)):
        said = []
        for limit in (-LIMITS[feature], LIMITS[feature]):
            jumped_NLF = x_NLF.copy()
            jumped_NLF[:, -1, feature] = limit
            said.append(np.abs(network(jumped_NLF) - network(x_NLF)).max(axis=0))
        found.append(np.maximum(*said))
    return np.array(found)


@pytest.mark.parametrize("kind", ODD)
def test_a_round_ends_with_a_network_that_no_feature_throws(kind: str, tmp_path: Path) -> None:
    klines, registry = market(kind), Registry(tmp_path)
    outcome = round_on(klines, registry)
    assert outcome.version is not None
    artefact = registry.open(outcome.version)
    moved_FO = moved(artefact, klines)
    forecaster = BiRNNForecaster(artefact)
    trusted_O = np.array([forecaster.calibration.most(head) for head in forecaster.heads])
    assert (moved_FO * trusted_O).max() <= MOST_MOVED
    tables = [compute(run, klines[LEADER], PLAN.panel) for run in klines.values()]
    silent_F = ~varying(np.concatenate([table.x[table.usable] for table in tables]))
    np.testing.assert_array_equal(moved_FO[silent_F], 0)
    forecasts, reasons = forecaster.forecast(klines)
    assert not reasons
    for topic in PLAN.topics:
        run = klines[topic.symbol]
        value(topic, Naive.forecast(run, topic.symbol, head_of(topic)), float(run.close[-1]))
        value(topic, forecasts[topic.symbol, head_of(topic)], float(run.close[-1]))


def test_the_champion_of_a_market_that_never_moved_says_that_it_will_not(tmp_path: Path) -> None:
    """And it is there, so that NO_MODEL_POLICY=refuse has an answer too."""
    klines, registry = market("one price"), Registry(tmp_path)
    outcome = round_on(klines, registry)
    assert outcome.version is not None
    champions = registry.champions()
    assert {one.key: champions[one.key].version for one in PLAN.topics} == dict.fromkeys(
        (one.key for one in PLAN.topics), outcome.version
    )
    forecasts, _ = BiRNNForecaster(registry.open(outcome.version)).forecast(klines)
    answers = [value(one, forecasts[one.symbol, head_of(one)], 1.0) for one in PLAN.topics]
    assert answers == [1.0, 0.0, 0.0, 0.0]


def test_a_network_that_one_feature_throws_is_refused_and_the_champions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    klines, registry = walks(), Registry(tmp_path)
    round_on(klines, registry)
    before = registry.champions()
    versions = registry.versions()
    monkeypatch.setattr("model.forecaster.MOST_MOVED", 1e-3)  # as a training that went wrong
    with pytest.raises(
        IncompatibleModel,
        match=r"the new network: \S+ moves by \S+ when \S+ alone goes to \S+, at most 0.001 .*TRAINING",
    ):
        round_on(klines, registry)
    monkeypatch.undo()
    assert registry.champions() == before
    assert registry.versions() == versions
