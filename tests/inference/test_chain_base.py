"""The base of a question under a chain with blocks of its own: headers, ledger and score speak of the same moment."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.follower import Follower
from core.clock import MINUTE_MS, CorrectedClock, iso
from core.settings import BaseRule
from core.topic import Target
from exchange.server import SimulatedExchange
from inference.base import Bases, BaseSource
from inference.waits import Waits
from klines.truth import log_return, truth_of
from tests.chain.fake import FakeChain
from tests.fakes.clock import RunningClock, eventually
from tests.fakes.venue_server import Answer
from tests.inference.stand import ETH_10M, SOL_15M, Node, moment_ms, node

RETURN_10M = replace(ETH_10M, topic_id=3, target=Target.LOG_RETURN)
NETWORK = ETH_10M.network
TOPICS = (ETH_10M, RETURN_10M, SOL_15M)


@pytest.fixture
def chain(clock: RunningClock) -> Iterator[FakeChain]:
    """Blocks of two seconds; those of the last minutes are there."""
    with FakeChain(clock=clock, block_ms=2_000, height=5_000, blocks=300).running() as chain:
        yield chain


@pytest.fixture
def follower(chain: FakeChain, clock: RunningClock) -> Iterator[Follower]:
    follower = Follower([chain.url], NETWORK, CorrectedClock(clock), [t.topic_id for t in TOPICS], poll_s=(0.05, 0.1))
    follower.start()
    eventually(lambda: follower.newest is not None, what="the newest block")
    yield follower
    follower.stop()


@pytest.fixture
def running(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, follower: Follower) -> Iterator[Node]:
    chains = {NETWORK: follower}
    bases = Bases(rule=BaseRule.MINUTE, node_delay_ms=4_000, chains=chains)
    waits = Waits(setting="auto", chains=chains)
    with node(tmp_path, exchange, clock, topics=TOPICS, bases=bases, waits=waits, patience_s=10.0) as running:
        yield running


def rows(folder: Path) -> dict[int, tuple[int, str, int | None, str]]:
    """By height: base, its source, the block's time and the value."""
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        found = connection.execute("SELECT height, base_ms, base_source, block_ms, value FROM answers").fetchall()
    return {height: (base_ms, source, block_ms, value) for height, base_ms, source, block_ms, value in found}


def answered(folder: Path) -> list[Any]:
    """Of each answer in the ledger: topic, height, value, base, its source, what was known, price, its time, block."""
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        return connection.execute(
            "SELECT topic_id, height, CAST(value AS REAL), base_ms, base_source, elapsed_ms, anchor, anchor_asof_ms, "
            "block_ms FROM answers"
        ).fetchall()


def test_headers_ledger_and_score_agree_on_the_base(
    tmp_path: Path, running: Node, chain: FakeChain, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    nonces = [chain.height - back for back in (40, 20, 3, 0)]
    given = {}
    for nonce in nonces:
        for topic in TOPICS:
            chain.open_window(topic.topic_id, nonce, nonce + 6)
        given[nonce] = running.get(f"/inference/ETH?topic=3&height={nonce}")
    eventually(lambda: set(rows(tmp_path)) == set(nonces), what="the ledger has them")
    clock.jump(MINUTE_MS)  # the minute of the answers closes
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    klines = exchange.source.klines("ETHUSDT", MINUTE_MS, end_ms - 30 * MINUTE_MS, end_ms)
    for nonce, (base_ms, source, block_ms, value) in rows(tmp_path).items():
        assert (source, block_ms) == ("chain", chain.time_of(nonce))
        assert base_ms == chain.time_of(nonce) // MINUTE_MS * MINUTE_MS
        answer = given[nonce]
        assert (answer.status_code, answer.text) == (200, value)
        assert (answer.headers["X-Base-Source"], answer.headers["X-Base"]) == ("chain", iso(base_ms))
        # The naive forecast adds nothing: what is answered is what had happened since the base.
        asof_ms = base_ms + int(answer.headers["X-Elapsed-Ms"])
        assert base_ms < asof_ms <= moment_ms(answer.headers["X-Answered"])
        moved = log_return(klines, base_ms, asof_ms, "simulated")
        assert abs(float(value) - moved.value) <= 5 * moved.sd + 1e-9


def test_every_answer_of_a_replay_is_scored_over_the_interval_that_it_is_for(
    tmp_path: Path,
    running: Node,
    follower: Follower,
    chain: FakeChain,
    exchange: SimulatedExchange,
    clock: RunningClock,
) -> None:
    """Nonces drift over the minute; every other is answered minutes later. Some blocks' times are told afterwards."""
    headers_of = {}
    for number in range(8):
        clock.jump(41_000)
        if number % 3 == 2:
            chain.faults[""] = Answer("busy", 503)
        else:
            chain.faults.clear()
            height = chain.height
            eventually(lambda at=height: follower.time_of(at) is not None, what="the nonce block is known")  # type: ignore[misc]
        nonce = chain.height - 70 * (number % 2)
        for topic in TOPICS:
            answer = running.get(f"/inference/{topic.token}?topic={topic.topic_id}&height={nonce}&wait=0")
            assert answer.status_code == 200, answer.text
            headers_of[topic.topic_id, nonce] = answer.headers
    chain.faults.clear()
    eventually(
        lambda: len([row for row in answered(tmp_path) if row[-1]]) == len(headers_of),
        30,
        "all blocks' times are in the ledger",
    )
    clock.jump(16 * MINUTE_MS)
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    tape = {t.symbol: exchange.source.klines(t.symbol, MINUTE_MS, end_ms - 60 * MINUTE_MS, end_ms) for t in TOPICS}
    by_id = {topic.topic_id: topic for topic in TOPICS}
    sources = set()
    for topic_id, nonce, value, base_ms, source, elapsed_ms, anchor, anchor_ms, block_ms in answered(tmp_path):
        headers, topic = headers_of[topic_id, nonce], by_id[topic_id]
        sources.add(source)
        assert (headers["X-Base"], headers["X-Base-Source"]) == (iso(base_ms), source)
        assert headers["X-Elapsed-Ms"] == str(elapsed_ms)
        scored_ms = block_ms // MINUTE_MS * MINUTE_MS
        assert block_ms == chain.time_of(nonce)
        if scored_ms != base_ms:  # a machine that is slow lets the guess be a minute late
            assert source == "guess"
            continue
        klines = tape[topic.symbol]
        close = dict(zip((klines.open_time_ms + MINUTE_MS).tolist(), klines.close.tolist(), strict=True))
        newest = anchor if anchor_ms == base_ms + elapsed_ms else close[base_ms + elapsed_ms]
        truth = truth_of(topic, klines, scored_ms, "simulated")
        assert truth.end_ms == scored_ms + topic.horizon_ms
        # The naive forecast expects nothing of the rest: it errs by what came after the answer, and by nothing else.
        if topic.target is Target.LOG_RETURN:
            assert truth.value - value == pytest.approx(math.log(close[truth.end_ms] / newest), abs=1e-9)
        elif topic.target is Target.PRICE:
            assert (truth.value, value) == (close[truth.end_ms], newest)
    assert sources == {"chain", "guess"}


def test_a_height_that_is_about_to_come_is_waited_for(running: Node, chain: FakeChain, clock: RunningClock) -> None:
    nonce = chain.height + 1
    answer = running.get(f"/inference/ETH?topic=3&height={nonce}&wait=0")
    assert answer.headers["X-Base-Source"] == "chain"
    assert moment_ms(answer.headers["X-Asked"]) < chain.time_of(nonce) <= moment_ms(answer.headers["X-Answered"])


@pytest.mark.parametrize("fault", ["down", "another id", "lies"])
def test_a_chain_that_cannot_be_relied_on_costs_no_answer(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, fault: str
) -> None:
    with FakeChain(clock=clock, block_ms=2_000, height=5_000, blocks=300).running() as chain:
        chain.faults[""] = Answer("busy", 503) if fault == "down" else chain.faults.get("", None)  # type: ignore[assignment]
        chain.chain_id = "another-1" if fault == "another id" else chain.chain_id
        chain.lie_ms = 10 * MINUTE_MS if fault == "lies" else 0
        follower = Follower([chain.url], NETWORK, CorrectedClock(clock), [1, 3], poll_s=(0.05, 0.1))
        follower.start()
        bases = Bases(rule=BaseRule.MINUTE, node_delay_ms=4_000, chains={NETWORK: follower})
        try:
            eventually(
                lambda: "not asked yet" not in follower.fault and follower.fault != "", what="the fault is known"
            )
            with node(tmp_path, exchange, clock, topics=TOPICS, bases=bases, patience_s=5.0) as running:
                answer = running.get(f"/inference/ETH?topic=3&height={chain.height}")
                assert (answer.status_code, answer.headers["X-Base-Source"]) == (200, BaseSource.GUESS)
        finally:
            follower.stop()


def test_a_block_whose_time_comes_late_is_noted_later(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with FakeChain(clock=clock, block_ms=2_000, height=5_000, blocks=300).running() as chain:
        chain.faults[""] = Answer("busy", 503)
        follower = Follower([chain.url], NETWORK, CorrectedClock(clock), [1, 3], poll_s=(0.05, 0.1))
        follower.start()
        bases = Bases(rule=BaseRule.MINUTE, node_delay_ms=4_000, chains={NETWORK: follower})
        nonce = chain.height
        try:
            with node(tmp_path, exchange, clock, topics=TOPICS, bases=bases, patience_s=5.0) as running:
                running.get(f"/inference/ETH?topic=3&height={nonce}")
                eventually(lambda: nonce in rows(tmp_path), what="the answer is in the ledger")
                assert rows(tmp_path)[nonce][1:3] == ("guess", None)
                del chain.faults[""]
                eventually(lambda: rows(tmp_path)[nonce][2] is not None, 30, what="the block's time is noted")
                assert rows(tmp_path)[nonce][1:3] == ("guess", chain.time_of(nonce))
        finally:
            follower.stop()
