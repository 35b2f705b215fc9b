"""One process at a time on a data folder: who holds it is named, who is about to end is waited for."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.data_folder import only_updater
from core.errors import ConfigError
from tests.fakes.clock import eventually

HOLD = """
import sys, time
from pathlib import Path
from core.data_folder import only_updater
with only_updater(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
ROOT = Path(__file__).parents[2]


@contextmanager
def holder(folder: Path, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the folder."""
    process = subprocess.Popen(
        command or [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_living_holder_is_named_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(ConfigError) as caught, only_updater(tmp_path, patience_s=600.0):
            pass
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"DATA_DIR={tmp_path}: pid {process.pid} (python")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with only_updater(tmp_path, patience_s=0.0):
            pass


def test_a_child_of_a_run_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """As the children of a killed run, which end by themselves within seconds."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as run:
        run.wait()
    child = f"import sys; sys.orig_argv += ['core.process.child', '{run.pid}', 'hold']\n{HOLD}"
    with holder(tmp_path, sys.executable, "-c", child, str(tmp_path)) as orphan:
        with pytest.raises(ConfigError, match=f"pid {run.pid} .birnn run"), only_updater(tmp_path, patience_s=0.3):
            pass
        orphan.terminate()
        with only_updater(tmp_path):
            assert orphan.wait(5) == -signal.SIGTERM


def test_a_lock_without_a_name_is_respected(tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / ".updater.lock").write_text("")
        with pytest.raises(ConfigError, match="another process works"), only_updater(tmp_path, patience_s=0.2):
            pass


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("file", "is a file", id="a file"),
        pytest.param("file/data", "is a file", id="below a file"),
        pytest.param("/proc/birnn", "No such file or directory", id="in a place where none can be made"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"DATA_DIR=.*: {says}; give a folder"), only_updater(tmp_path / name):
        pass


def test_the_lock_outlives_no_process(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        eventually(lambda: process.poll() is not None)
        with only_updater(tmp_path, patience_s=0.0):
            assert (tmp_path / ".updater.lock").read_text().startswith(f"{os.getpid()} ")
