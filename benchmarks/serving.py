"""One answer beside an empty FastAPI route, start-up time and memory of inference: one run, one table.

    python -m benchmarks.serving [--answers 3000] [--training-days 10]

Everything runs on loopback: the simulated exchange, one round of training, ``python -m inference`` on what it
published, and an empty FastAPI route in a process with the same uvicorn settings. The two are asked in turn.
"""

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from core.settings import load_settings
from market.simulated import SimulatedExchange
from tests.fakes import free_port

EMPTY_APP = """
import uvicorn, sys
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
app = FastAPI()
@app.get("/")
async def empty() -> PlainTextResponse:
    return PlainTextResponse("0")
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
            log_level="warning")
"""


def wait_for(port: int, path: str, patience_s: float = 60.0) -> float:
    """Seconds until ``path`` answers 200."""
    began = time.perf_counter()
    while time.perf_counter() - began < patience_s:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.perf_counter() - began
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise SystemExit(f"{path} on port {port} did not answer 200 within {patience_s} s")


def timed(connection: http.client.HTTPConnection, path: str) -> float:
    """Milliseconds of one answer."""
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - began) * 1000
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body!r}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=3000)
    parser.add_argument("--training-days", type=int, default=10)
    options = parser.parse_args()
    load_settings()
    with tempfile.TemporaryDirectory() as folder, SimulatedExchange(seed=0) as exchange:
        port, empty_port = free_port(), free_port()
        environment = {
            **os.environ,
            "MARKET": "simulated",
            "BINANCE_REST_URLS": exchange.url,
            "BINANCE_ARCHIVE_URL": exchange.url,
            "DATA_DIR": folder,
            "CONFIG_FILE": str(Path(__file__).parents[1] / "config.example.json"),
            "TRAINING_DAYS": str(options.training_days),
            "PORT": str(port),
            "LOG_LEVEL": "info",
        }
        code = "from updater.service import train_once; from core.config import topics_from_config as t; "
        code += "from core.settings import load_settings as s; x = s(); train_once(x, t(*x.config_files))"
        with (Path(folder) / "log").open("w") as log:
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=log, stderr=log)
            empty = subprocess.Popen([sys.executable, "-c", EMPTY_APP, str(empty_port)], stdout=log, stderr=log)
            server = subprocess.Popen([sys.executable, "-m", "inference"], env=environment, stdout=log, stderr=log)
            try:
                ready_s = wait_for(port, "/readyz")
                wait_for(empty_port, "/")
                ours = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                theirs = http.client.HTTPConnection("127.0.0.1", empty_port, timeout=5)
                times: dict[str, list[float]] = {"with height": [], "without height": [], "empty": []}
                for number in range(options.answers):
                    times["with height"].append(timed(ours, f"/inference/ETH?topic=1&height={number + 1}"))
                    times["empty"].append(timed(theirs, "/"))
                    times["without height"].append(timed(ours, "/inference/ETH?topic=1"))
                memory_mb = psutil.Process(server.pid).memory_info().rss / 1e6
            finally:
                for process in (server, empty):
                    process.terminate()
                    process.wait(timeout=10)
    base = statistics.median(times["empty"])
    print(f"{'route':<16}{'median ms':>12}{'99 % ms':>12}{'median / empty':>18}")
    for name, values in times.items():
        median, tail = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"{name:<16}{median:>12.3f}{tail:>12.3f}{median / base:>18.2f}")
    print(f"start to ready with a published model: {ready_s:.1f} s; resident memory of inference: {memory_mb:.0f} MB")


if __name__ == "__main__":
    main()
