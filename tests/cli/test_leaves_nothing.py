"""A verb that finds nothing to do in the wrong folder makes no folder there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.data.stand import environment


@pytest.mark.parametrize(
    "verb",
    [
        ["status"],
        ["data", "gaps"],
        ["data", "trim"],
        ["data", "import", "none.csv", "--symbol", "ETHUSDT", "--interval", "1m"],
        ["data", "export", "--symbol", "ETHUSDT", "--interval", "1m", "--out", "x.csv"],
        ["backtest", "--topic", "1", "--quick"],
    ],
    ids=" ".join,
)
def test_a_verb_without_data_leaves_no_folder(tmp_path: Path, verb: list[str]) -> None:
    folder = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *verb],
        env=environment(folder),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert str(folder) in said or "none.csv" in said, said
    assert not list(tmp_path.iterdir())
