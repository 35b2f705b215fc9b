"""The simulated exchange, asked by a plain HTTP client."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.process.supervisor import LAST_PATIENCE_S
from exchange.__main__ import main
from exchange.formats import archive_zip, rest_rows
from exchange.rest import page
from exchange.server import SimulatedExchange
from exchange.sources.given import Given
from exchange.sources.replay import Replay
from klines.spans import INTERVALS_MS
from tests.exchange.client import DECIMAL, rows
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines

REPOSITORY = Path(__file__).parents[2]
NOW_MS = START_MS + 12 * HOUR_MS + 34 * MINUTE_MS + 56_789


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def exchange(clock: FakeClock) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=0, clock=clock) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def still() -> Iterator[SimulatedExchange]:
    """One for all tests that leave its clock and its faults alone."""
    with SimulatedExchange(seed=0, clock=FakeClock(NOW_MS)) as exchange:
        yield exchange


def get(exchange: SimulatedExchange, path: str, timeout_s: float = 10.0, **query: Any) -> requests.Response:
    return requests.get(exchange.url + path, params=query, timeout=timeout_s)


def archive(exchange: SimulatedExchange, name: str) -> requests.Response:
    symbol, interval, date = name.split("-", 2)
    period = "monthly" if date.count("-") == 1 else "daily"
    return get(exchange, f"/data/spot/{period}/klines/{symbol}/{interval}/{name}.zip")


def csv_rows(packed: bytes) -> list[list[str]]:
    with zipfile.ZipFile(io.BytesIO(packed)) as opened:
        (name,) = opened.namelist()
        return [line.split(",") for line in opened.read(name).decode().splitlines()]


def assert_rows_mean_the_same(ours: list[list[Any]], genuine: list[list[Any]]) -> None:
    """Prices and volume to the letter, turnovers to the last bit: beyond 2**53 units of 1e-8 floats skip some."""
    for row, other in zip(ours, genuine, strict=True):
        assert row[:7] + row[8:9] + row[11:] == other[:7] + other[8:9] + other[11:]
        assert [float(row[n]) for n in (7, 9, 10)] == [float(other[n]) for n in (7, 9, 10)]
        assert all(DECIMAL.fullmatch(row[n]) for n in (7, 9, 10))


# -- REST


def test_ping_and_time(exchange: SimulatedExchange, clock: FakeClock) -> None:
    assert get(exchange, "/api/v3/ping").json() == {}
    assert get(exchange, "/api/v3/time").json() == {"serverTime": NOW_MS}
    clock.sleep(5)
    assert get(exchange, "/api/v3/time").json() == {"serverTime": NOW_MS + 5_000}


def test_a_row_is_what_binance_writes(still: SimulatedExchange) -> None:
    for row in rows(still, limit=3):
        assert len(row) == 12
        assert [n for n, cell in enumerate(row) if isinstance(cell, int)] == [0, 6, 8]
        assert all(DECIMAL.fullmatch(row[n]) for n in (1, 2, 3, 4, 5, 7, 9, 10))
        assert row[6] == row[0] + MINUTE_MS - 1
        assert row[11] == "0"


@pytest.mark.parametrize("interval", INTERVALS_MS)
def test_the_newest_row_is_the_open_candle_and_the_others_follow_it_backwards(
    still: SimulatedExchange, interval: str
) -> None:
    step = INTERVALS_MS[interval]
    times = [row[0] for row in rows(still, interval=interval)]
    assert times == [NOW_MS // step * step - n * step for n in reversed(range(500))]


def test_closed_candles_never_change_and_the_open_one_closes(exchange: SimulatedExchange, clock: FakeClock) -> None:
    before = rows(exchange)
    clock.time_ms = NOW_MS // MINUTE_MS * MINUTE_MS + MINUTE_MS - 1
    last_moment = rows(exchange)
    clock.time_ms += 2 * MINUTE_MS
    after = rows(exchange)
    assert before[-1] != last_moment[-1]
    assert after[:-2] == [*before[2:-1], last_moment[-1]]


def test_the_ticker_is_the_open_candle_s_close(exchange: SimulatedExchange, clock: FakeClock) -> None:
    seen = set()
    for _ in range(10):
        clock.sleep(3)
        price = get(exchange, "/api/v3/ticker/price", symbol="ETHUSDT").json()["price"]
        assert price == rows(exchange, "ETHUSDT", limit=1)[0][4]
        seen.add(price)
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("query", "first_ms", "count"),
    [
        pytest.param({}, START_MS + 754 * MINUTE_MS - 499 * MINUTE_MS, 500, id="newest 500"),
        pytest.param({"limit": 5_000}, START_MS + 754 * MINUTE_MS - 999 * MINUTE_MS, 1_000, id="never over 1000"),
        pytest.param({"startTime": START_MS}, START_MS, 500, id="from start on"),
        pytest.param({"startTime": START_MS + 1, "limit": 2}, START_MS + MINUTE_MS, 2, id="start between candles"),
        pytest.param({"startTime": START_MS, "endTime": START_MS + MINUTE_MS}, START_MS, 2, id="end included"),
        pytest.param({"endTime": START_MS, "limit": 2}, START_MS - MINUTE_MS, 2, id="up to end"),
        pytest.param({"startTime": 0, "limit": 3}, 1_577_836_800_000, 3, id="from before the first"),
        pytest.param(
            {"startTime": NOW_MS - 2 * MINUTE_MS}, NOW_MS // MINUTE_MS * MINUTE_MS - MINUTE_MS, 2, id="up to now"
        ),
        pytest.param({"startTime": NOW_MS + MINUTE_MS}, None, 0, id="future"),
        pytest.param({"startTime": START_MS, "endTime": START_MS - 1}, None, 0, id="end before start"),
        pytest.param({"endTime": 1_500_000_000_000}, None, 0, id="before the first"),
        pytest.param({"startTime": 99_999_999_999_999_999_999}, None, 0, id="out of any range"),
    ],
)
def test_a_page_holds_what_was_asked_for(
    still: SimulatedExchange, query: dict[str, Any], first_ms: int | None, count: int
) -> None:
    times = [row[0] for row in rows(still, **query)]
    assert times == [(first_ms or 0) + n * MINUTE_MS for n in range(count)]


def test_a_hole_does_not_end_a_page() -> None:
    minutes, hole_ms = random_walk_klines(3_000), START_MS + 10 * MINUTE_MS
    holed = minutes.between(0, hole_ms).merge(minutes.between(hole_ms + 1_200 * MINUTE_MS, 2**62))
    source = Given({("ETHUSDT", MINUTE_MS): holed})
    ask = partial(page, source, "ETHUSDT", MINUTE_MS, limit=1_000, now_ms=minutes.end_ms)
    np.testing.assert_array_equal(ask(start_ms=START_MS, end_ms=2**62).open_time_ms, holed.open_time_ms[:1_000])
    np.testing.assert_array_equal(ask(start_ms=None, end_ms=2**62).open_time_ms, holed.open_time_ms[-1_000:])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param("klines?interval=1m", -1102, id="no symbol"),
        pytest.param("klines?symbol=&interval=1m", -1102, id="empty symbol"),
        pytest.param("klines?symbol=BTCUSDT", -1102, id="no interval"),
        pytest.param("klines?symbol=btcusdt&interval=1m", -1100, id="lower case"),
        pytest.param("klines?symbol=NONEUSDT&interval=1m", -1121, id="unknown symbol"),
        pytest.param("klines?symbol=BTCUSDT&interval=7m", -1120, id="unknown interval"),
        pytest.param("klines?symbol=BTCUSDT&interval=1m&startTime=yesterday", -1100, id="time that is no number"),
        pytest.param("klines?symbol=BTCUSDT&interval=1m&limit=-1", -1100, id="negative limit"),
        pytest.param("klines?symbol=BTCUSDT&interval=1m&limit=0", -1130, id="limit of nothing"),
        pytest.param("klines?symbol=BTCUSDT&interval=1m&start_time=0", -1104, id="misspelt parameter"),
        pytest.param("klines?symbol=BTCUSDT&symbol=ETHUSDT&interval=1m", -1101, id="twice the same"),
        pytest.param("ticker/price?symbol=NONEUSDT", -1121, id="price of an unknown symbol"),
        pytest.param('ticker/price?symbols=["BTCUSDT","NONEUSDT"]', -1121, id="one of them unknown"),
        pytest.param('ticker/price?symbols=["BTCUSDT", "ETHUSDT"]', -1100, id="a blank in the list"),
        pytest.param("ticker/price?symbols=BTCUSDT,ETHUSDT", -1100, id="no JSON"),
        pytest.param('ticker/price?symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128, id="symbol and symbols"),
    ],
)
def test_a_wrong_question_gets_binance_s_error(still: SimulatedExchange, path: str, code: int) -> None:
    answer = get(still, f"/api/v3/{path}")
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "msg"}
    assert answer.json()["code"] == code
    assert answer.headers["X-Market"] == "SIMULATED"


@pytest.mark.parametrize("name", ["invalid_symbol", "invalid_interval"])
def test_errors_are_the_recorded_ones_to_the_byte(still: SimulatedExchange, shared_data: Path, name: str) -> None:
    wrong: dict[str, Any] = {"symbol": "NONEUSDT"} if name == "invalid_symbol" else {"interval": "7m"}
    answer = get(still, "/api/v3/klines", **({"symbol": "BTCUSDT", "interval": "1m"} | wrong))
    assert answer.text == (shared_data / "raw" / "binance_errors" / f"http400_{name}.json").read_text().strip()


def test_prices_of_one_some_and_all(clock: FakeClock) -> None:
    with SimulatedExchange(clock=clock, symbols=["BTCUSDT", "ETHUSDT", "SOLUSDT"]) as exchange:
        every = get(exchange, "/api/v3/ticker/price").json()
        assert [entry["symbol"] for entry in every] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        assert all(DECIMAL.fullmatch(entry["price"]) for entry in every)
        some = get(exchange, "/api/v3/ticker/price", symbols='["SOLUSDT","BTCUSDT"]').json()
        assert some == [every[0], every[2]], "in the venue's order, not in that of the question"
        assert get(exchange, "/api/v3/ticker/price", symbol="ETHUSDT").json() == every[1]
        assert get(exchange, "/api/v3/ticker/price", symbol="XRPUSDT").json()["code"] == -1121


def test_threads_get_what_one_gets(still: SimulatedExchange) -> None:
    asked = [("BTCUSDT", "1h"), ("ETHUSDT", "1h"), ("ETHUSDT", "1m"), ("SOLUSDT", "15m")] * 6
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda what: rows(still, *what), asked))
    with SimulatedExchange(clock=FakeClock(NOW_MS)) as other:
        for what, answer in zip(asked, answers, strict=True):
            assert answer == answers[asked.index(what)]
        assert [rows(other, *what) for what in asked[:4]] == answers[:4]


# -- archives


@pytest.mark.parametrize(
    ("name", "start", "count", "unit"),
    [
        pytest.param("BTCUSDT-1m-2023-11-14", "2023-11-14", 1_440, 1, id="a day in milliseconds"),
        pytest.param("ETHUSDT-1h-2024-12", "2024-12-01", 744, 1, id="the last month in milliseconds"),
        pytest.param("ETHUSDT-1h-2025-01", "2025-01-01", 744, 1_000, id="the first in microseconds"),
        pytest.param("ARBUSDT-15m-2026-02-28", "2026-02-28", 96, 1_000, id="a day in microseconds"),
    ],
)
def test_an_archive_holds_the_rows_of_rest(
    exchange: SimulatedExchange, clock: FakeClock, name: str, start: str, count: int, unit: int
) -> None:
    clock.time_ms = START_MS + 1_000 * DAY_MS
    symbol, interval, _ = name.split("-", 2)
    answer = archive(exchange, name)
    assert answer.status_code == 200
    found = csv_rows(answer.content)
    start_ms = int(np.datetime64(start, "ms").astype(np.int64))
    expected: list[list[Any]] = []
    while len(expected) < count:
        cursor = expected[-1][0] + 1 if expected else start_ms
        expected += rows(exchange, symbol, interval, startTime=cursor, limit=min(1_000, count - len(expected)))
    assert int(found[0][0]) == start_ms * unit
    assert int(found[0][6]) == (start_ms + INTERVALS_MS[interval]) * unit - 1
    assert [row[1:6] + row[7:] for row in found] == [[str(cell) for cell in row[1:6] + row[7:]] for row in expected]
    assert [int(row[0]) // unit for row in found] == [row[0] for row in expected]


def test_an_archive_is_the_same_every_time_and_its_checksum_holds(
    exchange: SimulatedExchange, clock: FakeClock
) -> None:
    first = archive(exchange, "BTCUSDT-1m-2023-10").content
    checksum = get(exchange, "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2023-10.zip.CHECKSUM")
    assert checksum.text == f"{hashlib.sha256(first).hexdigest()}  BTCUSDT-1m-2023-10.zip\n"
    assert len(csv_rows(first)) == 31 * 1_440
    with SimulatedExchange(clock=FakeClock(NOW_MS + 90 * DAY_MS)) as other:
        assert archive(other, "BTCUSDT-1m-2023-10").content == first


def test_a_day_is_archived_when_it_is_over(exchange: SimulatedExchange, clock: FakeClock) -> None:
    assert archive(exchange, "BTCUSDT-1m-2023-11-15").status_code == 404
    clock.time_ms = START_MS + DAY_MS - 1
    assert archive(exchange, "BTCUSDT-1m-2023-11-15").status_code == 404
    clock.time_ms += 1
    assert len(csv_rows(archive(exchange, "BTCUSDT-1m-2023-11-15").content)) == 1_440


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-11.zip", id="month among days"),
        pytest.param("monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2023-11-01.zip", id="day among months"),
        pytest.param("monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2023-11.zip", id="month that is not over"),
        pytest.param("daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-02-30.zip", id="no such day"),
        pytest.param("daily/klines/BTCUSDT/1m/BTCUSDT-1m-2019-12-31.zip", id="before the first"),
        pytest.param("daily/klines/NONEUSDT/1m/NONEUSDT-1m-2023-11-01.zip", id="unknown symbol"),
        pytest.param("daily/klines/BTCUSDT/7m/BTCUSDT-7m-2023-11-01.zip", id="unknown interval"),
        pytest.param("daily/klines/BTCUSDT/1m/ETHUSDT-1m-2023-11-01.zip", id="another symbol's name"),
        pytest.param("daily/klines/BTCUSDT/1m/BTCUSDT-1m-2023-11-01.csv", id="no zip"),
        pytest.param("yearly/klines/BTCUSDT/1m/BTCUSDT-1m-2023.zip", id="no such period"),
    ],
)
def test_what_is_not_archived_is_not_found(still: SimulatedExchange, path: str) -> None:
    for ending in ("", ".CHECKSUM"):
        answer = get(still, f"/data/spot/{path}{ending}")
        assert answer.status_code == 404
        assert "NoSuchKey" in answer.text
        assert answer.headers["X-Market"] == "SIMULATED"


def test_an_archive_of_real_klines_reads_as_the_genuine_one(shared_data: Path) -> None:
    series = Replay.open(shared_data / "spot", NOW_MS, symbols=["BTCUSDT"]).recorded
    start_ms = int(np.datetime64("2024-03-14", "ms").astype(np.int64))
    klines = series["BTCUSDT", HOUR_MS].between(start_ms, start_ms + DAY_MS)
    name = "BTCUSDT-1h-2024-03-14"
    genuine = (shared_data / "raw" / "binance_vision" / "spot_daily_zip" / f"{name}.zip").read_bytes()
    assert_rows_mean_the_same(csv_rows(archive_zip(klines, name, start_ms + DAY_MS)), csv_rows(genuine))


def test_rest_rows_of_real_klines_read_as_the_genuine_ones(shared_data: Path) -> None:
    series = Replay.open(shared_data / "spot", NOW_MS, symbols=["SOLUSDT"]).recorded
    genuine = json.loads((shared_data / "raw" / "binance_rest" / "klines_SOLUSDT_1h_2024-02-01.json").read_text())
    klines = series["SOLUSDT", HOUR_MS].between(genuine[0][0], genuine[-1][0] + 1)
    assert_rows_mean_the_same(json.loads(rest_rows(klines)), genuine)


# -- replay


def test_a_replay_is_served_and_says_when_it_has_run_out(
    shared_data: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    replay = Replay.open(shared_data / "spot", NOW_MS, symbols=["SOLUSDT"])
    with SimulatedExchange(source=replay, clock=clock) as exchange:
        assert replay.name.startswith("replay of real klines of 2022-11-06 to 2024-03-31 (spot), shifted by ")
        newest = rows(exchange, "SOLUSDT", limit=2)[0]
        at_ms = newest[0] - replay.shift_ms
        recorded = replay.recorded["SOLUSDT", MINUTE_MS].between(at_ms, at_ms + 1)
        assert json.loads(rest_rows(recorded))[0][1:6] == newest[1:6]
        quarter = rows(exchange, "SOLUSDT", "5m", limit=10)[0]
        assert quarter[8] == 0, "a recording without trades has none"
        clock.time_ms = replay.end_ms - MINUTE_MS
        assert len(rows(exchange, "SOLUSDT", limit=3)) == 3
        assert capsys.readouterr().err == ""
        clock.time_ms = replay.end_ms
        assert rows(exchange, "SOLUSDT", limit=1)[0][0] == replay.end_ms // MINUTE_MS * MINUTE_MS
        assert "had run out at" in capsys.readouterr().err


# -- faults

TOO_MUCH = '{"code": -1003, "msg": "Too much request weight used."}'


@pytest.mark.parametrize("how", ["python", "http"])
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        pytest.param({"status": 429, "headers": {"Retry-After": "7"}}, TOO_MUCH, id="status"),
        pytest.param({"status": 503, "body": "busy", "headers": {"Retry-After": "1"}}, "busy", id="status and body"),
        pytest.param({"body": "[[0", "headers": {"Content-Type": "text/html"}}, "[[0", id="body"),
    ],
)
def test_an_answer_is_replaced_so_often(
    exchange: SimulatedExchange, fault: dict[str, Any], text: str, how: str
) -> None:
    if how == "python":
        exchange.fail_next("/api/v3/klines", 2, **fault)
    else:
        order = {"path_prefix": "/api/v3/klines", "count": 2} | fault
        assert requests.post(exchange.url + "/sim/faults", json=order, timeout=10).status_code == 204
    assert get(exchange, "/api/v3/time").status_code == 200
    for _ in range(2):
        answer = get(exchange, "/api/v3/klines", symbol="BTCUSDT", interval="1m")
        assert (answer.status_code, answer.text) == (fault.get("status", 200), text)
        for name, value in (fault["headers"] | {"X-Market": "SIMULATED"}).items():
            assert answer.headers[name] == value
    assert len(rows(exchange, limit=2)) == 2


@pytest.mark.parametrize("cut_after", [0, 100])
def test_a_cut_answer_breaks_off(exchange: SimulatedExchange, cut_after: int) -> None:
    exchange.fail_next("/data", cut_after=cut_after)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        archive(exchange, "BTCUSDT-1h-2023-10")
    assert archive(exchange, "BTCUSDT-1h-2023-10").status_code == 200


def test_a_delay_keeps_the_client_waiting(exchange: SimulatedExchange) -> None:
    exchange.fail_next("/api/v3/time", delay_s=60)
    with pytest.raises(requests.exceptions.ReadTimeout):
        get(exchange, "/api/v3/time", timeout_s=0.2)
    exchange.fail_next("/api/v3/time", delay_s=0.01)
    assert get(exchange, "/api/v3/time").json() == {"serverTime": NOW_MS}


def test_faults_are_taken_in_turn_and_forgotten_on_request(exchange: SimulatedExchange) -> None:
    for status in (500, 503):
        exchange.fail_next("/api", status=status)
    exchange.fail_next("/api", 100, status=418)
    assert [get(exchange, "/api/v3/ping").status_code for _ in range(3)] == [500, 503, 418]
    assert requests.delete(exchange.url + "/sim/faults", timeout=10).status_code == 204
    assert get(exchange, "/api/v3/ping").status_code == 200


def test_a_fault_with_a_field_that_does_not_exist_is_refused(exchange: SimulatedExchange) -> None:
    order = {"path_prefix": "/api", "stauts": 503}
    assert requests.post(exchange.url + "/sim/faults", json=order, timeout=10).status_code == 422


def test_requests_are_remembered(exchange: SimulatedExchange) -> None:
    get(exchange, "/api/v3/ticker/price", symbols='["BTCUSDT"]')
    get(exchange, "/api/v3/ping")
    seen = [("/api/v3/ticker/price", {"symbols": '["BTCUSDT"]'}), ("/api/v3/ping", {})]
    assert exchange.requests == seen
    assert [(path, query) for path, query in get(exchange, "/sim/requests").json()] == seen


# -- process


def test_a_taken_port_is_refused(still: SimulatedExchange) -> None:
    port = int(still.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 cannot be had: .*; choose another"):
        SimulatedExchange(port=port)


def process(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "exchange", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )


def test_a_process_ends_within_the_time_that_a_run_gives_it() -> None:
    took_s = []
    for _ in range(3):  # a busy machine may hold one of them up
        with process() as running:
            assert running.stdout is not None
            running.stdout.readline()
            begun_s = time.monotonic()
            running.terminate()
            running.communicate(timeout=20)
            took_s.append(time.monotonic() - begun_s)
    assert min(took_s) < LAST_PATIENCE_S


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_process_says_where_it_is_and_ends_when_told_to(how: signal.Signals) -> None:
    with process("--seed", "3", "--symbols", "ETHUSDT,BTCUSDT") as running:
        try:
            assert running.stdout is not None
            said = json.loads(running.stdout.readline())
            assert said["event"] == "listening"
            assert (said["market"], said["prices"]) == ("SIMULATED", "random, seed 3")
            assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", said["url"])
            assert said["stream_url"] == said["url"].replace("http", "ws")
            with requests.Session() as session:  # whose connection stays open, as does that of the late answer
                assert session.get(said["url"] + "/api/v3/ping", timeout=10).headers["X-Market"] == "SIMULATED"
                fault = {"path_prefix": "/api/v3/time", "delay_s": 60}
                assert session.post(said["url"] + "/sim/faults", json=fault, timeout=10).status_code == 204
                with pytest.raises(requests.exceptions.ReadTimeout):
                    session.get(said["url"] + "/api/v3/time", timeout=0.2)
                running.send_signal(how)
                _, errors = running.communicate(timeout=20)
            assert (running.returncode, errors) == (0, "")
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--port", "many"], "--port: invalid int value: 'many'", id="port that is no number"),
        pytest.param(
            ["--port", "70000"],
            "port 70000 of 127.0.0.1 cannot be had: bind(): port must be 0-65535",
            id="port out of range",
        ),
        pytest.param(["--seed", "-1"], "--seed must not be negative, was -1", id="seed"),
        pytest.param(["--symbols", "BTCUSDT,"], "symbol '' is not invented here", id="symbol"),
        pytest.param(["--replay", "/nowhere"], "folder /nowhere: no klines", id="folder"),
        pytest.param(["--state", "s.json"], "--state s.json is for a replay", id="state without replay"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_process_that_cannot_start_says_so_by_its_exit_code() -> None:
    with process("--replay", "/nowhere") as refused:
        output, errors = refused.communicate(timeout=20)
    assert (refused.returncode, output, errors.count("\n")) == (2, "", 1)
