"""``birnn doctor`` against servers on loopback: every check in one table, the venues in another, and what to do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.doctor.checks import Subject, all_checks
from cli.main import app
from cli.place import note_run, tape_folder
from core.clock import DAY_MS, MINUTE_MS, SystemClock
from core.settings import Market, load_settings
from ledger.epochs import Arrival
from market.venues.registry import VENUES
from tests.cli.ledger import write_ledger
from tests.cli.test_status import SIX, endpoint
from tests.fakes.chain_replay import ChainReplay, recorded
from tests.fakes.clock import FakeClock, RunningClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.net import free_port
from tests.fakes.venue_server import Answer, Venue, entry_of
from tests.monitor.desk import desk, live_updater
from tests.monitor.test_chain_alarms import TOPIC, Chain
from tests.node.config_files import entry, written
from tests.terminal import on_terminal
from tests.truth.test_adopted import KRAKEN, write
from updater.state import SeriesState, StateFile

KEY = "not-a-real-key-0123"
ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "config.example.json")
NEW = "allora-testnet-9"  # whose topics the catalogue does not know, so that any horizon may be set
ALL = (
    "settings",
    "config",
    "data folder",
    "inference",
    "updater",
    "monitor",
    "klines",
    "ledger",
    "clock",
    "chain",
    "venues",
)


@pytest.fixture
def server() -> Iterator[Venue]:
    """Binance's format, with the last hour of ETHUSDT up to now."""
    now_ms = SystemClock().now_ms() // MINUTE_MS * MINUTE_MS
    with Venue().running() as running:
        running.add("ETHUSDT", random_walk_klines(120, start_ms=now_ms - 110 * MINUTE_MS))
        running.prices = {"ETHUSDT": "2000.5"}
        yield running


def doctor(folder: Path, server: Venue, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run it where every venue's hosts are on this machine, and only Binance's answer.

    It runs in this process, because a process of its own imports for a second; the tests on a terminal start one.
    """
    gone = f"http://127.0.0.1:{free_port()}"
    urls = {"VENUE_URLS": ",".join(f"{name}={gone}" for name in VENUES if name != "binance")}
    environment: dict[str, str | None] = {
        **{name: None for name in os.environ if name.startswith("BINANCE")},
        **urls,
        "BINANCE_REST_URLS": server.url,
        "BINANCE_ARCHIVE_URL": server.url,
        "DATA_DIR": str(folder),
        "COLUMNS": "180",
        **settings,
    }
    ran = CliRunner().invoke(app, ["doctor", *arguments], env=environment, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


def test_every_venue_is_in_one_table(tmp_path: Path, server: Venue) -> None:
    ran = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT")
    assert ran.returncode == 0, ran.stderr
    lines = {line.split()[0]: line for line in ran.stdout.splitlines() if line.strip()}
    assert set(VENUES) <= set(lines)
    assert "well" in lines["binance"]
    assert "2000.5 USDT" in lines["binance"]
    assert "60 of 60" in lines["binance"]
    assert "connection failed" in ran.stdout
    assert "needs VENUE_KEYS" in lines["tiingo"]


def test_programs_get_the_same_and_no_key(tmp_path: Path, server: Venue) -> None:
    arguments = ("--market", "--json", "--symbol", "ETHUSDT")
    ran = doctor(tmp_path, server, *arguments, VENUE_KEYS=f"atlas={KEY}", TRUTH_VENUE="atlas")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    found = {venue["venue"]: venue for venue in report["venues"]}
    assert list(found) == list(VENUES)
    assert (found["binance"]["used"], found["coinbase"]["used"], found["atlas"]["used"]) == ("1", "2", "truth")
    assert found["binance"]["level_over_first"] == pytest.approx(1.0)
    assert (found["atlas"]["key"], found["tiingo"]["key"], found["kraken"]["key"]) == ("set", "missing", "not needed")
    assert KEY not in ran.stdout + ran.stderr


def test_an_adopted_truth_venue_is_named_as_such(tmp_path: Path, server: Venue, whole: dict[str, str]) -> None:
    write(load_settings(data_dir=tmp_path, database_url=""), KRAKEN)
    arguments = ("--market", "--json", "--symbol", "ETHUSDT")
    ran = doctor(tmp_path, server, *arguments, TRUTH_VENUE="auto")
    assert {venue["venue"]: venue["used"] for venue in json.loads(ran.stdout)["venues"]}["kraken"] == "3, truth"
    found = checked(doctor(tmp_path, server, "--json", **whole, TRUTH_VENUE="auto"))
    lines = [check["line"] for check in found["settings"]]
    assert any(line.startswith("TRUTH_VENUE=auto stands for kraken, adopted 2023-11-14") for line in lines), lines


def test_a_symbol_that_nobody_serves_ends_with_1_and_what_to_do(tmp_path: Path, server: Venue) -> None:
    ran = doctor(tmp_path, server, "--market", "--symbol", "NOSUCHUSDT")
    assert ran.returncode == 1
    assert "NOSUCHUSDT: no venue in use has its price and 1m candles" in ran.stdout


def test_a_venue_that_lists_another_pair_is_named_and_the_status_is_1(tmp_path: Path, server: Venue) -> None:
    entry = entry_of("ETHUSDT", "ETH", "BTC")
    server.handler = lambda path, query: Answer(entry) if path == "/api/v3/exchangeInfo" else None
    ran = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT", CONFIG_FILE=EXAMPLE)
    assert ran.returncode == 1, ran.stderr
    assert "ETHUSDT cannot answer for ETH: binance lists it as ETH in BTC, not ETH in dollars" in ran.stdout
    (row,) = [line for line in ran.stdout.splitlines() if line.split()[:1] == ["binance"]]
    assert "another pair" in row


def test_a_venue_that_is_not_used_is_named_as_the_remedy(tmp_path: Path, server: Venue) -> None:
    ran = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT", MARKET_VENUES="kraken")
    assert ran.returncode == 1
    assert "add binance to MARKET_VENUES" in " ".join(ran.stdout.split())


def test_a_barred_host_is_told_from_a_dead_one(tmp_path: Path, server: Venue) -> None:
    server.handler = lambda path, query: Answer('{"code":0,"msg":"restricted location"}', 451)
    ran = doctor(tmp_path, server, "--market", "--json", "--symbol", "ETHUSDT")
    binance = json.loads(ran.stdout)["venues"][0]
    assert "451" in binance["state"]
    assert "restricted location" in binance["price_fault"]
    shown = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT").stdout
    assert "restricted location; check the network, or set BINANCE_REST_URLS" in " ".join(shown.split())


def test_each_host_that_fails_is_named_with_what_to_do(tmp_path: Path, server: Venue) -> None:
    server.handler = lambda path, query: Answer("down", 500)
    gone = f"http://127.0.0.1:{free_port()}"
    ran = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT", BINANCE_REST_URLS=f"{gone},{server.url}")
    shown = " ".join(ran.stdout.split())
    assert f"binance: {gone}: connection failed; {server.url} answered HTTP 500" in shown


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        pytest.param(
            ("--market",), {"MARKET_VENUES": "binance,ftx"}, "MARKET_VENUES='binance,ftx'", id="unknown venue"
        ),
        pytest.param(("--market",), {"MARKET_VENUES": "kraken,kraken"}, "MARKET_VENUES", id="one twice"),
        pytest.param(("--market",), {"TRUTH_VENUE": "oracle"}, "TRUTH_VENUE='oracle'", id="unknown truth"),
        pytest.param(("--market",), {"VENUE_URLS": "kraken=kraken.com"}, "VENUE_URLS", id="no URL"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, server: Venue, arguments: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    ran = doctor(tmp_path, server, *arguments, "--symbol", "ETHUSDT", **settings)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.fixture
def whole(tmp_path: Path, server: Venue) -> Iterator[dict[str, str]]:
    """Settings of a node with which all is well: an endpoint, an updater that is alive, fresh klines, a venue."""
    clock = SystemClock()
    for token in ("BTC", "SOL"):
        server.add(
            f"{token}USDT", random_walk_klines(120, start_ms=clock.now_ms() // MINUTE_MS * MINUTE_MS - 110 * MINUTE_MS)
        )
    server.prices = {f"{token}USDT": "2000.5" for token in ("ETH", "BTC", "SOL")}
    server.handler = lambda path, _: Answer(f'{{"serverTime": {clock.now_ms()}}}') if path.endswith("/time") else None
    state = StateFile(tmp_path, clock, ["minute"])
    newest_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
    series = SeriesState(synced_ms=clock.now_ms(), fetched_rows=3, gaps=0, newest_ms=newest_ms)
    state.replace_series({"ETHUSDT-1m": series})
    write_ledger(tmp_path / "ledger.sqlite3", [], [])
    with endpoint([topic | {"market": "BINANCE"} for topic in SIX]) as port:
        ports = {"PORT": str(port), "MONITOR_PORT": str(port)}
        yield {"HOST": "127.0.0.1", **ports, "CONFIG_FILE": EXAMPLE, "MARKET_VENUES": "binance"}


def checked(ran: "subprocess.CompletedProcess[str]") -> dict[str, list[dict[str, str]]]:
    """The checks of ``birnn doctor --json`` by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(ran.stdout)["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def test_without_a_flag_it_looks_at_everything(tmp_path: Path, server: Venue, whole: dict[str, str]) -> None:
    ran = doctor(tmp_path, server, "--json", **whole)
    found = checked(ran)
    assert set(found) == set(ALL)
    states = {name: {check["state"] for check in checks} for name, checks in found.items()}
    assert states == {name: {"well"} for name in ALL} | {"chain": {"not looked at"}}, found
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["well"] is True
    assert "6 of 6 answered: 2 by a network with skill, 4 naive" in found["inference"][0]["line"]
    assert {venue["venue"] for venue in json.loads(ran.stdout)["venues"]} == set(VENUES)


@pytest.mark.parametrize(
    ("check", "settings", "says"),
    [
        pytest.param("settings", {"PORT": "abc"}, "PORT='abc'", id="a setting"),
        pytest.param("config", {"CONFIG_FILE": "/no/such.json"}, "/no/such.json", id="the config"),
        pytest.param("inference", {"PORT": "1"}, "no answer", id="nothing answers"),
        pytest.param("data folder", {"DATA_DIR": f"{EXAMPLE}/data"}, f"{EXAMPLE}: is a file", id="the folder"),
        pytest.param("updater", {"DATA_DIR": str(ROOT / "none-ran-here")}, "no updater has run", id="no updater"),
        pytest.param("venues", {"MARKET_VENUES": "kraken"}, "no venue in use has its price", id="no venue"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do_and_the_status_is_1(
    tmp_path: Path, server: Venue, whole: dict[str, str], check: str, settings: dict[str, str], says: str
) -> None:
    ran = doctor(tmp_path, server, "--json", **{**whole, **settings})
    assert ran.returncode == 1, ran.stderr
    (wrong,) = [one for one in checked(ran)[check] if one["state"] == "wrong"]
    assert says in wrong["line"]
    assert wrong["remedy"]
    assert json.loads(ran.stdout)["well"] is False


def test_a_ledger_that_is_damaged_is_wrong(tmp_path: Path, server: Venue, whole: dict[str, str]) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    ledger.write_bytes(bytes(reversed(ledger.read_bytes())))
    ran = doctor(tmp_path, server, "--json", **whole)
    (found,) = checked(ran)["ledger"]
    assert (found["state"], ran.returncode) == ("wrong", 1)
    assert "is damaged" in found["line"]
    assert "inference sets it aside" in found["remedy"]


def test_a_monitor_that_does_not_answer_is_told_where_something_runs(
    tmp_path: Path, server: Venue, whole: dict[str, str]
) -> None:
    gone = {"MONITOR_PORT": str(free_port())}
    ran = doctor(tmp_path, server, "--json", **{**whole, **gone})
    (found,) = checked(ran)["monitor"]
    assert (found["state"], ran.returncode) == ("warning", 0), "it costs no answer"
    assert f"no answer from http://127.0.0.1:{gone['MONITOR_PORT']}/healthz" in found["line"]
    assert "nothing is scored and no alarm is sent" in found["line"]
    assert "scripts/run" in found["remedy"]
    nothing = doctor(tmp_path / "none", server, "--json", **{**whole, **gone, "PORT": "1"})
    assert [one["state"] for one in checked(nothing)["monitor"]] == ["not looked at"]


def test_the_monitor_of_the_last_run_is_asked_where_it_listens(tmp_path: Path) -> None:
    with endpoint(SIX) as port:
        settings = load_settings(data_dir=tmp_path, config_file=EXAMPLE)
        note_run(settings, Market.SIMULATED, None, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
        tape_folder(settings, None).mkdir(parents=True)
        subject = Subject(settings=settings, clock=SystemClock())
        found = {check.name: check for check in all_checks(subject, lambda _: None)}
    assert (found["monitor"].state, found["monitor"].line) == (
        "well",
        f"http://127.0.0.1:{port}/: the status page answers",
    )


@pytest.mark.parametrize(
    ("ahead_s", "state", "says"),
    [
        (30, "warning", "behind binance's"),
        (-30, "warning", "ahead of binance's"),
        (86_400, "wrong", "behind binance's"),
    ],
)
def test_a_clock_that_differs_is_told(
    tmp_path: Path, server: Venue, whole: dict[str, str], ahead_s: int, state: str, says: str
) -> None:
    server.handler = lambda path, _: (
        Answer(f'{{"serverTime": {SystemClock().now_ms() + 1000 * ahead_s}}}') if path.endswith("/time") else None
    )
    ran = doctor(tmp_path, server, "--json", **whole)
    (clock,) = checked(ran)["clock"]
    assert (clock["state"], says in clock["line"], "NTP" in clock["remedy"]) == (state, True, True)
    assert ran.returncode == (1 if state == "wrong" else 0)


def test_a_stopped_simulated_node_is_described_without_contradiction(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, port=1, config_file=EXAMPLE)
    note_run(settings, Market.SIMULATED, None, "")
    tape_folder(settings, None).mkdir(parents=True)
    StateFile(tape_folder(settings, None), SystemClock(), ["minute"]).end()
    found = {check.name: check for check in all_checks(Subject(settings=settings, clock=SystemClock()), lambda _: None)}
    assert "is stopped since" in found["updater"].line
    assert (found["updater"].state, found["inference"].state) == ("wrong", "wrong")
    assert (found["clock"].state, found["venues"].state) == ("not looked at", "not looked at")
    assert found["venues"].line.startswith("prices are simulated: no venue is asked")


def test_a_folder_on_no_disk_is_not_called_full() -> None:
    settings = load_settings(data_dir="/proc/x", port=1, config_file=EXAMPLE, market="simulated")
    found = {check.name: check for check in all_checks(Subject(settings=settings, clock=SystemClock()), lambda _: None)}
    assert found["data folder"].state == "wrong"
    assert "/proc" in found["data folder"].line
    assert "make room" not in found["data folder"].remedy


def test_an_updater_that_is_gone_and_klines_of_yesterday_are_wrong(tmp_path: Path, server: Venue) -> None:
    state = StateFile(tmp_path, FakeClock(SystemClock().now_ms() - 2 * DAY_MS), ["minute"])
    newest_ms = state.current.heartbeat_ms // MINUTE_MS * MINUTE_MS
    series = SeriesState(synced_ms=newest_ms, fetched_rows=3, gaps=0, newest_ms=newest_ms, reason="HTTP 451")
    state.replace_series({"ETHUSDT-1m": series})
    ran = doctor(tmp_path, server, "--json", CONFIG_FILE=EXAMPLE, PORT="1")
    found = checked(ran)
    assert ran.returncode == 1
    assert "does not run" in found["updater"][0]["line"]
    assert found["klines"][0]["state"] == "wrong"
    assert "HTTP 451" in found["klines"][0]["line"]


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal_leads_with_a_sentence_and_says_that_it_asks(
    tmp_path: Path, server: Venue, whole: dict[str, str], columns: int
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    urls = {"VENUE_URLS": ",".join(f"{name}={gone}" for name in VENUES if name != "binance")}
    given = {**urls, "BINANCE_REST_URLS": server.url, "DATA_DIR": str(tmp_path), **whole}
    with on_terminal([sys.executable, "-m", "cli.main", "doctor"], columns, given) as (terminal, process):
        assert process.wait(60) == 0
    assert "asking each venue" in terminal.written
    lines = [line for line in terminal.lines if line.strip() and "asking each venue" not in line]
    assert lines[0].startswith("all is well: settings, config, data folder")
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert "6 of 6 answered: 2 by a network with skill, 4 naive" in text
    assert "needs VENUE_KEYS" in text
    assert "2000.5" in text


@pytest.mark.parametrize(
    ("horizon", "state", "says"),
    [
        ("1m", "well", "as we train for them: topics allora-testnet-9/1"),
        ("10m", "wrong", "the chain asks for the truth about 1m after the base"),
    ],
)
def test_the_contract_is_compared_with_the_chain(
    tmp_path: Path, server: Venue, horizon: str, state: str, says: str
) -> None:
    lines = recorded()
    newest = max(line["block"] for line in lines if "block" in line)
    config = written(tmp_path, entry(Target="price", Horizon=horizon), chainId=NEW)
    with ChainReplay(lines, chain_id=NEW, height=newest - 20).running() as chain:
        ran = doctor(tmp_path, server, "--json", CONFIG_FILE=str(config), PORT="1", LCD_URLS=chain.url)
    found = checked(ran)["chain"]
    assert found[0]["state"] == state
    assert says in found[0]["line"]
    assert bool(found[0]["remedy"]) == (state == "wrong")


def test_without_hosts_and_with_a_broken_host_the_chain_is_no_fault(tmp_path: Path, server: Venue) -> None:
    (quiet,) = checked(doctor(tmp_path, server, "--json", CONFIG_FILE=EXAMPLE, PORT="1"))["chain"]
    assert (quiet["state"], "LCD_URLS is not set" in quiet["line"]) == ("not looked at", True)
    gone = f"http://127.0.0.1:{free_port()}"
    (warned,) = checked(doctor(tmp_path, server, "--json", CONFIG_FILE=EXAMPLE, PORT="1", LCD_URLS=gone))["chain"]
    assert (warned["state"], "not compared with the chain" in warned["line"]) == ("warning", True)


def test_what_the_monitor_has_collected_is_judged(tmp_path: Path, server: Venue) -> None:
    config = written(tmp_path, entry(79, Token="BTC", Target="volatility", Horizon="15m"))
    settings = {"CONFIG_FILE": str(config), "PORT": "1", "LCD_URLS": f"http://127.0.0.1:{free_port()}"}
    clock = RunningClock()
    clock.jump(SystemClock().now_ms() - clock.now_ms())
    live_updater(tmp_path, clock)
    with desk(tmp_path, clock, (), topics=[TOPIC]) as watching:
        Chain(watching).epochs([Arrival.EQUAL] * 5)
        well = checked(doctor(tmp_path, server, "--json", **settings))["chain"]
        Chain(watching).epochs([Arrival.ABSENT] * 20, value="0.5616", first=10_000)
    wrong = checked(doctor(tmp_path, server, "--json", **settings))["chain"]
    assert [one["state"] for one in well] == ["warning", "well"]
    assert "robust deviations from the others in the last 5 epochs" in well[1]["line"]
    lines = [one["line"] for one in wrong if one["state"] == "wrong"]
    assert "no answer of ours arrived on chain" in lines[0]
    assert "likely cause: ours is annualised" in lines[1]
