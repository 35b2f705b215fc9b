"""The supervisor and its children as processes: starts, ends, refusals, and a parent that is killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.process.supervisor import pause_s
from tests.fakes.clock import eventually

RUN = """
import json, subprocess, sys, time

import structlog

from core.process.commands import child_command
from core.process.supervisor import Child, Supervisor
from core.logs import configure_logging

configure_logging("info", service="test", simulated=False)
children = [Child(module=name) for name in sys.argv[1:] if not name.startswith("--")]
if "--hanging-probe" in sys.argv:
    children.append(Child(module="sleeper", may_start=lambda: time.sleep(600) or True))
exchange = None
for kind in ("stubborn", "timed"):
    if f"--{kind}-exchange" in sys.argv:
        process = subprocess.Popen(child_command(kind), stdin=subprocess.PIPE, text=True)
        exchange = Child(module=kind, arguments=("--port", "1"), process=process, starts=1)
code = Supervisor(children, {}, structlog.get_logger, exchange=exchange).run()
print(json.dumps({"event": "returned", "exchange": exchange and exchange.process.poll()}))
sys.exit(code)
"""
SAY = """
import signal, sys, time
from pathlib import Path

NOTES = Path(__file__).with_suffix(".said")

def say(word):
    with NOTES.open("a") as notes:
        notes.write(word + " ")

"""
MODULES = {
    "sleeper": "say('up'); time.sleep(600)",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('up'); time.sleep(600)",
    # As a module whose main thread is busy when it is told to end: the signal waits for it.
    "waiter": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); say('up')\n"
        "while signal.SIGTERM not in signal.sigpending(): time.sleep(0.01)\n"
        "signal.sigwait([signal.SIGTERM]); say('told')"
    ),
    # Ask the exchange until their end, and the exchange, each with the time of it.
    "asker": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); say('up'); signal.sigwait([signal.SIGTERM])\n"
        "time.sleep(0.3); say(str(time.monotonic_ns()))"
    ),
    "timed": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); say('up'); signal.sigwait([signal.SIGTERM])\n"
        "say(str(time.monotonic_ns()))"
    ),
    "refusing": "say('up'); sys.exit(2)",
    # Fails, then finds its configuration half edited, then goes on.
    "recovering": (
        "say('up'); starts = len(NOTES.read_text().split())\nif starts < 3: sys.exit(starts)\ntime.sleep(600)"
    ),
}


class Stand:
    """A folder of child modules, and a supervisor that runs some of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in MODULES.items():
            (folder / f"{name}.py").write_text(SAY + body)

    def run(self, *arguments: str) -> psutil.Popen:
        self.output = self.folder / "output"
        with self.output.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-c", RUN, *arguments],
                env={"PYTHONPATH": str(self.folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def said(self, module: str) -> list[str]:
        path = self.folder / f"{module}.said"
        return path.read_text().split() if path.exists() else []

    def lines(self, event: str) -> list[dict[str, object]]:
        lines = map(json.loads, self.output.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    for process in [*stand.process.children(recursive=True), stand.process] if stand.process.is_running() else []:
        process.kill()
    stand.process.wait()


def up(stand: Stand, *modules: str) -> Callable[[], bool]:
    return lambda: all(stand.said(module) for module in modules)


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        pytest.param(signal.SIGTERM, ("sleeper", "waiter"), id="when all listen"),
        pytest.param(signal.SIGINT, ("stubborn", "--stubborn-exchange"), id="when a child and the exchange do not"),
        pytest.param(signal.SIGINT, ("waiter", "--hanging-probe"), id="while a server hangs that is asked"),
    ],
)
def test_a_signal_ends_all_within_five_seconds(
    stand: Stand, number: signal.Signals, arguments: tuple[str, ...]
) -> None:
    process = stand.run(*arguments)
    modules = [name for name in arguments if not name.startswith("--")]
    eventually(up(stand, *modules), what="the children")
    stubborn = "--stubborn-exchange" in arguments
    eventually(lambda: stand.said("stubborn") == ["up"] * 2 * stubborn, what="the exchange")
    children = process.children()
    process.send_signal(number)
    assert process.wait(5) == 0, "the limit is the product's"
    assert not any(child.is_running() for child in children)
    assert "waiter" not in modules or stand.said("waiter") == ["up", "told"]
    assert stand.lines("returned")[0]["exchange"] == (-signal.SIGKILL if stubborn else None)


def test_pauses_do_not_grow_for_ever() -> None:
    assert [pause_s(ends) for ends in (1, 2, 5, 6, 10_000)] == [1.0, 2.0, 16.0, 30.0, 30.0]


def test_a_configuration_refused_at_the_first_start_ends_all(stand: Stand) -> None:
    process = stand.run("sleeper", "refusing")
    assert process.wait(10) == 2
    assert stand.said("refusing") == ["up"]


def test_a_child_that_ends_is_started_again_and_may_refuse_its_configuration_then(stand: Stand) -> None:
    stand.run("recovering", "sleeper")
    eventually(lambda: len(stand.said("recovering")) == 3, what="the third start")
    ended = stand.lines("process ended; it is started again")
    assert [(line["exit_code"], line["in_s"]) for line in ended] == [(1, 1.0), (2, 2.0)]
    assert stand.said("sleeper") == ["up"], "the other goes on"


def test_children_do_not_outlive_a_killed_supervisor(stand: Stand) -> None:
    modules = ("sleeper", "stubborn", "waiter")
    process = stand.run(*modules)
    eventually(up(stand, *modules), what="the children")
    children = process.children()
    process.kill()
    eventually(lambda: not any(child.is_running() for child in children), what="the children's end")
    assert stand.said("waiter") == ["up", "told"], "it was asked to end first"


def test_a_killed_exchange_comes_back_where_it_was_while_the_others_go_on(stand: Stand) -> None:
    process = stand.run("waiter", "--timed-exchange")
    eventually(up(stand, "waiter", "timed"), what="both")
    next(child for child in process.children() if "timed" in child.cmdline()).kill()
    eventually(lambda: stand.said("timed") == ["up", "up"], what="its second start")
    exchange = next(child for child in process.children() if "timed" in child.cmdline())
    assert exchange.cmdline()[-3:] == ["timed", "--port", "1"]
    assert stand.said("waiter") == ["up"]
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert not exchange.is_running()
    assert len(stand.said("timed")) == 3, "it was asked to end, and did"


def test_the_exchange_ends_after_those_who_ask_it(stand: Stand) -> None:
    process = stand.run("asker", "--timed-exchange")
    eventually(up(stand, "asker", "timed"), what="both")
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert int(stand.said("asker")[1]) < int(stand.said("timed")[1])
