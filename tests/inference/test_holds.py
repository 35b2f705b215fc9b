"""Questions that are held: until they can be answered, or until the answer is worth most. Asked over a socket."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from core.settings import BaseRule, NoModelPolicy
from core.topic import Target
from exchange.server import SimulatedExchange
from inference.base import Bases
from inference.http.holds import Reason
from inference.waits import Waits
from node.dry_run_heights import BLOCK_MS
from tests.fakes.clock import BASE_MS, RunningClock, eventually
from tests.inference.stand import ETH_10M, TOPICS, Node, node

BASES = Bases(rule=BaseRule.MINUTE, node_delay_ms=4_000, chains={})
HEIGHT = BASE_MS // BLOCK_MS  # the clock starts ten seconds after it
PRICE = "/inference/ETH?topic=1"
LONG_S = 60.0  # longer than a test waits


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def asked(pool: ThreadPoolExecutor, running: Node, path: str, count: int = 1) -> "list[Future[requests.Response]]":
    """Questions that are under way, after all of them are held."""
    before = running.holds.held.total()
    questions = [pool.submit(requests.get, f"{running.url}{path}", timeout=30) for _ in range(count)]
    eventually(lambda: running.holds.held.total() == before + count, what="all are held")
    return questions


def asked_before(running: Node, topic_id: int = 1) -> None:
    """The first question after a silence is never held for its worth."""
    answer = running.get(f"/inference/ETH?topic={topic_id}&height={HEIGHT - 1}")
    assert (answer.status_code, answer.headers["X-Base-Source"]) == (200, "dry_run")


def silence(running: Node, exchange: SimulatedExchange, clock: RunningClock) -> None:
    """Half a minute without a price: a price topic cannot be answered."""
    exchange.outage(LONG_S)
    clock.jump(40_000)
    assert running.get("/readyz").status_code == 503


def test_a_question_of_before_the_first_candles_is_answered_when_they_come(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock, wait=False, patience_s=10.0) as running:
        answer = running.get(PRICE)
        assert answer.status_code == 200
        eventually(lambda: bool(running.lines), what="its log line")
        assert running.lines[0]["held_ms"] > running.lines[0]["took_ms"]
        assert 'birnn_answer_held_seconds_count{reason="not_yet"} 1.0' in running.get("/metrics").text


def test_without_patience_it_is_refused_at_once(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock, patience_s=0.0) as running:
        silence(running, exchange, clock)
        assert running.get(PRICE).status_code == 503
        assert "birnn_answer_held_seconds_count{" not in running.get("/metrics").text, "a question was held"


def test_the_patience_ends_with_the_reason(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    with node(tmp_path, exchange, clock, patience_s=0.3) as running:
        silence(running, exchange, clock)
        answer = running.get(PRICE)
        assert (answer.status_code, "MAX_ANCHOR_AGE_S" in answer.text) == (503, True)
        eventually(lambda: len(running.lines) == 1, what="its log line")
        assert running.lines[0]["held_ms"] >= 300


def test_what_is_final_is_never_held(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    with node(tmp_path, exchange, clock, policy=NoModelPolicy.REFUSE, wait=False, patience_s=LONG_S) as running:
        eventually(lambda: all(running.service.state(topic) for topic in TOPICS), what="candles")
        for path, status in ((PRICE, 503), ("/inference/ETH?topic=x", 400), ("/inference/DOGE", 404)):
            assert running.get(path).status_code == status
        assert "birnn_answer_held_seconds_count{" not in running.get("/metrics").text, "a question was held"


def test_hundreds_are_held_without_a_thread_and_all_answered(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock, patience_s=LONG_S) as running:
        silence(running, exchange, clock)
        threads, sockets = threading.active_count(), []
        host, port = running.url.removeprefix("http://").split(":")
        for _ in range(300):
            connection = socket.create_connection((host, int(port)), timeout=30)
            connection.sendall(f"GET {PRICE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            sockets.append(connection)
        eventually(lambda: running.holds.held[Reason.NOT_YET] == 300, what="300 held")
        assert threading.active_count() <= threads + 1
        assert running.get("/healthz").text == "ok"
        assert running.get("/readyz").status_code == 503
        assert 'birnn_questions_held{reason="not_yet"} 300.0' in running.get("/metrics").text
        exchange.clear_faults()
        answers = [connection.recv(4096).decode() for connection in sockets]
        assert {answer.partition("\r\n")[0] for answer in answers} == {"HTTP/1.1 200 OK"}
        moments = {line for answer in answers for line in answer.split("\r\n") if line.startswith("x-answered")}
        assert len(moments) == 1, "one answer is made for all of them"
        for connection in sockets:
            connection.close()


def test_a_client_that_goes_frees_its_place(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    with node(tmp_path, exchange, clock, patience_s=LONG_S) as running:
        silence(running, exchange, clock)
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{running.url}{PRICE}", timeout=0.3)
        eventually(lambda: running.holds.held.total() == 0, what="its place is free")
        eventually(lambda: "birnn_held_clients_gone_total 1.0" in running.get("/metrics").text, what="it is counted")


def test_beyond_the_most_it_is_answered_or_refused_at_once(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, pool: ThreadPoolExecutor
) -> None:
    waits = Waits(setting="50", chains={})
    with node(tmp_path, exchange, clock, patience_s=LONG_S, most_held=2, bases=BASES, waits=waits) as running:
        asked_before(running)
        held = asked(pool, running, f"{PRICE}&height={HEIGHT}", 2)
        assert running.get(f"{PRICE}&height={HEIGHT + 1}").status_code == 200
        silence(running, exchange, clock)
        assert running.get("/inference/ETH?topic=2").status_code == 503
        running.server.should_exit = True
        for question in held:
            assert question.result().status_code in {200, 503}


def test_an_answer_that_is_worth_waiting_for_is_given_then_to_all_who_ask(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, pool: ThreadPoolExecutor
) -> None:
    waits = Waits(setting="30", chains={})
    with node(tmp_path, exchange, clock, bases=BASES, waits=waits) as running:
        asked_before(running)
        questions = asked(pool, running, f"{PRICE}&height={HEIGHT}", 3)
        assert running.holds.held[Reason.WORTH] == 3
        clock.jump(15_000)  # to 25 s after the base
        assert not any(question.done() for question in questions)
        clock.jump(5_000)
        answers = [question.result() for question in questions]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].headers["X-Base-Source"] == "dry_run"
        assert running.get(f"{PRICE}&height={HEIGHT}").text == answers[0].text


def test_who_does_not_want_to_wait_says_so(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    waits = Waits(setting="auto", chains={})
    with node(tmp_path, exchange, clock, bases=BASES, waits=waits) as running:
        asked_before(running)
        assert running.get(f"{PRICE}&height={HEIGHT}&wait=0").status_code == 200
        assert running.get(PRICE).status_code == 200  # nor is a question without a height held
        assert running.lines == [] or all(line["held_ms"] == 0 for line in running.lines)


def test_at_the_end_what_waited_for_its_worth_is_answered_and_the_rest_refused(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, pool: ThreadPoolExecutor
) -> None:
    return_10m = replace(ETH_10M, topic_id=3, target=Target.LOG_RETURN)
    waits = Waits(setting="120", chains={})
    topics = (*TOPICS, return_10m)
    with node(tmp_path, exchange, clock, topics=topics, patience_s=LONG_S, bases=BASES, waits=waits) as running:
        asked_before(running, 3)
        worth = asked(pool, running, f"/inference/ETH?topic=3&height={HEIGHT}")
        silence(running, exchange, clock)
        not_yet = asked(pool, running, PRICE)
        running.server.should_exit = True
        assert worth[0].result().status_code == 200
        assert not_yet[0].result().status_code == 503
