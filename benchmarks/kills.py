"""Kill inference behind the door while a question comes every 50 ms; look for changed and missing answers.

    python -m benchmarks.kills           # 200 kills; about ten minutes
    python -m benchmarks.kills --all     # every process of birnn run, monitor and exchange too, during 1,000 answers

Every other kill comes within 5 ms of a height's first answer, the rest at any moment after inference is ready. A
question names one of the last three heights, so each is asked on both sides of a kill, and waits for up to a minute.
Prints changed values, refused connections, and questions lost with the process that had accepted them.

With --all every process is killed in rounds while it answers and while it scores (``tests.e2e.kills``). Prints what is
missing or changed in the ledger, and scores that were written twice or that a scorer in peace makes otherwise.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import requests

from exchange.server import SimulatedExchange
from tests.e2e.kills import run
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment

ROOT = Path(__file__).parents[1]
EVERY_S = 0.05
ASKERS = 64  # questions that may wait at the same time
LONGEST_S = 60.0


class Askers:
    """Threads that ask in turn, together a question every 50 ms; counts the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.height = 1
        self.first: dict[int, str] = {}  # height -> the first value that was sent
        self.victim = 0  # pid of the process to kill once the newest height has its first answer
        self.after_ms: list[float] = []  # from a first answer to the kill
        self.changed: list[str] = []
        self.told: Counter[str] = Counter()
        self.waits_s: list[float] = []
        self._saying = threading.Lock()
        self._due = threading.Semaphore(0)
        self._over = threading.Event()
        self._turn = 0
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(ASKERS)]
        self._threads.append(threading.Thread(target=self._tick, daemon=True))
        for thread in self._threads:
            thread.start()

    def kill_after_an_answer(self, pid: int) -> None:
        """Begin a new height, and kill ``pid`` after the first answer to that height."""
        with self._saying:
            self.height += 1
            self.victim = pid

    def close(self) -> None:
        """Stop asking and wait for pending questions."""
        self._over.set()
        self._due.release(ASKERS)
        for thread in self._threads:
            thread.join()

    def _tick(self) -> None:
        while not self._over.wait(EVERY_S):
            self._due.release()

    def _ask_on(self) -> None:
        while self._due.acquire() and not self._over.is_set():
            with self._saying:
                self._turn += 1
                height = max(1, self.height - self._turn % 3)
            began = time.monotonic()
            try:
                response = requests.get(f"{self.url}/inference/ETH?topic=1&height={height}", timeout=LONGEST_S)
                came_s = time.monotonic()
                kind = f"{response.status_code}" if response.ok else f"{response.status_code} {_kind(response.text)}"
            except requests.RequestException as error:
                response, kind = None, _lost(error)
            with self._saying:
                self.told[kind] += 1
                if response is not None and response.ok:
                    self.waits_s.append(time.monotonic() - began)
                    if height not in self.first:
                        self.first[height] = response.text
                        if height == self.height and self.victim:
                            os.kill(self.victim, 9)
                            self.victim = 0
                            self.after_ms.append((time.monotonic() - came_s) * 1000)
                    elif self.first[height] != response.text:
                        self.changed.append(f"height {height}: {self.first[height]}, then {response.text}")


def _kind(text: str) -> str:
    return text.split(":")[1].strip() if ": " in text else text.strip()


def _lost(error: requests.RequestException) -> str:
    words = str(error)
    for sign in ("refused", "reset", "without response", "timed out"):
        if sign in words:
            return f"no answer: {sign}"
    return f"no answer: {type(error).__name__}"


def inference_of(door: psutil.Process) -> psutil.Process | None:
    """The inference process, or None."""
    found = [child for child in door.children() if child.status() != psutil.STATUS_ZOMBIE]
    return found[0] if found else None


def wait_until_ready(url: str) -> float:
    """Seconds until a topic can be answered."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST_S:
        try:
            if requests.get(f"{url}/readyz", timeout=LONGEST_S).status_code == 200:
                return time.monotonic() - began
        except requests.RequestException:
            pass
        time.sleep(0.01)
    raise SystemExit(f"not ready within {LONGEST_S:.0f} s")


def of_every_process(least_answers: int, rounds: int, seed: int) -> None:
    """Kill each process of a ``birnn run`` in rounds, and print what came of answers and scores."""
    with tempfile.TemporaryDirectory() as name:
        outcome = run(Path(name), least_answers=least_answers, rounds=rounds, seed=seed)
    print("kills:", ", ".join(f"{module} {number}" for module, number in outcome.kills.most_common()))
    print("questions:", ", ".join(f"{kind} {number}" for kind, number in outcome.told.most_common()))
    print(f"{len(outcome.sent):,} different answers were sent; values that changed: {len(outcome.changed)}")
    print(f"not in the ledger, or otherwise: {len(outcome.lost)}")
    print(f"{outcome.scored:,} scores; answers without one: {len(outcome.unscored)}")
    print(f"written again: {len(outcome.rewritten)}; otherwise in peace: {len(outcome.different)}")
    for line in outcome.faults[:20]:
        print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="of every process")
    parser.add_argument("--answers", type=int, default=1_000, help="different ones, with --all")
    parser.add_argument("--rounds", type=int, default=8, help="with --all")
    options = parser.parse_args()
    if options.all:
        of_every_process(options.answers, options.rounds, options.seed)
        return
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder, port = Path(name), free_port()
        config = str(ROOT / "config.example.json")
        environment = simulated_environment(exchange, folder, port, CONFIG_FILE=config, LOG_LEVEL="warning")
        url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "door"], env=environment, stdout=log, stderr=log)
        door, recoveries = psutil.Process(process.pid), list[float]()
        while True:  # before the port is bound connections may be refused
            try:
                requests.get(f"{url}/healthz", timeout=LONGEST_S)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        wait_until_ready(url)
        askers = Askers(url)
        for number in range(options.kills):
            victim = inference_of(door)
            assert victim, "the one that was ready is gone"
            if number % 2:
                askers.kill_after_an_answer(victim.pid)
                victim.wait(LONGEST_S)
            else:
                askers.height += 1
                time.sleep(rng.uniform(0, 0.3))
                victim.kill()
            recoveries.append(wait_until_ready(url))
        askers.close()
        rss = door.memory_info().rss / 1e6
        process.terminate()
        process.wait()
        soon = sum(ms <= 5 for ms in askers.after_ms)
        print(
            f"{options.kills} kills, {soon} of them within 5 ms of a first answer (at most {max(askers.after_ms):.1f})"
        )
        print(f"{len(askers.first)} heights answered; values that changed: {len(askers.changed)}")
        for line in askers.changed:
            print(f"  {line}")
        for kind, count in askers.told.most_common():
            print(f"{count:>8}  {kind}")
        print(f"kill to ready: median {statistics.median(recoveries):.2f} s, longest {max(recoveries):.2f} s")
        print(f"longest wait of a question for its 200: {max(askers.waits_s):.2f} s; door {rss:.0f} MB resident")


if __name__ == "__main__":
    main()
