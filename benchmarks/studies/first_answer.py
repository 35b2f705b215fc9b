"""From ``scripts/run`` on an empty data folder to answers: naive first, then a published network, then a second start.

    python -m benchmarks.studies.first_answer

Runs the simulated exchange (``MARKET=simulated``) with every default; ends everything it started.
"""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from tests.fakes.net import free_port

ROOT = Path(__file__).parents[2]
QUESTIONS = {1: "ETH", 14: "BTC", 2: "ETH", 64: "BTC", 82: "SOL", 79: "BTC"}
PATIENCE_S = 400.0


def versions(port: int) -> list[str | None]:
    """The version behind each topic's answer now; None where there is no answer."""
    found: list[str | None] = []
    for topic_id, token in QUESTIONS.items():
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/inference/{token}?topic={topic_id}", timeout=5)
        except requests.RequestException:
            return [None]
        found.append(answer.headers["X-Model-Version"] if answer.ok else None)
    return found


def start(folder: str, log: Path, awaited: dict[str, float]) -> None:
    """One ``scripts/run`` until every topic is answered by a network; fills ``awaited`` with seconds."""
    port = free_port()
    environment = {**os.environ, "MARKET": "simulated", "DATA_DIR": folder, "PORT": str(port)}
    began = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen([ROOT / "scripts/run"], env=environment, stdout=output, stderr=output, cwd=ROOT)
    try:
        while len(awaited) < 3:
            passed = time.perf_counter() - began
            if passed > PATIENCE_S or process.poll() is not None:
                raise SystemExit(f"no answer after {passed:.0f} s:\n{log.read_text()[-2000:]}")
            now = versions(port)
            if any(now):
                awaited.setdefault("first topic answered", passed)
            if all(now):
                awaited.setdefault("all six answered", passed)
            if all(version and version != "persistence" for version in now):
                awaited.setdefault("all six answered by a published network", passed)
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        asked = time.perf_counter()
        process.wait(timeout=10)
        awaited["Ctrl-C to the end of every process"] = time.perf_counter() - asked
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as logs:
        for name in ("first start", "second start"):
            awaited: dict[str, float] = {}
            start(folder, Path(logs) / "log", awaited)
            for what, seconds in awaited.items():
                print(f"{name:<14}{what:<44}{seconds:>8.1f} s")


if __name__ == "__main__":
    main()
