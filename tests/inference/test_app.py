"""The HTTP contract with the offchain node, asked over a socket."""

import itertools
import json
import math
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import requests

from cli.status import endpoint_report, headline
from core.clock import HOUR_MS, MINUTE_MS, SystemClock, iso
from core.settings import NoModelPolicy
from core.topic import Target, Topic, Volatility
from exchange.server import SimulatedExchange
from inference.http.metrics import LATENCY_S
from klines.klines import Klines
from ledger.answer_log import RECENT
from market.listings import Listings
from market.venues.binance.rest import Binance
from model.features import unbroken_needed
from model.forecaster import carried
from model.heads import HOUR, MINUTE
from model.registry.versions import Registry
from tests.fakes import entry_of, eventually, free_port
from tests.inference.hanging import hanging
from tests.inference.stand import (
    BASE_MS,
    BTC_8H,
    ETH_10M,
    ETH_24H,
    SOL_15M,
    TOPICS,
    Node,
    RunningClock,
    node,
    publish,
    topic,
)
from worker.dry_run import ask as ask_as_node

DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
QUESTIONS = [(ETH_10M, "/inference/ETH?topic=1"), (ETH_24H, "/inference/ETH?topic=2"), (BTC_8H, "/inference/BTC")]
HEIGHTS = itertools.count(50_000)
QUESTIONS.append((SOL_15M, "/inference/SOL?topic=82"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node without champions, for questions that change nothing."""
    clock = RunningClock()
    with SimulatedExchange(clock=clock) as exchange, node(tmp_path_factory.mktemp("node"), exchange, clock) as running:
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
        said = {"value": line["value"]} if answered else {"reason": "stale"}
        assert line == {
            "event": "answer",
            "level": "info" if answered else "warning",
            "service": "inference",
            "market": "SIMULATED",
            **said,
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
    reply = ask_as_node(f"{served.url}/inference/SOL?height=60000", 5.0)
    assert reply.status == 200
    eventually(lambda: any(line["height"] == 60_000 for line in served.lines), what="its line")
    assert {line["asker"] for line in served.lines if line["height"] == 60_000} == {"node"}


def test_a_repeated_question_gets_the_same_answer_also_after_a_restart(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    path = "/inference/ETH?topic=1&height=812"
    with node(tmp_path, exchange, clock) as running:
        first = running.get(path)
        clock.jump(MINUTE_MS)
        eventually(lambda: running.get("/inference/ETH?topic=1").text != first.text, what="another price")
        again = running.get(path)
        other = running.get("/inference/ETH?topic=1&height=813")
    assert other.text != first.text
    clock.jump(MINUTE_MS)
    with node(tmp_path, exchange, clock, wait=False) as running:
        restarted = running.get(path)
    names = ("X-Topic", "X-Model-Version", "X-As-Of", "X-Answered", "X-Market")
    for answer in (first, again, restarted):
        assert answer.headers.keys() == first.headers.keys()
    ages_ms = [int(answer.headers["X-Anchor-Age-Ms"]) for answer in (first, again, restarted)]
    for number, answer in enumerate((again, restarted), 1):
        assert moment_ms(answer.headers["X-Asked"]) > moment_ms(answer.headers["X-Answered"])
        assert (answer.status_code, answer.text) == (200, first.text)
        assert [answer.headers[name] for name in names] == [first.headers[name] for name in names]
        assert ages_ms[number] >= ages_ms[0] + number * MINUTE_MS, "the price is older when it is told again"


def test_the_last_answer_of_a_topic_is_known_after_a_restart(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running:
        given = running.get("/inference/ETH?topic=1&height=812")
    with node(tmp_path, exchange, clock, wait=False) as running:
        last = {state["topic_id"]: state["last_answer"] for state in running.get("/topics").json()}
    assert (last[1]["height"], last[1]["value"]) == (812, given.text)
    assert last[82] is None


def test_an_answer_of_long_ago_is_not_given_again_and_no_other_is(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    path = "/inference/ETH?topic=1&height=812"
    with node(tmp_path, exchange, clock) as running:
        assert running.get(path).status_code == 200
        clock.jump(3 * HOUR_MS)
        eventually(running.ready, what="/readyz")
        refused = running.get(path)
    assert (refused.status_code, "\n" in refused.text) == (503, False)
    assert f"height 812 was answered {iso(BASE_MS)[:14]}" in refused.text
    with node(tmp_path, exchange, clock) as running:
        assert running.get(path).text == refused.text, "after a restart, too"
        assert running.get("/inference/ETH?topic=1&height=813").status_code == 200


def test_a_clock_that_is_set_back_is_waited_out(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock, topics=[ETH_10M, SOL_15M]) as running:
        exchange.fail_next("/api", count=100_000, status=503)
        clock.jump(-10 * MINUTE_MS)
        for path in ("/inference/ETH", "/inference/SOL"):
            refused = running.get(path)
            assert (refused.status_code, "clock was set back" in refused.text) == (503, True), refused.text
        exchange.clear_faults()
        eventually(running.ready, what="/readyz")


class Holed(Binance):
    """A venue that was out of order for ten minutes: nobody will ever have those candles."""

    until_ms = BASE_MS - (unbroken_needed(MINUTE) - 1) * MINUTE_MS

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        found = super().klines(symbol, interval_ms, start_ms, end_ms)
        if interval_ms != MINUTE_MS:
            return found
        return found.between(0, self.until_ms - 10 * MINUTE_MS).merge(found.between(self.until_ms, 2**62))


def test_a_champion_is_back_as_soon_as_the_candles_after_an_outage_are_enough(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.5, clock.now_ms())
    registry.promote([ETH_10M], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M], venue=Holed) as running:
        assert running.get("/inference/ETH").headers["X-Model-Version"] == "persistence"
        assert "missing between" in running.get("/topics").json()[0]["persistence"]
        clock.jump(MINUTE_MS)
        eventually(lambda: forecast_asof_ms(running) == BASE_MS + MINUTE_MS, what="the champion's forecast")
        eventually(running.ready, what="/readyz")
        assert running.get("/inference/ETH").headers["X-Model-Version"] == version


def test_an_answer_that_memory_has_let_go_is_still_the_same(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running, requests.Session() as session:

        def ask(height: int) -> str:
            return session.get(f"{running.url}/inference/ETH?topic=1&height={height}", timeout=5).text

        first = ask(0)
        for height in range(1, RECENT + 1):
            ask(height)
        eventually(lambda: running.ledger.recall(ETH_10M, 0) is None, what="the first answer leaving memory")
        before = running.live.anchor("ETHUSDT")
        clock.jump(20_000)
        eventually(lambda: running.live.anchor("ETHUSDT") != before, what="another price")
        assert ask(0) == first
        assert ask(RECENT + 1) != first


def test_a_database_that_hangs_costs_only_the_questions_that_need_it(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running, requests.Session() as session:

        def ask(height: int) -> requests.Response:
            return session.get(f"{running.url}/inference/ETH?topic=1&height={height}", timeout=5)

        first = ask(0).text
        for height in range(1, RECENT + 1):
            ask(height)
        eventually(lambda: running.ledger.recall(ETH_10M, 0) is None, what="the first answer leaving memory")
        with hanging(tmp_path / "ledger.sqlite3"):
            for _ in range(3):
                refused = ask(0)
                assert (refused.status_code, "\n" in refused.text) == (503, False)
                assert "height 0 was answered before is not known" in refused.text
                assert "X-Asked" in refused.headers
                assert ask(RECENT).status_code == 200, "memory has it"
                assert ask(RECENT + 1).status_code == 200, "nobody asked before"
        eventually(lambda: ask(0).text == first, what="the answer that was given first")
    eventually(lambda: [line["status"] for line in running.lines if line["height"] == 0][1:4] == [503] * 3)


def test_a_stale_market_is_503_with_a_reason_and_then_recovers(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running:
        exchange.fail_next("/api", count=100_000, status=503)
        clock.jump(40_000)
        price, volatility = "/inference/ETH?topic=1&height=5", "/inference/SOL?height=5"
        refused = running.get(price)
        assert refused.status_code == 503
        assert "MAX_ANCHOR_AGE_S" in refused.text
        assert "\n" not in refused.text
        assert "X-Asked" in refused.headers
        assert running.get(volatility).status_code == 200, "it rests on candles alone"
        clock.jump(4 * MINUTE_MS)
        refused = running.get("/inference/SOL?height=6")
        assert refused.status_code == 503
        assert "MAX_KLINE_AGE_S" in refused.text
        assert running.get("/inference/BTC").status_code == 200, "its candles are of an hour"
        reasons = running.get("/readyz")
        assert reasons.status_code == 503
        assert {line.split(":")[0] for line in reasons.text.splitlines()} == {
            f"topic allora-testnet-1/{number}" for number in (1, 2, 82)
        }
        exchange.clear_faults()
        clock.jump(30_000)  # past the back-off
        eventually(running.ready, what="/readyz")
        assert running.get(price).status_code == 200, "a failed answer is not remembered"


def test_a_start_without_a_venue_says_so_and_goes_on(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    exchange.fail_next("/api", count=100_000, status=503)
    with node(tmp_path, exchange, clock, wait=False) as running:
        assert running.get("/healthz").status_code == 200
        eventually(lambda: "503" in running.get("/readyz").text, what="the venue's failure as the reason")
        refused = running.get("/inference/ETH?topic=1&height=1")
        assert (refused.status_code, "\n" in refused.text) == (503, False)
        exchange.clear_faults()
        clock.jump(30_000)
        eventually(running.ready, what="/readyz")
        assert running.get("/inference/ETH?topic=1&height=1").status_code == 200


def test_without_a_champion_refuse_is_503(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    registry = Registry(tmp_path)
    registry.promote([ETH_10M], publish(registry, 0.5, clock.now_ms()), clock.now_ms())
    with node(tmp_path, exchange, clock, policy=NoModelPolicy.REFUSE, wait=False) as running:
        eventually(lambda: running.get("/inference/ETH?topic=1").status_code == 200, what="the champion's answer")
        refused = running.get("/inference/SOL")
        assert refused.status_code == 503
        assert "no champion yet; NO_MODEL_POLICY is refuse" in refused.text
        clock.jump(200 * HOUR_MS)
        eventually(lambda: "MAX_MODEL_AGE_H" in running.get("/inference/ETH?topic=1").text, what="too old a champion")


def test_a_champion_answers_by_its_target_and_each_panel_has_its_own(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    minute = publish(registry, 0.5, clock.now_ms())
    hour = publish(registry, 0.25, clock.now_ms(), HOUR)
    registry.promote([ETH_10M, SOL_15M], minute, clock.now_ms())
    registry.promote([BTC_8H, ETH_24H], hour, clock.now_ms())
    with node(tmp_path, exchange, clock) as running:
        versions = {}
        for number, (asked, path) in enumerate(QUESTIONS):
            answer = running.get(f"{path}{'&' if '?' in path else '?'}height={number}")
            versions[asked.topic_id] = answer.headers["X-Model-Version"]
            state, kept = running.service.state(asked), running.service.last(asked)
            assert state
            assert state.forecast
            assert kept
            since_ms = kept.anchor_asof_ms - state.klines_end_ms
            expected = carried(state.forecast, state.close, kept.anchor, since_ms).volatility
            if state.forecast.log_return is not None:
                expected = state.forecast.log_return
                assert expected != 0
                if asked.target is Target.PRICE:
                    expected = kept.anchor * math.exp(expected)
            assert expected
            assert float(answer.text) == pytest.approx(expected * asked.unit, rel=1e-12)
            assert (answer.headers["X-Forecast"], kept.forecast) == ("network", "network")
        assert versions == {1: minute, 82: minute, 2: hour, 64: hour}


def test_a_network_that_adds_nothing_is_called_naive_wherever_its_answer_is_told_of(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.0, clock.now_ms())  # a return of nothing, and the present volatility
    registry.promote([ETH_10M, SOL_15M], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M, SOL_15M]) as running:
        eth, sol = running.get("/inference/ETH?height=5"), running.get("/inference/SOL?height=5")
        assert (eth.headers["X-Model-Version"], eth.headers["X-Forecast"]) == (version, "naive")
        assert (sol.headers["X-Model-Version"], sol.headers["X-Forecast"]) == (version, "network")
        states = {state["topic_id"]: state for state in running.get("/topics").json()}
        assert (states[1]["forecast"], states[1]["naive_because"]) == ("naive", "the network adds nothing")
        assert (states[82]["forecast"], states[82]["naive_because"]) == ("network", "")
        assert states[1]["last_answer"]["forecast"] == "naive"
        scraped = running.get("/metrics").text
        assert 'birnn_topic_naive{network="allora-testnet-1",topic="1"} 1.0' in scraped
        assert 'birnn_topic_persistence{network="allora-testnet-1",topic="1"} 0.0' in scraped
        assert 'birnn_topic_naive{network="allora-testnet-1",topic="82"} 0.0' in scraped
        eventually(lambda: len(running.lines) == 2, what="the log lines")
        assert {line["topic_id"]: line["forecast"] for line in running.lines} == {1: "naive", 82: "network"}
        eventually(lambda: not running.ledger.unwritten, what="the ledger")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection:
        rows = connection.execute("SELECT topic_id, target, forecast FROM answers ORDER BY topic_id").fetchall()
    assert rows == [(1, "price", "naive"), (82, "volatility std_horizon", "network")]


def test_a_champion_that_was_chosen_for_a_volatility_per_minute_answers_in_the_network_s_unit(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.25, clock.now_ms())
    registry.promote([replace(SOL_15M, volatility=Volatility.STD)], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[SOL_15M]) as running:
        answer = running.get("/inference/SOL")
        state, kept = running.service.state(SOL_15M), running.service.last(SOL_15M)
        assert answer.headers["X-Model-Version"] == version
        assert state
        assert state.forecast
        assert kept
        since_ms = kept.anchor_asof_ms - state.klines_end_ms
        per_minute = carried(state.forecast, state.close, kept.anchor, since_ms).volatility
        assert per_minute
        assert float(answer.text) == pytest.approx(per_minute * 15**0.5, rel=1e-12)


def test_a_swap_under_load_never_gives_a_mixed_or_missing_answer(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    one, other = (publish(registry, output, clock.now_ms()) for output in (-1.0, 1.0))
    registry.promote([ETH_10M], one, clock.now_ms())
    answers: list[tuple[int, str, str]] = []
    ending = threading.Event()
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:

        def ask(first: int) -> None:
            with requests.Session() as session:
                for height in range(first, 10**9, len(askers)):
                    if ending.is_set():
                        return
                    answer = session.get(f"{running.url}/inference/ETH?height={height}", timeout=5)
                    answers.append((answer.status_code, answer.headers.get("X-Model-Version", ""), answer.text))

        askers = [threading.Thread(target=ask, args=(first,)) for first in range(3)]
        for asker in askers:
            asker.start()
        try:
            for version in (other, one, other, one):
                registry.promote([ETH_10M], version, clock.now_ms())
                eventually(lambda v=version: answers[-1][1] == v, 2.0, "the new champion")  # type: ignore[misc]
            for _ in range(2):  # a candle closes under load, too
                clock.jump(25_000)
                jumped_ms = clock.now_ms()
                eventually(lambda at=jumped_ms: anchor_ms(running) >= at, what="a fresh anchor")  # type: ignore[misc]
            eventually(lambda: forecast_asof_ms(running) == BASE_MS + MINUTE_MS, what="the candle's forecast")
            least = max(500, len(answers) + 10)  # three are under way that may have been made before
            eventually(lambda: len(answers) > least, what="more answers")
        finally:
            ending.set()
            for asker in askers:
                asker.join()
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {one, other}
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as ledger:
        rows = ledger.execute("SELECT version, value, anchor, asof_ms, height FROM answers").fetchall()
    ledger.close()
    assert sorted((v, text) for _, v, text in answers) == sorted((v, text) for v, text, *_ in rows)
    moves: dict[tuple[str, int], list[float]] = {}
    for version, text, anchor, asof_ms, _ in rows:
        moves.setdefault((version, asof_ms), []).append(math.log(float(text) / anchor))
    for (version, asof_ms), found in moves.items():
        # The networks say one deviation of the horizon down and up: nothing of the one in an answer of the other.
        assert max(found) - min(found) < 1e-9, "one forecast per version and window"
        assert found[0] < 0 if version == one else found[0] > 0
        assert asof_ms in {BASE_MS, BASE_MS + MINUTE_MS}
    assert moves[one, BASE_MS][0] == pytest.approx(-moves[other, BASE_MS][0], rel=1e-6)
    assert (one, BASE_MS + MINUTE_MS) in moves


def test_counts_of_a_version_end_when_another_answers_though_nobody_scrapes(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    one, other = (publish(registry, output, clock.now_ms()) for output in (-1.0, 1.0))
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:

        def put_to_use(version: str) -> None:
            registry.promote([ETH_10M], version, clock.now_ms())
            eventually(lambda: in_use(running) == version, what="the champion")

        for version in (one, other):
            put_to_use(version)
            assert running.get("/inference/ETH").headers["X-Model-Version"] == version
        put_to_use(one)
        scraped = running.get("/metrics").text
    assert f'version="{one}"}}' not in re.sub("birnn_model.*", "", scraped)


def moment_ms(text: str) -> int:
    """The opposite of ``iso``."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def in_use(running: Node) -> str:
    state = running.service.state(ETH_10M)
    return state.champion if state else ""


def anchor_ms(running: Node) -> int:
    anchor = running.live.anchor("ETHUSDT")
    return anchor.asof_ms if anchor else 0


def forecast_asof_ms(running: Node) -> int:
    state = running.service.state(ETH_10M)
    return state.forecast.asof_ms if state and state.forecast else 0


def torn(folder: Path, registry: Registry) -> None:
    version = publish(registry, -0.5, BASE_MS)
    registry.promote([ETH_10M], version, BASE_MS)
    (registry.path(version) / "model.onnx").write_bytes(b"torn")


def made_for_other_code(folder: Path, registry: Registry) -> None:
    registry.promote([ETH_10M], publish(registry, -0.5, BASE_MS, feature_version=999), BASE_MS)


def chosen_for_another_topic(folder: Path, registry: Registry) -> None:
    version = publish(registry, -0.5, BASE_MS)
    registry.promote([topic(1, "ETH", 10, Target.LOG_RETURN)], version, BASE_MS)


def champions_torn(folder: Path, registry: Registry) -> None:
    (folder / "champions.json").write_text('{"champions": ')


@pytest.mark.parametrize("spoil", [torn, made_for_other_code, chosen_for_another_topic, champions_torn])
def test_a_broken_champion_leaves_the_old_one_in_use_and_is_seen(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, spoil: Callable[[Path, Registry], None]
) -> None:
    registry = Registry(tmp_path)
    good = publish(registry, 0.5, clock.now_ms())
    registry.promote([ETH_10M], good, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:
        spoil(tmp_path, registry)
        eventually(lambda: running.get("/topics").json()[0]["fault"] != "", what="the fault on /topics")
        state = running.get("/topics").json()[0]
        assert (state["champion"], state["ready"]) == (good, True)
        assert running.get("/inference/ETH?topic=1").headers["X-Model-Version"] == good
        better = publish(registry, 0.75, clock.now_ms())
        registry.promote([ETH_10M], better, clock.now_ms())
        eventually(lambda: running.get("/inference/ETH").headers["X-Model-Version"] == better, what="the next champion")
        assert running.get("/topics").json()[0]["fault"] == ""


# -- a symbol that a venue lists as another pair -- ----------------------------------------------------------------


def test_from_the_moment_that_a_venue_lists_another_pair_nothing_is_answered(tmp_path: Path) -> None:
    clock, port = RunningClock(), free_port()
    away = Binance([f"http://127.0.0.1:{port}"], "", SystemClock(), timeout_s=2, patience_s=0)
    listings = Listings([away], TOPICS, threading.Event())
    with SimulatedExchange(clock=clock) as exchange, node(tmp_path, exchange, clock, listings=listings) as running:
        before = running.get("/inference/ETH?topic=1&height=70000")
        assert before.status_code == 200, "nothing waits for a venue that is away"
        back = SimulatedExchange(port=port)
        back.fail_next("/api/v3/exchangeInfo", 9, status=200, body=entry_of("ETHUSDT", "ETH", "BTC"))
        with back:
            eventually(lambda: running.get("/inference/ETH?topic=1").status_code == 503, 30, "the word of the venue")
        says = "ETHUSDT cannot answer for ETH: binance lists it as ETH in BTC, not ETH in dollars; correct Token"
        for path in ("/inference/ETH?topic=1", "/inference/ETH?topic=1&height=70000", "/inference/ETH?topic=2"):
            answer = running.get(path)
            assert (answer.status_code, says in answer.text) == (503, True), "also not again, once the venue is gone"
        ready = running.get("/readyz")
        assert (ready.status_code, ready.text.count(says)) == (503, 2)
        states = {state["topic_id"]: state for state in running.get("/topics").json()}
        assert (states[1]["ready"], says in states[1]["reason"]) == (False, True)
        assert states[82]["ready"], "another symbol's topic is answered"
        assert running.get("/inference/SOL?topic=82").status_code == 200
        assert headline(endpoint_report(running.url)).endswith("not answered: 1, 2")
        reply = ask_as_node(f"{running.url}/inference/ETH?topic=1&height=70001", 5)
        assert (reply.status, says.encode() in reply.body) == (503, True), "the dry run shows the body"
