"""Hosts that are down, slow, broken, of another chain, behind, or hostile; and two that disagree."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from structlog.testing import capture_logs

from chain.addresses import BODY_LIMIT_BYTES, Address, ChainFault, http_url
from chain.emissions import Emissions, networks
from chain.lcd import INTRODUCED_S, LOOK_S, MOST_BEHIND, Lcd
from chain.shapes import Access
from tests.fakes.chain_replay import BUSY, DOWN, HALF, HTML, HTML_PAGE, OURS, ChainReplay, recorded
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer

LINES = recorded()
HEIGHT = 436
CLOSED = "http://127.0.0.1:9"  # nothing listens there
TIMEOUT_S = 0.3
TESTNET = "allora-testnet-1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Stand:
    """Hosts of the recorded chain with one clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.stack = ExitStack()

    def host(self, chain_id: str = "localnet", *, lag_blocks: int = 0) -> ChainReplay:
        chain = ChainReplay(LINES, clock=self.clock, height=HEIGHT, chain_id=chain_id)
        chain.lag_blocks = lag_blocks
        return self.stack.enter_context(chain.running())

    def read(self, *chains: ChainReplay | str, network: str = "localnet") -> Emissions:
        urls = [chain if isinstance(chain, str) else chain.url for chain in chains]
        return Emissions(network, Lcd(urls, self.clock, timeout_s=TIMEOUT_S))


@pytest.fixture
def stand(clock: FakeClock) -> Iterator[Stand]:
    stand = Stand(clock)
    with stand.stack:
        yield stand


FAULTS = {
    "down": (DOWN, "connection failed|cut off"),
    "a proxy's error page": (HTML, "HTTP 502"),
    "a page where JSON belongs": (HTML_PAGE, "no JSON object but b'<html>"),
    "half a body": (HALF, "cut off"),
    "half of a JSON text": (Answer('{"topic":{"id"'), "no JSON object"),
    "too many requests": (BUSY, "HTTP 429"),
    "another form": (Answer('{"topic":{"id":"2"}}'), "another form: KeyError"),
    "a list": (Answer("[1, 2]"), "no JSON object"),
    "nothing": (Answer(""), "no JSON object"),
    "another topic": (
        Answer(next(line["body"] for line in LINES if line.get("path") == "/emissions/v5/topics/3")),
        "another topic",
    ),
    "too much": (Answer(b'{"topic": "' + b"x" * BODY_LIMIT_BYTES + b'"}'), "more than 4 MB"),
    "an id of another form": (Answer('{"topic":{"id":"two"}}'), "another form"),
    "a refusal without a code": (Answer('{"error":"internal"}', 500), "HTTP 500"),
    "a refusal of the gateway": (Answer('{"code":14,"message":"connection refused"}', 503), "HTTP 503"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_host_that_fails_rests_and_the_next_one_answers(stand: Stand, fault: Answer, reason: str) -> None:
    bad, good = stand.host(), stand.host()
    bad.faults["/emissions/v5/topics/2"] = fault
    emissions = stand.read(bad, good)
    with capture_logs() as logs:
        topic = emissions.topic(2)
    assert topic is not None
    assert topic.topic_id == 2
    (line,) = [log for log in logs if log["event"] == "chain_host_failed"]
    assert (line["host"], "LCD_URLS" in line["remedy"]) == (bad.url.removeprefix("http://"), True)
    asked = len(bad.requests)
    assert emissions.topic(2) == topic
    assert len(bad.requests) == asked  # it rests
    alone = stand.read(bad)
    with pytest.raises(ChainFault, match=reason) as caught:
        alone.topic(2)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_slow_host_rests(stand: Stand) -> None:
    slow, good = stand.host(), stand.host()
    slow.hold = threading.Event()
    try:
        emissions = stand.read(slow, good)
        assert emissions.host().height == HEIGHT
        asked = len(slow.requests)
        assert emissions.topic(2) is not None
        assert len(slow.requests) == asked
        with pytest.raises(ChainFault, match="no answer in time"):
            stand.read(slow).topic(2)
    finally:
        slow.hold.set()


def test_a_host_that_comes_back_is_asked_again(stand: Stand) -> None:
    host = stand.host()
    host.faults[""] = DOWN
    emissions = stand.read(host)
    with pytest.raises(ChainFault):
        emissions.host()
    del host.faults[""]
    with pytest.raises(ChainFault):  # it rests
        emissions.host()
    stand.clock.sleep(1)
    assert emissions.host().chain_id == "localnet"
    assert emissions.topic(2) is not None


def test_what_a_version_has_not_is_told_while_another_host_is_down(stand: Stand) -> None:
    down, well = stand.host(), stand.host()
    emissions = stand.read(down, well)
    emissions.host()
    down.faults[""] = DOWN
    assert emissions.access(2, OURS) == Access(registered=True)
    assert emissions.gas_price() is None


def test_no_host_at_all(stand: Stand) -> None:
    with pytest.raises(ChainFault, match="set LCD_URLS"):
        stand.read().topic(2)


def test_a_host_of_another_chain_is_left_out(stand: Stand) -> None:
    other, ours = stand.host(TESTNET), stand.host()
    emissions = stand.read(other, ours)
    with capture_logs() as logs:
        assert emissions.topic(2) is not None
        for _ in range(5):
            emissions.host()
            stand.clock.sleep(LOOK_S + 1)
    assert logs == []
    assert {path for path, _ in other.requests} == {"/cosmos/base/tendermint/v1beta1/node_info"}
    assert len(other.requests) == 1
    with pytest.raises(ChainFault, match="serves allora-testnet-1, not localnet"):
        stand.read(other).topic(2)


def test_a_host_that_turns_to_another_chain_is_left_out(stand: Stand) -> None:
    host = stand.host()
    emissions = stand.read(host)
    assert emissions.topic(2) is not None
    host.chain_id = "elsewhere-1"
    stand.clock.sleep(INTRODUCED_S + 1)
    with pytest.raises(ChainFault, match="serves elsewhere-1"):
        emissions.topic(2)


@pytest.mark.parametrize("chain_id", ["x" * 65, "id with blank", "<b>", "", "a\nb"])
def test_a_chain_id_of_no_form_is_refused(stand: Stand, chain_id: str) -> None:
    with pytest.raises(ChainFault, match="a chain id is letters") as caught:
        stand.read(stand.host(chain_id)).host()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_host_that_speaks_no_known_version(stand: Stand) -> None:
    host = stand.host()
    host.api = "v3"
    with pytest.raises(ChainFault, match=r"no version .* \(v10, v9"):
        stand.read(host).topic(2)


def test_an_older_host_beside_a_newer_one(stand: Stand) -> None:
    newer, older = stand.host(), stand.host()
    newer.api = "v10"
    emissions = stand.read(newer, older)
    assert emissions.host().api == "v10"
    newer.faults[""] = DOWN
    assert emissions.host().api == "v5"
    assert emissions.topic(2) is not None


@pytest.mark.parametrize("lagging_first", [True, False])
def test_of_two_hosts_that_disagree_the_one_ahead_is_believed(stand: Stand, *, lagging_first: bool) -> None:
    ahead, lagging = stand.host(), stand.host(lag_blocks=25)
    emissions = stand.read(*([lagging, ahead] if lagging_first else [ahead, lagging]))
    with capture_logs() as logs:
        assert emissions.host().height == HEIGHT
    assert [log["host"] for log in logs] == [lagging.url.removeprefix("http://")]
    assert "25 blocks behind another host, at height 411" in logs[0]["reason"]
    assert emissions.last_worker_nonce(1) == 417
    assert lagging.asked("/emissions/v5/topic_last_worker_commit_info") == []


def test_a_host_that_lags_is_not_read_while_the_one_ahead_rests(stand: Stand) -> None:
    lagging, ahead = stand.host(lag_blocks=25), stand.host()
    emissions = stand.read(lagging, ahead)
    emissions.host()
    stand.clock.sleep(1)
    ahead.faults["/emissions/v5/topics/2"] = HTML
    with pytest.raises(ChainFault, match=r"2[45] blocks behind"):
        emissions.topic(2)
    assert lagging.asked("/emissions/v5/topics/2") == []


def test_a_host_a_little_behind_is_as_good(stand: Stand) -> None:
    ahead, behind = stand.host(), stand.host(lag_blocks=MOST_BEHIND)
    emissions = stand.read(behind, ahead)
    with capture_logs() as logs:
        assert emissions.host().height == HEIGHT - MOST_BEHIND
    assert logs == []


@pytest.mark.parametrize(("lie_ms", "reason"), [(60_000, "60 s ahead of"), (-600_000, "600 s behind")])
def test_a_host_that_is_ahead_with_a_wrong_time_is_not_believed(stand: Stand, lie_ms: int, reason: str) -> None:
    liar, honest = stand.host(TESTNET), stand.host(TESTNET, lag_blocks=10)
    liar.lie_ms = lie_ms
    emissions = stand.read(liar, honest, network=TESTNET)
    with capture_logs() as logs:
        assert emissions.host().height == HEIGHT - 10
    assert reason.rsplit(maxsplit=1)[-1] in logs[0]["reason"]
    assert "our clock" in logs[0]["reason"]
    with pytest.raises(ChainFault, match="the clock is wrong"):
        stand.read(liar, network=TESTNET).topic(2)


@pytest.mark.parametrize("lie_ms", [3_600_000, -36_000_000])
def test_a_local_chain_may_be_of_any_time(stand: Stand, lie_ms: int) -> None:
    host = stand.host()
    host.lie_ms = lie_ms
    assert stand.read(host).host().height == HEIGHT


@pytest.mark.parametrize("network", ["localnet", TESTNET])
def test_a_chain_that_stands_still_is_told(stand: Stand, network: str) -> None:
    host = stand.host(network)
    emissions = stand.read(host, network=network)
    emissions.host()
    stand.clock.sleep(600)  # the recording is over
    with suppress(ChainFault):
        emissions.host()
    stand.clock.sleep(121)
    with pytest.raises(ChainFault, match="the chain stands still"):
        emissions.topic(2)


def test_a_chain_that_began_anew_is_believed(stand: Stand) -> None:
    host = stand.host()
    emissions = stand.read(host)
    emissions.host()
    stand.clock.sleep(10)
    host.restart(330)
    assert emissions.host().height == 330
    assert emissions.topic(2) is not None


def test_hosts_by_the_network_that_they_serve(stand: Stand) -> None:
    testnet, mainnet = stand.host(TESTNET), stand.host("allora-mainnet-1")
    with capture_logs() as logs:
        found = networks([testnet.url, CLOSED, mainnet.url], stand.clock, timeout_s=TIMEOUT_S)
    assert list(found) == [TESTNET, "allora-mainnet-1"]
    (line,) = logs
    assert line["event"] == "chain_hosts_failed"
    assert line["reasons"] == ["127.0.0.1:9: connection failed"]
    assert "LCD_URLS" in line["remedy"]
    assert found["allora-mainnet-1"].host().chain_id == "allora-mainnet-1"
    assert found[TESTNET].topic(2) == found["allora-mainnet-1"].topic(2)


def test_a_host_of_a_network_that_nobody_wants_is_named(stand: Stand) -> None:
    ours, other = stand.host(), stand.host(TESTNET)
    with capture_logs() as logs:
        found = networks([ours.url, other.url], stand.clock, wanted=["localnet"], timeout_s=TIMEOUT_S)
    assert list(found) == ["localnet"]
    assert "serves allora-testnet-1, wanted is localnet" in logs[0]["reasons"][0]


def test_a_host_that_was_down_at_the_start_serves_later(stand: Stand) -> None:
    first, second = stand.host(), stand.host()
    second.faults[""] = DOWN
    with capture_logs():
        emissions = networks([first.url, second.url], stand.clock, timeout_s=TIMEOUT_S)["localnet"]
        emissions.host()
        del second.faults[""]
        first.faults[""] = DOWN
        stand.clock.sleep(2)
        assert emissions.topic(2) is not None
    assert second.asked("/emissions/v5/topics/2") == [{}]


def test_a_key_in_an_address_is_shown_nowhere(stand: Stand) -> None:
    with pytest.raises(ChainFault) as caught, capture_logs() as logs:
        stand.read("http://user:secret@127.0.0.1:9/key-in-path", "127.0.0.1:9").topic(2)
    assert "secret" not in str(caught.value) + json.dumps(logs)
    assert "key-in-path" not in str(caught.value) + json.dumps(logs)


def test_a_look_costs_one_request_and_the_other_hosts_one_in_half_a_minute(stand: Stand) -> None:
    first, second = stand.host(), stand.host()
    emissions = stand.read(first, second)
    emissions.host()
    before = emissions.requests
    for _ in range(10):
        stand.clock.sleep(3)
        emissions.host()
    assert emissions.requests - before == 10
    stand.clock.sleep(3)
    emissions.host()
    assert emissions.requests - before == 12


@pytest.mark.parametrize("url", ["https://key@host:8/key", "https://host:8?apikey=key", "https://u:key@host:8/#key"])
def test_of_an_address_only_the_host_is_told(url: str) -> None:
    assert Address(http_url(url)).host == "host:8"
