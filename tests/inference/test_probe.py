"""The probe against a server that says what the test wants said."""

import json
from collections.abc import Iterator

import pytest

from core.net.http_get import NoAnswer
from inference.probe import main as probe
from inference.probe import topics_of
from tests.answering import Answer, answering

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
