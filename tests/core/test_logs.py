"""Lines of log: JSON each for programs, short and readable on a terminal, and never a reason to end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.logs import ConsoleLines, readable
from tests.terminal import on_terminal

SAID = """
import logging, structlog
from core.logs import configure_logging
configure_logging("info", service="inference", simulated=True)
log = structlog.get_logger()
log.debug("not said")
log.info("started", path='a "quoted" one')
logging.getLogger("a.library").info("not said either")
logging.getLogger("a.library").warning('say "%s"', "two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("ours")
    logging.getLogger("a.library").exception("theirs")
"""

THREAD = """
import sys, threading, structlog
from core.logs import configure_logging
configure_logging("info", service="inference", simulated=True)
left = list(range(2000))
def work():
    while left:
        structlog.get_logger().info("working", left=left.pop())
worker = threading.Thread(target=work)
worker.start()
worker.join()
sys.stderr.write(f"left {len(left)}")
"""


def run(code: str, stdout: int) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # it would hide faults
    return subprocess.run(
        [sys.executable, "-c", code],
        env=given,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_line_is_json_and_says_that_prices_are_invented() -> None:
    ended = run(SAID, subprocess.PIPE)
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in (ended.stdout, ended.stderr))
    assert [line["event"] for line in ours] == ["started", "ours"]
    assert [line["event"] for line in theirs] == ['say "two\nlines"', "theirs"]
    assert {line["logger"] for line in theirs} == {"a.library"}
    assert {(line["service"], line["market"]) for line in ours + theirs} == {("inference", "SIMULATED")}
    assert all("ZeroDivisionError" in lines[-1]["exception"] for lines in (ours, theirs))


@contextmanager
def full_disk() -> Iterator[int]:
    with open("/dev/full", "w") as full:  # noqa: PTH123 -- a device
        yield full.fileno()


@contextmanager
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize("stdout", [full_disk, closed_pipe])
def test_a_line_that_cannot_be_written_ends_neither_thread_nor_process(stdout: object) -> None:
    with stdout() as file:  # type: ignore[operator]
        ended = run(THREAD, file)
    assert (ended.returncode, ended.stderr) == (0, "left 0")


def on_a_terminal(code: str, **environment: str) -> str:
    with on_terminal([sys.executable, "-c", code], 120, environment) as (terminal, process):
        assert process.wait(60) == 0
    return terminal.written


def test_on_a_terminal_each_line_is_readable_and_says_that_prices_are_invented() -> None:
    shown = on_a_terminal(SAID)
    plain = on_a_terminal(SAID, NO_COLOR="1")
    for text in ("\x1b[32minfo", "\x1b[33;1mwarn", "\x1b[31;1merror"):
        assert text in shown, "levels have colours"
    assert "\x1b" not in plain, "NO_COLOR is respected"
    assert "\x1b" not in on_a_terminal(SAID, TERM="dumb")
    lines = [line for line in plain.replace("\r", "").split("\n") if "SIMULATED" in line]
    assert [line.split(maxsplit=3)[1:3] for line in lines] == [
        ["SIMULATED", "info"],
        ["SIMULATED", "warn"],
        ["SIMULATED", "error"],
        ["SIMULATED", "error"],
    ]
    assert lines[0].endswith('inference started path=a "quoted" one')
    assert 'say "two lines" logger=a.library' in lines[1], "what a library says is one line as well"
    assert "ZeroDivisionError: division by zero" in plain
    assert "{" not in plain


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_log_format_decides_where_auto_is_not_meant(form: str, terminal: bool, is_json: bool) -> None:
    code = SAID.replace("simulated=True", f"simulated=True, form={form!r}")
    written = on_a_terminal(code) if terminal else run(code, subprocess.PIPE).stdout
    first = next(line for line in written.splitlines() if "started" in line)
    assert first.startswith("{") == is_json
    if is_json:
        line = json.loads(first)
        assert line.pop("at").endswith("Z")
        assert json.dumps(line, sort_keys=True, separators=(",", ":")) == (
            '{"event":"started","level":"info","market":"SIMULATED","path":"a \\"quoted\\" one","service":"inference"}'
        )
    else:
        assert terminal or "\x1b" not in first, "a file gets no colours"


ANSWER = {
    "at": "2026-11-30T03:29:00.123456Z",
    "event": "answer",
    "level": "info",
    "service": "inference",
    "market": "SIMULATED",
    "topic_id": 79,
    "network": "allora-testnet-1",
    "token": "BTC",
    "height": 7_100_000,
    "status": 200,
    "asked_ms": 1_796_000_000_000,
    "took_ms": 0.0912,
    "version": "minute-20261122T084500Z-1a2b3c",
    "forecast": "network",
    "anchor_age_ms": 412,
    "value": "101018.30123456789",
}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        pytest.param({}, "info inference topic 79 BTC 101018.3 minute-1a2b3c 0.4s", id="of a network"),
        pytest.param(
            {"topic_id": 1082, "token": "DOGE", "value": "0.002460158123", "anchor_age_ms": 10_412, "took_ms": 0.8},
            "info inference topic 1082 DOGE 0.00246 minute-1a2b3c 10.4s",
            id="as long as they come",
        ),
        pytest.param({"took_ms": 12.34}, "info inference topic 79 BTC 101018.3 minute-1a2b3c 0.4s 12ms", id="slow"),
        pytest.param(
            {"version": "persistence", "forecast": "naive"},
            "info inference topic 79 BTC 101018.3 naive 0.4s",
            id="naive",
        ),
        pytest.param({"forecast": "naive"}, "info inference topic 79 BTC 101018.3 naive 0.4s", id="as good as"),
        pytest.param(
            {"status": 503, "reason": "no candles yet", "level": "warning"},
            "warn inference topic 79 BTC 503 no candles yet 0.1ms",
            id="refused",
        ),
        pytest.param({"asker": "hand"}, "info inference topic 79 BTC 101018.3 minute-1a2b3c (by hand)", id="by hand"),
        pytest.param(
            {"topic_id": None, "token": "X\x1b]0;evil\x07", "status": 404, "reason": "no such topic"},
            "info inference topic ? X\\x1b]0;evil\\x07 404 no such topic 0.1ms",
            id="anybody's text moves no cursor",
        ),
    ],
)
def test_an_answer_is_one_short_line(changes: dict[str, object], shown: str) -> None:
    line = ConsoleLines(colours=False)(None, "info", ANSWER | changes)
    assert line == f"03:29:00 SIMULATED {shown}"
    assert len(line) <= 80 or "evil" in line
    assert readable(json.dumps(ANSWER | changes), ConsoleLines(colours=False)) == line


def test_a_round_says_how_many_topics_it_won() -> None:
    verdicts = [{"promoted": won, "topic": "1"} for won in (True, False, True, False)]
    line = ConsoleLines(colours=False)(None, "info", {"event": "round", "level": "info", "verdicts": verdicts})
    assert line.endswith("round verdicts=won 2 of 4")


def test_long_values_are_cut_on_the_console_and_whole_in_json() -> None:
    long = "x" * 5000
    code = SAID.replace('a "quoted" one', long)
    assert json.loads(run(code, subprocess.PIPE).stdout.splitlines()[0])["path"] == long
    plain = on_a_terminal(code, NO_COLOR="1")
    assert "path=" + "x" * 100 in plain
    assert "x" * 200 not in plain


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", '{"cut": ', '{"url": "http://h"}', "[1]"])
def test_what_is_no_line_of_log_stays_as_it_is(line: str) -> None:
    assert readable(line, ConsoleLines(colours=True)) == line
