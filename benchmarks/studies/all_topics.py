"""All scalar topics of the catalogue, of both networks, from one deployment: training, answers, forecasts in time.

    python -m benchmarks.studies.all_topics [--days 90] [--rounds 50]

Everything runs on loopback: the simulated exchange, one round of each panel through the updater, and
``python -m inference`` on what it published. Each topic is then asked for over HTTP; one without an answer ends the
benchmark with status 1. The last table is what inference does when a candle closes, on live tails of all symbols.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import requests

from admission.words import ONE_NAIVE
from core.clock import CorrectedClock, SystemClock
from core.logs import configure_logging
from core.settings import Settings, load_settings
from core.sources import PERSISTENCE
from core.topic import Topic
from exchange.server import SimulatedExchange
from inference.forecast_cache import ForecastCache, rows_to_keep
from klines.klines import Klines
from market.build import market_from
from market.live.live_market import LiveMarket
from model.forecaster import BiRNNForecaster
from model.panels import panels_for
from model.registry.versions import Registry
from node.config_file import topics_from_config
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.clock import eventually
from tests.fakes.net import free_port

READY_S = 120.0


def train(panel: str) -> dict[str, Any]:
    """One round in this process, for a parent that wants the figures of the training child alone."""
    from updater.service import train_once  # noqa: PLC0415 - the parent does without

    settings = load_settings()
    began = time.perf_counter()
    (outcome,) = train_once(settings, topics_from_config(*settings.config_files), panels=[panel])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "ok": outcome.ok,
        "reason": outcome.reason,
        "wall_s": time.perf_counter() - began,
        "training_s": outcome.took_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "rows": outcome.rows,
        "verdicts": {verdict.topic: verdict.model_dump() for verdict in outcome.verdicts},
    }


def train_apart(panel: str, environment: dict[str, str], log: Path) -> dict[str, Any]:
    """``train`` in a process of its own, whose only child is the training."""
    with log.open("a") as stderr:
        command = [sys.executable, "-m", "benchmarks.studies.all_topics", "--train", panel]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"training ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answers(
    topics: Sequence[Topic], settings: Settings, environment: dict[str, str], log: Path
) -> tuple[list[str], float]:
    """Return the version behind each topic's answer, with the reason if it is naive, and inference's memory in MB."""
    url, champions = f"http://127.0.0.1:{settings.port}", set(Registry(settings.data_dir).champions())
    with log.open("a") as output:
        server = subprocess.Popen([sys.executable, "-m", "inference"], env=environment, stdout=output, stderr=output)
    try:

        def served() -> bool:
            """Every topic that has a champion is answered by it, and every other by the naive forecast."""
            try:
                states = requests.get(f"{url}/topics", timeout=5).json()
            except requests.RequestException:
                return False
            promoted = [state for state in states if f"{state['network']}/{state['topic_id']}" in champions]
            return all(state["ready"] for state in states) and not any(state["persistence"] for state in promoted)

        eventually(served, READY_S, "an answer to each topic")
        reasons = {
            f"{state['network']}/{state['topic_id']}": state["persistence"]
            for state in requests.get(f"{url}/topics", timeout=5).json()
        }
        found = []
        for topic in topics:
            question = {"topic": str(topic.topic_id), "network": topic.network or ""}
            answer = requests.get(f"{url}/inference/{topic.token}", params=question, timeout=5)
            answer.raise_for_status()
            float(answer.text)
            version = answer.headers["X-Model-Version"]
            found.append(f"{version}: {reasons[topic.key]}" if version == PERSISTENCE else version)
        return found, psutil.Process(server.pid).memory_info().rss / 1e6
    finally:
        server.terminate()
        server.wait(timeout=10)


def milliseconds(work: Any, rounds: int) -> tuple[float, float]:
    """Median and longest time of ``rounds`` calls, after a warm-up call."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), max(times)


def tails(topics: Sequence[Topic], settings: Settings) -> dict[int, dict[str, Klines]]:
    """Return the newest closed klines that inference keeps, by interval and symbol."""
    clock = SystemClock()
    venue, now_ms = market_from(settings, clock, topics=topics, timeout_s=10.0, patience_s=0.0), clock.now_ms()
    found: dict[int, dict[str, Klines]] = {}
    for (symbol, interval_ms), rows in rows_to_keep(topics).items():
        end_ms = now_ms // interval_ms * interval_ms
        klines = venue.klines(symbol, interval_ms, end_ms - rows * interval_ms, end_ms)
        found.setdefault(interval_ms, {})[symbol] = klines
    return found


class Tails(LiveMarket):
    """A live market that stands still, so that the same candles can be forecast again and again."""

    def __init__(self, klines: dict[int, dict[str, Klines]], settings: Settings, topics: Sequence[Topic]) -> None:
        clock = CorrectedClock(SystemClock())
        super().__init__(
            market_from(settings, clock, topics=topics, timeout_s=10.0, patience_s=0.0), rows_to_keep(topics), clock
        )
        self.tails = klines

    def snapshot(self, interval_ms: int) -> dict[str, Klines]:
        return self.tails[interval_ms]


def forecasts(topics: Sequence[Topic], settings: Settings, rounds: int) -> None:
    """Print how long forecasting takes once a candle has closed."""
    klines, registry = tails(topics, settings), Registry(settings.data_dir)
    newest = {version.partition("-")[0]: version for version in registry.versions()}
    live, clock = Tails(klines, settings, topics), SystemClock()
    cache = ForecastCache(topics, live, registry, clock)
    cache.choose()
    print(f"\n{'a candle closes: ms, median and longest':<44}{'forecast()':>20}{'candles_closed()':>20}")
    for panel in panels_for(topics):
        forecaster = BiRNNForecaster.load(registry.path(newest[panel.name]))
        runs = klines[panel.interval_ms]
        said, reasons = forecaster.forecast(runs)
        if reasons or len(said) != len(runs) * len(forecaster.heads):
            raise SystemExit(f"not every symbol and head was forecast: {reasons}")
        network = milliseconds(lambda f=forecaster, r=runs: f.forecast(r), rounds)
        whole = milliseconds(lambda i=panel.interval_ms: cache.candles_closed(i), rounds)
        what = f"{panel.name}: {len(runs)} symbols, {len(forecaster.heads)} heads"
        print(f"{what:<44}{network[0]:>10.1f}{network[1]:>10.1f}{whole[0]:>10.1f}{whole[1]:>10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90, help="TRAINING_DAYS; 3 is the quick variant")
    parser.add_argument("--rounds", type=int, default=50, help="how often forecasting is timed")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options.train)))
        return
    configure_logging("error", service="benchmark", simulated=True)
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder = Path(name)
        configs = write_configs(folder, scalar_topics())
        environment = os.environ | {
            "MARKET": "simulated",
            "BINANCE_REST_URLS": exchange.url,
            "BINANCE_ARCHIVE_URL": exchange.url,
            "DATA_DIR": str(folder / "data"),
            "CONFIG_FILE": ",".join(map(str, configs)),
            "TRAINING_DAYS": str(options.days),
            "PORT": str(free_port()),
        }
        settings = load_settings(**{key.lower(): environment[key] for key in environment.keys() - os.environ.keys()})
        topics = topics_from_config(*settings.config_files)
        plans = panels_for(topics)
        print(f"{len(topics)} topics of {len(configs)} networks, {options.days} days of minutes")
        print(f"{'training':<44}{'wall s':>10}{'of it':>10}{'child CPU s':>14}{'child peak MB':>16}{'rows':>10}")
        verdicts: dict[str, dict[str, Any]] = {}
        for panel, plan in plans.items():
            one = train_apart(panel.name, environment, folder / "log")
            if not one["ok"]:
                raise SystemExit(f"{panel.name}: {one['reason']}")
            verdicts |= one["verdicts"]
            what = f"{panel.name}: {len(plan.symbols)} symbols, {len(plan.heads)} heads"
            figures = f"{one['wall_s']:>10.0f}{one['training_s']:>10.0f}{one['cpu_s']:>14.0f}{one['peak_mb']:>16.0f}"
            print(f"{what:<44}{figures}{one['rows']:>10}", flush=True)
        print(f"\n{'topic':<24}{'asked':<30}{'loss':<6}{'rows':>7}{'/ naive':>9}  answered by")
        versions, memory_mb = answers(topics, settings, environment, folder / "log")
        for topic, version in zip(topics, versions, strict=True):
            verdict = verdicts[topic.key]
            ratio = verdict["challenger"] / verdict["naive"] if verdict["naive"] else 1.0
            asked = f"{topic.symbol} {topic.target.value} {topic.horizon}"
            said = version if not version.startswith(PERSISTENCE) else f"{version} ({verdict['reason']})"
            print(f"{topic.key:<24}{asked:<30}{topic.loss:<6}{verdict['rows']:>7}{ratio:>9.4f}  {said}")
        print(ONE_NAIVE)
        print(f"\nresident memory of inference: {memory_mb:.0f} MB")
        forecasts(topics, settings, options.rounds)


if __name__ == "__main__":
    main()
