"""Where verbs find their data: one rule for all, and the folder is named."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.place import LAST_RUN, endpoint_of, is_tape, note_run, place_of, try_folders
from core.data_folder import only_updater
from core.errors import ConfigError
from core.settings import Market, Settings, load_settings
from market.store.kline_store import KlineStore
from tests.fakes.klines import random_walk_klines
from tests.fakes.net import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MARKET", "DATA_DIR", "SEED"):
        monkeypatch.delenv(name, raising=False)


def ran(data_dir: Path, market: Market, *, replay: Path | None = None, seed: int = 0) -> None:
    """As ``birnn run`` leaves the folder."""
    settings = load_settings(data_dir=data_dir, seed=seed)
    note_run(settings, market, replay, "http://127.0.0.1:8077")
    place = place_folder(settings, market, replay)
    place.mkdir(parents=True, exist_ok=True)


def place_folder(settings: Settings, market: Market, replay: Path | None) -> Path:
    tape = f"seed-{settings.seed}" if replay is None else f"replay-{replay.name}"
    return settings.data_dir / "simulated" / tape if market is Market.SIMULATED else settings.data_dir


@pytest.mark.parametrize(
    ("last", "said", "folder", "market"),
    [
        pytest.param(None, {}, ".", "binance", id="no run yet"),
        pytest.param(None, {"market": "simulated"}, "simulated/seed-0", "simulated", id="no run, MARKET"),
        pytest.param({"market": "simulated"}, {}, "simulated/seed-0", "simulated", id="simulated run"),
        pytest.param({"market": "simulated", "seed": 7}, {}, "simulated/seed-7", "simulated", id="of another seed"),
        pytest.param({"market": "simulated", "replay": "spot"}, {}, "simulated/replay-spot", "simulated", id="replay"),
        pytest.param({"market": "binance"}, {}, ".", "binance", id="real run"),
        pytest.param({"market": "simulated"}, {"market": "binance"}, ".", "binance", id="MARKET wins over the run"),
        pytest.param({"market": "binance"}, {"market": "simulated"}, "simulated/seed-0", "simulated", id="likewise"),
        pytest.param({"market": "simulated"}, {"market": "auto"}, "simulated/seed-0", "simulated", id="auto"),
        pytest.param(
            {"market": "simulated", "seed": 7},
            {"market": "simulated"},
            "simulated/seed-7",
            "simulated",
            id="tape",
        ),
        pytest.param(
            {"market": "simulated", "seed": 7},
            {"market": "simulated", "seed": 3},
            "simulated/seed-3",
            "simulated",
            id="SEED with MARKET",
        ),
    ],
)
def test_the_rule(
    tmp_path: Path, last: dict[str, str | int] | None, said: dict[str, str], folder: str, market: str
) -> None:
    if last:
        replay = tmp_path / str(last["replay"]) if "replay" in last else None
        ran(tmp_path, Market(str(last["market"])), replay=replay, seed=int(last.get("seed", 0)))
    place = place_of(load_settings(data_dir=tmp_path, **said))
    assert (place.folder, place.market) == (tmp_path / folder, market)
    assert str(tmp_path / folder) in place.sentence
    assert ("SIMULATED" in place.sentence) == (market == "simulated")


def test_both_folders_may_be_moved_together(tmp_path: Path) -> None:
    ran(tmp_path / "old", Market.SIMULATED)
    (tmp_path / "old").rename(tmp_path / "new")
    assert place_of(load_settings(data_dir=tmp_path / "new")).folder == tmp_path / "new" / "simulated" / "seed-0"


def test_inference_is_asked_where_the_last_run_listened_unless_a_setting_says_where(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert endpoint_of(settings, place_of(settings)) == "http://127.0.0.1:8000"
    ran(tmp_path, Market.SIMULATED)
    assert endpoint_of(settings, place_of(settings)) == "http://127.0.0.1:8077"
    set_ = load_settings(data_dir=tmp_path, port=9000)
    assert endpoint_of(set_, place_of(set_)) == "http://127.0.0.1:9000"


def test_a_folder_that_is_gone_and_a_note_that_is_broken_are_told(tmp_path: Path) -> None:
    ran(tmp_path, Market.SIMULATED)
    (tmp_path / "simulated" / "seed-0").rmdir()
    with pytest.raises(ConfigError, match="seed-0: the last birnn run kept its data there, and the folder is gone"):
        place_of(load_settings(data_dir=tmp_path))
    for broken in (b"", b"[]", b"\xff", b'{"market": "kraken"}'):
        (tmp_path / LAST_RUN).write_bytes(broken)
        with pytest.raises(ConfigError, match=f"{LAST_RUN}: is not a record of birnn run; delete it"):
            place_of(load_settings(data_dir=tmp_path))


def test_a_tape_is_looked_into_and_never_filled_with_real_prices(tmp_path: Path) -> None:
    tape = tmp_path / "simulated" / "seed-4"
    settings = load_settings(data_dir=tape)
    assert is_tape(tape)
    assert place_of(settings).folder == tape
    assert place_of(settings).market is Market.SIMULATED
    with pytest.raises(ConfigError, match=f"holds prices of the simulated exchange.*set DATA_DIR={tmp_path},"):
        try_folders(settings, None)


# -- verbs, as processes ----------------------------------------------------------------------------------------------


def birnn(cwd: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output and error, run in this process; what would be a traceback is raised."""
    with contextlib.chdir(cwd):
        ran = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", **environment}, prog_name="birnn")
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["status"],
        ["data", "verify"],
        ["data", "gaps"],
        ["data", "trim"],
        ["data", "export", "--symbol", "BTCUSDT", "--interval", "1m", "--out", "out.csv"],
        ["backtest", "--topic", "14"],
        ["tune", "--topic", "14"],
    ],
    ids=" ".join,
)
def test_verbs_use_what_the_last_run_used_and_name_it(tmp_path: Path, verb: list[str]) -> None:
    ran(tmp_path / "data", Market.SIMULATED, seed=3)
    folder = tmp_path / "data" / "simulated" / "seed-3"
    KlineStore(folder / "klines" / "binance").append("BTCUSDT", random_walk_klines(50))
    _, out, error = birnn(tmp_path, *verb, PORT=str(free_port()))
    assert str(folder) in out.replace("\n", "") + error
    assert "Traceback" not in error


@pytest.mark.parametrize("verb", ["backtest", "tune"])
def test_klines_that_are_given_are_named_in_the_place_of_the_last_runs(tmp_path: Path, verb: str) -> None:
    ran(tmp_path / "data", Market.SIMULATED, seed=3)
    (tmp_path / "data" / "simulated" / "seed-3").mkdir(parents=True, exist_ok=True)
    given = tmp_path / "given"
    given.mkdir()
    _, out, error = birnn(tmp_path, verb, "--topic", "14", "--data", str(given))
    assert "simulated" not in out + error
    assert str(given) in error


@pytest.mark.parametrize(
    "verb",
    [
        ["status"],
        ["data", "verify"],
        ["backtest", "--topic", "14"],
        ["tune", "--topic", "14"],
        ["train"],
        ["run"],
        ["topics"],
    ],
    ids=" ".join,
)
def test_outside_the_checkout_the_folder_is_named(tmp_path: Path, verb: list[str]) -> None:
    code, out, error = birnn(tmp_path, *verb, PORT=str(free_port()))
    assert str(tmp_path) in out.replace("\n", "") + error
    assert code == (0 if verb == ["status"] else 2)
    assert len(error.splitlines()) <= 1


@pytest.mark.parametrize(
    "verb",
    [["run"], ["train"], ["data", "sync"], ["data", "verify"], ["status"], ["backtest", "--topic", "14"]],
    ids=" ".join,
)
@pytest.mark.parametrize("data_dir", ["file", "/proc/nothing"])
def test_a_data_folder_that_is_none_ends_no_verb_with_a_traceback(
    tmp_path: Path, verb: list[str], data_dir: str
) -> None:
    (tmp_path / "file").write_text("")
    environment = {"DATA_DIR": data_dir, "PORT": str(free_port()), "CONFIG_FILE": str(ROOT / "config.example.json")}
    code, _, error = birnn(tmp_path, *verb, MARKET="simulated", **environment)
    assert "Traceback" not in error
    is_well = verb == ["status"] and data_dir != "file"
    assert len(error.splitlines()) == (0 if is_well else 1)
    assert code == (0 if is_well else 2)
    assert data_dir != "file" or "DATA_DIR=file: is a file" in error.replace(f"{tmp_path}/", "")


# -- before any venue is asked ----------------------------------------------------------------------------------------


@contextmanager
def silent_venue() -> Iterator[tuple[str, list[tuple[socket.socket, object]]]]:
    """A server that takes connections and says nothing; its URL, and who came."""
    came: list[tuple[socket.socket, object]] = []

    def accept() -> None:
        while True:
            try:
                came.append(server.accept())
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection, _ in came:
        connection.close()


@pytest.mark.parametrize("verb", [["run"], ["train"], ["data", "sync"]], ids=" ".join)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param("config", "no.json", id="config"),
        pytest.param("folder", "is a file", id="folder"),
        pytest.param("lock", "works on this folder", id="lock"),
        pytest.param("dotenv", ".env line 1", id="dotenv"),
        pytest.param("port", "holds the port", id="port"),
    ],
)
def test_what_is_wrong_here_is_told_before_any_venue_is_asked(
    tmp_path: Path, verb: list[str], fault: str, says: str
) -> None:
    if fault == "port" and verb != ["run"]:
        pytest.skip("listens nowhere")
    (tmp_path / "file").write_text("")
    with (
        silent_venue() as (url, came),
        only_updater(tmp_path / "taken"),
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        environment = {
            "MARKET_VENUES": "binance",
            "BINANCE_REST_URLS": url,
            "CONFIG_FILE": "no.json" if fault == "config" else str(ROOT / "config.example.json"),
            "DATA_DIR": {"folder": "file", "lock": "taken"}.get(fault, "data"),
            "PORT": str(taken.getsockname()[1] if fault == "port" else free_port()),
        }
        if fault == "dotenv":
            (tmp_path / ".env").write_text("TRAINING_DAY=5\n")
        code, out, error = birnn(tmp_path, *verb, **environment)
    assert (code, out, came) == (2, "", [])
    (line,) = error.splitlines()
    assert says in line
    if fault in {"lock", "port"}:
        assert f"pid {os.getpid()} (" in line


def test_what_the_run_used_is_noted(tmp_path: Path) -> None:
    replay = tmp_path / "spot"
    ran(tmp_path / "data", Market.SIMULATED, replay=replay, seed=2)
    assert json.loads((tmp_path / "data" / LAST_RUN).read_text()) == {
        "market": "simulated",
        "folder": "simulated/replay-spot",
        "seed": 2,
        "replay": str(replay),
        "url": "http://127.0.0.1:8077",
        "page": "",
    }
