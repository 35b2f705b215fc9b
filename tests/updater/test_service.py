"""What is due, what happens while the venue is away, one updater per folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cli.status.report import status_report
from cli.status.tables import status_tables
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from core.errors import ConfigError
from core.settings import load_settings
from core.topic import Topic
from exchange.server import SimulatedExchange
from market.listings import Listings
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import entry_of
from tests.updater.folder import BTC, ETH, ETH_8H, TINY, updater_on, walk
from updater.keeper import StoppableClock
from updater.service import Updater, train_once
from updater.state import Outcome
from updater.training_process import Stopped
from updater.training_settings import FILE, write_settings

SOL = replace(ETH, topic_id=9004, token="SOL", symbol="SOLUSDT")


def outcome_of(updater: Updater, *, again: bool = False) -> Outcome:
    outcome = updater.train("minute", again=again).outcome
    assert outcome is not None
    return outcome


def test_a_published_panel_is_not_due(published: Path) -> None:
    assert updater_on(published, ETH, BTC).due() == {}


@pytest.mark.parametrize(
    ("topics", "panel", "reason"),
    [
        pytest.param((ETH, replace(BTC, topic_id=9009)), "minute", "topic 9009 has no champion", id="new topic"),
        pytest.param((replace(ETH, horizon_min=20),), "minute", "was chosen for ETH price 10m", id="another question"),
        pytest.param((ETH, ETH_8H), "hour", "topic 9003 has no champion", id="another panel"),
    ],
)
def test_a_topic_without_a_champion_makes_its_panel_due(
    published: Path, topics: tuple[Topic, ...], panel: str, reason: str
) -> None:
    due = updater_on(published, *topics).due()
    assert due.keys() == {panel}
    assert reason in due[panel]


def lose_champions(data_dir: Path) -> None:
    (data_dir / "champions.json").unlink()


def damage_champions(data_dir: Path) -> None:
    (data_dir / "champions.json").write_text("?")


def tear_network(data_dir: Path) -> None:
    (path,) = data_dir.glob("versions/*/model.onnx")
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [lose_champions, damage_champions, tear_network])
def test_a_damaged_registry_makes_the_panel_due(published: Path, damage: Callable[[Path], None]) -> None:
    damage(published)
    assert updater_on(published, ETH).due().keys() == {"minute"}


def test_scores_that_another_release_wrote_settle_nothing(published: Path) -> None:
    updater = updater_on(published, ETH, replace(BTC, topic_id=9009))
    artefact = updater.registry.open(*updater.registry.versions())
    manifest = artefact.manifest.model_copy(
        update={"scores": ({"of": "another release"},), "created_ms": artefact.manifest.created_ms + 60_000}
    )
    newest = updater.registry.publish(replace(artefact, manifest=manifest))
    assert updater.registry.versions()[-1] == newest
    assert "topic 9009 has no champion" in updater.due()["minute"]


def test_a_champion_past_its_age_makes_the_panel_due(published: Path) -> None:
    later = FakeClock(SystemClock().now_ms() + 169 * HOUR_MS)
    assert "MAX_MODEL_AGE_H=168" in updater_on(published, ETH, clock=later).due()["minute"]


def test_while_the_venue_is_away_stored_klines_are_trained_on(published: Path) -> None:
    updater = updater_on(published, ETH, clock=FakeClock(SystemClock().now_ms() + HOUR_MS))
    assert "time limit" in outcome_of(updater).reason, "it got as far as the training"
    series = updater.state.current.series
    assert series.keys() == {"BTCUSDT-1m", "ETHUSDT-1m"}
    assert all("127.0.0.1" in entry.reason and entry.newest_ms for entry in series.values())


def test_months_that_nothing_reads_are_deleted_once_a_day(published: Path) -> None:
    clock = FakeClock(SystemClock().now_ms())
    updater = updater_on(published, ETH, clock=clock)
    old = random_walk_klines(50, start_ms=clock.now_ms() - 800 * DAY_MS)
    for symbol in ("ETHUSDT", "DOGEUSDT"):  # also of a symbol that no topic has any more
        updater.store.of("binance").append(symbol, old)
        updater.store.of("binance").append(symbol, random_walk_klines(50, start_ms=clock.now_ms() - 100 * DAY_MS))
        updater.store.of("binance").append(symbol, random_walk_klines(50, start_ms=clock.now_ms() - DAY_MS))
    updater.sync()
    for symbol in ("ETHUSDT", "DOGEUSDT"):
        assert updater.store.first(symbol, MINUTE_MS) > old.end_ms  # type: ignore[operator]
    updater.store.of("binance").append("DOGEUSDT", old)
    updater.sync()
    assert updater.store.first("DOGEUSDT", MINUTE_MS) == old.open_time_ms[0]
    clock.time_ms += DAY_MS
    updater.sync()
    assert updater.store.first("DOGEUSDT", MINUTE_MS) > old.end_ms  # type: ignore[operator]


@pytest.mark.parametrize(("least_mb", "told"), [(1, False), (10**12, True)], ids=["room", "none"])
def test_a_disk_that_fills_up_is_told_before_it_is_full(published: Path, least_mb: int, told: bool) -> None:
    with capture_logs() as lines:
        replace(updater_on(published, ETH).keeper, least_free_mb=least_mb).sync()
    alarms = [line for line in lines if line["event"] == "disk_nearly_full"]
    assert bool(alarms) is told
    assert all(str(published) in line["data_dir"] and "make room" in line["remedy"] for line in alarms)


def test_the_settings_file_is_read_anew_each_round_and_a_broken_one_costs_nothing(published: Path) -> None:
    updater = updater_on(published, ETH, time_limit_s=60.0)
    file = published / FILE
    write_settings(file, "minute", TINY | {"lookback": 8})
    assert outcome_of(updater).training_fault == ""
    file.write_text('{"minute": {"lookback": "short"}}')
    second = outcome_of(updater)
    assert str(file) in second.training_fault
    assert "lookback='short'" in second.training_fault
    write_settings(file, "minute", TINY | {"lookback": 9})
    third = outcome_of(updater_on(published, ETH, time_limit_s=60.0))
    assert third.training_fault == ""
    made = [updater.registry.open(version).manifest for version in updater.registry.versions()[-3:]]
    assert [manifest.lookback for manifest in made] == [8, 8, 9]
    assert updater_on(published, ETH).state.panel("minute").training == TINY | {"lookback": 9}, "also after a restart"
    (notes,) = [part for part in status_tables(status_report(updater.settings)) if "lookback 9" in str(part)]
    assert "minute panel: trained with" in str(notes)


def test_the_truth_venue_s_minutes_of_price_topics_have_a_folder_of_their_own(published: Path) -> None:
    with SimulatedExchange() as exchange:
        truth = Binance([exchange.url], "", SystemClock(), patience_s=0, name="kraken")
        updater = updater_on(published, ETH, BTC)
        updater = replace(updater, keeper=replace(updater.keeper, truth=truth))
        updater.sync()
        first = len(exchange.requests)
        updater.sync()
        assert len(exchange.requests) == first, "once an hour"
    assert updater.store.of("kraken").series() == [("ETHUSDT", MINUTE_MS)]
    assert updater.store.home("ETHUSDT") == "binance"
    newest_ms = updater.store.of("kraken").latest("ETHUSDT", MINUTE_MS)
    assert newest_ms
    assert SystemClock().now_ms() - newest_ms < 5 * MINUTE_MS


def test_klines_of_the_day_before_yesterday_are_not_trained_on(published: Path) -> None:
    later = FakeClock(SystemClock().now_ms() + 2 * DAY_MS)
    outcome = outcome_of(updater_on(published, ETH, clock=later))
    assert not outcome.ok
    assert "more than a day old" in outcome.reason
    assert "127.0.0.1" in outcome.reason, "and why there are no newer ones"


def test_no_klines_at_all_is_a_reason(tmp_path: Path) -> None:
    outcome = outcome_of(updater_on(tmp_path, ETH))
    assert "BTCUSDT: no klines" in outcome.reason


def test_a_symbol_without_klines_is_left_out_and_tried_again_without_training(published: Path) -> None:
    updater = updater_on(published, ETH, SOL)
    before = Outcome(panel="minute", ok=True, version="v", finished_ms=1, took_s=1.0, missing={"SOLUSDT": "no klines"})
    assert updater.state.finish(before).failures == 1
    outcome = outcome_of(updater, again=True)
    assert (outcome.ok, outcome.version, list(outcome.missing)) == (True, "v", ["SOLUSDT"])
    assert updater.state.panel("minute").failures == 2
    updater.store.of("binance").append("SOLUSDT", walk("SOLUSDT", SystemClock().now_ms()))
    assert "time limit" in outcome_of(updater, again=True).reason, "with news of it, it trains"


@pytest.mark.parametrize("topic", [ETH, BTC], ids=["a symbol", "the leader"])
def test_a_symbol_that_a_venue_lists_as_another_pair_is_not_trained_on(published: Path, topic: Topic) -> None:
    updater, symbol, token = updater_on(published, topic), topic.symbol, topic.token
    with SimulatedExchange() as exchange:
        exchange.fail_next("/api/v3/exchangeInfo", 1, status=200, body=entry_of(symbol, token, "EUR"))
        venue = Binance([exchange.url], "", SystemClock(), patience_s=0)
        listings = Listings([venue], [topic], updater.stop)
        listings.start()
        outcome = outcome_of(replace(updater, listings=listings))
    says = f"{symbol}: cannot answer for {token}: binance lists it as {token} in EUR, not {token} in dollars"
    assert (outcome.ok, says in outcome.reason) == (False, True), outcome.reason


def test_another_pair_leaves_the_other_symbols_to_be_trained_on(published: Path) -> None:
    updater = updater_on(published, ETH, SOL)
    updater.store.of("binance").append("SOLUSDT", walk("SOLUSDT", SystemClock().now_ms()))
    before = {"SOLUSDT": "no klines"}
    updater.state.finish(Outcome(panel="minute", ok=True, version="v", finished_ms=1, took_s=1.0, missing=before))
    with SimulatedExchange() as exchange:
        exchange.fail_next("/api/v3/exchangeInfo", 1, status=200, body=entry_of("SOLUSDT", "SOL", "BTC"))
        venue = Binance([exchange.url], "", SystemClock(), patience_s=0)
        listings = Listings([venue], [SOL], updater.stop)
        listings.start()
        outcome = outcome_of(replace(updater, listings=listings), again=True)
    assert (outcome.ok, outcome.version) == (True, "v"), "left out again: there is no news to train on"
    assert "binance lists it as SOL in BTC" in outcome.missing["SOLUSDT"]


def test_a_symbol_that_was_left_out_makes_nothing_due(published: Path) -> None:
    updater = updater_on(published, ETH, SOL)
    assert "topic 9004 has no champion" in updater.due()["minute"]
    (version,) = updater.registry.versions()
    missing = {"SOLUSDT": "no klines"}
    updater.state.finish(Outcome(panel="minute", ok=True, version=version, finished_ms=1, took_s=1.0, missing=missing))
    assert updater_on(published, ETH, SOL).due() == {}, "the retries look after it, also after a restart"


def test_once_told_to_end_nothing_is_begun(published: Path) -> None:
    updater = updater_on(published, ETH)
    updater.stop.set()
    with pytest.raises(Stopped):
        updater.train("minute")
    assert updater.state.panel("minute").running_since_ms is None
    with pytest.raises(Stopped):
        StoppableClock(SystemClock(), updater.stop).sleep(3600)


def test_a_panel_that_no_topic_needs_is_refused(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    with pytest.raises(ConfigError, match="'hour'; there are minute"):
        train_once(settings, [ETH], panels=["hour"])
