"""Fixtures shared by all tests."""

import gc
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from exchange.server import SimulatedExchange
from tests.fakes.clock import RunningClock

# No deadline per example: a busy machine is no failure. Derandomised: a red run can be run again.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")


def _log_plainly() -> None:
    """Tracebacks as the product writes them: with all locals, as structlog has them at first, one costs seconds."""
    structlog.reset_defaults()
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


_log_plainly()


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """A verb that runs in this process configures the log, which must not last."""
    yield
    _log_plainly()


@pytest.fixture
def clock() -> RunningClock:
    """Ten seconds into a minute; runs, and jumps when told to."""
    return RunningClock()


@pytest.fixture
def exchange(clock: RunningClock) -> Iterator[SimulatedExchange]:
    """The simulated exchange by that clock."""
    with SimulatedExchange(clock=clock) as exchange:
        yield exchange


@pytest.fixture(scope="session")
def payloads() -> Path:
    """The folder of recorded answers of the venues; its README names their sources."""
    return Path(__file__).parent / "data" / "payloads"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real klines beside the checkout; what needs it is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real klines in {folder.name}/ beside the checkout, which are not here")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is collected out of the search for garbage: thousands of tests and modules that stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: no process is left with one of these when the others are done."""
    longest = ["e2e", "test_prometheus.py", "updater", "research", "monitor"]  # folders, and a file of one long wait
    order = {part: number for number, part in enumerate(longest)}
    tests = Path(__file__).parent
    items.sort(key=lambda item: min(order.get(part, len(order)) for part in item.path.parts[len(tests.parts) :]))


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the soak test lasts and what happens in it; and whether a document is made anew."""
    parser.addoption("--soak-minutes", type=float, default=1.0, help="of tests/e2e/test_soak.py; 120 for two hours")
    parser.addoption("--write-fault-matrix", action="store_true", help="make docs/fault-matrix.md anew")
    parser.addoption("--soak-seed", type=int, default=20, help="decides which fault comes when")
