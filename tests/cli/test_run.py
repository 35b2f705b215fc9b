"""The start of ``birnn run``: where it listens for the status page, and what it heeds of the chain."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.run import _listen_for_pages
from core.errors import ConfigError
from core.settings import load_settings
from tests.e2e.test_run import Node
from tests.fakes.chain_replay import ChainReplay, recorded
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.node.config_files import entry, written

NEW = "allora-testnet-9"  # whose topics the catalogue does not know, so that any horizon may be set


def test_a_taken_default_port_is_replaced_and_a_taken_port_that_was_set_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = load_settings(monitor_port=port)
        with pytest.raises(ConfigError, match=f"MONITOR_HOST=127.0.0.1 MONITOR_PORT={port}: .* another MONITOR_PORT"):
            _listen_for_pages(taken)
        by_default = taken.model_construct(**taken.model_dump(), _fields_set=set())
        with _listen_for_pages(by_default) as listener:
            assert listener.getsockname()[1] not in {0, port}


def test_a_wrong_host_of_the_page_is_told_with_the_default_port() -> None:
    with pytest.raises(ConfigError, match=r"MONITOR_HOST=203\.0\.113\.7 MONITOR_PORT=8080: cannot listen there"):
        _listen_for_pages(load_settings(monitor_host="203.0.113.7"))


@pytest.fixture
def chain() -> Iterator[ChainReplay]:
    lines = recorded()
    newest = max(line["block"] for line in lines if "block" in line)
    with ChainReplay(lines, chain_id=NEW, height=newest - 20).running() as running:
        yield running


def settings_of(folder: Path, chain: ChainReplay) -> dict[str, str]:
    """A topic of ten minutes, which has a lag of a minute on chain; venues that do not answer."""
    gone = f"http://127.0.0.1:{free_port()}"
    return {
        "CONFIG_FILE": str(written(folder, entry(Target="price", Horizon="10m"), chainId=NEW)),
        "LCD_URLS": chain.url,
        "RPC_URLS": "none",
        "BINANCE_REST_URLS": gone,
        "BINANCE_ARCHIVE_URL": gone,
        "MARKET_VENUES": "binance",
    }


def test_a_topic_that_is_another_one_on_chain_stops_the_start(tmp_path: Path, chain: ChainReplay) -> None:
    node = Node(tmp_path / "data", None, **settings_of(tmp_path, chain), MARKET="binance")
    assert node.process.wait(60) == 2
    node.reader.join(10)
    said = "".join(node.lines)
    assert f"birnn: topic {NEW}/1: the chain asks for the truth about 1m after the base" in said
    assert "ALARM_CONTRACT=off starts without asking the chain" in said


def test_with_simulated_prices_it_only_warns(tmp_path: Path, chain: ChainReplay) -> None:
    node = Node(tmp_path / "data", None, **settings_of(tmp_path, chain))
    try:
        eventually(lambda: any("the chain asks for the truth" in line for line in node.lines), 60, "the warning")
        eventually(node.ready, 60, "an answer to every topic")
    finally:
        node.process.terminate()
        code = node.process.wait(20)
        node.reader.join(10)
    assert code == 0
