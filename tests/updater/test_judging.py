"""Which champions have to go, who serves then, and what becomes of the challenger, on made-up candles.

All networks are one, trained in a moment on random walks whose volatility never changes, so that it knows better than
the last window. How good they are is set by their calibration: each case has the network it needs.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import JsonValue

from core.clock import DAY_MS, HOUR_MS
from core.errors import UnusableForecast
from core.topic import Target, Topic
from klines.klines import Klines
from model.calibration import Calibration
from model.features import FEATURES
from model.gate import LEVEL
from model.heads import PanelPlan, head_of, panels_for
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from model.training.fit import OPSET, TrainedPanel, train_panel
from model.windows import Split
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from updater.judging import judge, without_unproven
from updater.round import artefact_of, run_round
from updater.state import Verdict
from updater.training_settings import training_config

ETH, BTC = (
    Topic(topic_id=number, token=token, symbol=f"{token}USDT", target=Target.VOLATILITY, horizon_min=15)
    for number, token in ((1, "ETH"), (2, "BTC"))
)
PRICE = Topic(topic_id=3, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
DAYS = 6
NOW_MS = START_MS + DAYS * DAY_MS
GOOD, FAIR, BAD = 1.0, 1.15, 2.0  # bias of a volatility: loss 0.7, 0.8 and 15 times the last window's
TRAINING: dict[str, JsonValue] = {
    "cell": "rnn",
    "seeds": 1,
    "hidden_layer_size": 4,
    "num_layers": 1,
    "epochs": 2,
    "stride": 7,
    "learning_rate": 0.02,
    "batch_size": 64,
}
LOOKBACK = 8


@cache
def plan() -> PanelPlan:
    (found,) = panels_for([ETH, BTC, PRICE]).values()
    return found


@cache
def klines() -> dict[str, Klines]:
    return {symbol: random_walk_klines(DAYS * 1440, seed=seed) for seed, symbol in enumerate(plan().symbols, 1)}


@cache
def trained(lookback: int = LOOKBACK) -> TrainedPanel:
    return train_panel(plan(), klines(), training_config("minute", TRAINING | {"lookback": lookback}), seed=0)


@cache
def made(lookback: int) -> Artefact:
    return artefact_of(trained(lookback), klines(), NOW_MS)


def network(bias: float = GOOD, *, others: float = GOOD, hours_ago: float = 0, lookback: int = LOOKBACK) -> Artefact:
    """A network, perhaps of the past: what it had seen by then ends as much earlier.

    Args:
        bias: of ETH's volatility; the price is the naive forecast.
        others: of BTC's volatility.
    """
    artefact, earlier_ms = made(lookback), round(hours_ago * HOUR_MS)
    split = artefact.manifest.split
    changes = {
        "created_ms": NOW_MS - earlier_ms,
        "split": Split(**{name: getattr(split, name) - earlier_ms for name in Split.__dataclass_fields__}),
        "calibration": {
            symbol: {
                head_of(ETH).key: {"bias": bias if symbol == ETH.symbol else others},
                head_of(PRICE).key: {"lambda": 0.0},
            }
            for symbol in plan().symbols
        },
    }
    return replace(artefact, manifest=artefact.manifest.model_copy(update=changes))


def broken(hours_ago: float) -> Artefact:
    """A network that overflows on any window but one of zeros, so that only being asked shows it."""
    inputs, outputs = LOOKBACK * len(FEATURES), len(plan().heads)
    huge = onnx.numpy_helper.from_array(np.full((inputs, outputs), 3e38, np.float32), "huge")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Flatten", ["x"], ["flat"]), onnx.helper.make_node("MatMul", ["flat", "huge"], ["y"])],
        "broken",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", LOOKBACK, len(FEATURES)])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", outputs])],
        [huge],
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return replace(network(hours_ago=hours_ago), onnx=model.SerializeToString())


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def serve(registry: Registry, *networks: Artefact) -> list[str]:
    """Let each serve all topics, the newest last."""
    versions = [registry.publish(one) for one in networks]
    for version, one in zip(versions, networks, strict=True):
        registry.promote(plan().topics, version, one.manifest.created_ms)
    return versions


def judged(registry: Registry, challenger: Artefact, *, oldest_champion_ms: int = 0) -> dict[str, Verdict]:
    verdicts = judge(trained(), challenger, registry, NOW_MS, oldest_champion_ms=oldest_champion_ms)
    assert [verdict.topic for verdict in verdicts] == [topic.key for topic in plan().topics]
    return {verdict.topic: verdict for verdict in verdicts}


def test_skill_is_promoted_and_the_figures_are_told(registry: Registry) -> None:
    verdicts = judged(registry, network())
    skill, price = verdicts[ETH.key], verdicts[PRICE.key]
    assert (skill.promoted, skill.reason) == (True, "better than the naive forecast; there was no champion")
    assert skill.p is not None
    assert skill.p < LEVEL
    assert skill.won > skill.blocks / 2
    assert 10 < skill.effective < skill.rows
    assert skill.challenger is not None
    assert skill.naive is not None
    assert skill.challenger < skill.naive
    assert (price.promoted, price.reason) == (
        True,
        "naive: the network adds nothing",
    )
    assert (price.p, price.challenger) == (None, price.naive)
    assert not any(verdict.demoted for verdict in verdicts.values())
    assert registry.champions() == {}, "to judge is not to promote"


def test_a_lead_that_may_be_chance_is_refused_with_its_p(registry: Registry) -> None:
    good, bad = GOOD, BAD
    for _ in range(8):  # a bias with which it is hardly better than naive
        middle = (good + bad) / 2
        verdict = judged(registry, network(middle, others=BAD))[ETH.key]
        assert verdict.challenger is not None
        assert verdict.naive is not None
        good, bad = (middle, bad) if verdict.challenger < verdict.naive else (good, middle)
    verdict = judged(registry, network(good, others=BAD))[ETH.key]
    assert not verdict.promoted
    assert verdict.p is not None
    assert verdict.p >= LEVEL
    assert f"that may be chance: p {verdict.p:.3f}" in verdict.reason


def test_a_champion_worse_than_naive_gives_way_to_the_one_before(registry: Registry) -> None:
    first, second = serve(registry, network(hours_ago=48), network(BAD, hours_ago=24))
    verdict = judged(registry, network(BAD))[ETH.key]
    assert verdict.demoted.startswith(f"{second} was worse than the naive forecast on its last 14")
    assert (verdict.champion_version, verdict.promoted) == (first, False)
    assert verdict.champion is not None
    assert verdict.naive is not None
    assert verdict.champion < verdict.naive, "the challenger met the one that serves now"
    champions = registry.champions()
    assert (champions[ETH.key].version, champions[ETH.key].since_ms) == (first, NOW_MS)
    assert {champions[topic.key].version for topic in (BTC, PRICE)} == {second}, "it is good at the others"
    (demotion,) = registry.demotions()[ETH.key]
    assert (demotion.champion.version, demotion.successor, demotion.demoted_ms) == (second, first, NOW_MS)
    assert verdict.demoted == f"{second} was {demotion.reason}"
    assert judged(registry, network(BAD))[ETH.key].demoted == "", "it goes once"


def torn(registry: Registry, previous: str) -> int:
    (registry.path(previous) / "model.onnx").write_bytes(b"torn")
    return 0


def too_old(registry: Registry, previous: str) -> int:
    return registry.open(previous).manifest.created_ms + 1


def demoted_itself(registry: Registry, previous: str) -> int:
    """As no code writes it: what was demoted is nobody's previous."""
    registry.demote(ETH, "worse", 1, back_to=None)
    bad = registry.publish(network(BAD, hours_ago=23))
    registry.promote([ETH], bad, 2)
    registry.demote(ETH, "worse", 3, back_to=previous)
    registry.demote(ETH, "worse", 4, back_to=None)
    registry.promote([ETH], registry.publish(network(BAD, hours_ago=22)), 5)
    file = registry.root / "champions.json"
    content = json.loads(file.read_bytes())
    content["champions"][ETH.key]["previous"] = previous
    file.write_text(json.dumps(content))
    return 0


def is_well(registry: Registry, previous: str) -> int:
    return 0


@pytest.mark.parametrize(
    ("previous", "fault"),
    [
        pytest.param(network, torn, id="cannot be used"),
        pytest.param(network, too_old, id="too old"),
        pytest.param(network, demoted_itself, id="demoted itself"),
        pytest.param(lambda hours_ago: network(BAD, hours_ago=hours_ago), is_well, id="worse than naive itself"),
        pytest.param(broken, is_well, id="no numbers"),
    ],
)
def test_where_the_one_before_may_not_serve_the_naive_forecast_does(
    registry: Registry, previous: Callable[..., Artefact], fault: Callable[[Registry, str], int]
) -> None:
    first, _ = serve(registry, previous(hours_ago=48), network(BAD, hours_ago=24))
    oldest_ms = fault(registry, first)
    verdict = judged(registry, network(BAD), oldest_champion_ms=oldest_ms)[ETH.key]
    assert "worse than the naive forecast" in verdict.demoted
    assert (verdict.champion, verdict.champion_version, verdict.promoted) == (None, None, False)
    assert ETH.key not in registry.champions()
    assert registry.demotions()[ETH.key][-1].successor is None


def test_without_one_before_the_naive_forecast_serves_and_skill_takes_its_place(registry: Registry) -> None:
    (only,) = serve(registry, network(BAD, hours_ago=24))
    verdict = judged(registry, network())[ETH.key]
    assert verdict.demoted.startswith(only)
    assert (verdict.promoted, verdict.reason) == (True, "better than the naive forecast; there was no champion")


def test_a_champion_that_is_better_or_equal_stays(registry: Registry) -> None:
    (only,) = serve(registry, network(hours_ago=24))
    before = (registry.root / "champions.json").read_bytes()
    verdicts = judged(registry, network(FAIR))
    assert (registry.root / "champions.json").read_bytes() == before
    assert {verdict.champion_version for verdict in verdicts.values()} == {only}
    assert "worse than the champion" in verdicts[ETH.key].reason
    assert verdicts[BTC.key].reason == "better than the naive forecast, and no worse than the champion"
    assert verdicts[PRICE.key].promoted, "naive after naive"


def test_where_rows_since_it_serves_are_too_few_all_that_it_has_not_seen_count(registry: Registry) -> None:
    serve(registry, network(hours_ago=48), network(BAD, hours_ago=6))
    verdict = judged(registry, network(BAD))[ETH.key]
    assert f" on its last {6 * 60 + verdict.rows} rows: " in verdict.demoted, (
        "its own judge part began six hours earlier"
    )


def test_it_goes_even_where_the_challenger_cannot_be_judged(registry: Registry) -> None:
    first, _ = serve(registry, network(hours_ago=48), network(BAD, hours_ago=24))
    with pytest.raises(UnusableForecast, match="not finite"):
        judged(registry, broken(hours_ago=0))
    assert registry.champions()[ETH.key].version == first


def test_a_champion_reads_windows_of_its_own_length(registry: Registry) -> None:
    first, second = serve(registry, network(hours_ago=48, lookback=12), network(BAD, hours_ago=24, lookback=5))
    verdict = judged(registry, network())[ETH.key]
    assert verdict.demoted.startswith(second)
    assert verdict.champion_version == first
    assert verdict.champion is not None
    assert verdict.challenger == pytest.approx(verdict.champion, rel=0.2)


@pytest.mark.parametrize("fault", ["torn", "too old", "another question", "no numbers"])
def test_a_champion_that_cannot_answer_defends_nothing_and_is_not_demoted(registry: Registry, fault: str) -> None:
    (only,) = serve(registry, broken(24) if fault == "no numbers" else network(BAD, hours_ago=24))
    oldest_ms = 0
    match fault:
        case "torn":
            torn(registry, only)
        case "too old":
            oldest_ms = too_old(registry, only)
        case "another question":
            file = registry.root / "champions.json"
            content = json.loads(file.read_bytes())
            content["champions"][ETH.key]["horizon_min"] = 20
            file.write_text(json.dumps(content))
        case _:
            pass
    verdict = judged(registry, network(), oldest_champion_ms=oldest_ms)[ETH.key]
    assert (verdict.demoted, verdict.champion_version, verdict.promoted) == ("", None, True)
    assert registry.demotions() == {}


def verdict_of(topic: Topic, **changes: object) -> Verdict:
    usual = Verdict(
        topic=topic.key,
        symbol=topic.symbol,
        head=head_of(topic).key,
        loss=topic.loss,
        rows=900,
        challenger=0.9,
        naive=1.0,
        promoted=False,
        reason="better than the naive forecast, but that may be chance: p 0.300, needed is below 0.05",
        p=0.3,
    )
    return usual.model_copy(update=changes)


def lambdas(one: Artefact) -> dict[str, float]:
    calibration = Calibration.from_json(one.manifest.calibration)
    return {symbol: calibration.factor(symbol, head_of(PRICE)) for symbol in plan().symbols}


def with_an_edge() -> Artefact:
    whole = network()
    factors = {
        symbol: {**heads, head_of(PRICE).key: {"lambda": 0.5}} for symbol, heads in whole.manifest.calibration.items()
    }
    return replace(whole, manifest=whole.manifest.model_copy(update={"calibration": factors}))


def test_an_edge_that_was_not_let_through_is_taken_out_where_nobody_else_serves() -> None:
    published, (price, volatility) = without_unproven(
        with_an_edge(), [verdict_of(PRICE), verdict_of(BTC, reason="worse than the naive forecast")]
    )
    assert lambdas(published) == {"BTCUSDT": 0.5, "ETHUSDT": 0.0}
    assert (price.promoted, price.challenger, price.p) == (True, price.naive, 0.3)
    assert price.reason.startswith("naive: the network adds nothing: an edge was taken out (better than")
    assert not volatility.promoted, "the last window's volatility is no forecast that a factor could make"
    assert Calibration.from_json(published.manifest.calibration).factor("BTCUSDT", head_of(BTC)) == GOOD


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(verdict_of(PRICE, promoted=True, reason="better than the naive forecast"), id="let through"),
        pytest.param(verdict_of(PRICE, champion=0.8, champion_version="minute-x"), id="somebody serves"),
        pytest.param(verdict_of(PRICE, naive=None, challenger=None, reason="no row to judge on"), id="not judged"),
    ],
)
def test_an_edge_stays_where_it_was_let_through_or_changes_nothing(verdict: Verdict) -> None:
    challenger = with_an_edge()
    assert without_unproven(challenger, [verdict]) == (challenger, (verdict,))


def test_a_champion_equal_to_the_naive_forecast_is_nobody() -> None:
    """It would never be renewed otherwise, and be too old one day."""
    _, (price,) = without_unproven(with_an_edge(), [verdict_of(PRICE, champion=1.0, champion_version="minute-x")])
    assert price.promoted


def test_what_is_told_of_a_topic_with_a_champion_is_of_the_network_without_the_edge() -> None:
    served = verdict_of(replace(PRICE, topic_id=4), champion=0.8, champion_version="minute-x")
    published, (price, other) = without_unproven(with_an_edge(), [verdict_of(PRICE), served])
    assert lambdas(published)["ETHUSDT"] == 0.0
    assert (price.promoted, other.promoted) == (True, False)
    assert other.challenger == other.naive
    assert "an edge was taken out" in other.reason


def test_an_edge_that_one_of_two_topics_was_let_through_with_stays() -> None:
    passed, refused = verdict_of(PRICE, promoted=True), verdict_of(replace(PRICE, topic_id=4))
    challenger = with_an_edge()
    assert without_unproven(challenger, [passed, refused]) == (challenger, (passed, refused))


class Killed(BaseException):
    """What no code handles."""


class FatalClock:
    """A clock that is looked at so often, and no more."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def now_ms(self) -> int:
        self.looks -= 1
        if self.looks < 0:
            raise Killed
        return NOW_MS

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing waits, asked were {seconds} s")


def test_a_kill_between_demotion_and_promotion_leaves_what_the_next_round_can_use(registry: Registry) -> None:
    first, second = serve(registry, network(hours_ago=48), network(BAD, hours_ago=24))
    config = training_config("minute", TRAINING | {"lookback": LOOKBACK})
    with pytest.raises(Killed):
        run_round(plan(), klines(), config, 0, registry, FatalClock(looks=3))
    *_, unpromoted = registry.versions()
    assert unpromoted not in {first, second}, "the new version was written whole"
    assert {key: champion.version for key, champion in registry.champions().items()} == {
        ETH.key: first,
        BTC.key: second,
        PRICE.key: second,
    }
    outcome = run_round(plan(), klines(), config, 0, registry, FatalClock(looks=4))
    assert outcome.version is not None
    verdict = outcome.verdicts[0]
    assert (verdict.topic, verdict.demoted, verdict.champion_version) == (ETH.key, "", first)
    assert [demotion.champion.version for demotion in registry.demotions()[ETH.key]] == [second], "it went once"
    won = {one.topic for one in outcome.verdicts if one.promoted}
    assert {key for key, one in registry.champions().items() if one.version == outcome.version} == won
    stored = [Verdict.model_validate(score) for score in registry.open(outcome.version).manifest.scores]
    assert stored == list(outcome.verdicts)
