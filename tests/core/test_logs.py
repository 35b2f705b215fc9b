"""Lines of log: JSON each, and never a reason to end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
