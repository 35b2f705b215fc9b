"""``birnn``: which market a command uses, its tables, and its one-line refusals."""

import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.main import app
from cli.market import choose_market, local_environment
from cli.place import tape_folder
from cli.screen import folded, say, show_parts
from cli.session import settings_for
from cli.status.tables import status_tables
from core.clock import SystemClock
from core.settings import Market, load_settings
from exchange.server import SimulatedExchange
from market.build import truth_venue_from, venues_from
from market.quarantine import Quarantine
from market.venues.registry import VENUES
from model.registry.versions import Registry
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.model.registry.test_versions import ETH_10M, artefact
from tests.process import python
from tests.terminal import Terminal, on_terminal
from updater.state import Outcome, StateFile, Verdict

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "config.example.json")


def nobody() -> str:
    """The URL of a port where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def birnn(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"CONFIG_FILE": EXAMPLE, **environment})
    return result.exit_code, result.output


def test_auto_is_binance_while_it_answers() -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        choice = choose_market(
            load_settings(market="auto", market_venues="binance", binance_rest_urls=f"{nobody()},{exchange.url}")
        )
    assert choice.market is Market.BINANCE


@pytest.mark.parametrize("said", [{}, {"market": "auto"}], ids=["not said", "auto"])
def test_auto_is_the_simulated_exchange_otherwise_and_says_why(said: dict[str, str]) -> None:
    choice = choose_market(load_settings(market_venues="binance", binance_rest_urls=nobody(), **said))
    assert choice.market is Market.SIMULATED
    assert "SIMULATED" in choice.sentence
    assert "within 3 s" in choice.sentence
    assert "\n" not in choice.sentence


def test_that_no_venue_answered_is_three_rows_at_most_however_many_hosts_there_are() -> None:
    urls = ",".join(nobody() for _ in range(6))
    choice = choose_market(load_settings(market="auto", market_venues="binance", binance_rest_urls=urls))
    assert "6 hosts tried" in choice.sentence
    assert len(folded(choice.sentence, 80).splitlines()) <= 3
    assert choice.sentence.endswith("birnn doctor --market names all)")


def test_text_is_broken_between_words_at_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(["in all five blocks weighted RMSE worth 2,448 confirmation (--minutes is for all)"] * 3)
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal(80)
    with os.fdopen(terminal.theirs, "w") as stdout, redirect_stdout(stdout):
        show_parts([text, f"\n{text}"])
        say(text, to=stdout)
    terminal.close()
    rows = terminal.lines
    assert max(map(len, rows)) <= 80
    assert " ".join(" ".join(rows).split()) == " ".join([text] * 3)


def test_auto_is_the_real_market_while_any_venue_answers() -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        settings = load_settings(
            market="auto",
            market_venues="binance,binanceus",
            binance_rest_urls=nobody(),
            venue_urls=f"binanceus={exchange.url}",
        )
        choice = choose_market(settings)
    assert choice.market is Market.BINANCE
    assert "binanceus answered" in choice.sentence


def test_a_named_market_is_not_questioned() -> None:
    assert choose_market(load_settings(market="binance", binance_rest_urls=nobody())).market is Market.BINANCE
    assert choose_market(load_settings(market="simulated")).market is Market.SIMULATED


def test_a_replay_is_told_by_its_days_and_not_called_invented(tmp_path: Path) -> None:
    for name in ("BTCUSDT-1m-20230901-20240229", "ETHUSDT-1m-20221106-20221112", "ETHUSDT-1d-20170817-20240331"):
        (tmp_path / f"{name}.parquet").touch()
    choice = choose_market(load_settings(market="simulated"), tmp_path)
    assert choice.sentence.startswith("market: SIMULATED")
    assert f"replayed: real klines of 2022-11-06 to 2024-02-29 from {tmp_path}" in choice.sentence, "those of minutes"
    assert "invented" not in choice.sentence
    assert "prices are invented" in choose_market(load_settings(market="simulated")).sentence
    settings = load_settings(market_venues="binance", binance_rest_urls=nobody())
    assert "replayed: real klines" in choose_market(settings, tmp_path).sentence, "auto"


@pytest.mark.parametrize("verb", ["run", "train"])
def test_a_replay_of_nothing_is_refused_before_anything_starts(verb: str, tmp_path: Path) -> None:
    code, said = birnn(verb, "--market", "simulated", "--replay", str(tmp_path), "--data-dir", str(tmp_path / "data"))
    assert (code, said.count("\n")) == (2, 1)
    assert f"folder {tmp_path}: no klines; needs files SYMBOL-INTERVAL-FIRSTDAY-LASTDAY.parquet" in said
    assert not (tmp_path / "data").exists()


def test_invented_prices_never_share_a_folder_or_a_ledger(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, database_url="postgresql://ledger", seed=3)
    folders = {settings.data_dir, tape_folder(settings, None), tape_folder(settings, tmp_path / "spot")}
    assert len(folders) == 3
    invented = local_environment(settings, "http://127.0.0.1:1", tape_folder(settings, None))
    assert invented["MARKET"] == "simulated"
    assert invented["DATA_DIR"] == str(tmp_path / "simulated" / "seed-3")
    assert invented["DATABASE_URL"].startswith(f"sqlite:///{tmp_path / 'simulated'}")
    assert {"DATABASE_URL", "BINANCE_REST_URLS", "MARKET_VENUES"}.isdisjoint(
        local_environment(settings, None, settings.data_dir)
    )


@pytest.mark.parametrize(
    ("line", "used"), [("coinbase,kraken", "binance,coinbase,kraken"), ("kraken,binance", "kraken,binance")]
)
def test_invented_prices_come_whatever_venues_are_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, used: str
) -> None:
    monkeypatch.setenv("TRUTH_VENUE", "coinbase")
    settings = load_settings(data_dir=tmp_path, market="simulated", market_venues=line)
    environment = local_environment(settings, "http://127.0.0.1:1", tape_folder(settings, None))
    assert environment["MARKET_VENUES"] == used
    local, clock, quarantine = settings_for(environment), SystemClock(), Quarantine()
    assert [venue.info.name for venue in venues_from(local, clock, quarantine, topics=())] == ["binance"]
    assert local.truth_venue == "coinbase"
    assert truth_venue_from(local, clock, quarantine, topics=()) is None  # it does not know these prices


def test_topics_of_the_config_and_of_the_catalogue() -> None:
    code, shown = birnn("topics")
    assert "blocks/epoch" in shown
    assert code == 0
    assert all(re.search(rf"^ ?{topic_id} ", shown, re.MULTILINE) for topic_id in (1, 14, 2, 64, 82, 79))
    code, shown = birnn("topics", "--catalogue")
    assert code == 0
    assert "classification" in shown
    assert "allora-mainnet-1" in shown
    assert "XAU is no pair of the exchange: PAXGUSDT stands for it" in shown


def test_a_pair_that_stands_for_another_is_named(tmp_path: Path) -> None:
    parameters = {"InferenceEndpoint": "http://h/{TopicId}", "Token": "XAU"}
    entry = {"topicId": 60, "inferenceEntrypointName": "apiAdapter", "parameters": parameters}
    path = tmp_path / "gold.json"
    path.write_text(json.dumps({"wallet": {"chainId": "allora-testnet-1"}, "worker": [entry]}))
    code, shown = birnn("topics", "--config", str(path))
    assert (code, "PAXG stands for XAU: prices of PAXGUSDT" in shown) == (0, True)


def test_status_names_the_network_where_there_are_two() -> None:
    topic: dict[str, Any] = {"token": "SOL", "proxy": "PAXG stands for SOL"}
    topic |= {"target": "price", "horizon": "8h", "champion": "v1", "forecast": "network", "ready": True}
    topics = [topic | {"network": network, "topic_id": 3, "last_answer": None} for network in ("net-1", "net-2")]
    for count, shown in ((1, "\n3 "), (2, "net-2/3")):
        report = {"endpoint": {"url": "http://h", "answers": True, "topics": topics[:count]}, "folders": []}
        console = Console(width=200, record=True, file=StringIO())
        for part in status_tables(report):
            console.print(part)
        text = f" {console.export_text()}"
        assert shown in text
        assert "SOL (PAXG stands for SOL)" in text
        assert ("net-1" in text) == (count == 2)


def test_status_tells_how_sure_the_gate_was_and_who_was_demoted(tmp_path: Path) -> None:
    registry, state = Registry(tmp_path), StateFile(tmp_path, SystemClock(), ["minute"])
    first, second = registry.publish(artefact(1)), registry.publish(artefact(2))
    registry.promote([ETH_10M], first, 1)
    registry.promote([ETH_10M], second, 2)
    registry.demote(ETH_10M, "worse than the naive forecast on its last 900 rows: p 0.012", 3, back_to=first)
    registry.demote(ETH_10M, "worse than the naive forecast on its last 901 rows: p 0.013", 60_000, back_to=None)
    about = {"topic": ETH_10M.key, "symbol": "ETHUSDT", "head": "return-10m", "loss": "mse", "rows": 9}
    losses = {"challenger": 0.9, "naive": 1.0, "p": 0.2345, "promoted": False, "reason": "that may be chance"}
    verdict = Verdict.model_validate(about | losses)
    state.finish(Outcome(panel="minute", ok=True, finished_ms=60_000, took_s=1.0, verdicts=(verdict,)))
    code, shown = birnn("status", DATA_DIR=str(tmp_path), PORT=str(free_port()), COLUMNS="200")
    assert code == 0
    (judged,) = [line.split() for line in shown.splitlines() if "return-10m" in line]
    assert judged[5:7] == ["0.9000", "0.234"]
    (gone,) = [line for line in shown.splitlines() if "last 90" in line]
    told = (
        first,
        "1970-01-01 00:01Z",
        "the naive forecast",
        "worse than the naive forecast on its last 901 rows: p 0.013",
    )
    assert "   ".join(told) in gone
    code, shown = birnn("status", "--json", DATA_DIR=str(tmp_path), PORT=str(free_port()))
    demotions = json.loads(shown)["folders"][0]["demotions"][ETH_10M.key]
    assert [one["successor"] for one in demotions] == [first, None]


def test_status_of_nothing_is_no_failure(tmp_path: Path) -> None:
    code, shown = birnn("status", DATA_DIR=str(tmp_path), PORT=str(free_port()))
    assert code == 0
    assert "no answer" in shown
    assert "scripts/run" in shown
    code, shown = birnn("status", "--json", DATA_DIR=str(tmp_path), PORT=str(free_port()))
    assert json.loads(shown)["folders"] == []


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        pytest.param(["run", "--config", "/no.json", "--market", "simulated"], {}, "/no.json", id="no config"),
        pytest.param(["run"], {"PORT": "abc"}, "PORT='abc'", id="PORT"),
        pytest.param(["run"], {"NO_MODEL_POLICY": "maybe"}, "NO_MODEL_POLICY='maybe'", id="policy"),
        pytest.param(["run", "--market", "binance", "--replay", "x"], {}, "--market simulated", id="replay of Binance"),
        pytest.param(["train", "--market", "binance", "--replay", "x"], {}, "--market simulated", id="train"),
        pytest.param(["train", "--market", "simulated", "--panel", "second"], {}, "'second'", id="no such panel"),
        pytest.param(["train", "--market", "simulated", "--config-json", "/no.json"], {}, "/no.json", id="no settings"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    given = {"CONFIG_FILE": EXAMPLE, "DATA_DIR": str(tmp_path), **environment}
    done = CliRunner().invoke(app, arguments, env=given, catch_exceptions=False)
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert says in line


TRAIN = ["cli.main", "train", "--config-json"]
MISSPELT = '{"hour": {"epoch": 3}}', "panel hour: epoch=3: there is no such setting"


@pytest.mark.parametrize(
    ("command", "content", "says"),
    [
        pytest.param(TRAIN, "{", "is not JSON", id="no JSON"),
        pytest.param(TRAIN, "[" * 100_000, "is not JSON", id="nested without end"),
        pytest.param(TRAIN, '{"minute": {"epochs": 0}}', "panel minute: epochs must be 1 or more, was 0", id="range"),
        pytest.param(TRAIN, '{"dropout": "much"}', "dropout='much'", id="no number"),
        pytest.param(TRAIN, '{"clip_norm": Infinity}', "clip_norm must be a finite number, was inf", id="infinite"),
        pytest.param(TRAIN, '{"minuet": {"epochs": 3}}', "there is no panel minuet", id="no such panel"),
        pytest.param(TRAIN, *MISSPELT, id="misspelt"),
        pytest.param(["updater", "--config-json"], *MISSPELT, id="updater"),
        pytest.param(["cli.main", "backtest", "--training-json"], *MISSPELT, id="backtest"),
        pytest.param(["cli.main", "tune", "--out"], *MISSPELT, id="tune"),
    ],
)
def test_training_settings_are_read_before_the_market_is_asked_or_anything_kept(
    tmp_path: Path, command: list[str], content: str, says: str
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(content)
    with SimulatedExchange() as exchange:
        given = simulated_environment(exchange, tmp_path / "data", free_port(), CONFIG_FILE=EXAMPLE, MARKET="binance")
        if command[0] == "updater":
            ended = python("-m", *command, str(file), env=given)
            code, told = ended.returncode, ended.stderr
        else:
            ran = CliRunner().invoke(app, [*command[1:], str(file)], env=given, catch_exceptions=False)
            code, told = ran.exit_code, ran.stderr
        assert exchange.requests == []
    assert code == 2, told
    (line,) = told.splitlines()
    assert f"{file}: " in line
    assert says in line
    assert not (tmp_path / "data").exists()


def test_tuning_begins_nothing_that_it_could_not_write(tmp_path: Path) -> None:
    code, said = birnn("tune", "--topic", "1", "--out", str(tmp_path / "none" / "file.json"), DATA_DIR=str(tmp_path))
    assert code == 2
    assert f"{tmp_path / 'none'} is no folder" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("verb", "package"),
    [
        ("backtest", "lightgbm"),
        ("backtest", "matplotlib"),
        ("backtest", "jinja2"),
        ("tune", "optuna"),
        ("tune", "torch"),
    ],
)
def test_a_package_that_only_a_checkout_has_is_named(verb: str, package: str) -> None:
    without = f"import sys; sys.modules[{package!r}] = None; from cli.main import app; app()"
    result = python("-c", without, verb, "--topic", "80")
    assert result.returncode == 2
    assert f"{verb} needs the package {package}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return python("-m", "cli.main", *arguments, env={"CONFIG_FILE": EXAMPLE, "PATH": "/usr/bin:/bin", **environment})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run --port abc", "--port was 'abc': it must be a whole number; birnn run --help says more"),
        ("run --port 70000", "--port was '70000': it must be less than or equal to 65535"),
        ("run --market x", "--market was 'x': it must be one of binance, simulated, auto"),
        ("data sync --market x", "--market was 'x': it must be one of"),
        ("data sync --days 0", "--days was '0': it must be greater than or equal to 1; birnn data sync --help says"),
        ("data trim --keep-days x", "--keep-days was 'x': it must be a whole number"),
        ("tune --minutes abc", "--minutes was 'abc': it must be a number"),
        ("tune --jobs 1.5", "--jobs was '1.5': it must be a whole number"),
        ("backtest --topic 1 --topic x", "--topic was 'x': it must be a whole number"),
        ("data export", "Missing option '--symbol'; birnn data export --help says more"),
        ("status --jsn", "No such option: --jsn"),
        ("statsu", "No such command 'statsu'"),
        ("run more", "Got unexpected extra argument(s) (more)"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_line(arguments: str, says: str) -> None:
    ran = CliRunner().invoke(app, arguments.split(), prog_name="birnn")
    assert (ran.exit_code, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"birnn: {says}")


@pytest.mark.parametrize("arguments", [["topics", "--catalogue"], ["topics", "--catalogue", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == "birnn: the output cannot be written: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w") as pipe:
        command = [sys.executable, "-m", "cli.main", "topics", "--catalogue"]
        ran = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_a_topic_outside_the_catalogue_is_said_to_be_unchecked(tmp_path: Path) -> None:
    content = json.loads(Path(EXAMPLE).read_text())
    content["worker"][0] |= {"topicId": 9999}
    content["worker"][0]["parameters"] |= {"Target": "price", "Horizon": "10m"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    code, said = birnn("topics", "--json", "--config", str(tmp_path / "config.json"), MARKET="simulated")
    assert code == 0
    found = json.loads(said[said.index("{") :])
    (note,) = found["notes"]
    assert note == "topic allora-testnet-1/9999 is not in the catalogue: asked as config.json says, unchecked"


def test_the_version_is_that_of_the_package() -> None:
    ran = process("--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ran.returncode, ran.stdout) == (0, f"birnn {project['version']}\n")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["status"], "endpoint"),
        (["doctor", "--market", "--symbol", "ETHUSDT"], "venues"),
        (["doctor"], "checks"),
        (["topics"], "topics"),
        (["topics", "--catalogue"], "topics"),
    ],
    ids=["status", "doctor of the market", "doctor", "topics", "catalogue"],
)
def test_json_is_alone_on_standard_output(tmp_path: Path, arguments: list[str], key: str) -> None:
    """No config is named: the sentence that says which one is used goes elsewhere."""
    gone = nobody()
    urls = {"VENUE_URLS": ",".join(f"{name}={gone}" for name in VENUES if name != "binance")}
    urls["BINANCE_REST_URLS"] = gone
    ran = process(*arguments, "--json", DATA_DIR=str(tmp_path), PORT=str(free_port()), CONFIG_FILE="", **urls)
    assert json.loads(ran.stdout)[key]
    assert ("config.example.json" in ran.stderr) == (arguments == ["topics"])


ALONE = """
import os, subprocess, sys
from cli.screen import json_alone, print_json
with json_alone():
    print("a verb's own")
    os.write(1, b"a library's\\n")
    subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
    print_json({"found": 1})
print("after it")
"""


def test_what_libraries_and_children_print_does_not_come_between() -> None:
    ran = python("-c", ALONE)
    assert ran.stdout == '{\n "found": 1\n}\nafter it\n'
    assert ran.stderr.splitlines() == ["a verb's own", "a library's", "a child"]


def test_the_topics_as_json_are_those_of_the_table() -> None:
    found = json.loads(process("topics", "--json").stdout)["topics"]
    assert [topic["topic"] for topic in found] == [1, 14, 2, 64, 82, 79]
    assert {"token": "ETH", "target": "price", "horizon": "10m", "loss": "mse"}.items() <= found[0].items()


@pytest.mark.parametrize("arguments", [["topics"], ["topics", "--catalogue"]], ids=" ".join)
def test_topics_fit_80_columns(arguments: list[str]) -> None:
    given = {"CONFIG_FILE": EXAMPLE}
    with on_terminal([sys.executable, "-m", "cli.main", *arguments], 80, given, str(ROOT)) as (terminal, running):
        assert running.wait(60) == 0
    rows = [line for line in terminal.lines if "allora-testnet-1" in line]
    assert rows
    assert all(re.match(r" ?\d+ +[A-Z0-9_/.-]+ +\S+ +\S+ +\d+[mhd] ", row) for row in rows), "no row is broken"
    assert max(map(len, terminal.lines)) <= 80


@pytest.mark.parametrize(
    ("words", "index", "offered"),
    [("birnn st", 1, {"status"}), ("birnn data ver", 2, {"verify"}), ("birnn status --js", 2, {"--json"})],
)
def test_a_shell_completes_verbs_and_options_without_loading_what_they_need(
    words: str, index: int, offered: set[str]
) -> None:
    heavy = ("torch", "onnxruntime", "polars", "requests", "fastapi", "optuna", "matplotlib")
    code = (
        "import sys, cli.main\n"
        "try: cli.main.app(prog_name='birnn')\n"
        f"finally: sys.stderr.write(' '.join(set({heavy!r}) & set(sys.modules)))"
    )
    given = {"_BIRNN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(index), "PATH": "/usr/bin:/bin"}
    ran = python("-c", code, env=given)
    assert set(ran.stdout.split()) == offered
    assert ran.stderr == "", "these are slow to load"


def test_libraries_compute_on_one_thread_unless_the_environment_says_otherwise() -> None:
    code = "import cli.main, os, numpy; os.write(1, str(len(os.listdir('/proc/self/task'))).encode())"
    for given, threads in (({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")):
        ran = python("-c", code, env={"PATH": "/usr/bin:/bin", **given})
        assert ran.stdout == threads, ran.stderr
