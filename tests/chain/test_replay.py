"""The replay of a recorded chain shows what the chain showed, when it showed it."""

import time

import pytest

from chain.emissions import Emissions
from chain.follower import Follower
from chain.lcd import Lcd
from chain.rpc import STATUS, Rpc, headers_of, status_of
from core.clock import SystemClock
from tests.fakes.chain_replay import OURS, ChainReplay, recorded
from tests.fakes.clock import FakeClock, eventually

LINES = recorded()


def reader(chain: ChainReplay) -> Emissions:
    return Emissions(chain.chain_id, Lcd([chain.url], chain.clock))


def test_the_life_of_an_epoch() -> None:
    """Nonce 403 of topic 3: open, closed after 12 blocks, settled after 60; then as if 120 blocks had passed."""
    clock = FakeClock()
    with ChainReplay(LINES, clock=clock, height=401).running() as chain:
        emissions = reader(chain)
        seen: dict[str, int] = {}
        while not chain.is_over:
            height = emissions.host().height
            here = {
                "open": emissions.open_nonces(3) == (403,),
                "own value": (own := emissions.latest_inference(3, OURS)) is not None and own.nonce == 403,
                "values": emissions.inferences(3, 403) != (),
                "network": (network := emissions.network_inference(3)) is not None and network.nonce == 403,
                "losses": emissions.losses(3, 403) is not None,
                "scores": emissions.scores(3, 403) != {},
                "commit": emissions.last_reputer_nonce(3) == 403,
            }
            for name, is_here in here.items():
                if is_here:
                    seen.setdefault(name, height)
            clock.sleep(2)
        looks = 4  # blocks between two looks of the recording, at most
        for name, height in {"open": 403, "own value": 404, "values": 415, "network": 415, "losses": 463}.items():
            assert height <= seen[name] <= height + looks, name
        assert seen["commit"] == 463
        chain.is_pruned = True
        assert emissions.inferences(3, 403) == ()
        assert emissions.losses(3, 403) is None


@pytest.mark.parametrize("speed", [1, 20])
def test_the_times_of_blocks_are_those_of_the_recording_moved_and_divided(speed: int) -> None:
    clock = FakeClock()
    with ChainReplay(LINES, clock=clock, height=400, speed=speed).running() as chain:
        rpc = Rpc([chain.url], clock)
        status = rpc.ask(STATUS, {}, status_of)
        assert status.newest.height == 400
        assert 0 <= clock.now_ms() - status.newest.time_ms <= 5_000 / speed
        headers = rpc.ask("/blockchain", {"minHeight": 390, "maxHeight": 400}, headers_of)
        spread_ms = headers[400][0] - headers[390][0]
        assert abs(spread_ms * speed - 10 * 2_000) < 10 * 200
        clock.sleep(100 / speed)
        assert 445 <= rpc.ask(STATUS, {}, status_of).newest.height <= 455


def test_a_follower_follows_it() -> None:
    with ChainReplay(LINES, height=360, speed=20).running() as chain:
        follower = Follower([chain.url], "localnet", SystemClock())
        follower.start()
        try:
            eventually(lambda: (newest := follower.newest) is not None and newest.height > 370)
            eventually(lambda: follower.block_ms is not None)
            assert 80 < (follower.block_ms or 0) < 120
            eventually(lambda: follower.time_of(350) is not None and follower.time_of(371) is not None)
            assert abs(time.time() * 1000 - (follower.time_of(371) or 0)) < 60_000
        finally:
            follower.stop()
