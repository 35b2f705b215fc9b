"""Asking an endpoint of ours: what is not a whole answer is none."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from core.net.http_get import NoAnswer, http_get


@contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """One connection, answered by hand."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/topics"
        thread.join()


def test_every_status_is_an_answer() -> None:
    with server(
        lambda connection: connection.sendall(b"HTTP/1.1 503 x\r\nX-A: 7\r\nContent-Length: 4\r\n\r\ncold")
    ) as url:
        answer = http_get(url, 5)
    assert (answer.status, answer.headers["x-a"], answer.body) == (503, "7", b"cold")


@pytest.mark.parametrize(
    ("sent", "kind", "says"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n2650", "ValueError", "5 bytes too early", id="cut"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n2650\r\n", "IncompleteRead", "read", id="chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * 101, "ValueError", "longer than 100 bytes", id="too long"),
        pytest.param(b"220 mail\r\n", "BadStatusLine", "220 mail", id="not HTTP"),
        pytest.param(b"", "RemoteDisconnected", "closed", id="nothing"),
    ],
)
def test_no_whole_answer_is_none(sent: bytes, kind: str, says: str) -> None:
    with server(lambda connection: connection.sendall(sent)) as url, pytest.raises(NoAnswer, match=says) as caught:
        http_get(url, 5, most_bytes=100)
    assert caught.value.kind == kind


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "http://a" + "b" * 300 + ".invalid/"])
def test_an_impossible_url_gives_no_answer(url: str) -> None:
    with pytest.raises(NoAnswer):
        http_get(url, 1)


def test_a_body_that_trickles_ends_at_the_deadline() -> None:
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client leaves
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.05):
                connection.sendall(b"1")

    with server(trickle) as url:
        try:
            with pytest.raises(NoAnswer, match=r"the body took longer than 0\.5 s"):
                http_get(url, 0.5)
        finally:
            over.set()
