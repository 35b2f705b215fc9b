"""Serving computes what was judged, refuses what was made for other code, and lets no absurd number through."""

import json
import math
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import IncompatibleModel, StaleKlines, UnusableForecast
from core.sources import PERSISTENCE
from core.topic import Target, Topic, Volatility
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from model.answer import value
from model.features import FEATURE_VERSION, FEATURES, FLAT, LIMIT, WARMUP, compute, rows_needed, stands_still
from model.forecaster import BiRNNForecaster, HeadForecast, Naive
from model.heads import Head, Kind, head_of
from model.judging.evaluation import outputs
from model.network import MOST_MOVED, onnx_network
from model.panels import HOUR, MINUTE, PanelPlan
from model.registry.artefact import Artefact
from model.registry.champions import check
from model.registry.versions import Registry
from model.targets import QUIET, decode, naive
from model.windows import build
from tests.data import make_tiny_model as tiny
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.node import untrained_manifest

RETURN_10M = Head(Kind.RETURN, 10)
VOLATILITY_15M = Head(Kind.VOLATILITY, 15)
HEADS = (RETURN_10M, VOLATILITY_15M)
ROWS = rows_needed(MINUTE)
BTC = random_walk_klines(ROWS + 40, seed=1)
ETH = random_walk_klines(ROWS + 40, seed=2)
KLINES = {"BTCUSDT": BTC, "ETHUSDT": ETH}
LAMBDA, BIAS = 0.25, 1.5
CALIBRATION = {"ETHUSDT": {"return-10m": {"lambda": LAMBDA}, "volatility-15m": {"bias": BIAS}}}


def network(
    lookback: int = MINUTE.lookback,
    features: int = len(FEATURES),
    outputs: int = len(HEADS),
    weight: float | None = None,
    weights: "np.ndarray[tuple[int, int], np.dtype[np.float32]] | None" = None,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A linear readout of a window's last row, as an ONNX file; ``weight`` or ``weights`` in place of random ones."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    w_FO = np.random.default_rng(0).normal(0, 0.05, (features, outputs)).astype(dtype)
    if weight is not None:
        w_FO[:] = weight
    if weights is not None:
        w_FO = weights
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "last"], ["row"], axis=1),
            helper.make_node("MatMul", ["row", "w"], ["y"]),
        ],
        "readout",
        [helper.make_tensor_value_info("x", kind, ["N", lookback, features])],
        [helper.make_tensor_value_info("y", kind, ["N", outputs])],
        [numpy_helper.from_array(np.array(lookback - 1), "last"), numpy_helper.from_array(w_FO, "w")],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(content)
    return bytes(content.SerializeToString())


def artefact(onnx_bytes: bytes | None = None, **changes: object) -> Artefact:
    """A version as the registry hands it out, with some of its manifest changed."""
    manifest = untrained_manifest(
        panel="minute",
        interval_ms=MINUTE_MS,
        lookback=MINUTE.lookback,
        heads=tuple(head.key for head in HEADS),
        symbols=("BTCUSDT", "ETHUSDT"),
        calibration=CALIBRATION,
    )
    return Artefact(
        onnx=network() if onnx_bytes is None else onnx_bytes,
        weights=b"",
        manifest=manifest.model_copy(update=changes),
        version="minute-20261122T084500Z-1a2b3c",
    )


def number(forecast: HeadForecast) -> float:
    """The one number of a forecast."""
    (present,) = {forecast.log_return, forecast.volatility} - {None}
    assert present is not None
    return present


@pytest.fixture(scope="module")
def forecaster() -> BiRNNForecaster:
    return BiRNNForecaster(artefact())


def topic(target: Target = Target.PRICE, horizon_min: int = 10) -> Topic:
    return Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=target, horizon_min=horizon_min)


def forecast(number: float | None, scale: float = 5e-4, head: Head = RETURN_10M) -> HeadForecast:
    return HeadForecast(
        symbol="ETHUSDT",
        head=head,
        version="v",
        asof_ms=START_MS,
        log_return=number if head.kind is Kind.RETURN else None,
        volatility=number if head.kind.is_volatility else None,
        scale=scale,
    )


def test_a_forecast_is_the_network_s_output_decoded_and_calibrated(forecaster: BiRNNForecaster) -> None:
    results, reasons = forecaster.forecast(KLINES)
    assert reasons == {}
    assert set(results) == {(symbol, head) for symbol in KLINES for head in HEADS}
    table = compute(ETH, BTC, MINUTE)
    w_FO = numpy_helper.to_array(onnx.load_from_string(network()).graph.initializer[1])
    y_O, scale = (table.x[-1] @ w_FO).astype(np.float64), table.scale[-1:]
    price, volatility = results["ETHUSDT", RETURN_10M], results["ETHUSDT", VOLATILITY_15M]
    moved, shaken = decode(y_O[:1], scale, MINUTE, RETURN_10M), decode(y_O[1:], scale, MINUTE, VOLATILITY_15M)
    assert price.log_return == pytest.approx(LAMBDA * moved[0], rel=1e-5)
    assert volatility.volatility == pytest.approx(BIAS * shaken[0], rel=1e-5)
    assert (price.volatility, volatility.log_return) == (None, None)
    assert price.asof_ms == volatility.asof_ms == ETH.end_ms
    assert (price.scale, price.version) == (scale[0], "minute-20261122T084500Z-1a2b3c")


@given(cut=st.integers(0, 39))
def test_a_live_tail_gives_what_the_whole_history_gives(forecaster: BiRNNForecaster, cut: int) -> None:
    end_ms = ETH.end_ms - cut * MINUTE_MS
    whole = {symbol: run.between(0, end_ms) for symbol, run in KLINES.items()}
    tail = {symbol: run.tail(ROWS) for symbol, run in whole.items()}
    assert forecaster.forecast(whole) == forecaster.forecast(tail)


@pytest.mark.parametrize("seed", range(3))
def test_shuffling_what_comes_after_the_window_changes_no_forecast(seed: int) -> None:
    """And the shuffle is real: the truths differ."""
    folder = tiny.FOLDER / "versions" / Registry(tiny.FOLDER).versions()[-1]
    plan = PanelPlan(panel=MINUTE, symbols=tuple(KLINES), heads=tiny.HEADS, topics=())
    cut, rng = ROWS + 5, np.random.default_rng(seed)

    def shuffled(run: Klines) -> Klines:
        order = np.concatenate([np.arange(cut), cut + rng.permutation(len(run) - cut)])
        columns = {name: getattr(run, name)[order] for name in COLUMNS}
        return Klines(interval_ms=run.interval_ms, open_time_ms=run.open_time_ms, **columns)

    true, fake = build(plan, KLINES), build(plan, {symbol: shuffled(run) for symbol, run in KLINES.items()})
    rows = np.flatnonzero(true.usable & (true.open_time_ms < ETH.open_time_ms[cut]))
    network = onnx_network((folder / "model.onnx").read_bytes())
    np.testing.assert_array_equal(outputs(network, true, rows), outputs(network, fake, rows))
    assert not np.array_equal(true.truth[rows], fake.truth[rows], equal_nan=True)


@pytest.mark.parametrize("lookback", [8, 64])
def test_the_manifest_says_how_long_the_windows_are(lookback: int) -> None:
    other = BiRNNForecaster(artefact(network(lookback), lookback=lookback))
    needed = rows_needed(other.panel)
    assert needed == ROWS + lookback - MINUTE.lookback
    whole, _ = other.forecast(KLINES)
    tail, reasons = other.forecast({symbol: run.tail(needed) for symbol, run in KLINES.items()})
    assert (tail, reasons) == (whole, {})
    _, reasons = other.forecast({symbol: run.tail(needed - 1) for symbol, run in KLINES.items()})
    assert reasons.keys() == KLINES.keys()


def test_each_symbol_is_forecast_alike_alone_and_in_a_batch(forecaster: BiRNNForecaster) -> None:
    together, _ = forecaster.forecast(KLINES)
    alone, _ = forecaster.forecast({"BTCUSDT": BTC})
    assert alone.keys() == {("BTCUSDT", head) for head in HEADS}
    for key, single in alone.items():
        assert number(together[key]) == pytest.approx(number(single), rel=1e-5)


def test_a_symbol_the_network_was_not_trained_on_gets_no_move(forecaster: BiRNNForecaster) -> None:
    results, _ = forecaster.forecast({"BTCUSDT": BTC, "NEWUSDT": ETH})
    assert str(results["NEWUSDT", RETURN_10M].log_return) == "0.0"


def test_threads_share_a_forecaster(forecaster: BiRNNForecaster) -> None:
    expected, answers = forecaster.forecast(KLINES), []
    threads = [threading.Thread(target=lambda: answers.append(forecaster.forecast(KLINES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4


def without_row(klines: Klines, row: int) -> Klines:
    time = int(klines.open_time_ms[row])
    return klines.between(0, time).merge(klines.between(time + 1, klines.end_ms))


@pytest.mark.parametrize(
    ("klines", "symbol", "reason"),
    [
        pytest.param({"BTCUSDT": BTC, "ETHUSDT": without_row(ETH, -200)}, "ETHUSDT", "ETHUSDT are missing", id="hole"),
        pytest.param(
            {"BTCUSDT": without_row(BTC, -200), "ETHUSDT": ETH}, "ETHUSDT", "BTCUSDT are missing", id="leader"
        ),
        pytest.param({"BTCUSDT": BTC.tail(3), "ETHUSDT": ETH}, "ETHUSDT", "BTCUSDT are missing", id="leader too short"),
        pytest.param(
            {"BTCUSDT": BTC.between(0, BTC.end_ms - MINUTE_MS), "ETHUSDT": ETH}, "ETHUSDT", "BTC", id="leader late"
        ),
        pytest.param({"ETHUSDT": ETH}, "ETHUSDT", "BTCUSDT are missing", id="no leader"),
        pytest.param({"BTCUSDT": BTC, "ETHUSDT": ETH.tail(ROWS - 1)}, "ETHUSDT", f"needs {ROWS}", id="too short"),
        pytest.param({"BTCUSDT": BTC, "ETHUSDT": Klines.empty(MINUTE_MS)}, "ETHUSDT", "has 0 klines", id="empty"),
        pytest.param({"BTCUSDT": BTC, "ETHUSDT": Klines.empty(HOUR_MS)}, "ETHUSDT", "3600000 ms long", id="interval"),
    ],
)
def test_what_cannot_be_forecast_is_left_out_with_its_reason(
    forecaster: BiRNNForecaster, klines: dict[str, Klines], symbol: str, reason: str
) -> None:
    results, reasons = forecaster.forecast(klines)
    assert reason in reasons[symbol]
    assert "\n" not in reasons[symbol]
    assert {symbol for symbol, _ in results} == klines.keys() - reasons.keys()


@pytest.mark.parametrize(
    ("torn", "reason"),
    [
        pytest.param(artefact(feature_version=FEATURE_VERSION + 1), "feature_version is", id="feature version"),
        pytest.param(artefact(features=FEATURES[::-1]), "features is", id="features in another order"),
        pytest.param(artefact(network(lookback=3), lookback=3), "lookback must be 4 to 512, was 3", id="lookback"),
        pytest.param(artefact(interval_ms=HOUR_MS), "interval_ms is 3600000", id="interval"),
        pytest.param(artefact(panel="second"), "panel 'second' is not one of minute, hour", id="panel"),
        pytest.param(artefact(heads=("return-10m", "drawdown-15m")), "was 'drawdown-15m'", id="head of a later kind"),
        pytest.param(artefact(heads=("return-10m",)), r"must be two of tensor\(float\)", id="heads missing"),
        pytest.param(artefact(b"junk"), "onnxruntime refuses the network", id="no network at all"),
        pytest.param(artefact(b""), "onnxruntime refuses the network", id="no bytes"),
        pytest.param(artefact(network()[:-200]), "onnxruntime refuses the network", id="network cut off"),
        pytest.param(artefact(network(features=5)), r"must be two of tensor\(float\)", id="input width"),
        pytest.param(artefact(network(lookback=7)), r"must be two of tensor\(float\)", id="input length"),
        pytest.param(artefact(network(outputs=3)), r"must be two of tensor\(float\)", id="output width"),
        pytest.param(artefact(network(kind=TensorProto.DOUBLE)), r"must be two of tensor\(float\)", id="doubles"),
        pytest.param(artefact(network(weight=float("nan"))), "0 numbers finite", id="weights not finite"),
    ],
)
def test_a_version_made_for_other_code_is_refused(torn: Artefact, reason: str) -> None:
    with pytest.raises(IncompatibleModel, match=reason) as refusal:
        BiRNNForecaster(torn)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("head", "trusted", "move", "refused"),
    [
        pytest.param(0, 1.0, 1.01, True, id="a return"),
        pytest.param(0, 0.5, 2.02, True, id="a return that is half trusted"),
        pytest.param(0, 0.5, 1.98, False, id="a return that is too little trusted to matter"),
        pytest.param(0, 0.0, 100.0, False, id="a return that is not trusted"),
        pytest.param(0, 1.0, 0.99, False, id="a return within bounds"),
        pytest.param(1, 0.0, -1.01, True, id="a volatility"),
        pytest.param(1, 0.0, 0.99, False, id="a volatility within bounds"),
    ],
)
def test_a_network_that_one_feature_throws_is_not_loaded(
    tmp_path: Path, head: int, trusted: float, move: float, refused: bool
) -> None:
    """``move``: of the output when the move of five minutes alone goes to its limit, over what an answer may."""
    weights_FO = np.zeros((len(FEATURES), len(HEADS)), np.float32)
    weights_FO[FEATURES.index("move_5"), head] = move * MOST_MOVED / LIMIT
    calibration = {"ETHUSDT": {"return-10m": {"lambda": trusted}, "volatility-15m": {"bias": BIAS}}}
    made = replace(artefact(network(weights=weights_FO), calibration=calibration), weights=b"weights")
    registry = Registry(tmp_path)
    folder = registry.path(registry.publish(made))
    if not refused:
        BiRNNForecaster.load(folder)
        return
    reason = rf"{HEADS[head].key} moves by 3.03 when move_5 alone goes to 8, at most 3 is allowed: .*TRAINING_DAYS"
    with pytest.raises(IncompatibleModel, match=reason):
        BiRNNForecaster.load(folder)


def test_the_committed_model_still_loads_and_gives_its_golden_numbers() -> None:
    registry = Registry(tiny.FOLDER)
    champions = registry.champions()
    assert champions.keys() == {topic.key for topic in tiny.TOPICS}
    for topic in tiny.TOPICS:
        check(topic, champions[topic.key])
    loaded = BiRNNForecaster.load(
        registry.path(champions[tiny.TOPICS[0].key].version), champions[tiny.TOPICS[0].key].manifest_sha256
    )
    forecasts, reasons = loaded.forecast(tiny.klines())
    assert reasons == {}
    assert tiny.flat(forecasts) == pytest.approx(json.loads(tiny.GOLDEN.read_text()), rel=1e-4, abs=1e-9)
    for topic in tiny.TOPICS:
        assert value(topic, forecasts[topic.symbol, head_of(topic)], anchor=2000.0) > 0


def test_a_version_altered_on_disk_is_refused_before_its_network_is_built(tmp_path: Path) -> None:
    registry = Registry(Path(shutil.copytree(tiny.FOLDER, tmp_path / "data")))
    folder = registry.path(registry.champions()[tiny.TOPICS[0].key].version)
    network = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(network.replace(b"x", b"z", 1))
    with pytest.raises(IncompatibleModel, match=r"model\.onnx: altered"):
        BiRNNForecaster.load(folder)


def test_the_naive_return_is_no_move_and_needs_one_kline() -> None:
    result = Naive.forecast(ETH.tail(1), "ETHUSDT", RETURN_10M)
    assert (result.log_return, result.volatility, result.version) == (0.0, None, PERSISTENCE)
    assert value(topic(), result, anchor=1234.5) == 1234.5


@pytest.mark.parametrize(
    ("head", "panel"),
    [(VOLATILITY_15M, MINUTE), (Head(Kind.RMS, 15), MINUTE), (Head(Kind.VOLATILITY, 1440), HOUR)],
)
def test_the_naive_volatility_is_the_last_window_s(head: Head, panel: object) -> None:
    klines = random_walk_klines(WARMUP, interval_ms=HOUR_MS if panel is HOUR else MINUTE_MS, seed=3)
    result = Naive.forecast(klines, "ETHUSDT", head)
    assert result.volatility == naive(klines, HOUR if panel is HOUR else MINUTE, head)[-1]
    assert result.asof_ms == klines.end_ms
    asked = replace(
        topic(Target.VOLATILITY, head.horizon_min),
        volatility=Volatility.RMS if head.kind is Kind.RMS else Volatility.STD,
    )
    assert value(asked, result, anchor=1.0) == result.volatility


@pytest.mark.parametrize(
    ("klines", "head"),
    [
        pytest.param(Klines.empty(MINUTE_MS), RETURN_10M, id="none at all"),
        pytest.param(ETH.tail(8), VOLATILITY_15M, id="too few"),
        pytest.param(ETH.rows(0, len(ETH) - 10).merge(ETH.tail(2)), VOLATILITY_15M, id="a long hole"),
    ],
)
def test_a_naive_forecast_without_klines_is_refused(klines: Klines, head: Head) -> None:
    with pytest.raises(StaleKlines, match=r"ETHUSDT has \d+ of the last 15 returns|ETHUSDT has no klines"):
        Naive.forecast(klines, "ETHUSDT", head)


def leapt(klines: Klines, row: int, factor: float) -> Klines:
    level = np.where(np.arange(len(klines)) >= len(klines) + row, factor, 1.0)
    return replace(klines, **{name: getattr(klines, name) * level for name in ("open", "high", "low", "close")})


@pytest.mark.parametrize(
    "klines",
    [
        pytest.param(without_row(ETH, -10), id="one candle is missing"),
        pytest.param(leapt(ETH, -10, 100.0), id="a leap to another level"),
        pytest.param(ETH.tail(12), id="some are there"),
    ],
)
def test_one_odd_candle_costs_no_naive_volatility(klines: Klines) -> None:
    odd, whole = Naive.forecast(klines, "ETHUSDT", VOLATILITY_15M), Naive.forecast(ETH, "ETHUSDT", VOLATILITY_15M)
    assert odd.volatility == pytest.approx(whole.volatility, rel=0.5)
    assert odd.scale == pytest.approx(whole.scale, rel=1.0)


def test_no_window_is_cut_across_a_leap(forecaster: BiRNNForecaster) -> None:
    _, reasons = forecaster.forecast({"BTCUSDT": BTC, "ETHUSDT": leapt(ETH, -20, 3.0)})
    assert "ETHUSDT leapt more than twofold at" in reasons["ETHUSDT"]


def test_a_hole_silences_only_what_reads_across_it(forecaster: BiRNNForecaster) -> None:
    far = without_row(ETH, -1000)
    results, reasons = forecaster.forecast({"BTCUSDT": BTC, "ETHUSDT": far})
    assert not reasons
    assert ("ETHUSDT", VOLATILITY_15M) in results
    near = without_row(ETH, -20)
    assert "ETHUSDT are missing" in forecaster.forecast({"BTCUSDT": BTC, "ETHUSDT": near})[1]["ETHUSDT"]
    naive_forecast = Naive.forecast(near, "ETHUSDT", VOLATILITY_15M)  # further back than it reads
    whole = Naive.forecast(ETH, "ETHUSDT", VOLATILITY_15M)
    assert naive_forecast.volatility == pytest.approx(whole.volatility)
    assert naive_forecast.scale == pytest.approx(whole.scale, rel=1.0)
    value(topic(Target.VOLATILITY, horizon_min=15), naive_forecast, 2000.0)


def standing_still(klines: Klines, candles: int) -> Klines:
    """The last candles stay at the close before them."""
    there = np.arange(len(klines)) >= len(klines) - candles
    price = klines.close[-candles - 1]
    return replace(klines, **{name: np.where(there, price, getattr(klines, name)) for name in PRICE_COLUMNS})


@pytest.mark.parametrize("head", [VOLATILITY_15M, Head(Kind.RMS, 15), Head(Kind.VOLATILITY, 240)], ids=lambda h: h.key)
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "logcosh", "zptae"])
@pytest.mark.parametrize("candles", [15, 240, ROWS])
def test_the_naive_volatility_of_a_market_that_stands_still_is_0_and_an_answer(
    head: Head, loss: str, candles: int
) -> None:
    volatility = Volatility.RMS if head.kind is Kind.RMS else Volatility.STD
    asked = replace(topic(Target.VOLATILITY, head.horizon_min), loss=loss, volatility=volatility)
    result = Naive.forecast(standing_still(ETH, candles), "ETHUSDT", head_of(asked))
    answer = value(asked, result, 2000.0)
    assert (answer == 0.0) == (candles >= head.horizon_min)


@pytest.mark.parametrize(
    ("candles", "weight", "answer"),
    [
        pytest.param(0, -1.0, "sane is", id="a moving market is not said to stop"),
        pytest.param(7, -1.0, "sane is", id="nor after a lull"),
        pytest.param(8, -1.0, "0.0", id="one that stands still may stay so"),
        pytest.param(ROWS, -1.0, "0.0", id="one that never moved"),
        pytest.param(ROWS, 1.0, "0.0", id="of which a network knows nothing"),
    ],
)
def test_a_network_may_say_0_of_a_market_that_stands_still(candles: int, weight: float, answer: str) -> None:
    weights_FO = np.zeros((len(FEATURES), len(HEADS)), np.float32)
    weights_FO[[FEATURES.index("day_cos"), FEATURES.index("week_cos")], 1] = 4 * weight
    still = standing_still(ETH, candles) if candles else ETH
    results, _ = BiRNNForecaster(artefact(network(weights=weights_FO))).forecast({"BTCUSDT": BTC, "ETHUSDT": still})
    asked = topic(Target.VOLATILITY, 15)
    try:
        said = str(value(asked, results["ETHUSDT", VOLATILITY_15M], 2000.0))
    except UnusableForecast as refusal:
        said = str(refusal)
    assert answer in said


@pytest.mark.parametrize(
    ("last", "candles", "still"),
    [(0, 15, False), (7, 15, False), (8, 15, True), (15, 15, True), (15, 31, False), (1, 2, True), (ROWS, 240, True)],
)
def test_a_market_stands_still_where_half_of_its_candles_do(last: int, candles: int, still: bool) -> None:
    assert stands_still(standing_still(ETH, last) if last else ETH, candles) is still


@given(output=st.floats(-5, 5), scale=st.floats(FLAT, 0.05))
def test_a_volatility_is_decoded_where_anything_moves(output: float, scale: float) -> None:
    said, scales = np.array([output]), np.array([scale])
    moved = scale > 1.001 * FLAT
    if moved or scale == FLAT:
        volatility = max(math.exp(output) * (1 + QUIET) - QUIET, 0.0) * scale if moved else 0.0
        assert decode(said, scales, MINUTE, VOLATILITY_15M)[0] == pytest.approx(volatility, rel=1e-12)
    assert decode(said, scales, MINUTE, RETURN_10M)[0] == pytest.approx(output * scale * 10**0.5, rel=1e-12)


def test_serving_loads_neither_torch_nor_polars() -> None:
    code = "import sys, model.forecaster, model.registry; print({'torch', 'polars', 'onnx'} & sys.modules.keys())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == "set()\n"
