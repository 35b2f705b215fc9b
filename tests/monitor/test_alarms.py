"""Each alarm, provoked by breaking what it watches, and over when that is mended."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, SystemClock
from core.settings import load_settings
from exchange.server import SimulatedExchange
from model.judging.comparison import Comparison, compare
from model.registry.versions import Registry
from monitor.watched import Participation
from tests.disk import Disk, disk
from tests.fakes.clock import RunningClock, Skewed, eventually
from tests.inference.stand import ETH_10M, Node, node, publish
from tests.monitor.desk import Desk, desk, live_updater, make_ledger
from tests.monitor.receiver import Receiver, receiving
from updater.service import open_updater
from updater.state import Outcome

__all__ = ["disk"]
METRICS = (Path(__file__).parents[1] / "data" / "node_metrics.txt").read_text()
KEY = ETH_10M.key


@contextmanager
def served(
    folder: Path, exchange: SimulatedExchange, clock: RunningClock, only: str, **more: Any
) -> Iterator[tuple[Desk, Node]]:
    """A desk that watches a real inference with one alarm."""
    with (
        node(folder, exchange, clock, topics=[ETH_10M]) as inference,
        desk(folder, clock, [only], inference_url=inference.url, **more) as watching,
    ):
        yield watching, inference


def what(watching: Desk) -> str:
    """The words of the only alarm that holds."""
    (kept,) = watching.book.standing
    assert kept.remedy
    return kept.what


def test_inference_that_ends_is_told_after_the_threshold_and_when_it_is_back(
    tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange
) -> None:
    with desk(tmp_path, clock, ["inference"]) as watching:
        before_ms = clock.now_ms()
        assert watching.standing() == set()
        watching.pass_s(19)
        assert watching.standing() == set()
        watching.pass_s(2)
        assert watching.standing() == {("inference", "")}
        assert "does not answer: " in what(watching)
        assert abs(watching.book.standing[0].since_ms - before_ms) < 5 * SECOND_MS
        watching.pass_s(600)
        assert len(watching.book.standing) == 1


def test_a_clock_that_is_set_back_delays_no_alarm_and_no_recovery(
    tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange
) -> None:
    with desk(tmp_path, clock, ["inference", "training"]) as watching:
        assert watching.standing() == set()
        clock.set_wall(-DAY_MS)
        watching.pass_s(0)
        watching.pass_s(21)
        assert watching.standing() == {("inference", "")}
        watching.pass_s(5 * 60)
        assert watching.standing() == {("inference", ""), ("training", "")}
        live_updater(tmp_path, clock)
        watching.look()
        clock.set_wall(-DAY_MS)
        live_updater(tmp_path, clock)
        watching.calm()
        assert watching.standing() == {("inference", "")}


def test_what_inference_alone_tells_stays_while_it_is_silent(
    tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange
) -> None:
    with (
        node(tmp_path, exchange, clock, topics=[ETH_10M]) as inference,
        desk(tmp_path, clock, ["market", "topic", "inference"], inference_url=inference.url) as watching,
    ):
        assert watching.standing() == {("market", "")}
        inference.server.should_exit = True
        eventually(lambda: not watching.look().inference.answers, what="the end of inference")
        watching.pass_s(60)
        assert watching.standing() == {("market", ""), ("inference", "")}


def test_a_topic_that_cannot_be_answered_for_three_epochs(
    tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange
) -> None:
    with served(tmp_path, exchange, clock, "topic") as (watching, inference):
        assert watching.standing() == set()
        exchange.outage(DAY_MS / SECOND_MS)
        clock.jump(40 * SECOND_MS)
        eventually(lambda: not inference.ready(), what="a topic that is not ready")
        assert watching.standing() == set(), "one epoch at most"
        watching.pass_s(3 * 600 + 1)  # 120 blocks of five seconds each
        assert watching.standing() == {("topic", KEY)}
        assert what(watching).startswith(f"topic {KEY} cannot be answered for 3 epochs: ")
        with desk(tmp_path, clock, ["topic"], inference_url=inference.url) as restarted:
            for _ in range(3):
                restarted.pass_s(60)
            assert restarted.standing() == {("topic", KEY)}, "a new monitor has seen less than three epochs"
        exchange.clear_faults()
        eventually(inference.ready, 30, "/readyz")
        watching.look()
        clock.jump(31 * SECOND_MS)
        eventually(inference.ready, 30, "/readyz after the time has passed")
        assert watching.standing() == set()
        assert watching.book.ended[0].ended_ms


def test_a_price_that_no_venue_renews(tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange) -> None:
    with served(tmp_path, exchange, clock, "anchor") as (watching, inference):
        assert watching.standing() == set()
        exchange.outage(DAY_MS / SECOND_MS)
        clock.jump(70 * SECOND_MS)
        assert watching.standing() == {("anchor", "ETHUSDT")}
        assert what(watching).startswith("the newest price of ETHUSDT is ")
        exchange.clear_faults()
        eventually(inference.ready, 30, "/readyz")
        watching.look()
        clock.jump(31 * SECOND_MS)
        eventually(inference.ready, 30, "/readyz after the time has passed")
        assert watching.standing() == set()


def test_a_symbol_that_never_had_a_price(tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange) -> None:
    exchange.outage(DAY_MS / SECOND_MS)
    with (
        node(tmp_path, exchange, clock, topics=[ETH_10M], wait=False) as inference,
        desk(tmp_path, clock, ["anchor"], inference_url=inference.url) as watching,
    ):
        assert watching.standing() == set()
        watching.pass_s(61)
        assert watching.standing() == {("anchor", "ETHUSDT")}
        assert what(watching) == "there is no price of ETHUSDT"


def test_a_clock_that_is_off(tmp_path: Path, clock: RunningClock) -> None:
    with (
        SimulatedExchange(clock=Skewed(clock, 5 * SECOND_MS)) as ahead,
        served(tmp_path, ahead, clock, "clock") as (watching, _),
    ):
        eventually(lambda: watching.standing() == {("clock", "")}, what="the alarm")
        assert what(watching) == "this machine's clock is 5.0 s behind the venue's"


def test_a_market_that_is_simulated(tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange) -> None:
    with served(tmp_path, exchange, clock, "market") as (watching, _):
        assert watching.standing() == {("market", "")}
        assert what(watching).startswith("prices are SIMULATED")


def test_a_network_that_is_older_than_allowed(tmp_path: Path, clock: RunningClock) -> None:
    registry = Registry(tmp_path)
    old = publish(registry, 0.5, clock.now_ms() - 169 * HOUR_MS)
    registry.promote([ETH_10M], old, clock.now_ms())
    with desk(tmp_path, clock, ["champion"]) as watching:
        assert watching.standing() == {("champion", KEY)}
        assert watching.book.standing[0].since_ms == pytest.approx(clock.now_ms() - HOUR_MS, abs=MINUTE_MS)
        registry.promote([ETH_10M], publish(registry, 0.6, clock.now_ms()), clock.now_ms())
        watching.calm()
        assert watching.standing() == set()


def test_a_topic_that_never_got_a_network(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["champion"], max_model_age_h=24) as watching:
        assert watching.standing() == set(), "a new node has none"
        watching.pass_s(25 * 3600)
        assert what(watching) == f"topic {KEY} has no network of its own: no newer one has passed the gate"


def test_trainings_that_fail(tmp_path: Path, clock: RunningClock) -> None:
    file = live_updater(tmp_path, clock)
    with desk(tmp_path, clock, ["training"]) as watching:
        failed = Outcome(panel="minute", ok=False, reason="disk full", finished_ms=clock.now_ms(), took_s=1)
        for _ in range(2):
            file.finish(failed)
        assert watching.standing() == set()
        file.finish(failed)
        assert watching.standing() == {("training", "minute")}
        assert what(watching) == "training the minute panel failed 3 times in a row: disk full"
        file.finish(Outcome(panel="minute", ok=True, finished_ms=clock.now_ms(), took_s=1))
        watching.calm()
        assert watching.standing() == set()


@pytest.mark.parametrize("how", ["killed", "ended", "never seen"])
def test_an_updater_that_does_not_run(tmp_path: Path, clock: RunningClock, how: str) -> None:
    file = None if how == "never seen" else live_updater(tmp_path, clock)
    with desk(tmp_path, clock, ["training"]) as watching:
        if file and how == "ended":
            file.end()
        assert watching.standing() == set()
        watching.pass_s(8 * 60)
        watching.pass_s(8 * 60)
        assert watching.standing() == {("training", "")}
        live_updater(tmp_path, clock).beat()
        watching.look()
        clock.jump(31 * SECOND_MS)
        assert watching.standing() == set()


def test_a_champion_that_was_demoted(tmp_path: Path, clock: RunningClock) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.5, clock.now_ms())
    registry.promote([ETH_10M], version, clock.now_ms())
    with desk(tmp_path, clock, ["demotion"]) as watching:
        assert watching.standing() == set()
        registry.demote(ETH_10M, "worse than naive", clock.now_ms(), back_to=None)
        assert watching.standing() == {("demotion", KEY)}
        assert what(watching) == f"topic {KEY}: {version} was demoted (worse than naive); the naive forecast answers"
        watching.pass_s(86_400)
        watching.calm()
        assert watching.standing() == set()


def losses(share: float, rows: int = 2250) -> Comparison:
    """Answers that lose ``share`` times what the naive forecast loses."""
    noise = np.random.default_rng(1).standard_normal((2, rows)) ** 2
    return compare(np.arange(rows) * 5, noise[0] * share, noise[1], ETH_10M.horizon_min)


def test_a_network_that_is_worse_than_the_naive_forecast_on_what_it_answered(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["skill"]) as watching:
        assert watching.standing() == set()
        for share in (0.8, 1.0):
            watching.skills = {KEY: losses(share)}
            assert watching.standing() == set(), share
        watching.skills = {KEY: losses(1.3)}
        assert watching.standing() == {("skill", KEY)}
        assert "significantly worse than the naive forecast on 2250 answers" in what(watching)
        watching.skills = {}
        watching.pass_s(600)
        assert watching.standing() == {("skill", KEY)}, "nobody can tell now"
        watching.skills = {KEY: losses(1.3, rows=9)}
        watching.calm()
        assert watching.standing() == set()


def test_a_demoted_network_without_a_successor_is_worse_no_longer(tmp_path: Path, clock: RunningClock) -> None:
    registry = Registry(tmp_path)
    registry.promote([ETH_10M], publish(registry, 0.5, clock.now_ms()), clock.now_ms())
    with desk(tmp_path, clock, ["skill"]) as watching:
        watching.skills = {KEY: losses(1.3)}
        assert watching.standing() == {("skill", KEY)}
        registry.demote(ETH_10M, "worse than naive", clock.now_ms(), back_to=None)
        watching.skills = {}
        watching.calm()
        assert watching.standing() == set()


def test_participation_that_is_about_to_fall(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["participation"]) as watching:
        watching.participation = {KEY: Participation(share=0.95, missed_left=13)}
        assert watching.standing() == set()
        watching.participation = {KEY: Participation(share=1.0, missed_left=2)}  # young, and nothing missed
        assert watching.standing() == set()
        watching.participation = {KEY: Participation(share=0.95, missed_left=12)}
        watching.look()
        assert what(watching) == f"topic {KEY}: participation falls below 90 % after 12 more missed epochs"
        watching.participation = {KEY: Participation(share=0.75, missed_left=0)}
        watching.look()
        assert what(watching) == f"topic {KEY}: participation is 75 %, below 90 %"
        watching.participation = {KEY: Participation(share=0.95, missed_left=20)}
        watching.calm()
        assert watching.standing() == set()


def test_a_disk_with_little_room(tmp_path: Path, disk: Disk, clock: RunningClock) -> None:
    make_ledger(tmp_path, clock)
    with desk(disk.folder, clock, ["store"], alarm_store="1", database_url=f"sqlite:///{tmp_path}/ledger.sqlite3") as d:
        assert d.standing() == set()
        disk.refuse("full")
        assert d.standing() == {("store", "room")}
        assert what(d) == "0 MB are free on the disk of DATA_DIR"
        disk.give_way()
        d.calm()
        assert d.standing() == set()


def test_a_disk_that_is_read_only(tmp_path: Path, disk: Disk, clock: RunningClock) -> None:
    make_ledger(tmp_path, clock)
    with desk(disk.folder, clock, ["store"], alarm_store="0", database_url=f"sqlite:///{tmp_path}/ledger.sqlite3") as d:
        disk.refuse("read-only")
        assert d.standing() == set()
        d.pass_s(61)
        assert what(d) == "the disk of DATA_DIR: it is mounted read-only"
        disk.give_way()
        d.calm()
        assert d.standing() == set()


@pytest.mark.parametrize(
    ("file", "part"), [("champions.json", "registry"), ("updater.json", "updater"), ("admission.json", "admission")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, clock: RunningClock, file: str, part: str) -> None:
    with desk(tmp_path, clock, ["store"], alarm_store="0") as watching:
        assert watching.standing() == set()
        (tmp_path / file).write_text("{")
        watching.look()
        watching.pass_s(61)
        assert watching.standing() == {("store", part)}
        (tmp_path / file).unlink()
        watching.calm()
        assert watching.standing() == set()


def test_a_ledger_that_is_locked_while_inference_answers(
    tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange
) -> None:
    with (
        served(tmp_path, exchange, clock, "store", alarm_store="0") as (watching, inference),
        closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        assert inference.get("/inference/ETH?topic=1&height=1").status_code == 200
        watching.look()
        watching.look()
        assert not watching.book.standing, "another program may hold it for a moment"
        watching.pass_s(61)
        assert what(watching) == "1 answers wait for the ledger"
        watching.look()  # it meets the database that did not take this alarm
        watching.pass_s(61)
        assert {(kept.subject, kept.what) for kept in watching.book.standing} == {
            ("ledger", "the ledger's database: database is locked"),
            ("answers", "1 answers wait for the ledger"),
        }
        other.rollback()
        eventually(lambda: inference.ledger.unwritten == 0, 30, "the answer in the database")
        watching.look()
        watching.calm()
        assert watching.standing() == set()
        assert {kept.subject for kept in watching.book.ended} == {"answers", "ledger"}


def test_answers_that_are_lost(tmp_path: Path, clock: RunningClock, exchange: SimulatedExchange) -> None:
    """Inference answers more often than it can queue answers for a database that another program holds."""
    with (
        served(tmp_path, exchange, clock, "store", alarm_store="0") as (watching, inference),
        closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as other,
    ):
        assert watching.standing() == set()
        value = inference.get("/inference/ETH?topic=1&height=1").text
        answer = inference.ledger.newest(ETH_10M)
        assert answer
        other.execute("BEGIN EXCLUSIVE")
        for height in count(2):
            inference.ledger.keep(answer._replace(height=height))
            if inference.ledger.dropped:
                break
        other.rollback()
        watching.look()
        assert what(watching) == "1 answers were never written"
        assert inference.get("/inference/ETH?topic=1&height=1").text == value


def test_klines_that_fail_to_sync(tmp_path: Path, disk: Disk) -> None:
    """The folder of klines lies on a disk that becomes read-only; the rest of DATA_DIR does not."""
    clock = RunningClock()
    clock.jump(SystemClock().now_ms() - clock.now_ms())
    (tmp_path / "klines").symlink_to(disk.folder)
    stop = threading.Event()
    with SimulatedExchange() as exchange:
        url = {"binance_rest_urls": exchange.url, "binance_archive_url": exchange.url}
        settings = load_settings(data_dir=tmp_path, market="simulated", training_days=3, database_url="", **url)
        with (
            open_updater(settings, [ETH_10M], None, stop) as updater,
            desk(tmp_path, clock, ["store"], alarm_store="0") as watching,
        ):
            updater.sync()
            clock.jump(20 * MINUTE_MS)
            assert watching.standing() == set(), "late, but the last sync went well"
            disk.refuse("read-only")
            updater.sync()
            watching.look()
            watching.pass_s(61)
            assert watching.standing() == {("store", "klines")}
            assert "Read-only file system" in what(watching)
            disk.give_way()
            updater.sync()
            watching.calm()
            assert watching.standing() == set()


@pytest.fixture
def official() -> Iterator[Receiver]:
    """An official node's page of metrics."""
    with receiving() as receiver:
        receiver.page = METRICS
        yield receiver


def ask_again(official: Receiver, name: str, by: int, topic: int = 1) -> None:
    """Let one of the node's counters rise."""
    lines = official.page.splitlines()
    for place, line in enumerate(lines):
        if line.startswith(f"{name}{{") and f'topic="{topic}"' in line:
            words, _, count = line.rpartition(" ")
            lines[place] = f"{words} {int(count) + by}"
    official.page = "\n".join(lines) + "\n"


def test_questions_of_the_node_that_lead_to_no_submission(
    tmp_path: Path, clock: RunningClock, official: Receiver
) -> None:
    with desk(tmp_path, clock, ["submissions"], node_metrics_urls=official.metrics_url) as watching:
        assert watching.standing() == set()
        for _ in range(5):
            ask_again(official, "allora_worker_inference_request_count", 1)
            ask_again(official, "allora_worker_chain_submission_count", 1)
            assert watching.standing() == set()
        ask_again(official, "allora_worker_inference_request_count", 2)
        assert watching.standing() == set()
        ask_again(official, "allora_worker_inference_request_count", 1)
        assert watching.standing() == {("submissions", "1 of allo1worker")}
        assert what(watching) == "the node allo1worker asked 3 times for topic 1 and submitted nothing"
        with desk(tmp_path, clock, ["submissions"], node_metrics_urls=official.metrics_url) as restarted:
            for _ in range(3):
                restarted.pass_s(60)
            assert restarted.standing() == {("submissions", "1 of allo1worker")}, "a new monitor saw no submission"
        page, official.page = official.page, ""
        watching.calm()
        assert watching.standing() == {("submissions", "1 of allo1worker")}, "the node itself is gone"
        official.page = page
        ask_again(official, "allora_worker_chain_submission_count", 1)
        watching.calm()
        assert watching.standing() == set()


def test_a_count_that_is_no_number_costs_the_sight_of_that_node_alone(
    tmp_path: Path, clock: RunningClock, official: Receiver
) -> None:
    official.page = METRICS.replace("} 36", "} +Inf")
    with desk(tmp_path, clock, ["inference"], node_metrics_urls=official.metrics_url) as watching:
        (node_seen,) = watching.look().nodes
        assert not node_seen.answers
        assert "infinity" in node_seen.fault


def test_a_node_that_was_started_again_counts_anew(tmp_path: Path, clock: RunningClock, official: Receiver) -> None:
    with desk(tmp_path, clock, ["submissions"], node_metrics_urls=official.metrics_url) as watching:
        assert watching.standing() == set()
        official.page = METRICS.replace("} 36", "} 2").replace("} 35", "} 2")
        assert watching.standing() == set()
        ask_again(official, "allora_worker_inference_request_count", 3)
        assert watching.standing() == {("submissions", "1 of allo1worker")}


def test_another_program_at_inferences_port_is_no_inference(
    tmp_path: Path, clock: RunningClock, official: Receiver
) -> None:
    with desk(tmp_path, clock, ["inference"], inference_url=official.metrics_url.removesuffix("/metrics")) as watching:
        watching.look()
        watching.pass_s(21)
        assert "not JSON" in what(watching)


def test_an_alarm_that_is_off_is_not_raised(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["clock"]) as watching:
        watching.look()
        watching.pass_s(86_400)
        assert watching.standing() == set()
