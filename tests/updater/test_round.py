"""A round as the child runs it: judged on the same unseen rows, published, promoted where it won."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import ConfigError, TrainingFailed
from core.topic import Topic
from market.store.kline_store import KlineStore
from model.registry.versions import Registry
from tests.updater.folder import BTC, ETH, TINY, job_on, walk
from updater.round import refresh_panel
from updater.state import Outcome, Verdict
from updater.training_settings import FILE, training_config


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"epoch": 3}, "epoch", id="unknown field"),
        pytest.param({"epochs": "many"}, "epochs", id="no number"),
        pytest.param({"epochs": 0}, "epochs", id="out of range"),
    ],
)
def test_a_wrong_training_setting_is_named(fields: dict[str, str | int], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        training_config("minute", fields)
    (value,) = fields.values()
    assert str(value) in str(refusal.value)


def test_training_settings_change_only_what_they_name() -> None:
    assert training_config("minute", TINY) == replace(training_config("minute", {}), **TINY)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("{", "is not JSON", id="cut off"),
        pytest.param('{"minute": {"epochs": 0}}', "panel minute: epochs must be 1 or more, was 0", id="out of range"),
        pytest.param('{"minute": {"epoch": 3}}', "panel minute: epoch=3: there is no such setting", id="no such knob"),
        pytest.param('{"lookback": 3}', "panel minute: lookback must be 4 to 512, was 3", id="for both panels"),
    ],
)
def test_wrong_settings_are_said_and_the_fallback_is_trained_with(published: Path, content: str, said: str) -> None:
    job = job_on(published, ETH)
    (published / FILE).write_text(content)
    strict, lenient = (job.model_copy(update={"fallback": knobs}) for knobs in (None, TINY))
    with pytest.raises(ConfigError, match=said) as refusal:
        refresh_panel(strict, Registry(published), SystemClock(), lambda *_: None)
    assert str(refusal.value).startswith(f"{published / FILE}: ")
    outcome = refresh_panel(lenient, Registry(published), SystemClock(), lambda *_: None)
    assert outcome.ok
    assert (outcome.training, outcome.training_fault) == (TINY, str(refusal.value))


def test_a_round_reads_the_klines_of_the_first_venue_of_the_line(published: Path) -> None:
    job = job_on(published, ETH).model_copy(update={"venues": ("kraken", "binance")})
    few = walk("ETHUSDT", SystemClock().now_ms(), days=0.1)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        KlineStore(published / "klines" / "kraken").append(symbol, few)
    with pytest.raises(TrainingFailed, match="in 288 candles"):
        refresh_panel(job, Registry(published), SystemClock(), lambda *_: None)


def test_wrong_settings_of_the_other_panel_cost_nothing(published: Path) -> None:
    job = job_on(published, ETH)
    (published / FILE).write_text(json.dumps({"minute": TINY, "hour": {"epochs": 0}}))
    assert refresh_panel(job, Registry(published), SystemClock(), lambda *_: None).training_fault == ""


def round_on(data_dir: Path, *topics: Topic, oldest_champion_ms: int = 0) -> Outcome:
    job = job_on(data_dir, *topics, oldest_champion_ms=oldest_champion_ms)
    return refresh_panel(job, Registry(data_dir), SystemClock(), lambda *_: None)


def by_topic(outcome: Outcome) -> dict[str, Verdict]:
    return {verdict.topic: verdict for verdict in outcome.verdicts}


def test_a_first_round_publishes_and_promotes_what_won(published: Path) -> None:
    registry = Registry(published)
    (version,) = registry.versions()
    manifest = registry.open(version).manifest
    verdicts = {verdict.topic: verdict for verdict in map(Verdict.model_validate, manifest.scores)}
    won = {key for key, verdict in verdicts.items() if verdict.promoted}
    assert verdicts.keys() == {ETH.key, BTC.key}, "scores are kept for all"
    assert ETH.key in won, "on a random walk lambda is 0 and the forecast is naive's"
    assert registry.champions().keys() == won
    assert (manifest.heads, manifest.symbols) == (("return-10m", "volatility-15m"), ("BTCUSDT", "ETHUSDT"))


def test_the_champion_is_judged_on_the_same_rows(published: Path) -> None:
    registry = Registry(published)
    (first,) = registry.versions()
    second = round_on(published, ETH, BTC)
    verdict = by_topic(second)[ETH.key]
    assert verdict.champion_version == first
    assert verdict.champion == pytest.approx(verdict.naive)
    assert verdict.promoted
    assert verdict.rows > 0
    champion = registry.champions()[ETH.key]
    assert (champion.version, champion.previous) == (second.version, first)


@pytest.mark.parametrize("lookback", [8, 40])
def test_a_champion_that_reads_other_windows_is_judged_on_the_same_rows(published: Path, lookback: int) -> None:
    registry = Registry(published)
    (first,) = registry.versions()
    job = job_on(published, ETH, BTC, lookback=lookback)
    outcome = refresh_panel(job, registry, SystemClock(), lambda *_: None)
    assert outcome.version is not None
    assert registry.open(outcome.version).manifest.lookback == lookback
    verdict = by_topic(outcome)[ETH.key]
    assert verdict.champion_version == first
    assert verdict.champion == pytest.approx(verdict.naive)


@pytest.mark.parametrize("fault", ["torn network", "too old", "another question", "champions file"])
def test_a_champion_that_cannot_answer_counts_as_none(published: Path, fault: str) -> None:
    registry = Registry(published)
    (first,) = registry.versions()
    topic, oldest_ms = ETH, 0
    match fault:
        case "torn network":
            path = registry.path(first) / "model.onnx"
            path.write_bytes(path.read_bytes()[:-1])
        case "too old":
            oldest_ms = registry.open(first).manifest.created_ms + 1
        case "another question":
            topic = replace(ETH, horizon_min=20)
        case _:
            (published / "champions.json").write_text("{")
    outcome = round_on(published, topic, oldest_champion_ms=oldest_ms)
    verdict = by_topic(outcome)[ETH.key]
    assert (verdict.champion, verdict.champion_version) == (None, None)
    assert registry.champions()[ETH.key].version == outcome.version


def test_old_versions_are_purged_and_champions_are_not(published: Path) -> None:
    registry = Registry(published)
    (first,) = registry.versions()
    manifest = registry.open(first)
    for created_ms in itertools.islice(itertools.count(1), 7):
        registry.publish(replace(manifest, manifest=manifest.manifest.model_copy(update={"created_ms": created_ms})))
    assert len(registry.versions()) == 8
    outcome = round_on(published, ETH)
    assert outcome.version in registry.versions()
    assert len(registry.versions()) == 5
