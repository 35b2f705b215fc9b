"""From ``birnn run`` on an empty data folder to the first published network of each panel: wall and CPU minutes.

    python -m benchmarks.first_network

Runs the simulated exchange with the example's topics and every default, on a free port, in a folder that is gone
afterwards; ends everything it started. CPU is that of all its processes together, the exchange included.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import requests

from model.heads import panels_for
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.fakes.net import free_port
from updater.state import read_state

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config.example.json"
PATIENCE_S = 1800.0


@contextmanager
def running(data_dir: Path, port: int) -> Iterator[psutil.Popen]:
    """``birnn run`` in a folder of its own while the block lasts."""
    environment = {**os.environ, "DATA_DIR": str(data_dir), "CONFIG_FILE": str(CONFIG), "PORT": str(port)}
    log = data_dir / "log"
    with log.open("w") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "cli.main", "run", "--market", "simulated"],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
    try:
        yield process
    except TimeoutError:
        raise SystemExit(f"it ended, or took over {PATIENCE_S / 60:.0f} minutes:\n{log.read_text()[-2000:]}") from None
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(psutil.TimeoutExpired):
                process.wait(timeout=15)
        if process.poll() is None:
            process.kill()
            process.wait()


def cpu_s(process: psutil.Popen) -> float:
    """CPU seconds of a process and all below it, those that have ended included."""
    found = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found


def answers(port: int) -> bool:
    """Whether every topic can be answered."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def training(folder: Path, panel: str) -> bool:
    """Whether a panel's first training has begun: its klines are there."""
    state = read_state(folder)
    found = state.panels.get(panel) if state else None
    return bool(found and (found.running_since_ms or found.outcome))


def published(folder: Path, panel: str) -> bool:
    """Whether a network of a panel is champion of a topic."""
    return any(champion.version.startswith(f"{panel}-") for champion in Registry(folder).champions().values())


def main() -> None:
    panels = [panel.name for panel in panels_for(topics_from_config(CONFIG))]
    port = free_port()
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = Path(temporary)
        folder = data_dir / "simulated" / "seed-0"
        awaited: dict[str, Callable[[], bool]] = {"every topic can be answered": partial(answers, port)}
        for panel in panels:
            awaited[f"{panel} panel: klines there, training begins"] = partial(training, folder, panel)
            awaited[f"{panel} panel: first network published"] = partial(published, folder, panel)
        print(f"{'':<46}{'minutes':>10}{'CPU minutes':>13}")
        began_s = time.monotonic()
        with running(data_dir, port) as process:
            while awaited:
                passed_s = time.monotonic() - began_s
                if passed_s > PATIENCE_S or process.poll() is not None:
                    raise TimeoutError
                for what in [what for what, is_there in awaited.items() if is_there()]:
                    del awaited[what]
                    print(f"{what:<46}{passed_s / 60:>10.2f}{cpu_s(process) / 60:>13.2f}", flush=True)
                time.sleep(0.2)


if __name__ == "__main__":
    main()
