"""Nothing of ours turns to a host that nobody configured, or writes outside DATA_DIR and the temporary folder."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from exchange.server import SimulatedExchange
from model.registry.versions import Registry
from tests.e2e.test_run import alive
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.updater.folder import TINY
from tests.watch import ROOT, STRACE, Watch

CONFIG = {"CONFIG_FILE": str(ROOT / "config.example.json"), "TRAINING_DAYS": "6", "LOG_LEVEL": "info"}
CONFIG["OMP_NUM_THREADS"] = "1"  # as scripts/test has it: nothing of that environment comes here by itself
EXCHANGE = {
    "BINANCE_REST_URLS": "http://rest.exchange.test",
    "BINANCE_WS_URLS": "ws://stream.exchange.test",
    "BINANCE_ARCHIVE_URL": "http://archive.exchange.test",
    "MARKET_VENUES": "binance",
}
HOSTS = {"rest.exchange.test", "stream.exchange.test", "archive.exchange.test"}


@pytest.fixture
def watch(tmp_path: Path, exchange: SimulatedExchange) -> Iterator[Watch]:
    """The exchange behind the configured hosts, and the smallest trainings."""
    behind = urlsplit(exchange.url)
    with Watch(tmp_path, dict.fromkeys(HOSTS, (behind.hostname or "", behind.port or 0))) as watch:
        watch.data.mkdir()
        (watch.data / "training.json").write_text(json.dumps(TINY))
        yield watch


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=0) as exchange:
        yield exchange


def traced(strace: psutil.Process) -> psutil.Process:
    """Python under strace, which has children of its own for a moment, to find out what the kernel can do."""
    found: list[psutil.Process] = []

    def there() -> bool:
        for child in strace.children():
            with suppress(psutil.NoSuchProcess):
                if "cli.main" in child.cmdline() and child.name() != "strace":
                    found.append(child)
        return bool(found)

    eventually(there, 20, "the process under strace")
    return found[0]


@contextmanager
def running(watch: Watch, *arguments: str, **environment: str) -> Iterator[tuple[psutil.Process, list[str]]]:
    """Python with these arguments, watched, and its lines so far; ended with SIGTERM, for strace lets none through."""
    process = subprocess.Popen(
        watch.command(*arguments),
        env=watch.environment(**environment),
        cwd=watch.working,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    outer = psutil.Process(process.pid)
    inner = traced(outer) if STRACE else outer
    try:
        yield inner, lines
    except AssertionError:
        print("".join(lines))
        raise
    finally:
        with suppress(psutil.NoSuchProcess):
            inner.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        for left in [*outer.children(recursive=True), outer] if alive(outer) else []:
            left.kill()
        process.wait()
        reader.join(timeout=10)
        process.stdout.close()


@pytest.mark.timeout(600)
def test_a_node_that_answers_and_trains(watch: Watch) -> None:
    port = str(free_port())
    with running(watch, "-m", "cli.main", "run", PORT=port, MARKET="binance", **CONFIG, **EXCHANGE) as (_, lines):
        eventually(lambda: any('"event":"would submit"' in line for line in lines), 60, "a dry submission")
        eventually(lambda: any('"event":"champion_in_use"' in line for line in lines), 400, "an answering network")
    assert Registry(watch.data).versions()
    assert watch.hosts() == HOSTS
    assert watch.files() == set()


@pytest.mark.timeout(600)
def test_verbs_that_train_and_report(watch: Watch) -> None:
    end = datetime.now(UTC).date()
    span = ("--start", str(end - timedelta(days=1)), "--end", str(end), "--stride", "5")
    verbs = {
        "train": (),
        "backtest": ("--topic", "1", "--days", "3", *span, "--baseline", "lightgbm"),
        "tune": ("--topic", "2", "--panel", "hour", "--days", "3", "--minutes", "0.1", "--trials", "1"),
        "data": ("verify",),
        "status": (),
        "topics": (),
    }
    for verb, arguments in verbs.items():
        environment = {"MARKET": "binance", **CONFIG, **EXCHANGE}
        with running(watch, "-m", "cli.main", verb, *arguments, **environment) as (process, lines):
            eventually(lambda process=process: not alive(process), 400, f"the end of {verb}")  # type: ignore[misc]
        assert not any("Traceback" in line for line in lines)
    assert list(watch.data.glob("backtests/*/report.html"))
    assert (watch.data / "tuning.sqlite3").exists()
    assert watch.hosts() <= HOSTS
    assert watch.files() == set()
