"""scripts/setup with an interpreter that records what it is told and installs nothing."""

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.clock import eventually

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup"

# Stands for python3, and as a copy for .venv/bin/python; FAULT and HOLD (a file to wait for) say how it fares.
PYTHON = f"""#!/bin/sh
"exec" "{sys.executable}" "$0" "$@"  # a line of both languages: a path in #! may hold no space
import os, shutil, sys, time
from pathlib import Path

arguments = sys.argv[1:]
with open(os.environ["RECORD"], "a") as record:
    record.write(" ".join(arguments) + "\\n")
if arguments == ["-V"]:
    print("Python 3.11.0")
elif arguments[0] == "-c":
    sys.exit("importlib" in arguments[1])
elif arguments[:2] == ["-m", "venv"]:
    commands = Path(arguments[-1]) / "bin"
    shutil.rmtree(commands.parent, ignore_errors=True)
    commands.mkdir(parents=True)
    for name in ("python",) if os.environ.get("FAULT") else ("python", "pip"):
        shutil.copy(__file__, commands / name)
    if os.environ.get("FAULT"):
        sys.exit("ensurepip is not available")
elif "install" in arguments:
    print("a bar" if sys.stdout.isatty() else "no bar")
    while "HOLD" in os.environ and not Path(os.environ["HOLD"]).exists():
        time.sleep(0.01)
"""


class Bench:
    """A checkout whose path has a space, and another folder that the script is called from."""

    def __init__(self, folder: Path) -> None:
        self.root, self.elsewhere, self.record = folder / "the node", folder / "elsewhere", folder / "record"
        (self.root / "scripts").mkdir(parents=True)
        self.elsewhere.mkdir()
        shutil.copy(SCRIPT, self.root / "scripts")
        shutil.copy(SCRIPT.with_name("locked.py"), self.root / "scripts")
        (self.root / "pyproject.toml").write_text('train = ["torch==2.0"]')
        (self.root / "requirements.lock").write_text("numpy==1.0\n")
        self.python = folder / "python3"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def begin(
        self, environment: dict[str, str] | None = None, stderr: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.root / "scripts" / "setup", "run"],
            cwd=self.elsewhere,
            env={
                "PATH": os.environ["PATH"],
                "PYTHON": str(self.python),
                "RECORD": str(self.record),
                **(environment or {}),
            },
            stderr=stderr,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str]:
        process = self.begin(environment)
        _, error = process.communicate(timeout=20)
        return process.returncode, error

    def told(self, what: str) -> list[str]:
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [line for line in lines if what in line]

    def is_complete(self) -> bool:
        return (self.root / ".venv" / "bin" / "pip").exists() and (self.root / ".venv" / ".installed").exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_says_what_it_does_and_a_second_run_has_nothing_to_do(bench: Bench) -> None:
    status, said = bench.run()
    assert status == 0
    assert "320 MB" in said
    assert [line[:3] for line in said.splitlines()[1:] if line != "no bar"] == ["1/3", "2/3", "3/3"]
    assert all("--quiet" in line for line in bench.told("install"))
    assert bench.is_complete()
    assert len(bench.told("install")) == 3, "torch, the rest, and the checkout"
    assert not list(bench.elsewhere.iterdir())
    bench.record.unlink()
    assert bench.run() == (0, "")
    assert not bench.record.exists()


def test_on_a_terminal_pip_shows_its_bars(bench: Bench) -> None:
    ours, terminal = pty.openpty()
    process = bench.begin(stderr=terminal)
    os.close(terminal)
    said = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert process.wait(20) == 0
    assert said.count(b"a bar") == 3, "torch, the rest, and the checkout"
    assert not any("--quiet" in line for line in bench.told("install"))


def test_elsewhere_a_line_now_and_then_says_that_it_goes_on(bench: Bench, tmp_path: Path) -> None:
    process = bench.begin({"HOLD": str(tmp_path / "go"), "SETUP_TICK_S": "0.05"})
    assert process.stderr is not None
    lines: list[str] = []
    while lines.count(lines[-1] if lines else "") < 2 or "goes on" not in lines[-1]:
        lines.append(process.stderr.readline())
    assert lines[-1].startswith("2/3 goes on: ")
    (tmp_path / "go").touch()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_cut_off_it_leaves_nothing_that_talks_on(bench: Bench, tmp_path: Path) -> None:
    process = bench.begin({"HOLD": str(tmp_path / "go"), "SETUP_TICK_S": "0.05"})
    eventually(lambda: bool(bench.told("install")), what="its installing")
    process.kill()
    process.wait(20)
    (tmp_path / "go").touch()
    process.communicate(timeout=20)  # ends only when nobody holds its standard error
    assert bench.run()[0] == 0, "nor is the lock held"


def no_pip(venv: Path) -> None:
    (venv / ".installed").unlink()
    (venv / "bin" / "pip").unlink()


def no_python(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")


@pytest.mark.parametrize(
    "damage", [pytest.param(no_pip, id="cut off"), pytest.param(no_python, id="its interpreter was uninstalled")]
)
def test_half_an_environment_is_made_anew(bench: Bench, damage: Callable[[Path], None]) -> None:
    bench.run()
    damage(bench.root / ".venv")
    assert bench.run()[0] == 0
    assert bench.told("venv") == ["-m venv --clear .venv"] * 2
    assert bench.is_complete()


def test_without_ensurepip_it_names_the_remedy_and_works_after_it(bench: Bench) -> None:
    status, said = bench.run(FAULT="no ensurepip")
    assert status == 1
    assert "apt-get install python3-venv" in said.splitlines()[-1]
    assert not bench.told("install")
    assert bench.run()[0] == 0
    assert bench.is_complete()


@pytest.mark.skipif(not shutil.which("flock"), reason="without flock nobody waits")
def test_of_two_at_once_the_second_waits_and_finds_it_done(bench: Bench, tmp_path: Path) -> None:
    first = bench.begin({"HOLD": str(tmp_path / "go")})
    eventually(lambda: bool(bench.told("install")), what="the first's installing")
    second = bench.begin()
    assert second.stderr is not None
    assert "waiting for another" in second.stderr.readline()
    (tmp_path / "go").touch()
    for process in (first, second):
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert len(bench.told("venv")) == 1
    assert len(bench.told("install")) == 3, "torch, the rest, and the checkout"
