"""The HTTP contract with the offchain node, asked over a socket."""

import itertools
import json
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from core.clock import HOUR_MS, MINUTE_MS, iso
from core.net.http_get import http_get
from core.topic import Target, Topic
from exchange.server import SimulatedExchange
from inference.http.metrics import LATENCY_S
from tests.fakes.clock import BASE_MS, RunningClock, eventually
from tests.inference.stand import ETH_10M, QUESTIONS, TOPICS, Node, moment_ms, node, topic
from worker.dry_run import USER_AGENT

DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
HEIGHTS = itertools.count(50_000)

# Two networks served by one process: one topic id, two questions.
SOL_8H = replace(topic(1, "SOL", 480, Target.LOG_RETURN), network="allora-mainnet-1")
MAINNET_SOL_15M = replace(topic(23, "SOL", 15, Target.VOLATILITY), network="allora-mainnet-1")
GOLD = replace(topic(60, "XAU", 1440, Target.LOG_RETURN), symbol="PAXGUSDT")
TWO_NETWORKS = (ETH_10M, SOL_8H, MAINNET_SOL_15M, GOLD)
TESTNET, MAINNET = "&network=allora-testnet-1", "&network=allora-mainnet-1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node without champions, for questions that change nothing."""
    clock = RunningClock()
    with SimulatedExchange(clock=clock) as exchange, node(tmp_path_factory.mktemp("node"), exchange, clock) as running:
        yield running


@pytest.fixture(scope="module")
def served_for_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    clock, folder = RunningClock(), tmp_path_factory.mktemp("node")
    with SimulatedExchange(clock=clock) as exchange, node(folder, exchange, clock, topics=TWO_NETWORKS) as running:
        yield running


@pytest.mark.parametrize(("asked", "path"), [pytest.param(t, p, id=p) for t, p in QUESTIONS])
def test_an_answer_is_the_bare_decimal_and_its_headers_say_what_it_rests_on(
    served: Node, asked: Topic, path: str
) -> None:
    answer = served.get(path)
    assert answer.status_code == 200
    assert DECIMAL.fullmatch(answer.text)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Topic"] == str(asked.topic_id)
    assert (answer.headers["X-Model-Version"], answer.headers["X-Forecast"]) == ("persistence", "naive")
    assert answer.headers["X-As-Of"] in {iso(BASE_MS), iso(BASE_MS // HOUR_MS * HOUR_MS)}
    assert 0 <= int(answer.headers["X-Anchor-Age-Ms"]) < 30_000
    asked_ms, answered_ms = (moment_ms(answer.headers[name]) for name in ("X-Asked", "X-Answered"))
    assert BASE_MS < asked_ms <= answered_ms < BASE_MS + MINUTE_MS
    age_ms = asked_ms - moment_ms(answer.headers["X-As-Of"])
    assert int(answer.headers["X-Forecast-Age-Ms"]) == age_ms


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        pytest.param("/inference/DOGE", 404, "configured are BTC, ETH, SOL", id="token nobody configured"),
        pytest.param("/inference/eth?topic=1", 404, "'eth'", id="token in lower case"),
        pytest.param("/inference/ETH?topic=9", 404, "1, 2, 64, 82", id="topic nobody configured"),
        pytest.param("/inference/ETH?topic=0", 404, "topic 0", id="topic 0"),
        pytest.param("/inference/ETH", 400, "1 (price 10m), 2 (price 24h)", id="token of several topics alone"),
        pytest.param("/inference/BTC?topic=1", 400, "about ETH", id="token of another topic"),
        pytest.param("/inference/ETH?topic=one", 400, "'one'", id="topic in words"),
        pytest.param("/inference/ETH?topic=", 400, "''", id="topic empty"),
        pytest.param("/inference/ETH?topic=1.0", 400, "'1.0'", id="topic with a point"),
        pytest.param("/inference/ETH?topic=1&height=-1", 400, "'-1'", id="height below 0"),
        pytest.param("/inference/ETH?topic=1&height=%2B5", 400, "'+5'", id="height with a sign"),
        pytest.param("/inference/ETH?topic=1&height=1e3", 400, "'1e3'", id="height with an exponent"),
        pytest.param("/inference/ETH?topic=1&height=%D9%A3", 400, "height", id="digit of another script"),
        pytest.param(f"/inference/ETH?topic=1&height={'9' * 4000}", 400, "...", id="height of 4000 digits"),
        pytest.param("/inference/ETH?topic=1&height=9223372036854775808", 400, "height", id="height above int64"),
        pytest.param("/inference/ETH?topic=1&hieght=3", 400, "did you mean height?", id="misspelt"),
        pytest.param("/inference/ETH?topics=1", 400, "did you mean topic?", id="topic misspelt"),
        pytest.param("/inference/ETH?topic=1&topic=2", 400, "2 times", id="topic twice"),
        pytest.param("/inference/ETH?topic=1&height=1&height=1", 400, "2 times", id="height twice"),
        pytest.param("/inference/ETH?top%69c=1&topic=1", 400, "2 times", id="topic twice, once in disguise"),
        pytest.param("/inference/ETH?&&=&topic", 400, "''", id="topic without a value"),
        pytest.param("/inference/E%0AT%22H", 404, "\\n", id="token with a line break"),
        pytest.param("/inference/" + "A" * 4000, 404, "...", id="token of 4000 letters"),
        pytest.param("/inference/", 404, "", id="no token"),
        pytest.param("/inference/ETH/", 404, "", id="slash at the end"),
        pytest.param("/elsewhere", 404, "/inference/TOKEN?topic=ID", id="unknown path"),
    ],
)
def test_each_mistake_has_its_status_and_one_plain_line(served: Node, path: str, status: int, says: str) -> None:
    answer = served.get(path)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.isprintable()
    assert answer.text
    assert len(answer.text) < 300
    assert answer.text[0] not in '{["'
    assert ("X-Asked" in answer.headers) == bool(re.fullmatch("/inference/[^/]+", path.partition("?")[0]))
    assert "X-Answered" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "PATCH"])
@pytest.mark.parametrize("path", ["/inference/SOL", "/topics", "/readyz"])
def test_nothing_but_get_is_allowed(served: Node, method: str, path: str) -> None:
    assert requests.request(method, served.url + path, timeout=5).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/inference/SOL", 200, id="answer"),
        pytest.param("GET", "/inference/DOGE", 404, id="refused question"),
        pytest.param("POST", "/inference/SOL", 405, id="method"),
        pytest.param("GET", "/elsewhere", 404, id="path"),
        pytest.param("GET", "/healthz", 200, id="healthz"),
        pytest.param("GET", "/readyz", 200, id="readyz"),
        pytest.param("GET", "/metrics", 200, id="metrics"),
        pytest.param("GET", "/topics", 200, id="topics"),
    ],
)
def test_every_response_says_once_where_prices_come_from(served: Node, method: str, path: str, status: int) -> None:
    answer = requests.request(method, served.url + path, timeout=5)
    assert (answer.status_code, answer.headers["X-Market"]) == (status, "SIMULATED")


def test_even_what_is_no_request_is_told_where_prices_come_from(served: Node) -> None:
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-market: SIMULATED" in answer


def test_a_height_of_0_and_the_greatest_one_are_heights(served: Node) -> None:
    for height in (0, 2**63 - 1):
        first, again = (served.get(f"/inference/SOL?height={height}") for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.text == again.text


def test_one_log_line_per_question(served: Node) -> None:
    served.get("/inference/SOL?height=42")
    served.get("/inference/SOL?topic=43")
    eventually(lambda: any(line["topic_id"] == 43 for line in served.lines), what="the second line")
    given = next(line for line in served.lines if line["height"] == 42)
    assert set(given) == {
        "topic_id", "network", "token", "height", "status", "took_ms", "version", "asof_ms", "anchor_age_ms", "value",
        "asked_ms", "answered_ms", "forecast_age_ms", "venue", "truth_ratio", "forecast", "asker",
        "base_ms", "base_source", "elapsed_ms", "held_ms",
    }  # fmt: skip
    assert (given["topic_id"], given["token"], given["status"], given["asof_ms"]) == (82, "SOL", 200, BASE_MS)
    assert given["asked_ms"] - given["forecast_age_ms"] == given["asof_ms"]
    assert given["asked_ms"] <= given["answered_ms"]
    refused = next(line for line in served.lines if line["topic_id"] == 43)
    assert BASE_MS < refused["asked_ms"] < BASE_MS + MINUTE_MS
    assert (refused["status"], refused["reason"][:8]) == (404, "topic 43")


LOGGED = """
import sys
from core.logs import configure_logging
from inference.http.fast_route import write_lines
configure_logging(sys.argv[1], service="inference", simulated=True, form=sys.argv[2])
write_lines([{"topic_id": 1, "status": 200, "value": "1.5"}, {"topic_id": 2, "status": 503, "reason": "stale"}])
write_lines([{"topic_id": 3, "status": 200, "value": "2"}])
"""


@pytest.mark.parametrize(("level", "topic_ids"), [("info", [1, 2, 3]), ("warning", [2]), ("error", [])])
def test_a_batch_of_lines_is_logged_line_by_line(level: str, topic_ids: list[int]) -> None:
    command = [sys.executable, "-c", LOGGED, level, "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line.pop("topic_id") for line in lines] == topic_ids
    for line in lines:
        assert list(line) == sorted(line)
        assert line.pop("at").endswith("Z")
        answered = line.pop("status") == 200
        own_fields = {"value": line["value"]} if answered else {"reason": "stale"}
        assert line == {
            "event": "answer",
            "level": "info" if answered else "warning",
            "service": "inference",
            "market": "SIMULATED",
            **own_fields,
        }
    assert ran.stderr == ""


def test_a_batch_of_lines_is_readable_where_the_console_is_meant() -> None:
    took = LOGGED.replace('"status"', '"took_ms": 0.12, "token": "ETH", "forecast": "naive", "status"')
    ran = subprocess.run([sys.executable, "-c", took, "info", "console"], capture_output=True, text=True, check=True)
    assert [line[9:] for line in ran.stdout.splitlines()] == [
        "SIMULATED info inference topic 1 ETH 1.5 naive",
        "SIMULATED warn inference topic 2 ETH 503 stale 0.1ms",
        "SIMULATED info inference topic 3 ETH 2 naive",
    ]


def test_the_ages_behind_an_answer_are_counted_when_it_is_made_and_not_when_it_is_told_again(served: Node) -> None:
    def counts() -> list[float]:
        scraped = served.get("/metrics").text
        names = ("birnn_answer_anchor_age_seconds", "birnn_answer_forecast_age_seconds", "birnn_answer_seconds")
        return [float(re.findall(f"^{name}_count (.*)$", scraped, re.MULTILINE)[0]) for name in names]

    before = counts()
    first = served.get("/inference/SOL?height=4711")
    time.sleep(0.01)
    again = served.get("/inference/SOL?height=4711")
    served.get("/inference/SOL?topic=43")
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [1, 1, 3]
    assert again.headers["X-Answered"] == first.headers["X-Answered"]
    assert moment_ms(again.headers["X-Asked"]) > moment_ms(first.headers["X-Asked"])


def test_pages_for_people_and_machines(served: Node) -> None:
    assert served.get("/healthz").text == "ok"
    assert served.get("/readyz").text == "ready"
    served.get("/inference/SOL?height=77")
    states = {state["topic_id"]: state for state in served.get("/topics").json()}
    assert set(states) == {topic.topic_id for topic in TOPICS}
    sol = states[82]
    assert (sol["token"], sol["symbol"], sol["target"], sol["horizon"]) == ("SOL", "SOLUSDT", "volatility", "15m")
    assert (sol["ready"], sol["champion"], sol["persistence"]) == (True, None, "no champion yet")
    assert (sol["forecast"], sol["naive_because"], sol["volatility"]) == ("naive", "no champion yet", "std_horizon")
    assert sol["last_answer"]["height"] == 77
    scraped = served.get("/metrics").text
    assert 'birnn_answers_total{asker="node",network="allora-testnet-1",status="200",topic="82",' in scraped
    assert 'birnn_topic_persistence{network="allora-testnet-1",topic="82"} 1.0' in scraped
    assert 'birnn_topic_naive{network="allora-testnet-1",topic="82"} 1.0' in scraped
    assert 'birnn_anchor_age_seconds{symbol="SOLUSDT"}' in scraped
    assert 'birnn_market_info{market="SIMULATED"} 1.0' in scraped
    served.get("/inference/ETH?topic=123456")
    assert "123456" not in served.get("/metrics").text, "a stranger's numbers are no labels"


def test_each_answer_is_in_its_bucket_and_in_all_that_reach_further(served: Node) -> None:
    served.get("/inference/SOL?height=4713")
    scraped = served.get("/metrics").text
    buckets = re.findall(r'^birnn_answer_seconds_bucket{le="(.*)"} (.*)$', scraped, re.MULTILINE)
    counts = [float(count) for _, count in buckets]
    assert [float(bound) for bound, _ in buckets] == [*LATENCY_S, math.inf]
    assert counts == sorted(counts)
    assert f"birnn_answer_seconds_count {counts[-1]}" in scraped


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param("curl/8.14.1", id="curl"),
        pytest.param("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", id="browser"),
        pytest.param("Wget/1.21.3", id="wget"),
        pytest.param("HTTPie/3.2.4", id="httpie"),
        pytest.param("python-requests/2.32.5", id="python"),
    ],
)
def test_what_is_asked_by_hand_gets_the_answer_and_is_not_counted_as_the_node_s(served: Node, agent: str) -> None:
    def counts() -> tuple[dict[str, float], list[str]]:
        scraped = served.get("/metrics").text
        asked = dict.fromkeys(("node", "hand"), 0.0)
        of_topic = r'^birnn_answers_total{asker="(\w+)",.*topic="82",.*} (.*)$'
        for who, count in re.findall(of_topic, scraped, re.MULTILINE):
            asked[who] += float(count)
        return asked, re.findall(r"^birnn_answer_(?:anchor|forecast)_age_seconds_count (.*)$", scraped, re.MULTILINE)

    height = next(HEIGHTS)
    own = served.get(f"/inference/SOL?height={height}")
    before, ages = counts()
    by_hand = served.get(f"/inference/SOL?height={height + 1_000}", agent)
    assert by_hand.status_code == 200
    assert counts() == ({"node": before["node"], "hand": before["hand"] + 1}, ages)
    (sol,) = [state for state in served.get("/topics").json() if state["topic_id"] == 82]
    assert (sol["last_answer"]["height"], sol["last_answer"]["value"]) == (height, own.text)
    eventually(lambda: any(line["height"] == height + 1_000 for line in served.lines), what="its line")
    assert {line["asker"] for line in served.lines if line["height"] == height} == {"node"}
    assert {line["asker"] for line in served.lines if line["height"] == height + 1_000} == {"hand"}

    again = served.get(f"/inference/SOL?height={height + 1_000}")
    assert (again.text, again.headers["X-Answered"]) == (by_hand.text, by_hand.headers["X-Answered"])
    (sol,) = [state for state in served.get("/topics").json() if state["topic_id"] == 82]
    assert sol["last_answer"]["height"] == height + 1_000, "now the node has it as well"


def test_the_dry_run_node_is_counted_as_the_node(served: Node) -> None:
    reply = http_get(f"{served.url}/inference/SOL?height=60000", 5.0, user_agent=USER_AGENT)
    assert reply.status == 200
    eventually(lambda: any(line["height"] == 60_000 for line in served.lines), what="its line")
    assert {line["asker"] for line in served.lines if line["height"] == 60_000} == {"node"}


# -- two networks -----------------------------------------------------------------------------------------------


def test_the_same_height_of_the_same_id_is_answered_for_each_network(served_for_two: Node) -> None:
    here, there = (f"/inference/ETH?topic=1&height=9{TESTNET}", f"/inference/SOL?topic=1&height=9{MAINNET}")
    first = [served_for_two.get(path) for path in (here, there)]
    again = [served_for_two.get(path) for path in (here, there)]
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
def test_each_mistake_about_networks_has_its_status_and_one_plain_line(
    served_for_two: Node, path: str, status: int, says: str
) -> None:
    answer = served_for_two.get(path)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert answer.text.isprintable()


def test_an_id_of_one_network_is_found_without_it(served_for_two: Node) -> None:
    assert served_for_two.get("/inference/SOL?topic=23").status_code == 200
    assert served_for_two.get(f"/inference/SOL?topic=23{MAINNET}").status_code == 200


def test_pages_tell_the_networks_apart(served_for_two: Node) -> None:
    served_for_two.get(f"/inference/SOL?topic=1{MAINNET}")
    states = {(state["network"], state["topic_id"]): state for state in served_for_two.get("/topics").json()}
    assert states.keys() == {(topic.network, topic.topic_id) for topic in TWO_NETWORKS}
    assert (states["allora-mainnet-1", 1]["symbol"], states["allora-mainnet-1", 1]["proxy"]) == ("SOLUSDT", None)
    assert states["allora-testnet-1", 60]["proxy"] == "PAXG stands for XAU"
    scraped = served_for_two.get("/metrics").text
    for network in ("allora-testnet-1", "allora-mainnet-1"):
        assert f'birnn_topic_ready{{network="{network}",topic="1"}} 1.0' in scraped
    assert (
        'birnn_answers_total{asker="node",network="allora-mainnet-1",status="200",topic="1",version="persistence"}'
        in scraped
    )
