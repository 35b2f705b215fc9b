"""The child process: killed by its limit, by the end of its parent, by others; and what it says of each."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from core.errors import ConfigError, TrainingFailed
from core.process.stand_back import NICENESS
from model.registry.versions import Registry
from tests.fakes.clock import eventually
from tests.updater.folder import ETH, job_on
from updater.training_child import ORPHANED
from updater.training_process import Stopped, only_writer, run_training


def show(done: int, wanted: int, note: str) -> None:
    """Nobody looks."""


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "updater.training_child" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_training_past_its_time_limit_is_killed(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="time limit of 0 s"):
        run_training(job_on(tmp_path, ETH), stop=threading.Event(), show=show, time_limit_s=0.2)
    assert children() == []


def test_a_training_is_killed_when_the_updater_ends(tmp_path: Path) -> None:
    stop = threading.Event()
    ending = threading.Timer(0.2, stop.set)
    ending.start()
    with pytest.raises(Stopped):
        run_training(job_on(tmp_path, ETH), stop=stop, show=show)
    assert children() == []


def test_a_training_that_somebody_kills_is_a_failure_with_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads: list[str] = []

    def kill() -> None:
        eventually(lambda: bool(children()), what="the child")
        environment = children()[0].environ()
        threads.extend(environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
        children()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingFailed, match="SIGKILL; out of memory"):
        run_training(job_on(tmp_path, ETH), stop=threading.Event(), show=show)
    killer.join()
    assert threads == ["1", "1"], "two threads of torch's spin while another process computes"


def test_without_klines_the_outcome_says_so(tmp_path: Path) -> None:
    outcome = run_training(job_on(tmp_path, ETH), stop=threading.Event(), show=show)
    assert not outcome.ok
    assert "no window" in outcome.reason


def test_a_child_that_crashes_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    job = job_on(tmp_path, ETH).model_copy(update={"panel": "week"})
    with pytest.raises(TrainingFailed, match="status 1 and no outcome: KeyError: 'week'"):
        run_training(job, stop=threading.Event(), show=show)


@pytest.mark.parametrize("first_line", [True, False], ids=["at work", "not yet told what to do"])
def test_the_child_ends_with_its_parent(tmp_path: Path, first_line: bool) -> None:
    registry = Registry(tmp_path)
    with registry.writing():  # so that it waits, for longer than this test
        child = subprocess.Popen([sys.executable, "-m", "updater.training_child"], stdin=subprocess.PIPE)
        assert child.stdin is not None
        if first_line:
            child.stdin.write(job_on(tmp_path, ETH).model_dump_json().encode() + b"\n")
        child.stdin.close()
        assert child.wait(10) == ORPHANED


@pytest.mark.parametrize("own_session", [True, False], ids=["as the updater starts it", "in somebody's session"])
def test_a_training_stands_back_and_takes_nobody_with_it(tmp_path: Path, own_session: bool) -> None:
    def group(pid: int) -> str:
        """``/autogroup-12 nice 0``; empty where Linux weighs process against process."""
        path = Path(f"/proc/{pid}/autogroup")
        return path.read_text() if path.exists() else ""

    before, expected = group(os.getpid()), min(19, os.nice(0) + NICENESS)
    registry = Registry(tmp_path)
    with registry.writing():  # so that it waits, for longer than this test
        child = subprocess.Popen(
            [sys.executable, "-m", "updater.training_child"], stdin=subprocess.PIPE, start_new_session=own_session
        )
        assert child.stdin is not None
        child.stdin.write(job_on(tmp_path, ETH).model_dump_json().encode() + b"\n")
        child.stdin.flush()
        eventually(lambda: psutil.Process(child.pid).nice() == expected, what="the child's niceness")
        if own_session and before:
            eventually(lambda: group(child.pid).endswith(f"nice {NICENESS}\n"), what="its session's")
        child.stdin.close()
        assert child.wait(10) == ORPHANED
    assert group(os.getpid()) == before


def test_the_next_child_waits_for_an_orphan_to_end(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from model.registry.versions import Registry\n"
        "with Registry(Path(sys.argv[1])).writing(): print('held', flush=True); time.sleep(600)"
    )
    orphan = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    with pytest.raises(ConfigError, match="another updater"), only_writer(Registry(tmp_path), patience_s=0.2):
        pass
    ending = threading.Timer(0.3, os.kill, (orphan.pid, signal.SIGKILL))
    ending.start()
    with only_writer(Registry(tmp_path)):
        assert orphan.wait(5) == -signal.SIGKILL
    orphan.stdout.close()
