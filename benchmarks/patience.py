"""Measure how held questions fare in a minute without the exchange, at twenty questions a second.

    python -m benchmarks.patience [--seconds 60] [--rate 20]

``python -m inference`` with a price topic, ANSWER_PATIENCE_S=90 and MAX_ANCHOR_AGE_S=6. The exchange is gone for so
many seconds, REST and stream; every question that comes meanwhile is held. Printed are the statuses, and how long after
the exchange's return and after the first new price the answers came.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import requests

from exchange.server import SimulatedExchange
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment

EXAMPLE = Path(__file__).parents[1] / "config.example.json"
PATH = "/inference/ETH?topic=1"
PATIENCE_S, ANCHOR_S, LONGEST_S = 90, 6, 120.0
MOST_AFTER_PRICE_S, MOST_AFTER_RETURN_S = 0.25, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one question, with times in seconds of the wall clock."""

    asked_s: float
    came_s: float
    status: int
    answered_s: float  # X-Answered: questions that were woken together get the same answer
    age_s: float  # of the price that the answer starts from, at the moment of the answer


async def ask(host: str, port: int) -> Reply:
    """One question on a connection of its own."""
    asked_s = time.time()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONGEST_S)).decode()
        came_s = time.time()
    finally:
        writer.close()
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    answered_s = age_s = float("nan")
    if "x-answered" in headers:
        answered_s = datetime.fromisoformat(headers["x-answered"].upper()).timestamp()
        age_s = int(headers["x-anchor-age-ms"]) / 1000
    return Reply(asked_s=asked_s, came_s=came_s, status=int(head.split()[1]), answered_s=answered_s, age_s=age_s)


async def questions(host: str, port: int, seconds: float, rate: int) -> list[Reply]:
    """Ask at a fixed rate, whether or not earlier questions are answered."""
    tasks, began_s = [], time.monotonic()
    for number in range(round(seconds * rate)):
        await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(ask(host, port)))
    return await asyncio.gather(*tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="without the exchange")
    parser.add_argument("--rate", type=int, default=20, help="questions a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder, port = Path(name), free_port()
        more = {"ANSWER_PATIENCE_S": str(PATIENCE_S), "MAX_ANCHOR_AGE_S": str(ANCHOR_S), "LOG_LEVEL": "warning"}
        environment = simulated_environment(exchange, folder, port, CONFIG_FILE=str(EXAMPLE), **more)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "inference"], env=environment, stdout=log, stderr=log)
        try:
            ready(f"http://127.0.0.1:{port}", folder / "log")
            exchange.outage(options.seconds)
            back_s = time.time() + options.seconds
            answers = asyncio.run(questions("127.0.0.1", port, options.seconds + ANCHOR_S, options.rate))
        finally:
            process.terminate()
            process.wait(10)
    show(answers, back_s)


def ready(url: str, log: Path) -> None:
    began_s = time.monotonic()
    while True:
        try:
            if requests.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except requests.RequestException:
            pass
        if time.monotonic() - began_s > LONGEST_S:
            raise SystemExit(log.read_text()[-2000:])
        time.sleep(0.1)


def show(answers: list[Reply], back_s: float) -> None:
    """Print the answers and their times."""
    held = [one for one in answers if one.came_s > back_s > one.asked_s and one.came_s - one.asked_s > 1.0]
    statuses = Counter(one.status for one in answers)
    prices: dict[float, float] = {}  # moment of the price, by that of the answer; the first to say it said it at once
    for one in held:
        prices[one.answered_s] = max(prices.get(one.answered_s, 0.0), one.answered_s - one.age_s)
    after_price = [max(0.0, one.came_s - max(prices[one.answered_s], back_s)) for one in held]
    after_back = [one.came_s - back_s for one in held]
    print(f"questions {len(answers)}: {', '.join(f'{count} of status {status}' for status, count in statuses.items())}")
    print(f"held until the exchange was back: {len(held)}, the longest {max(o.came_s - o.asked_s for o in held):.1f} s")
    for what, seconds, must in (
        ("after the price", after_price, MOST_AFTER_PRICE_S),
        ("after the exchange was back", after_back, MOST_AFTER_RETURN_S),
    ):
        print(
            f"answered {what}: median {statistics.median(seconds):.3f} s, latest {max(seconds):.3f} s; must "
            f"{must:g} s: {'reached' if max(seconds) <= must else 'missed'}"
        )
    print(f"all answered: {'reached' if set(statuses) == {200} else 'missed'}")


if __name__ == "__main__":
    main()
