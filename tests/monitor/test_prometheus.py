"""A real Prometheus, receiver of alarms and monitor watch a node that is broken in earnest. No rule waits here."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import sqlalchemy as sa

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from core.settings import load_settings
from exchange.server import SimulatedExchange
from inference.probe import main as probe
from ledger.schema import answers
from market.store.home_store import HomeStore
from model.registry.versions import Registry
from node.dry_run_heights import epoch_blocks
from tests.disk import Disk, mounted
from tests.fakes.clock import Skewed, eventually
from tests.fakes.net import free_port
from tests.inference.stand import ETH_10M, publish
from tests.inference.test_main import environment, running
from tests.monitor.receiver import Receiver, receiving
from tests.monitor.stand import answers_to
from tests.monitor.test_alarm_book import rows
from tests.monitor.test_main import monitoring
from tests.promql import FOLDER, RULES, drawn, tool
from updater.service import train_once
from updater.state import UpdaterState, read_state

ASKED = 'allora_worker_inference_request_count{address="allo1a",topic="1"} %d\n'
BROKEN = "<html>502 Bad Gateway</html>"  # the page of a process that fails
OF_CHAIN = {  # rules that test_chain_rules.py provokes
    *("BirnnAnswersNotArriving", "BirnnContractBroken", "BirnnUnitWrong", "BirnnTruthDiffers"),
    *("BirnnUpgradeAhead", "BirnnApiNotSpoken"),
}
DAYS = 3
EPOCH_MS = 10 * MINUTE_MS
BLOCK_MS = EPOCH_MS // epoch_blocks(ETH_10M)
# Of rules whose threshold would be waited for.
SOONER = {
    "birnn_anchor_age_seconds > 60": "birnn_anchor_age_seconds > 3",
    "birnn_monitor_look_age_seconds > 60": "birnn_monitor_look_age_seconds > 12",
    "birnn_monitor_updater_heartbeat_age_seconds > 300": "birnn_monitor_updater_heartbeat_age_seconds > 25",
}


class Prometheus:
    """What it says of targets, rules and alerts."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=query, timeout=5).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def health(self) -> list[str]:
        """Of inference, monitor and node: up, down or unknown."""
        return [target["health"] for target in self.get("targets")["activeTargets"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire; of a part, also ``NAME of PART``."""
        labels = [alert["labels"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]
        return {one["alertname"] for one in labels} | {
            f"{one['alertname']} of {one['part']}" for one in labels if "part" in one
        }


@contextmanager
def prometheus(folder: Path, inference: str, monitor: str, node: str) -> Iterator[Prometheus]:
    """Prometheus with the shipped files, but for the hosts; scrapes are frequent, and no rule waits."""
    hosts = {"inference:8000": inference.removeprefix("http://"), "monitor:8080": monitor, "node:2112": node}
    config = (FOLDER / "prometheus.yml").read_text()
    for host, here in hosts.items():
        config = config.replace(host, here)
    (folder / "prometheus.yml").write_text(re.sub(r"(_interval|_timeout): \d+s", r"\1: 500ms", config))
    shutil.copytree(FOLDER / "nodes", folder / "nodes")
    rules = re.sub(r"^ +for: .*\n", "", (FOLDER / "rules.yml").read_text(), flags=re.MULTILINE)
    for threshold, lower in SOONER.items():
        assert threshold in rules
        rules = rules.replace(threshold, lower)
    (folder / "rules.yml").write_text(rules)
    url = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={url}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Prometheus(f"http://{url}")
        eventually(running.answers, timeout_s=30, what="Prometheus")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)


class Ahead(SystemClock):
    """Five seconds ahead of this machine's clock."""

    def now_ms(self) -> int:
        return super().now_ms() + 5000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """With room at first."""
    with mounted(tmp_path / "disk", 1500) as disk:
        yield disk


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """Five seconds ahead of this machine."""
    tool("prometheus")
    with SimulatedExchange(clock=Skewed(SystemClock(), 5000)) as exchange:
        yield exchange


@pytest.fixture
def poorer() -> Iterator[SimulatedExchange]:
    """The same prices, without the symbol that every network is trained with."""
    with SimulatedExchange(symbols=["ETHUSDT"]) as exchange:
        yield exchange


@pytest.fixture
def node(payloads: Path) -> Iterator[Receiver]:
    """The official node's metrics, and the operator's notifications."""
    with receiving() as receiver:
        receiver.page = (payloads / "node" / "metrics.txt").read_text()
        yield receiver


@pytest.fixture
def given(tmp_path: Path, disk: Disk, exchange: SimulatedExchange, node: Receiver) -> dict[str, str]:
    """What the processes are started with; inference answers with no price older than three seconds."""
    return environment(
        tmp_path,
        exchange.url,
        DATA_DIR=str(disk.folder),
        MONITOR_PORT=str(free_port()),
        NODE_METRICS_URLS=node.metrics_url,
        ALARM_URLS=node.alarm_url,
        MAX_ANCHOR_AGE_S="3",
        TRAINING_DAYS=str(DAYS),
        OBJECTIVE="loss",
        ALARM_INFERENCE="3",
        ALARM_ANCHOR="3",
        ALARM_TOPIC="0.01",
        ALARM_CHAMPION="0.5",
        LOG_FORMAT="json",
    )


@contextmanager
def updating(given: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A running ``python -m updater``."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "updater"], env=dict(given), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def keep_bad_answers(folder: Path, version: str) -> None:
    """Fill the ledger: the champion's answers of some days are far off, and every eleventh epoch has none."""
    klines = HomeStore(folder / "klines", ("binance",)).read("ETHUSDT", MINUTE_MS, 0, 2**62)
    last_ms = klines.end_ms // EPOCH_MS * EPOCH_MS - EPOCH_MS
    epochs = [last_ms - number * EPOCH_MS for number in range(DAYS * 144) if number % 11][::-1]
    found = answers_to(ETH_10M, klines, epochs, version=version)
    noise = np.random.default_rng(0).normal(0, 0.01, len(found))
    given = [
        answer._replace(
            market="SIMULATED", height=answer.base_ms // BLOCK_MS, value=repr(answer.anchor * float(np.exp(off)))
        )._asdict()
        for answer, off in zip(found, noise, strict=True)
    ]
    engine = sa.create_engine(load_settings(data_dir=folder, database_url="").ledger_url)
    with engine.begin() as connection:
        connection.execute(answers.insert(), given)
    engine.dispose()


@pytest.mark.timeout(300)
def test_every_alarm_and_rule_tells_what_is_broken_in_earnest(
    tmp_path: Path,
    disk: Disk,
    given: dict[str, str],
    poorer: SimulatedExchange,
    exchange: SimulatedExchange,
    node: Receiver,
) -> None:
    folder, registry, now_ms = disk.folder, Registry(disk.folder), SystemClock().now_ms()
    champion = publish(registry, 0.5, now_ms - HOUR_MS)
    registry.promote([ETH_10M], champion, now_ms - (DAYS + 1) * DAY_MS)
    logs = {name: tmp_path / f"{name}.log" for name in ("inference", "updater", "monitor")}
    of_updater = given | {"BINANCE_REST_URLS": poorer.url, "BINANCE_ARCHIVE_URL": poorer.url}
    settings = load_settings(
        data_dir=folder,
        market="simulated",
        binance_rest_urls=poorer.url,
        binance_archive_url=poorer.url,
        training_days=DAYS,
    )

    def update_until(condition: Callable[[UpdaterState], bool]) -> None:
        with updating(of_updater, logs["updater"]) as process:
            eventually(lambda: condition(read_state(folder) or UpdaterState()), 60, "what the updater does")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0

    with (
        running(given, logs["inference"]) as inference,
        prometheus(tmp_path, inference.url, f"127.0.0.1:{given['MONITOR_PORT']}", node.address) as watched,
    ):
        seen: set[str] = set()
        heights = count(10**9)

        def fire(*rules: str, alarms: Sequence[str] = (), meanwhile: Callable[[], object] = lambda: None) -> None:
            seen.update(rule.partition(" ")[0] for rule in rules)

            def told() -> bool:
                meanwhile()
                missing = [alarm for alarm in alarms if node.told(f"ALARM {alarm}: ") != 1]
                return set(rules) <= watched.firing() and not missing

            eventually(told, 40, " and ".join([*rules, *alarms]), every_s=0.25)

        def ask() -> None:
            question = f"{inference.url}/inference/ETH?topic=1&height={next(heights)}"
            assert requests.get(question, headers={"User-Agent": "Go-http-client/1.1"}, timeout=5).status_code == 200

        assert probe(["readyz", "--wait", "60", "--url", inference.url]) == 0
        with monitoring(given, logs["monitor"]) as monitor:
            # Well, but for what is true of every run like this one. The champion is an hour old.
            usual = {"BirnnClockOff", "BirnnMarketSimulated"}
            eventually(lambda: watched.health() == ["up"] * 3, 30, "the targets")
            fire(*usual, alarms=("clock", "market", "champion"))
            eventually(lambda: watched.firing() == usual, 30, " and ".join(usual))
            assert len(watched.get("rules")["groups"][0]["rules"]) == len(RULES)
            for query in drawn():
                watched.get("query", query=query)

            # Inference hangs, and the monitor that tells so is killed.
            inference.popen.send_signal(signal.SIGSTOP)
            fire("BirnnInferenceDown", alarms=("inference",))
            eventually(lambda: all(row.sent_ms for row in rows(folder)), what="what was told, in the database")
            monitor.end(signal.SIGKILL)
        fire("BirnnMonitorDown")
        inference.popen.send_signal(signal.SIGCONT)

        # The updater cannot have the klines of one symbol; of the other the monitor scores bad answers.
        update_until(lambda state: bool(state.series))
        keep_bad_answers(folder, champion)
        with monitoring(given, logs["monitor"]):
            fire(
                "BirnnSkillNegative",
                "BirnnParticipationLow",
                "BirnnDataUnreadable of klines",
                alarms=("skill", "participation"),
            )

            # The updater demotes the champion and cannot train another; the node makes nothing of the answers.
            update_until(lambda _: bool(registry.demotions()))
            for _ in range(3):
                assert not train_once(settings, [ETH_10M])[0].ok
            asks = count(1)

            def ask_as_node() -> None:
                ask()
                node.page = ASKED % next(asks)

            fire(
                *("BirnnChampionDemoted", "BirnnChampionOld", "BirnnTrainingFailing"),
                *("BirnnSubmissionsMissing", "BirnnAnswersUnused"),
                alarms=("demotion", "training", "submissions"),
                meanwhile=ask_as_node,
            )

            # The disk gets small and full, while nobody takes notifications; answers go on.
            node.status = 500
            disk.resize(64)
            fire("BirnnDiskNearlyFull", "BirnnNotificationsFailing")
            disk.refuse("full")
            node.status = 200
            fire("BirnnLedgerFailing", "BirnnDataUnreadable of ledger", alarms=("store",), meanwhile=ask)
            disk.give_way()

            # What is over is told too, also of an alarm of the monitor that was killed.
            eventually(lambda: node.told("OVER inference: ") == node.told("OVER skill: ") == 1, 60, "what is over")
            assert {node.told(f"ALARM {name}: ") for name in ("clock", "inference", "market", "skill")} == {1}

            # Exchange and node are gone, and the monitor hangs in a read of a disk that does not answer.
            exchange.outage(600)
            node.page = BROKEN
            fire("BirnnAnchorStale", "BirnnTopicNotAnswerable", "BirnnNodeDown", alarms=("anchor", "topic"))
            (folder / "updater.json").unlink()
            os.mkfifo(folder / "updater.json")
            fire("BirnnUpdaterSilent", "BirnnMonitorStands")
    assert seen == {rule["alert"] for rule in RULES} - OF_CHAIN
