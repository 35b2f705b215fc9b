"""admission.json: made of stored klines, by networks on candles that they had not seen, and never in the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from admission.readiness import FILE, read_admission
from core.clock import DAY_MS, MINUTE_MS, SystemClock
from core.settings import Objective, load_settings
from market.store.home_store import HomeStore
from model.panels import panels_for
from model.registry.versions import Registry
from tests.updater.admission.test_answered import BLOCK_MS, TOPIC, answers, write
from tests.updater.folder import BTC, DAYS, ETH, updater_on, walk
from updater.admission.records import _unseen_forecasts, guaranteed_s, refresh_admission

MINUTES = tuple(replace(topic, network="allora-testnet-1", epoch_length_blocks=60) for topic in (ETH, BTC))


def test_every_topic_of_a_panel_gets_an_entry(published: Path) -> None:
    settings = load_settings(data_dir=published, training_days=DAYS)
    plans = {panel.name: plan for panel, plan in panels_for(MINUTES).items()}
    refresh_admission(settings, plans, HomeStore(published / "klines"), Registry(published), SystemClock())
    made_ms, entries = read_admission(published)
    assert made_ms > 0
    assert entries.keys() == {topic.key for topic in MINUTES}
    for entry in entries.values():
        assert entry.objective == "admission"
        assert [*entry.shown] == [0, 60, 120]
        assert entry.standing == entry.shown[120]  # auto, of a window of five minutes
        assert not entry.standing.eligible or entry.standing.criteria
        assert entry.short


def test_a_network_is_asked_about_candles_alone_that_it_has_not_seen(published: Path) -> None:
    store, registry, now_ms = HomeStore(published / "klines"), Registry(published), SystemClock().now_ms()
    (version,) = registry.versions()
    manifest = registry.open(version).manifest
    (plan,) = panels_for([ETH, BTC]).values()
    digest = next(iter(registry.champions().values())).manifest_sha256
    said = _unseen_forecasts(plan, store, registry, version, digest, now_ms)
    assert said.keys() == {ETH.key, BTC.key}
    for forecast, close_ms in said.values():
        assert close_ms.min() > manifest.split.judge_start_ms
        assert np.isfinite(forecast).all()


def test_the_updater_makes_it_daily_and_after_a_training(published: Path) -> None:
    updater = updater_on(published, ETH, BTC)
    updater.sync()
    first_ms, entries = read_admission(published)
    assert entries.keys() == {ETH.key, BTC.key}
    served = {key for key, entry in entries.items() if 0 < entry.network_days < entry.replayed_days}
    assert served == Registry(published).champions().keys()
    updater.sync()
    assert read_admission(published)[0] == first_ms  # not twice a day
    updater.train("minute")  # which fails: it has no time
    assert read_admission(published)[0] > first_ms


def test_a_fault_is_logged_and_fails_no_training(published: Path) -> None:
    (published / FILE).mkdir()  # nothing can be renamed over it
    updater = updater_on(published, ETH)
    with capture_logs() as logs:
        after = updater.train("minute")
    assert after.outcome is not None
    assert "admission_not_made" in {line["event"] for line in logs}


def test_minutes_are_fetched_of_topics_that_no_minute_network_serves(published: Path) -> None:
    hours = replace(ETH, topic_id=9009, horizon_min=480)
    assert updater_on(published, hours).keeper._replayed_alone() == ["ETHUSDT"]
    assert updater_on(published, hours, ETH).keeper._replayed_alone() == []


def test_what_the_ledger_tells_is_used_in_the_place_of_what_is_configured(published: Path) -> None:
    now_ms = SystemClock().now_ms()
    write(published, answers(TOPIC, 100, until_ms=now_ms)).close()
    settings = load_settings(data_dir=published, training_days=DAYS)
    plans = {panel.name: plan for panel, plan in panels_for([TOPIC, *MINUTES[:1]]).items()}
    refresh_admission(settings, plans, HomeStore(published / "klines"), Registry(published), SystemClock())
    entries = read_admission(published)[1]
    told, not_told = entries[TOPIC.key], entries[MINUTES[0].key]
    assert (told.standing.known_s, not_told.standing.known_s) == (60, 120), "95 s after the base; auto"
    assert told.block_ms == pytest.approx(BLOCK_MS, rel=1e-4)
    assert not_told.block_ms == told.block_ms, "one network has one time between blocks"


@pytest.mark.parametrize(
    ("wait", "blocks", "known_s"),
    [("auto", 60, 120), ("auto", 12, 45), ("auto", 2, 0), ("0", 60, 0), ("45", 60, 45)],
)
@pytest.mark.parametrize("own", [True, False])
def test_what_a_wait_guarantees(wait: str, blocks: int, known_s: float, own: bool) -> None:
    settings = load_settings(answer_wait="7" if own else wait)
    asked = replace(BTC, epoch_length_blocks=blocks, wait=wait if own else None)
    assert guaranteed_s(asked, settings, dry_run=False) == known_s


def test_where_nothing_is_held_nothing_is_guaranteed() -> None:
    silent, unsure = load_settings(answer_wait="45", rpc_urls="none"), load_settings(answer_wait="auto")
    assert guaranteed_s(BTC, silent, dry_run=False) == 0
    assert guaranteed_s(BTC, silent, dry_run=True) == 45
    limited = replace(BTC, held=False, epoch_length_blocks=60)
    assert guaranteed_s(limited, unsure, dry_run=False) == 0
    assert guaranteed_s(limited, unsure, dry_run=True) == 120
    assert guaranteed_s(replace(limited, base="asked"), unsure, dry_run=True) == 0
    assert guaranteed_s(BTC, load_settings(answer_wait="45", base_rule="asked"), dry_run=True) == 0


def test_a_damaged_file_is_begun_anew(published: Path) -> None:
    (published / FILE).write_text("{")
    updater_on(published, BTC).sync()
    assert read_admission(published)[1].keys() == {BTC.key}


def test_a_topic_without_klines_says_so(published: Path) -> None:
    settings = load_settings(data_dir=published, training_days=DAYS, objective=Objective.LOSS)
    sol = replace(BTC, topic_id=9010, token="SOL", symbol="SOLUSDT")
    plans = {panel.name: plan for panel, plan in panels_for([sol]).items()}
    store = HomeStore(published / "klines")
    store.of("binance").append("BTCUSDT", walk("BTCUSDT", SystemClock().now_ms() + MINUTE_MS, 1))
    refresh_admission(settings, plans, store, Registry(published), SystemClock())
    entry = read_admission(published)[1][sol.key]
    assert (entry.standing.eligible, entry.objective, entry.stretch.factor) == (False, "loss", 1.0)
    assert "too few days of klines" in entry.short
    assert read_admission(published)[0] < SystemClock().now_ms() + DAY_MS
