"""Looks at a network and its topics, as other processes read them."""

from pathlib import Path

from ledger.epochs import NETWORK_ITSELF, Sighting
from monitor.chain.looks import NO_TOPIC, network_look, topic_look
from tests.fakes.busy_chain import EPOCH, LAG, BusyChain
from tests.fakes.chain_replay import DOWN
from tests.fakes.clock import FakeClock, eventually
from tests.monitor.chain.follow import BLOCK_MS, Desk, desk, topics

WORKERS = [f"allo1{letter}{'q' * 37}" for letter in "023456"]
LOCAL = "allora-local-1"


def chain_of(clock: FakeClock) -> BusyChain:
    return BusyChain(LOCAL, [1], WORKERS, clock, block_ms=BLOCK_MS)


def looks(made: Desk) -> dict[int, Sighting]:
    return made.book.sightings(LOCAL)


def test_network_and_topic_are_noted_as_the_chain_tells_of_them(tmp_path: Path) -> None:
    clock = FakeClock()
    with desk(tmp_path, chain_of(clock), clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(made.chain.height + LAG + 2 * EPOCH, stride=3)
        made.run(made.chain.height + 3, looks=True)
        network, topic = network_look(looks(made)[NETWORK_ITSELF]), topic_look(looks(made)[1])
        assert network is not None
        assert topic is not None
        assert made.follower.emissions is not None
        assert topic.seen.newest_nonce == made.chain.newest_nonce(1, made.chain.height)  # type: ignore[attr-defined]
    assert network.host is not None
    assert (network.host.chain_id, network.host.api, network.fault) == (LOCAL, "v10", "")
    assert network.block_ms == BLOCK_MS
    assert network.wallets[WORKERS[0]].amount == "1000000000"
    assert network.wallets[WORKERS[0]].submissions == 0  # 300,000 gas at the price of the balance
    assert topic.access.registered is True
    assert topic.seen.is_active is True
    assert (topic.inferers, topic.free_places, network.most_inferers) == (len(WORKERS), 48 - len(WORKERS), 48)
    assert (topic.score_ema, topic.trend) == ("0.5", "0.0")


def test_the_networks_look_has_the_time_at_which_the_chain_was_last_read(tmp_path: Path) -> None:
    clock = FakeClock()
    with desk(tmp_path, chain_of(clock), clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(made.chain.height + 3, looks=True)
        seen_ms = made.follower.seen_ms
        made.chain.faults[""] = DOWN
        eventually(lambda: made.heights.fault != "", what="the fault of the hosts")
        for _ in range(10):
            clock.time_ms += 60_000
            made.follower.step()
            made.looker.step()
        sighting = looks(made)[NETWORK_ITSELF]
        look = network_look(sighting)
    assert look is not None
    assert sighting.seen_ms == seen_ms == look.seen_ms
    assert "connection" in look.fault


def test_looks_are_seldom(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = chain_of(clock)
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(chain.height + 900, looks=True, stride=10)  # half an hour
        assert chain.counted["is_topic_active"] in {1, 2}
        assert 7 <= chain.counted["params"] <= 9


def test_a_balance_is_kept_when_it_changes(tmp_path: Path) -> None:
    clock = FakeClock()
    chain = chain_of(clock)
    with desk(tmp_path, chain, clock, topics(1, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(chain.height + 300, looks=True, stride=30)
        chain.balance = "999"
        made.run(chain.height + 300, looks=True, stride=30)
        kept = made.book.balances(LOCAL, WORKERS[0])
    assert [amount for _, amount in kept] == ["1000000000", "999"]


def test_a_look_of_another_release_is_no_look() -> None:
    assert network_look(Sighting(0, {"host": {"odd": 1}, "upgrade": None, "wallets": {}})) is None
    assert topic_look(Sighting(0, {"seen": {"labels": 1}, "access": {}})) is None
    assert network_look(None) is None
    assert topic_look(None) is None


def test_a_topic_that_is_not_on_the_chain_is_noted_as_such(tmp_path: Path) -> None:
    clock = FakeClock()
    with desk(tmp_path, chain_of(clock), clock, topics(999, network=LOCAL, worker=WORKERS[0])) as made:
        made.run(made.chain.height + 4, looks=True)
        assert looks(made)[999].body == NO_TOPIC
