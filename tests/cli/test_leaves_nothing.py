"""A verb that finds nothing to do in the wrong folder makes no folder there."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
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
def test_a_verb_without_data_leaves_no_folder(tmp_path: Path, verb: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, verb, env=environment(folder)).output
    assert str(folder) in said or "none.csv" in said, said
    assert not list(tmp_path.iterdir())
