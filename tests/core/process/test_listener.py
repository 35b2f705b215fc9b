"""The socket: who holds the port is named at once, who is about to end is waited for."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.process.listener import handed_over, listen, url_of
from tests.fakes.net import free_port

ROOT = Path(__file__).parents[3]
LISTEN = """
import socket, sys, time
from core.process.commands import say_ending
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else 2)
if "ending" in sys.argv:
    say_ending()
print("up", flush=True)
time.sleep(float(sys.argv[3]))
"""


@contextmanager
def holder(host: str, port: int, lives_s: float, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that listens."""
    command = [sys.executable, "-c", LISTEN, host, str(port), str(lives_s), *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("127.0.0.1", "0.0.0.0"),  # noqa: S104
        ("127.0.0.1", "localhost"),
        ("::1", "::1"),
    ],
)
def test_a_living_holder_is_named(monkeypatch: pytest.MonkeyPatch, theirs: str, ours: str) -> None:
    monkeypatch.setattr("core.process.listener.LISTEN_PATIENCE_S", 600.0)  # it is not waited for
    port = free_port()
    with holder(theirs, port, 600) as process:
        with pytest.raises(ConfigError) as caught:
            listen(ours, port)
        (line,) = str(caught.value).splitlines()
        assert f"HOST={ours} PORT={port}: cannot listen there: pid {process.pid} (python" in line


def test_who_listens_on_the_same_port_elsewhere_holds_up_nobody() -> None:
    port = free_port()
    with holder("127.0.0.2", port, 600), listen("127.0.0.1", port) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["ending", "orphan"])
def test_who_is_about_to_end_is_waited_for(kind: str) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    more = ("ending",) if kind == "ending" else ("core.process.child", str(gone.pid))
    with holder("127.0.0.1", port, 0.5, *more), listen("127.0.0.1", port) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)


def test_who_says_that_it_ends_and_does_not_is_named_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.process.listener.LISTEN_PATIENCE_S", 0.3)
    port = free_port()
    with (
        holder("127.0.0.1", port, 600, "ending") as process,
        pytest.raises(ConfigError, match=f"pid {process.pid} "),
    ):
        listen("127.0.0.1", port)


def test_who_has_bound_a_port_without_listening_cannot_be_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="a process that has bound it without listening") as caught:
            listen("127.0.0.1", port)
        assert "sudo" not in str(caught.value), "no table that it reads has the port"


def test_a_port_that_this_program_has_taken_for_another_setting() -> None:
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(ConfigError, match="this program itself, holds the port for another setting; choose"),
    ):
        listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "says"),
    [
        pytest.param("203.0.113.7", "Cannot assign", id="another machine's"),
        pytest.param("no.such.host.invalid", "HOST=no.such.host.invalid", id="a name that is none"),
        pytest.param("a" * 64 + ".b", "HOST=a", id="a name that cannot be one"),
    ],
)
def test_a_host_that_is_not_ours_is_one_line(host: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        listen(host, 0)
    assert len(str(caught.value).splitlines()) == 1


def test_a_socket_that_was_handed_to_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert handed_over() is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1"),
        ("localhost", "http://127.0.0.1"),
        ("0.0.0.0", "http://127.0.0.1"),  # noqa: S104
        ("::1", "http://[::1]"),
        ("::", "http://[::1]"),
    ],
)
def test_the_url_leads_to_this_socket_by_its_number(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"{url}:{port}"
