"""The probe against a server that says what the test wants said."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.net.http_get import NoAnswer
from inference.probe import main as probe
from inference.probe import topics_of
from tests.answering import Answer, answering
from tests.fakes.chain_replay import ChainReplay, recorded
from tests.fakes.net import free_port
from tests.node.config_files import entry, written

NEW = "allora-testnet-9"  # whose topics the catalogue does not know, so that any horizon may be set
Says = dict[str, tuple[int, str]]


@pytest.fixture
def server() -> Iterator[tuple[str, Says]]:
    says: Says = {}

    def answer(path: str) -> Answer:
        status, body = says.get(path, (404, "not found"))
        return status, body.encode(), {}

    with answering(answer) as url:
        yield url, says


def topics(*ready: bool) -> tuple[int, str]:
    return 200, json.dumps([{"topic_id": number, "ready": well} for number, well in enumerate(ready, 1)])


@pytest.mark.parametrize(
    ("readyz", "topics_say", "arguments", "code", "word"),
    [
        pytest.param((200, "ready"), topics(True), [], 0, "ready", id="all"),
        pytest.param((503, "topic 2: no klines"), topics(True, False), [], 1, "topic 2", id="some, all wanted"),
        pytest.param(
            (503, "topic 2: no klines"), topics(True, False), ["--or-some"], 0, "topic 2", id="some is enough"
        ),
        pytest.param((503, "topic 1: no klines"), topics(False, False), ["--or-some"], 1, "topic 1", id="none"),
        pytest.param((503, "x"), (200, "<html>"), ["--or-some"], 1, "503 x", id="not our server"),
        pytest.param((503, "x"), (500, "y"), ["--or-some"], 1, "503 x", id="topics fail"),
    ],
)
def test_some_topics_are_enough_when_the_caller_says_so(
    server: tuple[str, Says],
    capsys: pytest.CaptureFixture[str],
    readyz: tuple[int, str],
    topics_say: tuple[int, str],
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    url, says = server
    says |= {"/readyz": readyz, "/topics": topics_say}
    assert probe(["readyz", "--url", url, *arguments]) == code
    shown = capsys.readouterr()
    assert word in (shown.err if code else shown.out)


def test_a_proxy_of_the_environment_is_not_asked(server: tuple[str, Says], monkeypatch: pytest.MonkeyPatch) -> None:
    url, says = server
    says["/healthz"] = (200, "ok")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert probe(["healthz", "--url", url]) == 0


def test_what_inference_says_ends_without_a_separator(server: tuple[str, Says]) -> None:
    url, says = server
    says["/topics"] = (503, "no connection for 20 s:\nit runs since noon\n")
    with pytest.raises(NoAnswer) as caught:
        topics_of(url)
    assert str(caught.value).endswith("no connection for 20 s:; it runs since noon")


@pytest.fixture
def chain() -> Iterator[ChainReplay]:
    lines = recorded()
    newest = max(line["block"] for line in lines if "block" in line)
    with ChainReplay(lines, chain_id=NEW, height=newest - 20).running() as running:
        yield running


@pytest.mark.parametrize(
    ("horizon", "market", "code", "word"),
    [
        pytest.param("1m", "binance", 0, "", id="as on chain"),
        pytest.param("10m", "binance", 2, "contract: topic allora-testnet-9/1: the chain asks", id="another horizon"),
        pytest.param("10m", "simulated", 0, "contract: topic allora-testnet-9/1: the chain asks", id="simulated"),
    ],
)
def test_ready_compares_the_contract_with_the_chain(
    server: tuple[str, Says],
    chain: ChainReplay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    horizon: str,
    market: str,
    code: int,
    word: str,
) -> None:
    url, says = server
    says["/readyz"] = (200, "ready")
    monkeypatch.setenv("LCD_URLS", chain.url)
    monkeypatch.setenv("MARKET", market)
    monkeypatch.setenv("CONFIG_FILE", str(written(tmp_path, entry(Target="price", Horizon=horizon), chainId=NEW)))
    assert probe(["readyz", "--contract", "--url", url]) == code
    shown = capsys.readouterr()
    assert word in shown.err
    assert ("contract:" in shown.err) == bool(word)
    assert "readyz: ready" in shown.out
    assert probe(["readyz", "--url", url]) == 0, "a health check asks nothing more"


def test_a_contract_that_is_broken_does_not_wait_for_inference(
    server: tuple[str, Says], chain: ChainReplay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, says = server
    says["/readyz"] = (503, "starting")
    monkeypatch.setenv("LCD_URLS", chain.url)
    monkeypatch.setenv("CONFIG_FILE", str(written(tmp_path, entry(Target="price", Horizon="10m"), chainId=NEW)))
    assert probe(["readyz", "--contract", "--wait", "1000", "--url", url]) == 2


def test_a_chain_that_cannot_be_reached_only_warns(
    server: tuple[str, Says],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, says = server
    says["/readyz"] = (200, "ready")
    monkeypatch.setenv("CONFIG_FILE", str(written(tmp_path, entry(Target="price", Horizon="10m"), chainId=NEW)))
    monkeypatch.setenv("LCD_URLS", f"http://127.0.0.1:{free_port()}")
    assert probe(["readyz", "--contract", "--url", url]) == 0
    assert "contract: not compared with the chain: allora-testnet-9/1: " in capsys.readouterr().err
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "none.json"))
    assert probe(["readyz", "--contract", "--url", url]) == 0, "inference has said what is wrong with the file"
