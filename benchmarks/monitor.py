"""Measure the monitor beside a node with every topic of the catalogue: pages, memory, cost for answers, alarm.

    python -m benchmarks.monitor                                     # 200,000 rows; some seven minutes
    python -m benchmarks.monitor --rows 10000000 --folder FOLDER     # needs 6 GB; the database is made once

Everything runs on loopback and on the same cores: the simulated exchange, ``python -m inference`` and ``python -m
monitor`` on a ledger of so many answers, five minutes apart, with their scores, and wrk (on Debian and Ubuntu:
``apt-get install wrk``). The last day's scores are missing at the start, so that the monitor scores while its pages are
loaded, one a second. What the monitor costs answers is measured in turns with it, its front page loaded once a second,
and while it is stopped. The time of a page is that of the whole request, as a client on this machine sees it.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import psutil
import requests
import sqlalchemy as sa

from benchmarks.serving import LUA, Asked, Turn, repeated, running, turn, wait_for
from benchmarks.tools.goals import Goal, show_goals
from benchmarks.tools.long_ledger import forget_last_day, make_ledger
from core.topic import Topic
from exchange.server import SimulatedExchange
from node.config_file import topics_from_config
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.monitor.receiver import Receiver, receiving

PAGE_MS, MEMORY_MB, SHARE, ALARM_S = 200, 200, 0.05, 60.0  # required
TRAINING_DAYS = "31"  # of minutes in the store; the deviations of returns are of thirty
QUIET_SHARE = 0.3  # of a core: the monitor has nothing to catch up on
SYNC = (
    "import threading; from updater.service import open_updater; from node.config_file import topics_from_config as t; "
    "from core.settings import load_settings as s\n"
    "with open_updater(x := s(), t(*x.config_files), None, threading.Event()) as u: u.keeper.sync(); u.state.end()"
)
ALARMS = ("TOPIC", "ANCHOR", "CHAMPION", "TRAINING", "DEMOTION", "SKILL", "PARTICIPATION", "STORE", "CLOCK", "MARKET")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="answers in the ledger")
    parser.add_argument("--folder", type=Path, help="where the ledger is kept for the next run")
    parser.add_argument("--page-seconds", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn of wrk")
    parser.add_argument("--rounds", type=int, default=20, help="of answers with and without the monitor; 0: none")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    with (
        tempfile.TemporaryDirectory() as name,
        SimulatedExchange(seed=0) as exchange,
        receiving() as receiver,
    ):
        folder, lua = options.folder or Path(name), Path(name) / "ask.lua"
        folder.mkdir(exist_ok=True)
        lua.write_text(LUA)
        configs = write_configs(folder, scalar_topics())
        environment = surroundings(exchange, folder, configs, receiver)
        topics = topics_from_config(*configs)
        prepare(folder, topics, options.rows, environment)
        log, url = folder / "log", f"http://127.0.0.1:{environment['PORT']}"
        with running(["-m", "inference"], environment, log):
            print(f"inference: ready {wait_for(f'{url}/readyz'):.1f} s after its start", flush=True)
            show_goals(measured(environment, topics, options.page_seconds, log))
            if options.rounds:
                show_goals(costs(environment, topics, lua, options.seconds, options.rounds, log))
            show_goals(alarmed(environment, receiver, log))


def surroundings(
    exchange: SimulatedExchange, folder: Path, configs: Sequence[Path], receiver: Receiver
) -> dict[str, str]:
    """The environment of inference and monitor."""
    port = free_port()
    return simulated_environment(exchange, folder, port) | {
        "CONFIG_FILE": ",".join(map(str, configs)),
        "TRAINING_DAYS": TRAINING_DAYS,
        "LEDGER_DAYS": "36500",
        "MONITOR_PORT": str(free_port()),
        "INFERENCE_URL": f"http://127.0.0.1:{port}",
        "NODE_METRICS_URLS": "none",
        "ALARM_URLS": receiver.alarm_url,
        "LOG_LEVEL": "warning",
        **{f"ALARM_{name}": "off" for name in ALARMS},
    }


def prepare(folder: Path, topics: Sequence[Topic], rows: int, environment: Mapping[str, str]) -> None:
    """Fill ledger and store; a ledger of an earlier run is used again."""
    ledger = folder / "ledger.sqlite3"
    if not ledger.exists():
        took_s = make_ledger(ledger, topics, rows, "SIMULATED")
        print(f"ledger: made in {took_s:.0f} s, {ledger.stat().st_size / 1e9:.2f} GB", flush=True)
    print(f"ledger: {forget_last_day(ledger):,} answers of {len(topics)} topics", flush=True)
    with (folder / "log").open("ab") as output:
        subprocess.run([sys.executable, "-c", SYNC], env=environment, check=True, stdout=output, stderr=output)


@contextmanager
def monitoring(environment: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run the monitor while the block runs."""
    with running(["-m", "monitor"], environment, log) as process:
        wait_for(f"{page_of(environment)}/healthz")
        yield psutil.Process(process.pid)


def page_of(environment: Mapping[str, str]) -> str:
    return f"http://127.0.0.1:{environment['MONITOR_PORT']}"


def busy_share(process: psutil.Process, seconds: float) -> float:
    """The share of a core that a process takes."""
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def settle(process: psutil.Process, patience_s: float = 900.0) -> float:
    """Wait until the monitor has caught up; returns the seconds."""
    began_s = time.monotonic()
    while max(busy_share(process, 4.0), busy_share(process, 4.0), busy_share(process, 4.0)) > QUIET_SHARE:
        if time.monotonic() - began_s > patience_s:
            raise SystemExit(f"the monitor is still busy after {patience_s:.0f} s")
    return time.monotonic() - began_s


def memory_mb(process: psutil.Process) -> tuple[float, float]:
    """Resident memory: now, and at its peak."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    now_kb, peak_kb = (int(re.findall(rf"{name}:\s+(\d+)", text)[0]) for name in ("VmRSS", "VmHWM"))
    return now_kb * 1024 / 1e6, peak_kb * 1024 / 1e6


def measured(environment: dict[str, str], topics: Sequence[Topic], seconds: int, log: Path) -> Iterator[Goal]:
    """Pages and memory: while the last day is scored, and afterwards."""
    with monitoring(environment, log) as process:
        for when in ("while it scores", "at rest"):
            if when == "at rest":
                took_s, scored = settle(process), scores_of_last_day(environment)
                yield Goal(
                    what=f"the last day, {scored:,} scores, and the sweep through all answers",
                    measured=f"{took_s:.0f} s more",
                )
            cpu_before, began_s = sum(process.cpu_times()[:2]), time.monotonic()
            times = load_pages(environment, topics, seconds)
            share = (sum(process.cpu_times()[:2]) - cpu_before) / (time.monotonic() - began_s)
            for path, took_ms in times.items():
                middle, longest = statistics.median(took_ms), max(took_ms)
                is_front = path == "/"
                yield Goal(
                    what=f"{path}, {when}: median, longest of {len(took_ms)}",
                    measured=f"{middle:.0f}, {longest:.0f} ms",
                    must=f"< {PAGE_MS} ms" if is_front else "",
                    reached=middle < PAGE_MS if is_front else None,
                )
            now_mb, peak_mb = memory_mb(process)
            yield Goal(
                what=f"memory of the monitor, {when}: now, peak so far",
                measured=f"{now_mb:.0f}, {peak_mb:.0f} MB",
                must=f"< {MEMORY_MB} MB",
                reached=peak_mb < MEMORY_MB,
            )
            yield Goal(what=f"processor, a page a second, {when}", measured=f"{100 * share:.0f} % of a core")


def load_pages(environment: Mapping[str, str], topics: Sequence[Topic], seconds: int) -> dict[str, list[float]]:
    """Load a page a second, each kind in turn; milliseconds by path."""
    turns = cycle(topics)
    kinds = cycle(
        ("/", "/", "/topics/{}", "/api/topics", "/api/topics/{}/answers", "/api/topics/{}/answers?limit=1000")
    )
    took_ms: dict[str, list[float]] = defaultdict(list)
    with requests.Session() as session:
        for kind, topic, _ in zip(kinds, turns, range(seconds), strict=False):
            began_s = time.perf_counter()
            answer = session.get(page_of(environment) + kind.format(f"{topic.network}/{topic.topic_id}"), timeout=30)
            passed_s = time.perf_counter() - began_s
            if answer.status_code != 200:
                raise SystemExit(f"{kind}: {answer.status_code} {answer.text}")
            took_ms[kind.format("...")].append(1000 * passed_s)
            time.sleep(max(0.0, 1.0 - passed_s))
    return took_ms


def scores_of_last_day(environment: Mapping[str, str]) -> int:
    engine = sa.create_engine(f"sqlite:///{environment['DATA_DIR']}/ledger.sqlite3")
    with engine.connect() as connection:
        since_ms = round(time.time() * 1000) - 2 * 3_600_000
        query = sa.text("SELECT count(*) FROM scores WHERE scored_ms >= :since").bindparams(since=since_ms)
        count: int = connection.execute(query).scalar_one()
    engine.dispose()
    return count


def costs(
    environment: dict[str, str], topics: Sequence[Topic], lua: Path, seconds: int, rounds: int, log: Path
) -> Iterator[Goal]:
    """Answers with the monitor and its page, over the same while it is stopped, in turns next to each other."""
    paths = tuple(f"/inference/{topic.token}?topic={topic.topic_id}&network={topic.network}" for topic in topics)
    ours = Asked(name="ours", url=environment["INFERENCE_URL"], paths=paths, heights=True)
    pairs: dict[int, list[tuple[Turn, Turn]]] = {1: [], 32: []}
    with monitoring(environment, log) as process:
        settle(process)

        def watched(connections: int) -> Turn:
            with repeated(lambda: requests.get(page_of(environment), timeout=30), 1.0):
                return turn(ours, connections, seconds, lua)

        def alone(connections: int) -> Turn:
            process.send_signal(signal.SIGSTOP)
            try:
                return turn(ours, connections, seconds, lua)
            finally:
                process.send_signal(signal.SIGCONT)

        for number in range(rounds):
            for connections, found in pairs.items():
                if number % 2:
                    found.append((watched(connections), alone(connections)))
                else:
                    found.append((alone(connections), watched(connections))[::-1])
    for connections, found in pairs.items():
        slower = [with_.median_ms / without.median_ms - 1 for with_, without in found]
        fewer = [1 - with_.per_s / without.per_s for with_, without in found]
        for what, lost, count in (("median", slower, "median_ms"), ("throughput", fewer, "per_s")):
            quarter, middle, most = statistics.quantiles(lost, n=4)
            ours_, alone_ = (statistics.median(getattr(pair[place], count) for pair in found) for place in (0, 1))
            yield Goal(
                what=f"{what} at {connections} connections: lost to monitor and page, {rounds} rounds",
                measured=f"{100 * middle:+.1f} % (half of the rounds {100 * quarter:+.0f} to {100 * most:+.0f}); "
                f"{ours_:.4g} with, {alone_:.4g} without",
                must=f"within {100 * SHARE:.0f} %",
                reached=middle <= SHARE,
            )


def alarmed(environment: dict[str, str], receiver: Receiver, log: Path) -> Iterator[Goal]:
    """From SIGSTOP of inference to the alarm's arrival."""
    (inference,) = [one for one in psutil.Process().children() if "inference" in one.cmdline()]
    with monitoring(environment, log):
        time.sleep(12)  # looks that find inference well
        before, arrived = receiver.told("ALARM inference"), threading.Event()
        inference.send_signal(signal.SIGSTOP)
        began_s = time.monotonic()
        try:
            while receiver.told("ALARM inference") == before and time.monotonic() - began_s < 2 * ALARM_S:
                arrived.wait(0.05)
            took_s = time.monotonic() - began_s
        finally:
            inference.send_signal(signal.SIGCONT)
        yield Goal(
            what="from SIGSTOP of inference to the alarm at a receiver",
            measured=f"{took_s:.1f} s",
            must=f"< {ALARM_S:.0f} s",
            reached=took_s < ALARM_S,
        )


if __name__ == "__main__":
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    main()
