"""List the hosts that a day of `birnn run --market simulated` asks and the files that it writes, sixtyfold.

    python -m benchmarks.quiet [--hours 24] [--speed 60]

Exchange, inference, updater, its trainings and the dry-run node run under strace, with a proxy in their environment, an
empty HOME and a clock that runs `--speed` times as fast; each second every topic of config.example.json is asked. The
networks are small, so that a round fits into the minutes that its six hours last.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import requests

from benchmarks.tools.fast_clock import FastClock
from core.clock import DAY_MS, HOUR_MS, iso
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.fakes.net import free_port
from tests.updater.folder import TINY
from tests.watch import ROOT, STRACE, Watch

EXAMPLE = ROOT / "config.example.json"
HASTENED = ROOT / "benchmarks" / "hastened"
ASK_EVERY_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="of simulated time")
    parser.add_argument("--speed", type=float, default=60.0)
    options = parser.parse_args()
    if STRACE is None:
        raise SystemExit("strace is not installed; on Debian and Ubuntu: apt-get install strace")
    base_ms, began_s = time.time_ns() // 1_000_000 - DAY_MS, time.monotonic()
    clock = FastClock(base_ms, began_s, options.speed)
    with tempfile.TemporaryDirectory() as name, Watch(Path(name)) as watch:
        folder, port = watch.data / "simulated" / "seed-0", free_port()
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps(TINY))
        environment = watch.environment(
            PYTHONPATH=f"{HASTENED}:{ROOT}",
            FAST_CLOCK=f"{base_ms} {began_s!r} {options.speed}",
            CONFIG_FILE=str(EXAMPLE),
            PORT=str(port),
            TRAINING_DAYS="6",
            RETRAIN_CRON="*/6 * * * *",  # by the wall's clock, which the scheduler goes by
            MAX_ANCHOR_AGE_S="900",
            MAX_KLINE_AGE_S="1800",
        )
        log = Path(name, "log")
        with log.open("wb") as output:
            command = watch.command("-m", "cli.main", "run", "--market", "simulated")
            node = subprocess.Popen(command, env=environment, cwd=watch.working, stdout=output, stderr=output)
        answered = asked = 0
        try:
            while clock.now_ms() < base_ms + options.hours * HOUR_MS and node.poll() is None:
                for topic in topics_from_config(EXAMPLE):
                    question = f"topic={topic.topic_id}&height={clock.now_ms() // 5_000}&wait=0"
                    asked += 1
                    try:
                        url = f"http://127.0.0.1:{port}/inference/{topic.token}?{question}"
                        answered += requests.get(url, timeout=5).status_code == 200
                    except requests.RequestException:
                        continue  # it has not started yet
                time.sleep(ASK_EVERY_S)
        finally:
            print(f"{iso(base_ms)} to {iso(clock.now_ms())}, exit status {node.poll()}")
            for process in psutil.Process(node.pid).children() if node.poll() is None else []:
                process.terminate()  # strace keeps signals to itself
            node.wait(timeout=30)
        rounds = sum('"event":"round"' in line for line in log.read_text().splitlines())
        versions = Registry(folder).versions()
        print(f"{answered} of {asked} questions answered; {rounds} rounds of training, {len(versions)} networks kept")
        hosts, files = watch.hosts(), watch.files()
        print(f"hosts outside the configured ones: {len(hosts)}", *sorted(hosts), sep="\n  ")
        print(f"files outside the data and temporary folders: {len(files)}", *sorted(files), sep="\n  ")


if __name__ == "__main__":
    main()
