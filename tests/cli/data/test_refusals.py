"""What is wrong with a command of ``birnn data`` or with its file is one line."""

from pathlib import Path

import pytest

from market.store.kline_store import KlineStore
from tests.cli.data.stand import ETH, ROOT, data


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["verify", "--symbol", "DOGEUSDT"], 2, "--symbol DOGEUSDT: no klines of it", id="no such symbol"),
        pytest.param(["gaps", "--interval", "2s"], 2, "--interval must be one of 1m, 3m", id="no interval"),
        pytest.param(["gaps", "--interval", "5m"], 2, "there are BTCUSDT-1h, ETHUSDT-1m", id="none of that interval"),
        pytest.param(["sync", "--interval", "1w"], 2, "was '1w'", id="sync of no interval"),
        pytest.param(["sync", "--symbol", "../ETH"], 2, "a symbol is letters and digits", id="sync of no symbol"),
        pytest.param(["sync", "--config", "/no.json"], 2, "/no.json", id="no config"),
        pytest.param(["export", *ETH, "--out", "/tmp/x.xlsx"], 2, "ends in .csv, .parquet, .zip", id="an ending"),  # noqa: S108
        pytest.param(["export", *ETH, "--out", "/no/x.csv"], 2, "/no/x.csv: No such file", id="no folder"),
        pytest.param(
            ["export", *ETH, "--out", "/no/x.csv", "--start", "soon"], 2, "--start must be a UTC day", id="no day"
        ),
        pytest.param(
            ["export", *ETH, "--out", "/no/x.csv", "--start", "2030-01-01"],
            2,
            "there are from 2023-11-15 00:00 to 2023-11-17 18:39",
            id="a day without klines",
        ),
        pytest.param(
            ["export", "--symbol", "X", "--interval", "1m", "--out", "/no/x.csv"],
            2,
            "no klines of X in 1m; there are BTCUSDT-1h, ETHUSDT-1m",
            id="export of no symbol",
        ),
        pytest.param(["import", "/no/x.csv", *ETH], 2, "/no/x.csv: No such file", id="no file"),
        pytest.param(["import", "/no/x.txt", *ETH], 2, "/no/x.txt: a file of klines ends in", id="import of an ending"),
        pytest.param(["import", str(ROOT / "README.md"), *ETH], 2, "ends in .csv", id="no klines"),
        pytest.param(
            ["trim", "--keep-days", "5"], 2, "--keep-days 5: a training with TRAINING_DAYS=90 reads", id="trim"
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, store: KlineStore, arguments: list[str], code: int, says: str
) -> None:
    found, _, said = data(tmp_path, *arguments, MARKET="binance")
    assert found == code, said
    (line,) = said.splitlines()
    assert line.startswith("birnn: ")
    assert says in line


def test_a_file_of_something_else_is_one_line_and_status_1(tmp_path: Path, store: KlineStore) -> None:
    path = tmp_path / "something.csv"
    path.write_text("name,value\na,1\n")
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert code == 1
    assert said == f"birnn: {path}: has no column open_time, open, high, low, close, volume, only name, value\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "open_time;open;high;low;close;volume\n1;2;3;4;5;6\n",
            "write decimals with a point and separate columns",
            id="header",
        ),
        pytest.param("1;2;3;4;5;6\n", "write decimals with a point and separate columns", id="no header"),
        pytest.param("1700000040,2,3,1,2,6\n1700000100,2,3,1,2,6\n", "line 1: column 1 '1700000040'", id="the first"),
        pytest.param("1700000040,2,3,1,2,6\n", "seconds are to be multiplied by 1000", id="seconds"),
    ],
)
def test_what_to_do_about_a_file_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "some.csv"
    path.write_text(text)
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, len(said.splitlines())) == (1, 1)
    assert says in said


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    code, _, said = data(tmp_path, "verify")
    assert code == 2
    assert "run birnn data sync" in said
