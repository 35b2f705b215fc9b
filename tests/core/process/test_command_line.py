"""A wrong command line of each program: one line that names the argument and the remedy, exit status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "program",
    [
        ["door"],
        ["exchange"],
        ["inference"],
        ["inference.probe", "healthz"],
        ["updater"],
        ["updater.probe"],
        ["worker"],
    ],
    ids=lambda program: program[0],
)
def test_an_unknown_argument_is_one_line_and_exit_status_2(program: list[str]) -> None:
    command = [sys.executable, "-m", *program, "--nonsense", "3"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.endswith(f"arguments: --nonsense 3; python -m {program[0]} --help lists the arguments")
