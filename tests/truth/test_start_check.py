"""The check of a start against a replayed chain: what agrees, what stops a start, and what only warns."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.clock import SystemClock
from core.errors import ConfigError
from core.settings import load_settings
from core.topic import Target, Topic
from tests.fakes.chain_replay import CUT, DOWN, HALF, HTML, HTML_PAGE, ChainReplay, recorded
from truth.start_check import Found, StartCheck

TESTNET = "allora-testnet-1"
# The recorded topics have a lag of 30 blocks of about two seconds.
MINUTE = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=1, network=TESTNET)
TEN = replace(MINUTE, horizon_min=10)


def chain_of(network: str = TESTNET) -> ChainReplay:
    lines = recorded(CUT)
    heights = [line["block"] for line in lines if "block" in line]
    return ChainReplay(lines, chain_id=network, height=max(heights) - 20)


@pytest.fixture
def chain() -> Iterator[ChainReplay]:
    with chain_of().running() as running:
        yield running


def check(urls: str, *topics: Topic, limit_s: float = 5.0, **settings: str) -> Found:
    given = {"lcd_urls": urls, "market": "binance", **settings}
    return StartCheck(load_settings(**given), topics, SystemClock(), limit_s).wait()


def test_topics_that_are_the_same_on_chain_agree(chain: ChainReplay) -> None:
    topics = [replace(MINUTE, topic_id=number) for number in (1, 2, 3)]
    found = check(chain.url, *topics)
    assert found == Found(agreed=tuple(topic.key for topic in topics))
    found.heed()


def test_a_horizon_that_is_off_stops_the_start_on_a_public_network(chain: ChainReplay) -> None:
    found = check(chain.url, TEN, replace(MINUTE, topic_id=2))
    (line,) = found.stops
    assert f"topic {TEN.key}: the chain asks for the truth about 1m after the base" in line
    assert "30 blocks of 2.0" in line
    assert "we answer for 10m; take the topic out of the config until a release" in line
    assert found.agreed == (f"{TESTNET}/2",)
    with pytest.raises(ConfigError, match="ALARM_CONTRACT=off starts"):
        found.heed()
    assert check(chain.url, TEN, alarm_contract="10").stops == ()
    assert check(chain.url, TEN, alarm_contract="off") == Found()


def test_another_loss_stops_and_doubts_only_warn(chain: ChainReplay) -> None:
    assert "scores by mse, and we train for mae" in check(chain.url, replace(MINUTE, loss="mae")).stops[0]
    unknown = check(chain.url, replace(MINUTE, topic_id=99))
    assert unknown.stops == ()
    assert "the chain has no such topic" in unknown.warnings[0]


def test_a_recorded_chain_and_simulated_prices_only_warn(chain: ChainReplay) -> None:
    simulated = check(chain.url, TEN, market="simulated")
    assert (simulated.stops, len(simulated.warnings)) == ((), 1)
    with chain_of("localnet").running() as local:
        found = check(local.url, replace(TEN, network="localnet"))
        assert (found.stops, len(found.warnings)) == ((), 1)
        assert "answer for 10m" in found.warnings[0]


@pytest.mark.parametrize("api", ["v5", "v9", "v10"])
def test_every_version_of_the_api_is_compared(chain: ChainReplay, api: str) -> None:
    chain.api = api
    assert check(chain.url, MINUTE).agreed == (MINUTE.key,)
    assert check(chain.url, TEN).stops


def test_a_host_that_has_pruned_its_blocks_leaves_the_horizon_open_and_tells_the_rest(chain: ChainReplay) -> None:
    chain.earliest = chain.height
    found = check(chain.url, replace(TEN, loss="mae"))
    assert len(found.stops) == 1
    assert "we train for mae" in found.stops[0]
    assert found.warnings == (f"topic {TEN.key}: the time of a block is not known, so its horizon was not compared",)


@pytest.mark.parametrize("fault", [DOWN, HTML, HTML_PAGE, HALF], ids=["down", "HTML", "a page", "half a body"])
def test_a_broken_host_only_warns_and_another_host_is_asked(chain: ChainReplay, fault: object) -> None:
    with chain_of().running() as broken:
        broken.faults[""] = fault  # type: ignore[assignment]
        found = check(broken.url, TEN)
        assert found.stops == ()
        assert found.warnings[0].startswith(f"not compared with the chain: {TEN.key}: ")
        assert "LCD_URLS" in found.warnings[0]
        assert check(f"{broken.url},{chain.url}", TEN).stops


def test_a_host_of_another_chain_only_warns(chain: ChainReplay) -> None:
    found = check(chain.url, replace(TEN, network="allora-mainnet-1"))
    assert found.stops == ()
    assert "not compared with the chain: allora-mainnet-1/1" in found.warnings[0]


def test_a_config_without_a_chain_and_no_hosts(chain: ChainReplay) -> None:
    found = check(chain.url, replace(MINUTE, network=None))
    assert 'add "chainId"' in found.warnings[0]
    assert check("", TEN) == Found()


def test_a_slow_chain_is_given_up_at_the_limit_and_nothing_waits_for_it(chain: ChainReplay) -> None:
    chain.hold = threading.Event()
    topics = [replace(TEN, topic_id=number) for number in range(1, 9)]
    settings = load_settings(lcd_urls=chain.url, market="binance")
    contract = StartCheck(settings, topics, SystemClock(), limit_s=1.0)
    found = contract.wait()  # while the chain still holds every answer
    assert contract.is_over
    assert found.stops == ()
    assert found.warnings == (
        f"not compared with the chain: {', '.join(topic.key for topic in topics[:5])} and 3 more: no answer in time; "
        "correct LCD_URLS if it stays so",
    )
    chain.hold.set()


def test_many_topics_are_asked_side_by_side(chain: ChainReplay) -> None:
    topics = [replace(MINUTE, topic_id=number) for number in (1, 2, 3, *range(100, 152))]
    found = check(chain.url, *topics)
    assert found.agreed == tuple(f"{TESTNET}/{number}" for number in (1, 2, 3))
    assert len(found.warnings) == 52
