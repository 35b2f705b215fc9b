"""``birnn doctor --market`` against servers on loopback: one table, and what to do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import MINUTE_MS, SystemClock
from core.settings import VENUES
from tests.fakes import free_port, random_walk_klines
from tests.market.venue import Answer, Venue

KEY = "not-a-real-key-0123"


@pytest.fixture
def server() -> Iterator[Venue]:
    """Binance's format, with the last hour of ETHUSDT up to now."""
    now_ms = SystemClock().now_ms() // MINUTE_MS * MINUTE_MS
    with Venue().running() as running:
        running.add("ETHUSDT", random_walk_klines(120, start_ms=now_ms - 110 * MINUTE_MS))
        running.prices = {"ETHUSDT": "2000.5"}
        yield running


def doctor(folder: Path, server: Venue, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run it where every venue's hosts are on this machine, and only Binance's answer."""
    gone = f"http://127.0.0.1:{free_port()}"
    urls = {f"{name.upper()}_REST_URLS": gone for name in VENUES} | {"BINANCE_US_REST_URLS": gone}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BINANCE")},
        **urls,
        "BINANCE_REST_URLS": server.url,
        "BINANCE_ARCHIVE_URL": server.url,
        "DATA_DIR": str(folder),
        **settings,
    }
    command = [sys.executable, "-m", "cli.main", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_every_venue_is_in_one_table(tmp_path: Path, server: Venue) -> None:
    ran = doctor(tmp_path, server, "--market", "--symbol", "ETHUSDT")
    assert ran.returncode == 0, ran.stderr
    lines = {line.split()[0]: line for line in ran.stdout.splitlines() if line.strip()}
    assert set(VENUES) <= set(lines)
    assert "well" in lines["binance"]
    assert "2000.5 USDT" in lines["binance"]
    assert "60 of 60" in lines["binance"]
    assert "connection failed" in ran.stdout
    assert "needs TIINGO_API_KEY" in lines["tiingo"]


def test_programs_get_the_same_and_no_key(tmp_path: Path, server: Venue) -> None:
    arguments = ("--market", "--json", "--symbol", "ETHUSDT")
    ran = doctor(tmp_path, server, *arguments, ATLAS_API_KEY=KEY, TRUTH_VENUE="atlas")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    found = {venue["venue"]: venue for venue in report["venues"]}
    assert list(found) == list(VENUES)
    assert (found["binance"]["used"], found["coinbase"]["used"], found["atlas"]["used"]) == ("1", "2", "truth")
    assert found["binance"]["level_over_first"] == pytest.approx(1.0)
    assert (found["atlas"]["key"], found["tiingo"]["key"], found["kraken"]["key"]) == ("set", "missing", "not needed")
    assert KEY not in ran.stdout + ran.stderr


def test_a_symbol_that_nobody_serves_ends_with_1_and_what_to_do(tmp_path: Path, server: Venue) -> None:
    ran = doctor(tmp_path, server, "--market", "--symbol", "NOSUCHUSDT")
    assert ran.returncode == 1
    assert "NOSUCHUSDT: no venue in use has its price and 1m candles" in ran.stdout


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
        pytest.param((), {}, "birnn doctor --market", id="nothing asked"),
        pytest.param(
            ("--market",), {"MARKET_VENUES": "binance,ftx"}, "MARKET_VENUES='binance,ftx'", id="unknown venue"
        ),
        pytest.param(("--market",), {"MARKET_VENUES": "kraken,kraken"}, "MARKET_VENUES", id="one twice"),
        pytest.param(("--market",), {"TRUTH_VENUE": "oracle"}, "TRUTH_VENUE='oracle'", id="unknown truth"),
        pytest.param(("--market",), {"KRAKEN_REST_URLS": "kraken.com"}, "KRAKEN_REST_URLS", id="no URL"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, server: Venue, arguments: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    ran = doctor(tmp_path, server, *arguments, "--symbol", "ETHUSDT", **settings)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
