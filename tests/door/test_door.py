"""``python -m door`` as a process, with a small program in the place of inference that ends and hangs when asked to."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from tests.fakes.clock import eventually
from tests.fakes.net import free_port

ROOT = Path(__file__).parents[2]
INFERENCE = """
import os, signal, sys, time
from pathlib import Path

from core.process.listener import handed_over
from core.process.commands import say_ready

folder = Path(__file__).parent
if (folder / "refuse").exists():
    sys.exit(2)
if (folder / "fail").exists():
    sys.exit(7)
listener = handed_over()
listener.settimeout(600)
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
if not (folder / "unready").exists():
    say_ready()
while True:
    connection, _ = listener.accept()
    with connection:
        words = connection.recv(4096).split()
        if b"/hang" in words:
            time.sleep(600)
        if b"/slow" in words:
            time.sleep(0.03)
        body = b"%d" % os.getpid()
        head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        connection.sendall(head + body)
"""


class Stand:
    """A door and what it says."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.folder, port = folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "inference.py").write_text(INFERENCE)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port), "ANSWER_PATIENCE_S": "0", **changes}
        with (folder / "log").open("wb") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "door"], cwd=folder, env=environment, stdout=log, stderr=log
            )

    def get(self, path: str = "/", timeout_s: float = 30.0) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout_s)

    def answering(self) -> psutil.Process:
        """The process that answers, once it does."""
        return psutil.Process(int(self.get().text))

    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextmanager
def door(folder: Path, **changes: str) -> Iterator[Stand]:
    stand = Stand(folder, **changes)
    try:
        eventually(lambda: listens(stand), 30, "the door's socket")
        yield stand
    finally:
        family = [*stand.process.children(recursive=True), stand.process] if stand.process.is_running() else []
        for process in family:
            process.kill()
        stand.process.wait()


def listens(stand: Stand) -> bool:
    try:
        stand.get()
    except requests.ConnectionError as error:
        return "refused" not in str(error)
    return True


def test_what_waits_while_inference_is_killed_is_answered_by_the_next(tmp_path: Path) -> None:
    """Ten kills under questions; those that a killed process had accepted may be lost, and nobody is refused."""
    answers: list[str] = []
    lost: list[str] = []
    over = threading.Event()

    def ask(stand: Stand) -> None:
        while not over.wait(0.01):
            try:
                answers.append(stand.get().text)
            except requests.RequestException as error:
                lost.append(str(error))

    with door(tmp_path) as stand:
        asking = threading.Thread(target=ask, args=(stand,))
        asking.start()
        killed = []
        for _ in range(10):
            eventually(lambda: bool(answers) and answers[-1] not in killed, 30, "an answer of the next")
            killed.append(answers[-1])
            psutil.Process(int(killed[-1])).kill()
        over.set()
        asking.join()
        eventually(lambda: stand.log().count('"in_s":0.0') == 10, what="ten lines")
    assert len(set(killed)) == 10
    assert len(lost) <= 10
    assert not [reason for reason in lost if "refused" in reason]


def test_a_process_that_was_never_ready_is_started_again_after_a_pause(tmp_path: Path) -> None:
    (tmp_path / "unready").touch()
    with door(tmp_path) as stand:
        for in_s in ("1.0", "2.0"):
            stand.answering().kill()
            eventually(lambda in_s=in_s: f'"in_s":{in_s}' in stand.log(), what=f"a pause of {in_s} s")  # type: ignore[misc]


def test_while_inference_hangs_the_door_says_so(tmp_path: Path) -> None:
    with door(tmp_path) as stand:
        hanging = stand.answering()
        with pytest.raises(requests.ReadTimeout):
            stand.get("/hang", 0.2)
        began = time.monotonic()
        answer = stand.get()
        assert 5 < time.monotonic() - began < 15
        assert answer.status_code == 503
        assert answer.headers["X-Market"] == "BINANCE"
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "inference has accepted no connection for 5 s: it runs since 20" in answer.text
        assert answer.text.endswith(f"as pid {hanging.pid}\n")
        eventually(lambda: "door_answered" in stand.log(), what="the line")
        assert '"connections":1,' in stand.log()
        hanging.kill()
        assert stand.get().status_code == 200


def test_while_inference_cannot_start_the_door_says_how_it_ends(tmp_path: Path) -> None:
    with door(tmp_path) as stand:
        inference = stand.answering()
        (tmp_path / "fail").touch()
        inference.kill()
        answer = stand.get()
        assert answer.status_code == 503
        assert "the process before ended with status 7" in answer.text
        (tmp_path / "fail").unlink()
        eventually(lambda: stand.get().status_code == 200, 30, "an answer")


def test_nobody_is_turned_away_by_the_door_while_inference_is_merely_busy(tmp_path: Path) -> None:
    """For longer than the patience somebody waits at any moment, and none of them that long."""
    statuses: set[int] = set()
    until = time.monotonic() + 7.0

    def ask() -> None:
        while time.monotonic() < until:
            statuses.add(stand.get("/slow").status_code)

    with door(tmp_path) as stand:
        askers = [threading.Thread(target=ask) for _ in range(12)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert "door_answered" not in stand.log()
    assert statuses == {200}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_inference_whose_status_is_the_doors(tmp_path: Path, number: signal.Signals) -> None:
    with door(tmp_path) as stand:
        inference = stand.answering()
        stand.process.send_signal(number)
        assert stand.process.wait(5) == 5
        assert not inference.is_running()


def test_a_configuration_refused_at_the_first_start_ends_the_door(tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    with door(tmp_path) as stand:
        assert stand.process.wait(10) == 2


def test_a_refusal_of_inference_is_one_line(tmp_path: Path) -> None:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PORT": "0", "CONFIG_FILE": "nowhere.json"}
    command = [sys.executable, "-m", "door"]
    ended = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("nowhere.json: no such file")


def test_inference_ends_with_a_killed_door(tmp_path: Path) -> None:
    with door(tmp_path) as stand:
        inference = stand.answering()
        stand.process.kill()
        eventually(lambda: not inference.is_running(), what="its end")


def test_what_ends_inference_by_name_leaves_a_door_that_is_small(tmp_path: Path) -> None:
    with door(tmp_path) as stand:
        inference = stand.answering()
        assert "inference" not in " ".join(stand.process.cmdline())
        assert "inference" in inference.cmdline()
        assert stand.process.memory_info().rss < 25e6


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = {**os.environ, "PORT": str(port)}
        command = [sys.executable, "-m", "door"]
        ended = subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"HOST=127.0.0.1 PORT={port}: cannot listen there")
