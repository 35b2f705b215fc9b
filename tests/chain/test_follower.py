"""What is known of a chain, and that nothing it does or says makes it known wrongly."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from chain.addresses import BODY_LIMIT_BYTES
from chain.follower import POLL_S, Follower
from core.clock import HOUR_MS, MINUTE_MS
from tests.chain.fake import FakeChain
from tests.fakes.clock import RunningClock, eventually
from tests.fakes.net import free_port
from tests.fakes.venue_server import Answer

TESTNET = "allora-testnet-1"


class Seconds:
    """A clock that nobody sets, and that jumps as if time had passed."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@contextmanager
def following(*urls: str, clock: RunningClock, chain_id: str | None = TESTNET, **more: Any) -> Iterator[Follower]:
    follower = Follower(urls, chain_id, clock, topics=(1, 2), **{"poll_s": (0.05, 0.1), **more})
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


@pytest.fixture
def chain(clock: RunningClock) -> Iterator[FakeChain]:
    """A chain by the same clock, with five blocks a second."""
    with FakeChain(clock=clock, block_ms=200).running() as chain:
        yield chain


@pytest.fixture
def still_chain(clock: RunningClock) -> Iterator[FakeChain]:
    """A chain that makes a block when it is told to."""
    with FakeChain(newest_ms=clock.now_ms(), block_ms=200).running() as chain:
        yield chain


@pytest.fixture
def one(clock: RunningClock) -> Iterator[Callable[..., FakeChain]]:
    """Makes running chains by the same clock."""
    with ExitStack() as running:

        def make(**more: Any) -> FakeChain:
            return running.enter_context(FakeChain(**{"clock": clock, "block_ms": 200, **more}).running())

        yield make


def knows(follower: Follower, chain: FakeChain) -> Callable[[], bool]:
    """Whether it knows a block of the chain that was made after this was called."""
    height = chain.height

    def known() -> bool:
        return follower.newest is not None and height < follower.newest.height <= chain.height and not follower.fault

    return known


def asked(chain: FakeChain, path: str, more: int) -> Callable[[], bool]:
    """Whether the chain was asked for a path so many times since this was called."""
    before = len(chain.asked(path))
    return lambda: len(chain.asked(path)) >= before + more


@pytest.mark.parametrize("wrapped", [True, False], ids=["JSON-RPC", "bare result"])
def test_blocks_are_known_as_they_come(chain: FakeChain, clock: RunningClock, wrapped: bool) -> None:
    chain.wrapped = wrapped
    told = threading.Event()
    with following(chain.url, clock=clock, on_block=told.set) as follower:
        eventually(lambda: follower.time_of(chain.earliest + 960) is not None, what="the first blocks")
        assert told.is_set()
        assert follower.block_ms == 200
        assert follower.fault == ""
        eventually(knows(follower, chain))
        newest = follower.newest
        assert newest is not None
        assert newest.time_ms == follower.time_of(newest.height) == chain.time_of(newest.height)
        assert follower.time_of(newest.height + 100) is None
        assert follower.time_of(100) is None


def test_without_a_chain_id_of_the_wallet_the_first_one_told_counts(chain: FakeChain, clock: RunningClock) -> None:
    with following(chain.url, clock=clock, chain_id=None) as follower:
        eventually(knows(follower, chain))
        assert follower.chain_id == TESTNET
        chain.chain_id = "localnet"
        eventually(lambda: "localnet" in follower.fault)


@pytest.mark.parametrize("lie_ms", [-20 * HOUR_MS, 20 * HOUR_MS])
def test_a_local_chain_of_any_time_is_followed_where_that_is_allowed(
    clock: RunningClock, one: Callable[..., FakeChain], lie_ms: int
) -> None:
    local, public = one(chain_id="localnet"), one()
    local.lie_ms = public.lie_ms = lie_ms
    with (
        following(local.url, clock=clock, chain_id="localnet", by_clock=False) as follower,
        following(local.url, clock=clock, chain_id="localnet") as of_inference,
        following(public.url, clock=clock, by_clock=False) as of_public,
    ):
        eventually(knows(follower, local))
        eventually(lambda: "our clock" in of_inference.fault and "our clock" in of_public.fault)
        assert (of_inference.newest, of_public.newest) == (None, None)


class PlayedFast(FakeChain):
    """A recorded chain: its headers are five seconds apart, whenever they come."""

    def _text(self, height: int) -> str:
        return f"{datetime.fromtimestamp(height * 5, UTC):%Y-%m-%dT%H:%M:%S}Z"


def test_a_chain_that_is_played_fast_is_asked_at_its_pace(clock: RunningClock) -> None:
    with (
        PlayedFast("localnet", clock=clock, block_ms=50).running() as chain,
        following(chain.url, clock=clock, chain_id="localnet", by_clock=False, poll_s=(0.01, 6.0)) as follower,
    ):
        eventually(knows(follower, chain))
        eventually(lambda: follower.block_ms == 5_000, what="the blocks' times")
        eventually(asked(chain, "/status", 40), what="as many statuses as blocks")


def test_blocks_that_were_missed_are_filled_in(chain: FakeChain, clock: RunningClock) -> None:
    with following(chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(961) is not None)
        chain.faults[""] = Answer(hang_up=True)
        eventually(lambda: follower.fault != "")
        before = chain.height
        clock.jump(10_000)
        chain.faults.clear()
        eventually(knows(follower, chain))
        eventually(lambda: all(follower.time_of(height) for height in range(before, before + 51)))
        assert follower.time_of(before + 25) == chain.time_of(before + 25)


def test_two_hours_are_remembered_and_no_more_asked_for(clock: RunningClock, one: Callable[..., FakeChain]) -> None:
    chain = one(block_ms=400_000, blocks=100)
    with following(chain.url, clock=clock) as follower:
        eventually(asked(chain, "/status", 2))
        assert [height for height in range(900, 1001) if follower.time_of(height)] == list(range(981, 1001))
        assert len(chain.asked("/blockchain")) == 1


def test_pruned_blocks_are_not_asked_for(still_chain: FakeChain, clock: RunningClock) -> None:
    still_chain.earliest = 995
    with following(still_chain.url, clock=clock) as follower:
        eventually(asked(still_chain, "/status", 3))
        assert follower.time_of(995) == still_chain.time_of(995)
        assert still_chain.asked("/blockchain") == [{"minHeight": "995", "maxHeight": "999"}]


def test_a_public_rpc_is_asked_at_most_once_a_second(clock: RunningClock, one: Callable[..., FakeChain]) -> None:
    chain = one(block_ms=5_000)
    with following(chain.url, clock=clock, poll_s=POLL_S) as follower:
        eventually(lambda: follower.time_of(961) is not None)
        before, began_s = len(chain.requests), time.monotonic()
        eventually(asked(chain, "/status", 2))
        assert len(chain.requests) - before <= time.monotonic() - began_s + 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Answer(hang_up=True), "connection failed", id="down"),
        pytest.param(Answer(status=429), "HTTP 429", id="rate limited"),
        pytest.param(Answer("<html>busy</html>"), "not JSON", id="proxy page"),
        pytest.param(Answer('{"result": {"sync_info": {"latest_block_height": "x"}}}'), "another form", id="form"),
        pytest.param(Answer("[1, 2]"), "another form", id="list"),
        pytest.param(Answer('{"result": ' + "[" * 5000), "not JSON", id="deep"),
        pytest.param(Answer(b" " * (BODY_LIMIT_BYTES + 1)), "more than 4 MB", id="huge"),
        pytest.param(Answer(status=302, headers={"Location": "/health"}), "HTTP 302", id="redirect"),
        pytest.param(
            Answer('{"error": {"message": "Internal error", "data": "no"}}', 500), "Internal error", id="error"
        ),
        pytest.param(Answer('{"result": {}}', cut=True), "", id="cut off"),
    ],
)
def test_a_chain_that_does_not_answer_is_named_and_asked_again(
    chain: FakeChain, clock: RunningClock, answer: Answer, reason: str
) -> None:
    chain.faults["/status"] = answer
    with capture_logs() as lines, following(chain.url, clock=clock) as follower:
        eventually(lambda: reason in follower.fault and "127.0.0.1" in follower.fault, what=reason)
        assert follower.newest is None
        chain.faults.clear()
        eventually(knows(follower, chain))
    assert [line["event"] for line in lines] == ["chain_unavailable", "chain_followed"]
    assert not chain.asked("/health")


def test_a_refused_connection_is_a_fault_of_its_own(clock: RunningClock) -> None:
    port = free_port()
    with following(f"tcp://127.0.0.1:{port}", clock=clock) as follower:
        eventually(lambda: follower.fault == f"127.0.0.1:{port}: connection failed")


def test_no_key_in_an_address_is_told(chain: FakeChain, clock: RunningClock) -> None:
    url = chain.url.replace("//", "//user:secret@") + "/secret"
    with capture_logs() as lines, following(url, clock=clock) as follower:
        eventually(lambda: "HTTP 404" in follower.fault)
    assert "secret" not in follower.fault + str(lines)


@pytest.mark.parametrize(
    "slow",
    [
        lambda released: Answer(wait_for=released),
        lambda released: Answer(b" " * 1000, drip_until=released),
    ],
    ids=["hangs", "drips its body"],
)
def test_a_chain_that_hangs_holds_up_neither_the_next_address_nor_the_end(
    clock: RunningClock, one: Callable[..., FakeChain], slow: Callable[[threading.Event], Answer]
) -> None:
    hanging, well = one(), one()
    released = threading.Event()
    hanging.faults[""] = slow(released)
    with following(hanging.url, well.url, clock=clock, timeout_s=0.2) as follower:
        eventually(knows(follower, well))
    hanging.requests.clear()
    with following(hanging.url, clock=clock):
        eventually(lambda: bool(hanging.requests))
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 2
    released.set()


def test_retry_after_is_waited_out(chain: FakeChain, clock: RunningClock) -> None:
    chain.faults[""] = Answer(status=429, headers={"Retry-After": "2"})
    with following(chain.url, clock=clock) as follower:
        eventually(lambda: "HTTP 429" in follower.fault)
        began_s = time.monotonic()
        chain.faults.clear()
        eventually(asked(chain, "/status", 1))
        assert time.monotonic() - began_s > 1.5


def test_nothing_of_a_chain_with_another_id_is_used(one: Callable[..., FakeChain], clock: RunningClock) -> None:
    other = one(chain_id="allora-mainnet-1")
    with following(other.url, clock=clock) as follower:
        eventually(lambda: "allora-mainnet-1" in follower.fault and TESTNET in follower.fault)
        eventually(asked(other, "/status", 1))
        assert (follower.newest, follower.time_of(1000), follower.block_ms) == (None, None, None)


def test_headers_of_another_chain_are_not_used(still_chain: FakeChain, clock: RunningClock) -> None:
    headers = requests.get(f"{still_chain.url}/blockchain?maxHeight=999", timeout=5).text
    still_chain.faults["/blockchain"] = Answer(headers.replace(TESTNET, "localnet"))
    with following(still_chain.url, clock=clock) as follower:
        eventually(asked(still_chain, "/blockchain", 1))
        eventually(asked(still_chain, "/status", 1))
        assert follower.newest is not None
        assert (follower.newest.height, follower.time_of(999)) == (1000, None)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param({"catching_up": True}, "catching up", id="catching up"),
        pytest.param({"lie_ms": 40_000}, "ahead of our clock", id="ahead"),
        pytest.param({"lie_ms": -5 * MINUTE_MS}, "behind our clock", id="stands still"),
        pytest.param({"lie_ms": -60 * 365 * 24 * HOUR_MS}, "behind our clock", id="before 1970"),
        pytest.param({"chain_id": "localnet"}, "localnet", id="another id"),
        pytest.param({"chain_id": "a\nlong one" * 30}, "another form", id="no id"),
    ],
)
def test_an_address_that_is_not_believed_gives_way_to_the_next(
    clock: RunningClock, one: Callable[..., FakeChain], spoil: dict[str, Any], reason: str
) -> None:
    spoilt, well = one(), one()
    for name, value in spoil.items():
        setattr(spoilt, name, value)
    with following(spoilt.url, clock=clock) as follower:
        eventually(lambda: reason in follower.fault)
        assert follower.newest is None
    with following(spoilt.url, well.url, clock=clock) as follower:
        eventually(knows(follower, well))


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "back"])
def test_a_clock_that_is_set_makes_no_good_chain_refused(by_ms: int) -> None:
    clock, chains = RunningClock(), RunningClock()
    with FakeChain(clock=chains, block_ms=200).running() as chain, following(chain.url, clock=clock) as follower:
        eventually(knows(follower, chain))
        clock.jump(by_ms)
        eventually(knows(follower, chain))
        chain.lie_ms = by_ms // 10  # by that clock it lies less, by the seconds since it was believed it does lie
        eventually(lambda: "our clock" in follower.fault)


def test_a_clock_that_was_wrong_at_the_start_and_is_set_right_makes_the_chain_known() -> None:
    clock, chains = RunningClock(), RunningClock()
    clock.jump(-HOUR_MS)
    with FakeChain(clock=chains, block_ms=200).running() as chain, following(chain.url, clock=clock) as follower:
        eventually(lambda: "3600 s ahead of our clock" in follower.fault)
        assert follower.newest is None
        clock.jump(HOUR_MS)
        eventually(knows(follower, chain))


def test_a_chain_that_stands_still_is_told_and_what_it_said_stays_known(
    still_chain: FakeChain, clock: RunningClock
) -> None:
    seconds = Seconds()
    with following(still_chain.url, clock=clock, seconds=seconds) as follower:
        eventually(lambda: follower.time_of(961) is not None)
        seconds.ahead_s += 21
        eventually(lambda: "no new block for 2" in follower.fault)
        assert follower.time_of(1000) == still_chain.time_of(1000)
        still_chain.add_block()
        eventually(lambda: follower.fault == "" and follower.newest is not None and follower.newest.height == 1001)


def test_an_address_that_is_stuck_gives_way_to_the_next(clock: RunningClock, one: Callable[..., FakeChain]) -> None:
    stuck, well = one(), one()
    well.times = stuck.times
    seconds = Seconds()
    with following(stuck.url, well.url, clock=clock, seconds=seconds) as follower:
        eventually(knows(follower, stuck))
        assert not well.requests
        stuck.faults["/status"] = Answer(requests.get(f"{stuck.url}/status", timeout=5).content)
        eventually(asked(stuck, "/status", 2))
        seconds.ahead_s += 21
        eventually(knows(follower, well))
        before = len(stuck.requests)
        eventually(asked(well, "/status", 8), what="more than the half second that a failed address is left alone")
        assert len(stuck.requests) == before


def test_a_node_that_is_a_block_behind_is_well(still_chain: FakeChain, clock: RunningClock) -> None:
    behind = requests.get(f"{still_chain.url}/status", timeout=5).content
    with following(still_chain.url, clock=clock) as follower:
        still_chain.add_block()
        eventually(lambda: follower.time_of(1001) is not None and follower.time_of(961) is not None)
        still_chain.faults["/status"] = Answer(behind)
        eventually(asked(still_chain, "/status", 2))
        assert follower.fault == ""
        assert follower.newest is not None
        assert (follower.newest.height, follower.time_of(961)) == (1001, still_chain.time_of(961))


def test_times_that_go_back_are_not_used(still_chain: FakeChain, clock: RunningClock) -> None:
    with following(still_chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(961) is not None)
        still_chain.add_block(time_ms=still_chain.time_of(1000) - 1)
        eventually(lambda: "time goes back: block 1001" in follower.fault)
        assert follower.newest is not None
        assert (follower.newest.height, follower.time_of(1001)) == (1000, None)


def test_a_block_that_is_told_with_another_time_is_not_used(still_chain: FakeChain, clock: RunningClock) -> None:
    with following(still_chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(961) is not None)
        still_chain.lie_ms = -100
        eventually(lambda: "block 1000 of" in follower.fault and "before" in follower.fault)
        assert follower.time_of(1000) == still_chain.time_of(1000)


def test_headers_whose_times_go_back_are_not_used(still_chain: FakeChain, clock: RunningClock) -> None:
    still_chain.add_block(990, still_chain.time_of(1000))
    with following(still_chain.url, clock=clock) as follower:
        eventually(asked(still_chain, "/blockchain", 1))
        eventually(asked(still_chain, "/status", 1))
        assert follower.time_of(1000) is not None
        assert follower.time_of(990) is None


@pytest.mark.parametrize(("height", "blocks"), [(3, 3), (1004, 1004)], ids=["heights go back", "further than before"])
def test_a_chain_that_began_anew_is_followed_and_the_old_one_forgotten(
    still_chain: FakeChain, clock: RunningClock, height: int, blocks: int
) -> None:
    still_chain.open_window(1, 1000, 1012)
    with capture_logs() as lines, following(still_chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(961) is not None and follower.window_end(1, 1000) == 1012)
        still_chain.restart(height, blocks)
        eventually(lambda: follower.newest is not None and follower.newest.height == height)
        oldest = max(1, height - 43)  # that both chains have, or the new chain alone
        eventually(lambda: follower.time_of(oldest) == still_chain.time_of(oldest))
        assert follower.time_of(1000) == (still_chain.time_of(1000) if height > 1000 else None)
        assert follower.window_end(1, 1000) is None
        assert follower.fault == ""
    assert [line["event"] for line in lines] == ["chain_followed", "chain_restarted"]


@pytest.mark.parametrize("events_name", ["finalize_block_events", "end_block_events"])
def test_the_end_of_a_window_is_what_its_own_block_says(
    chain: FakeChain, clock: RunningClock, events_name: str
) -> None:
    chain.events_name = events_name
    chain.open_window(1, 990, 1002)
    chain.open_window(3, 990, 1003)
    chain.open_window(2, 991, 1004, event="emissions.v4.EventWorkerSubmissionWindowOpened")
    chain.open_window(2, 992, 1004, event="emissions.v10.EventReputerSubmissionWindowOpened")
    with following(chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(980) is not None)
        assert not chain.asked("/block_results")
        eventually(lambda: follower.window_end(1, 990) == 1002)
        eventually(lambda: follower.window_end(2, 991) == 1004)
        assert follower.window_end(2, 992) is None
        eventually(asked(chain, "/block_results", 1))
        assert [follower.window_end(topic_id, 990) for topic_id in (1, 2, 3)] == [1002, None, None]
        assert [follower.window_end(1, height) for height in (5, 99_999)] == [None, None]
        eventually(asked(chain, "/status", 2))
        assert [query["height"] for query in chain.asked("/block_results")] == ["990", "991", "992"]


def test_windows_of_several_nonces_are_known_within_a_turn(chain: FakeChain, clock: RunningClock) -> None:
    nonces = (990, 991, 992)
    for nonce in nonces:
        chain.open_window(1, nonce, nonce + 12)
    with following(chain.url, clock=clock, poll_s=(0.5, 0.5)) as follower:
        eventually(lambda: follower.time_of(980) is not None)
        before = len(chain.asked("/status"))
        eventually(lambda: [follower.window_end(1, nonce) for nonce in nonces] == [1002, 1003, 1004])
        assert len(chain.asked("/status")) <= before + 2


def test_a_window_that_cannot_be_had_is_given_up_and_holds_up_nothing(chain: FakeChain, clock: RunningClock) -> None:
    chain.open_window(1, 990, 1002)
    chain.faults["/block_results"] = Answer('{"error": {"message": "Internal error", "data": "pruned"}}', 500)
    with capture_logs() as lines, following(chain.url, clock=clock) as follower:
        eventually(lambda: follower.time_of(980) is not None)
        assert follower.window_end(1, 990) is None
        eventually(asked(chain, "/block_results", 3))
        eventually(knows(follower, chain))
        assert follower.window_end(1, 990) is None
        eventually(asked(chain, "/status", 2))
        assert len(chain.asked("/block_results")) == 3
    assert [line["event"] for line in lines] == ["chain_followed", "chain_window_unknown"]


def test_headers_that_cannot_be_had_hold_up_no_new_block(chain: FakeChain, clock: RunningClock) -> None:
    chain.faults["/blockchain"] = Answer(status=403)
    with following(chain.url, clock=clock) as follower:
        eventually(knows(follower, chain))
        eventually(knows(follower, chain))
        assert len(chain.asked("/blockchain")) < len(chain.asked("/status"))
        chain.faults.clear()
        eventually(lambda: follower.time_of(961) is not None)


def test_what_nobody_thought_of_ends_no_following(chain: FakeChain, clock: RunningClock) -> None:
    calls = []

    def wrong() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the loop is closed")

    with following(chain.url, clock=clock, on_block=wrong) as follower:
        eventually(lambda: "the loop is closed" in follower.fault)
        eventually(knows(follower, chain))
