"""Two networks served by one process: one topic id, two questions."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.clock import iso
from core.topic import Target
from exchange.server import SimulatedExchange
from tests.fakes.clock import BASE_MS, RunningClock
from tests.inference.stand import ETH_10M, Node, node, topic

SOL_8H = replace(topic(1, "SOL", 480, Target.LOG_RETURN), network="allora-mainnet-1")
SOL_15M = replace(topic(23, "SOL", 15, Target.VOLATILITY), network="allora-mainnet-1")
TESTNET, MAINNET = "&network=allora-testnet-1", "&network=allora-mainnet-1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    clock, folder = RunningClock(), tmp_path_factory.mktemp("node")
    with SimulatedExchange(clock=clock) as exchange, node(folder, exchange, clock, topics=TOPICS) as running:
        yield running


GOLD = replace(topic(60, "XAU", 1440, Target.LOG_RETURN), symbol="PAXGUSDT")
TOPICS = (ETH_10M, SOL_8H, SOL_15M, GOLD)


def test_the_same_height_of_the_same_id_is_answered_for_each_network(served: Node) -> None:
    here, there = (f"/inference/ETH?topic=1&height=9{TESTNET}", f"/inference/SOL?topic=1&height=9{MAINNET}")
    first = [served.get(path) for path in (here, there)]
    again = [served.get(path) for path in (here, there)]
    assert [answer.status_code for answer in first] == [200, 200]
    assert [answer.text for answer in again] == [answer.text for answer in first]
    assert float(first[0].text) > 1, "a price"
    assert first[1].text == "0", "no move"
    assert [answer.headers["X-Network"] for answer in first] == ["allora-testnet-1", "allora-mainnet-1"]
    assert first[0].headers["X-As-Of"] == iso(BASE_MS)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        pytest.param("/inference/ETH?topic=1", 400, MAINNET, id="no network"),
        pytest.param(f"/inference/ETH?topic=1{MAINNET}", 400, "about SOL", id="the other network"),
        pytest.param(f"/inference/SOL?topic=23{TESTNET}", 404, "but for allora-mainnet-1", id="not of that network"),
        pytest.param("/inference/SOL?topic=23&network=", 404, "network ''", id="network empty"),
        pytest.param(f"/inference/SOL?topic=23{MAINNET}{MAINNET}", 400, "2 times", id="network twice"),
        pytest.param("/inference/SOL?topic=23&network=%0A%00", 404, "\\n\\x00", id="a line break"),
    ],
)
def test_each_mistake_has_its_status_and_one_plain_line(served: Node, path: str, status: int, says: str) -> None:
    answer = served.get(path)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert answer.text.isprintable()


def test_an_id_of_one_network_is_found_without_it(served: Node) -> None:
    assert served.get("/inference/SOL?topic=23").status_code == 200
    assert served.get(f"/inference/SOL?topic=23{MAINNET}").status_code == 200


def test_pages_tell_the_networks_apart(served: Node) -> None:
    served.get(f"/inference/SOL?topic=1{MAINNET}")
    states = {(state["network"], state["topic_id"]): state for state in served.get("/topics").json()}
    assert states.keys() == {(topic.network, topic.topic_id) for topic in TOPICS}
    assert (states["allora-mainnet-1", 1]["symbol"], states["allora-mainnet-1", 1]["proxy"]) == ("SOLUSDT", None)
    assert states["allora-testnet-1", 60]["proxy"] == "PAXG stands for XAU"
    scraped = served.get("/metrics").text
    for network in ("allora-testnet-1", "allora-mainnet-1"):
        assert f'birnn_topic_ready{{network="{network}",topic="1"}} 1.0' in scraped
    assert (
        'birnn_answers_total{asker="node",network="allora-mainnet-1",status="200",topic="1",version="persistence"}'
        in scraped
    )
