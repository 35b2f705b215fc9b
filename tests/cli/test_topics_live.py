"""``birnn topics --live`` against the replay of a recorded chain."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chain.shapes import HostSeen, TopicSeen
from cli.live.chains import LiveNetwork, LiveTopic, read_network
from cli.live.compare import Row, State, rows_of
from cli.live.question import MAINNET, TESTNET, TWINS, Question, question_of, twins_of
from cli.main import app
from core.clock import DAY_MS, MINUTE_MS
from core.topic import CLASSIFICATION, CatalogueTopic, catalogue
from ledger.epochs import NETWORK_ITSELF, EpochBook
from monitor.chain.looks import NetworkLook
from node.config_file import topics_from_config
from tests.cli.ledger import write_config, write_ledger
from tests.fakes.chain_replay import DOWN, HTML, ChainReplay, recorded
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer
from tests.monitor.economy import epoch_rows, write

LINES = recorded()
HEIGHT = 436
PLAN = '{"plan":{"name":"v0.18.0","time":"0001-01-01T00:00:00Z","height":"60000","info":""}}'
BLOCK_MS = 5_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A data folder, and a chain to ask."""

    folder: Path
    chain: ChainReplay

    def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        environment = {
            "DATA_DIR": str(self.folder),
            "CONFIG_FILE": str(self.folder / "config.json"),
            "COLUMNS": "200",
            "LCD_URLS": self.chain.url,
            "RPC_URLS": self.chain.url,
        }
        ended = CliRunner().invoke(app, ["topics", "--live", *arguments], env=environment | more)
        return ended.exit_code, ended.stdout, ended.stderr

    def document(self, **more: str) -> dict[str, Any]:
        code, out, err = self.run("--json", **more)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def topics(self, **more: str) -> dict[int, dict[str, Any]]:
        return {one["topic_id"]: one for one in self.document(**more)["topics"]}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    write_config(tmp_path)
    with ChainReplay(LINES, height=HEIGHT).running() as chain:
        yield Desk(folder=tmp_path, chain=chain)


def test_a_new_topic_with_the_entry_to_paste(desk: Desk, tmp_path: Path) -> None:
    desk.chain.bodies["forecasts/3/403"] = Answer(
        json.dumps({"forecasts": {"forecasts": [{"forecaster": "allo1ndvrg7yaflh0u9xydfdtl9wl2hzrlrfc5xttdq"}]}})
    )
    document = desk.document()
    (network,) = document["networks"]
    assert (network["network"], network["api"], network["read"], network["not_read"]) == ("localnet", "v5", 3, [])
    topics = {one["topic_id"]: one for one in document["topics"]}
    assert [one["state"] for one in topics.values()] == ["new"] * 3
    sol = topics[3]
    assert (sol["asset"], sol["target"], sol["horizon"], sol["loss"]) == ("SOL", "volatility", "1m", "mse")
    assert Decimal(sol["weight"]) > 10**15
    assert (sol["free_inferers"], sol["free_forecasters"], topics[1]["free_forecasters"]) == (27, 5, None)
    assert any("the name says 15m, and the ground-truth lag is 1.0 minutes" in change for change in sol["changes"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["wallet"] |= {"chainId": "localnet", "nodeRpcs": [desk.chain.url], "nodegRpcs": ["localhost:9090"]}
    config["worker"] = [one["entry"] for one in topics.values() if not one["refused"]]
    pasted = tmp_path / "pasted.json"
    pasted.write_text(json.dumps(config))
    read = topics_from_config(pasted)
    assert [(one.token, one.target, one.horizon) for one in read] == [
        ("ETH", "price", "1m"),
        ("BTC", "log_return", "1m"),
    ]
    assert "the volatility of a single minute is not defined here" in sol["refused"]


def test_rewards_by_the_block_that_settled_the_newest_epoch(desk: Desk) -> None:
    expected = next(
        epoch for epoch, _ in epoch_rows(3) if epoch.nonce == 373
    )  # the newest that is settled at this height
    paid = sorted(Decimal(one.reward) for one in expected.inside.inferers if one.reward is not None)
    document = desk.document()
    epochs_a_day = DAY_MS / (30 * document["networks"][0]["block_s"] * 1000)
    topic = next(one for one in document["topics"] if one["topic_id"] == 3)
    assert topic["paid_by"] == "chain, 1 epoch"
    assert float(topic["paid_a_day"]) == pytest.approx(float(sum(paid)) * epochs_a_day, rel=1e-3)
    assert float(topic["place_a_day"]) == pytest.approx(float(paid[len(paid) // 2]) * epochs_a_day, rel=1e-3)
    unread = desk.topics(RPC_URLS="none")[3]
    assert (unread["paid_a_day"], unread["place_a_day"], unread["paid_by"]) == (None, None, None)
    assert "not known" in desk.run(RPC_URLS="none")[1]


def test_rewards_by_the_epochs_of_the_ledger(desk: Desk) -> None:
    write_ledger(desk.folder / "ledger.sqlite3", [], [])
    write(f"sqlite:///{desk.folder / 'ledger.sqlite3'}", epoch_rows(1, end_ms=desk.chain.clock.now_ms()))
    topics = desk.topics(MARKET="binance")
    assert topics[1]["paid_by"].startswith("ledger, ")
    assert topics[3]["paid_by"] == "chain, 1 epoch"


def test_topics_that_changed_and_that_ended(desk: Desk) -> None:
    desk.chain.chain_id = TESTNET
    topics = desk.topics()
    changed = "\n".join(topics[1]["changes"])
    assert topics[1]["state"] == "changed"
    assert topics[1]["configured"]
    assert "the chain asks for the truth about 1m after the base" in changed
    assert "the catalogue has 10m" in changed
    assert "an epoch has 30 blocks, the catalogue 120" in changed
    assert topics[89]["state"] == "ended"
    assert topics[89]["changes"] == ["there is no such topic on chain"]
    _, out, _ = desk.run()
    assert f"topic {TESTNET}/3 changed: name 'local SOL 15min vol': asset SOL, the catalogue BTC" in out
    assert "this release does not answer it" in out


def test_a_topic_that_is_not_active_any_more(desk: Desk) -> None:
    desk.chain.bodies["is_topic_active/3"] = Answer('{"is_active":false}')
    assert set(desk.topics()) == {1, 2}  # neither in the catalogue nor configured
    desk.chain.chain_id = TESTNET
    assert desk.topics()[3]["changes"] == ["not active any more"]


def test_an_upgrade_is_told_in_the_words_of_the_alarm(desk: Desk) -> None:
    desk.chain.faults["/cosmos/upgrade/v1beta1/current_plan"] = Answer(PLAN)
    (network,) = desk.document(NODE_VERSION="v0.12.0")["networks"]
    assert network["upgrade"] == {"name": "v0.18.0", "height": 60000}
    (upgrade,) = network["notices"]
    assert upgrade.startswith("localnet is upgraded to v0.18.0 at height 60000, in 1.")
    desk.chain.chain_id = TESTNET
    (network,) = desk.document(NODE_VERSION="v0.12.0")["networks"]
    assert network["notices"][0] == (
        f"{TESTNET} speaks API v5, and node v0.12.0 is built for v10: its submissions may be refused"
    )
    write_ledger(desk.folder / "ledger.sqlite3", [], [])
    book = EpochBook(f"sqlite:///{desk.folder / 'ledger.sqlite3'}")
    now_ms = desk.chain.clock.now_ms()
    host = HostSeen(chain_id=TESTNET, api="v5", release="", height=436, time_ms=now_ms, catching_up=False)
    book.note(TESTNET, NETWORK_ITSELF, now_ms, NetworkLook(seen_ms=now_ms, host=host).body)
    book.close()
    environment = {
        "DATA_DIR": str(desk.folder),
        "CONFIG_FILE": str(desk.folder / "config.json"),
        "MARKET": "binance",
        "NODE_VERSION": "v0.12.0",
        "COLUMNS": "200",
        "HOST": "127.0.0.1",
        "PORT": "9",
    }
    status = CliRunner().invoke(app, ["status"], env=environment)
    assert network["notices"][0] in status.stdout


def test_hosts_that_are_down_are_one_line_each(desk: Desk) -> None:
    code, out, _ = desk.run(LCD_URLS=f"http://127.0.0.1:9,{desk.chain.url}")
    assert code == 0
    assert out.count("127.0.0.1:9 cannot be used: connection failed") == 1
    assert f"{TESTNET}: no host of LCD_URLS serves it" in out
    desk.chain.faults[""] = HTML
    code, out, _ = desk.run()
    assert code == 1
    assert "cannot be used" in out
    assert "Traceback" not in out


def test_wrong_options_are_one_line(desk: Desk) -> None:
    assert "set LCD_URLS" in desk.run(LCD_URLS="")[2]
    assert "leave one out" in desk.run("--catalogue")[2]
    code, out, _ = desk.run("--json", CONFIG_FILE=str(desk.folder / "none.json"))
    assert code == 0
    assert "the config was not read" in json.loads(out)["faults"][-1]


def read(chain: ChainReplay, **limits: Any) -> LiveNetwork:
    told: list[int] = []
    network = read_network(
        chain.chain_id, [chain.url], [], {1}, chain.clock, lambda done, wanted, note: told.append(done), **limits
    )
    assert told == list(range(len(network.topics)))
    return network


def test_reading_ends_at_the_limits(tmp_path: Path) -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        chain.bodies["next_topic_id"] = Answer('{"next_topic_id":"401"}')
        network = read(chain, most_requests=120)
        assert list(network.topics)[:1] == [1]  # what is wanted comes first
        assert network.requests < 130
        assert (len(network.topics) + len(network.unread), network.unread[0]) == (400, 2)
        assert "120 requests" in network.fault
        assert read(chain, limit_s=-1.0).fault == "the limit of -1 s"
        assert not read(chain).fault


def test_a_host_that_fails_midway_ends_reading_after_some_topics(tmp_path: Path) -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        chain.bodies["next_topic_id"] = Answer('{"next_topic_id":"401"}')
        for topic_id in range(300, 310):
            chain.faults[f"/emissions/v5/is_topic_active/{topic_id}"] = DOWN
        network = read(chain)
    faults = [topic_id for topic_id, live in network.topics.items() if live.fault]
    assert faults == [307, 308, 309]
    assert "do not answer any more" in network.fault
    (row, *_) = [row for row in rows_of(network, (), None) if row.state is State.FAULT]
    assert row.changes[0]


def test_a_path_that_fails_costs_its_own_column_alone() -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        for path in ("/emissions/v5/params", "/emissions/v5/inferences/3/403", "/cosmos/upgrade/v1beta1/current_plan"):
            chain.faults[path] = HTML
        network = read(chain)
    assert (network.fault, network.most_inferers, network.upgrade) == ("", None, None)
    assert [live.fault for live in network.topics.values()] == ["", "", ""]
    assert network.topics[3].inferers is None
    assert network.topics[1].inferers == 5


def live(topic_id: int, *, is_active: bool = True, **changes: Any) -> LiveTopic:
    known = catalogue()[MAINNET, 14]
    given: dict[str, Any] = {
        "topic_id": topic_id,
        "metadata": "BTC 8h Price Prediction",
        "loss_method": "mse",
        "epoch_length": known.epoch_length_blocks,
        "ground_truth_lag": round(480 * MINUTE_MS / BLOCK_MS),
        "window": 12,
        "allow_negative": False,
    }
    return LiveTopic(topic_id=topic_id, is_active=is_active, seen=TopicSeen(**given | changes))


def row_of(one: LiveTopic, network: str = MAINNET, testnet: set[int] | None = None) -> Row:
    host = HostSeen(chain_id=network, api="v10", release="", height=10**6, time_ms=0, catching_up=False)
    (row,) = rows_of(
        LiveNetwork(chain_id=network, hosts=[], host=host, block_ms=BLOCK_MS, topics={one.topic_id: one}), (), testnet
    )
    return row


def test_a_topic_as_the_catalogue_has_it() -> None:
    row = row_of(live(14))
    assert (row.state, row.changes, row.twins) == (State.SAME, [], [42, 18])
    assert row.refused == ""
    assert row_of(live(14), testnet={18, 42}).twins == [42, 18]
    assert row_of(live(14), testnet={18}).twins == [18], "the twin has ended"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ground_truth_lag": 109}, "the catalogue has 8h"),
        ({"loss_method": "mae"}, "the chain scores by mae, and the catalogue has mse"),
        ({"loss_method": "quantile"}, "a loss that we do not know"),
        ({"is_multi": True, "labels": ("up", "down")}, "several labelled values (up, down)"),
        ({"metadata": "BTC 8h Log-Return"}, "target log_return, the catalogue price"),
        ({"metadata": "BTC 1 day Price"}, "horizon 24h, the catalogue 8h"),
        ({"epoch_length": 54}, "an epoch has 54 blocks, the catalogue 60"),
    ],
)
def test_what_a_topic_may_change(changes: dict[str, Any], told: str) -> None:
    row = row_of(live(14, **changes))
    assert row.state is State.CHANGED
    assert told in "\n".join(row.changes)


def test_a_changed_question_is_refused_by_the_catalogue_of_this_release() -> None:
    row = row_of(live(14, metadata="BTC 1 day Price", ground_truth_lag=15709))
    assert row.entry is not None
    assert 'has Horizon "8h"' in row.refused


def test_a_new_topic_whose_name_tells_no_horizon_takes_the_lags() -> None:
    row = row_of(live(99, metadata="DOGE/USD price", ground_truth_lag=109))
    assert (row.state, row.asked) == (State.NEW, Question("DOGE", "price", "10m"))
    assert row_of(live(99, metadata="US election 2024")).entry is None
    assert row_of(live(99, metadata="SOL 15min Volatility", ground_truth_lag=164)).twins == [82]


def test_the_twins_of_the_networks_list_ask_the_same() -> None:
    for mainnet, testnet in TWINS.items():
        one = catalogue()[MAINNET, mainnet]
        assert twins_of(MAINNET, mainnet, asked(one), None)[0] == testnet
    assert twins_of(TESTNET, 42, asked(catalogue()[TESTNET, 42]), None) == []
    assert twins_of(MAINNET, 18, asked(catalogue()[MAINNET, 18]), None) == []


def asked(one: CatalogueTopic) -> Question:
    return Question(one.asset, one.target, one.horizon)


def test_names_of_the_catalogues_form_are_read() -> None:
    for one in catalogue().values():
        word = {"log_return": "Log-Return", CLASSIFICATION: "Triple-Barrier Classification"}.get(one.target, one.target)
        assert question_of(f"{one.asset}/USD - {one.horizon} {word} Prediction (5min updates)") == asked(one)
