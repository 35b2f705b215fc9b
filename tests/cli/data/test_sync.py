"""``birnn data sync``."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from core.clock import HOUR_MS, MINUTE_MS, SystemClock
from exchange.server import SimulatedExchange
from market.store.files.table_files import write_klines
from market.store.kline_store import KlineStore
from tests.cli.data.stand import (
    ROOT,
    WALK,
    data,
    environment,
    of,
)
from tests.fakes.clock import eventually
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Venue as LoopbackVenue
from tests.terminal import on_terminal


def test_sync_fetches_what_the_topics_need_and_then_only_what_is_new(tmp_path: Path, venue: SimulatedExchange) -> None:
    code, shown, said = data(tmp_path, "sync", **of(venue), TRAINING_DAYS="3")
    assert code == 0, said
    lines = shown.splitlines()
    assert lines[1] == f"data: {tmp_path}"
    assert re.fullmatch(r"BTCUSDT-1m: [0-9]+ rows fetched; no gaps", lines[2])
    assert any(re.fullmatch(r"BTCUSDT-1h: [0-9]+ rows fetched; no gaps", line) for line in lines)
    assert data(tmp_path, "verify")[0] == 0
    again = data(tmp_path, "sync", **of(venue), TRAINING_DAYS="3")[1]
    assert all(int(line.split()[1]) < 70 for line in again.splitlines() if "rows fetched" in line)


def test_klines_of_the_simulated_exchange_are_not_called_a_venues(tmp_path: Path) -> None:
    series = ("--symbol", "ETHUSDT", "--interval", "1h")
    assert data(tmp_path, "sync", *series, "--days", "3", MARKET="simulated")[0] == 0
    code, shown, said = data(tmp_path, "verify", *series, MARKET="simulated")
    assert (code, "days compared are as the simulated exchange has them" in shown) == (0, True), (shown, said)
    store = tmp_path / "simulated" / "seed-0" / "klines"
    assert shown.endswith(f"klines: {store} (SIMULATED)\n")
    KlineStore(store / "binance").remove("ETHUSDT", HOUR_MS, (0, 2**62))
    now_ms = SystemClock().now_ms() // HOUR_MS * HOUR_MS
    walk = random_walk_klines(20, HOUR_MS)
    path = tmp_path / "real.csv"
    write_klines(
        path, "ETHUSDT", replace(walk, open_time_ms=walk.open_time_ms - walk.open_time_ms[-1] + now_ms - HOUR_MS)
    )
    code, _, said = data(tmp_path, "import", str(path), *series, MARKET="simulated")
    assert code == 1
    assert "rows compared with the simulated exchange differ, such as " in said
    assert f" at the simulated exchange; the store is {store} (SIMULATED); --force takes" in said


def test_what_is_asked_for_as_json_is_alone_on_standard_output(tmp_path: Path, venue: SimulatedExchange) -> None:
    series = ("--symbol", "ETHUSDT", "--interval", "1h", "--days", "2")
    code, shown, said = data(tmp_path, "sync", *series, "--json", **{**of(venue), "LOG_LEVEL": "info"})
    (report,) = json.loads(shown)
    assert (code, report["symbol"], report["interval"], report["gaps"]) == (0, "ETHUSDT", "1h", [])
    assert report["fetched"] >= 24
    assert "market: " in said, "what else is said goes to standard error"
    (verified,) = json.loads(data(tmp_path, "verify", "--json", **of(venue))[1])["series"]
    assert (verified["series"], verified["rows"], verified["damaged"]) == ("ETHUSDT-1h", report["fetched"], 0)
    assert json.loads(data(tmp_path, "gaps", "--json", **of(venue))[1]) == {"gaps": [], "empty": []}


def test_tables_fit_80_columns(tmp_path: Path, store: KlineStore) -> None:
    store.append("1000BONKUSDT", WALK)
    for verb in ("verify --offline", "gaps"):
        command = [sys.executable, "-m", "cli.main", "data", *verb.split()]
        given = {name: value for name, value in environment(tmp_path).items() if name != "COLUMNS"}
        with on_terminal(command, 80, given, str(ROOT)) as (terminal, process):
            assert process.wait(60) == 0
        assert max(len(line) for line in terminal.lines if not line.startswith("klines: ")) <= 80
        shown = " ".join(terminal.lines).split()
        assert {"ETHUSDT-1m", "2023-11-15", "16:40" if verb == "gaps" else "3,990"} <= set(shown)


def test_a_symbol_of_the_command_line_that_nobody_trades_is_to_be_changed_there(
    tmp_path: Path, venue: SimulatedExchange
) -> None:
    code, shown, _ = data(tmp_path, "sync", "--symbol", "NOPEUSDT", "--interval", "1h", "--days", "1", **of(venue))
    assert code == 1
    line = shown.splitlines()[-1]
    assert "unknown symbol 'NOPEUSDT'" in line
    assert "set --symbol to a symbol that binance trades" in line
    assert "config.json" not in line


def test_sync_of_named_series(tmp_path: Path, venue: SimulatedExchange) -> None:
    code, shown, _ = data(
        tmp_path, "sync", "--symbol", "SOLUSDT", "--interval", "15m", "--interval", "1m", "--days", "2", **of(venue)
    )
    assert code == 0
    assert [line.split(":")[0] for line in shown.splitlines()[2:]] == ["SOLUSDT-15m", "SOLUSDT-1m"]
    assert sorted(KlineStore(tmp_path / "klines" / "binance").series()) == [
        ("SOLUSDT", MINUTE_MS),
        ("SOLUSDT", 15 * MINUTE_MS),
    ]


def test_a_series_that_fails_is_told_and_the_others_are_fetched(tmp_path: Path, venue: SimulatedExchange) -> None:
    arguments = ["--symbol", "NOUSDT", "--symbol", "SOLUSDT", "--interval", "1h", "--days", "1"]
    code, shown, _ = data(tmp_path, "sync", *arguments, **of(venue))
    assert code == 1
    assert "NOUSDT-1h: 0 rows fetched" in shown
    assert "FAILED: unknown symbol 'NOUSDT'" in shown
    assert re.search(r"SOLUSDT-1h: 2[4-9]|SOLUSDT-1h: [34][0-9]", shown)


def test_an_interrupted_sync_leaves_a_store_that_the_next_goes_on_with(
    tmp_path: Path, venue: SimulatedExchange
) -> None:
    venue.fail_next("/api/v3/klines", count=10_000, delay_s=0.4)
    arguments = ["--symbol", "ETHUSDT", "--symbol", "SOLUSDT", "--interval", "1m", "--days", "200"]
    reader = KlineStore(tmp_path / "klines" / "binance")
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "data", "sync", *arguments],
        env=environment(tmp_path, **of(venue)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(lambda: len(reader.read("ETHUSDT", MINUTE_MS, 0, 2**62)) > 1440, 60, "a day being stored")
            began_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - began_s < 15
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped; klines that have arrived are stored; the same command fetches the rest"
    assert "Traceback" not in said
    code, _, _ = data(tmp_path, "verify")
    assert code == 0
    held = len(reader.read("ETHUSDT", MINUTE_MS, 0, 2**62))
    assert held > 0
    venue.clear_faults()
    code, shown, _ = data(tmp_path, "sync", *arguments, **of(venue))
    assert code == 0
    fetched = int(re.search(r"ETHUSDT-1m: ([0-9]+) rows", shown)[1])  # type: ignore[index]
    assert fetched + held >= 200 * 1440
    assert fetched < 200 * 1440
    assert data(tmp_path, "gaps")[1].startswith("no gaps\n")


def test_another_venues_minutes_are_fetched_beside_and_the_home_stays(tmp_path: Path, venue: SimulatedExchange) -> None:
    series = ("--symbol", "ETHUSDT", "--interval", "1m")
    assert data(tmp_path, "sync", *series, "--days", "1", **of(venue))[0] == 0
    homes = (tmp_path / "klines" / "homes.json").read_text()
    candles = random_walk_klines(300)
    with LoopbackVenue().running() as other:
        other.series["ETHUSDT", "1m"] = replace(
            candles,
            open_time_ms=candles.open_time_ms
            - candles.open_time_ms[-1]
            + SystemClock().now_ms() // MINUTE_MS * MINUTE_MS
            - MINUTE_MS,
        )
        urls = {"VENUE_URLS": f"binanceus={other.url}"}
        code, shown, said = data(
            tmp_path, "sync", "--venue", "binanceus", *series, "--days", "1", **{**of(venue), **urls}
        )
        assert code == 0, said
    assert "rows fetched" in shown
    assert KlineStore(tmp_path / "klines" / "binanceus").latest("ETHUSDT", MINUTE_MS)
    assert (tmp_path / "klines" / "homes.json").read_text() == homes
    code, _, said = data(tmp_path, "sync", "--venue", "nowhere", *series, **of(venue))
    assert code == 2
    assert "'nowhere' is not a venue; choose of binance, " in said
