"""Symbols listed days, a day or minutes ago beside one with a whole history: judged and served on what there is."""

from dataclasses import dataclass

import pytest

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Klines
from model.calibration import POOLED, Calibration
from model.features import rows_needed
from model.forecaster import BiRNNForecaster
from model.heads import Head, Kind
from model.panels import MINUTE, panels_for
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.updater.folder import TINY
from updater.round import run_round
from updater.state import Verdict
from updater.training_settings import training_config

DAYS = 30  # the judge part is 3.6 of them
END_MS = START_MS + DAYS * DAY_MS
CANDLES = {"BTC": DAYS * 1440, "THREE": 3 * 1440, "LATE": 1800, "DAY": 1440, "FEW": 100, "NONE": 0}
VOLATILITY, RETURN = Head(Kind.VOLATILITY, 15), Head(Kind.RETURN, 15, "czar")


def topic(number: int, token: str, target: Target, horizon_min: int, loss: str = "mse") -> Topic:
    symbol = f"{token}USDT"
    return Topic(topic_id=number, token=token, symbol=symbol, target=target, horizon_min=horizon_min, loss=loss)


TOPICS = tuple(
    made
    for number, token in enumerate(CANDLES)
    for made in (
        topic(10 * number + 1, token, Target.VOLATILITY, 15),
        topic(10 * number + 2, token, Target.LOG_RETURN, 15, "czar"),
        topic(10 * number + 3, token, Target.LOG_RETURN, 60, "ztae"),
    )
)
PLAN = panels_for(TOPICS)[MINUTE]
KLINES: dict[str, Klines] = {
    f"{token}USDT": random_walk_klines(rows + 1, seed=number, start_ms=END_MS - (rows + 1) * MINUTE_MS).tail(rows)
    for number, (token, rows) in enumerate(CANDLES.items())
}


@dataclass(frozen=True)
class Round:
    verdicts: dict[str, list[Verdict]]  # by token
    artefact: Artefact
    champions: set[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Round:
    registry = Registry(tmp_path_factory.mktemp("data"))
    outcome = run_round(PLAN, KLINES, training_config("minute", TINY), 0, registry, FakeClock(END_MS))
    assert outcome.version
    return Round(
        verdicts={t: [v for v in outcome.verdicts if v.symbol == f"{t}USDT"] for t in CANDLES},
        artefact=registry.open(outcome.version),
        champions=set(registry.champions()),
    )


def test_each_is_judged_on_the_rows_it_has(done: Round) -> None:
    rows = {token: {verdict.head: verdict.rows for verdict in verdicts} for token, verdicts in done.verdicts.items()}
    for head, horizon in ((VOLATILITY.key, 15), (RETURN.key, 15), ("return-1h-ztae", 60)):
        assert rows["THREE"][head] == CANDLES["THREE"] - rows_needed(MINUTE) + 1 - horizon
        assert rows["LATE"][head] == CANDLES["LATE"] - rows_needed(MINUTE) + 1 - horizon
        assert rows["BTC"][head] > rows["THREE"][head]
        assert rows["DAY"][head] == rows["FEW"][head] == rows["NONE"][head] == 0


def test_without_a_row_nothing_is_promoted_and_nobody_else_is_held_back(done: Round) -> None:
    for token in ("DAY", "FEW", "NONE"):
        assert {verdict.promoted for verdict in done.verdicts[token]} == {False}
        assert all("no row" in verdict.reason for verdict in done.verdicts[token])
    for token in ("BTC", "THREE", "LATE"):
        for verdict in done.verdicts[token]:
            assert verdict.challenger is not None
            assert verdict.naive is not None


def test_a_listing_newer_than_the_validation_has_the_pooled_bias_and_no_return(done: Round) -> None:
    fitted = done.artefact.manifest.split
    assert END_MS - CANDLES["THREE"] * MINUTE_MS > fitted.validate_end_ms
    calibration = Calibration.from_json(done.artefact.manifest.calibration)
    pooled = calibration.factors[POOLED][VOLATILITY.key]
    for token in ("THREE", "LATE", "DAY", "FEW", "NONE"):
        assert calibration.factor(f"{token}USDT", VOLATILITY) == pooled
        assert calibration.factor(f"{token}USDT", RETURN) == 0.0
    assert VOLATILITY.key in calibration.factors["BTCUSDT"]


def test_it_is_forecast_live_as_soon_as_its_window_is_whole(done: Round) -> None:
    forecasts, reasons = BiRNNForecaster(done.artefact).forecast(KLINES)
    for token in ("BTC", "THREE", "LATE"):
        volatility = forecasts[f"{token}USDT", VOLATILITY].volatility
        assert volatility == pytest.approx(6e-4, rel=0.5)
    assert reasons.keys() == {"DAYUSDT", "FEWUSDT", "NONEUSDT"}
    assert reasons["FEWUSDT"] == f"FEWUSDT has 100 klines, a forecast needs {rows_needed(MINUTE)}"
