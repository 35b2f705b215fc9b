"""A new venue touches two places, a new loss and a new head one each: added and used in a copy of the tree."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue

ROOT = Path(__file__).parents[1]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]

A_ROUND = """
import json, sys
from pathlib import Path
from model.forecaster import BiRNNForecaster
from model.panels import MINUTE, PanelPlan, panels_for
from model.registry.versions import Registry
from model.training.config import TrainingConfig
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from updater.round import run_round

def one_round(plan):
    klines = {symbol: random_walk_klines(3200, seed=seed) for seed, symbol in enumerate(plan.symbols)}
    config = TrainingConfig(lookback=8, hidden_layer_size=4, epochs=1, stride=7, batch_size=128, seeds=1)
    registry = Registry(Path("registry"))
    outcome = run_round(plan, klines, config, 1, registry, FakeClock(klines["BTCUSDT"].end_ms))
    forecaster = BiRNNForecaster.load(registry.path(outcome.version))
    return outcome, forecaster.forecast(klines)[0]
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def add(file: Path, *additions: tuple[str, str]) -> None:
    """Put text before a line that the file has once."""
    text = file.read_text()
    for before, added in additions:
        assert text.count(before) == 1, before
        text = text.replace(before, added + before)
    file.write_text(text)


def run(folder: Path, program: str) -> str:
    """Run a program on the packages of a folder, and on this tree's tests."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_loss_is_one_entry_in_one_file_and_a_topic_is_trained_and_judged_by_it(copied: Path) -> None:
    config = (ROOT / "config.example.json").read_text()
    entry = '"Token": "ETH", "Target": "log_return", "Horizon": "10m", "Loss": "cauchy", "Symbol": "ETHUSDT"'
    endpoint = '"InferenceEndpoint": "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"'
    worker = f'[{{"topicId": 9001, "inferenceEntrypointName": "apiAdapter", "parameters": {{{endpoint}, {entry}}}}}]'
    wallet = config[: config.index('"worker":')]
    (copied / "config.json").write_text(f'{wallet}"worker": {worker}}}')
    add(
        copied / "core/losses.py",
        (
            '    Loss(name="ztae"',
            '    Loss(name="cauchy", forecast_part=lambda xp, y, p, std: xp.log1p(xp.square((y - p) / std))),\n',
        ),
    )
    program = """
from node.config_file import topics_from_config
topics = topics_from_config(Path("config.json"))
outcome, forecasts = one_round(panels_for(topics)[MINUTE])
(verdict,) = outcome.verdicts
print(verdict.loss, verdict.head, verdict.naive > 0, sorted(head.key for _, head in forecasts))
"""
    printed = run(copied, A_ROUND + program)
    assert printed == "cauchy return-10m-cauchy True ['return-10m-cauchy', 'return-10m-cauchy']\n"


def test_a_new_head_is_one_entry_in_one_file_and_a_network_is_trained_and_serves_it(copied: Path) -> None:
    add(
        copied / "model/heads.py",
        ("from core.errors import", "import numpy as np\n\n"),
        ("SQUARED =", "from klines.returns import candle_returns, rolling_sum\n\n"),
        (
            "    @property\n    def is_volatility",
            "    ABSOLUTE = (\n"
            '        "absolute",\n'
            "        Measure(\n"
            '            asked_as="absolute",\n'
            "            trailing=lambda klines, steps: rolling_sum(np.abs(candle_returns(klines)), steps) / steps,\n"
            "            of_returns=lambda returns, _: float(np.abs(returns).mean()),\n"
            "            whole=lambda known, forecast, _: forecast,\n"
            "        ),\n"
            "    )\n\n",
        ),
    )
    program = """
from model.heads import Head, Kind
heads = (Head(Kind.ABSOLUTE, 15), Head(Kind.RETURN, 10))
plan = PanelPlan(panel=MINUTE, symbols=("BTCUSDT", "ETHUSDT"), heads=heads, topics=())
outcome, forecasts = one_round(plan)
absolute = forecasts["ETHUSDT", Head.parse("absolute-15m")].volatility
print(outcome.ok, 1e-4 < absolute < 1e-3)
"""
    assert run(copied, A_ROUND + program) == "True True\n"


def touched(copied: Path) -> list[str]:
    """Files of the copy that are new or changed."""
    files = [path for package in PACKAGES for path in (copied / package).rglob("*.py")]
    names = [path.relative_to(copied).as_posix() for path in files]
    return sorted(
        name
        for name in names
        if not (ROOT / name).exists() or not filecmp.cmp(ROOT / name, copied / name, shallow=False)
    )


NEW_VENUE = '''
"""All that knows the Corner Exchange."""

from core.clock import MINUTE_MS
from market.http.client import json_of
from market.venue import VenueInfo
from market.venues.base import RestVenue
from market.venues.parsing import candles_in, price_of, spans

PLACES = {"time": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}


class Corner(RestVenue):
    INFO = VenueInfo(
        name="corner",
        quote="USD",
        intervals_ms=frozenset({MINUTE_MS}),
        tells_time=False,
        ping="/ping",
        requests_a_minute=60,
        key="VENUE_KEYS (corner=KEY)",
    )
    KEY_HEADER = "X-Corner"

    def name_of(self, symbol):
        return self._usd_base(symbol)

    def _pages(self, name, interval_ms, start_ms, end_ms, now_ms):
        for span in spans(start_ms, end_ms, 100 * interval_ms):
            yield self.hosts.ask(
                f"/{name}",
                {"from": span[0], "to": span[1]},
                lambda body: candles_in(json_of(body), interval_ms, PLACES, now_ms),
            ), span

    def _newest(self, names, now_ms):
        return {
            name: self.hosts.ask(f"/{name}/price", {}, lambda body: price_of(name, json_of(body), now_ms))
            for name in names
        }
'''
ASK = """
import json
from core.clock import MINUTE_MS, SystemClock
from core.settings import load_settings
from market.build import market_from

market = market_from(load_settings(), SystemClock(), topics=(), patience_s=0)
klines = market.klines("ETHUSDT", MINUTE_MS, {start_ms}, {end_ms})
print(json.dumps([market.prices(["ETHUSDT"])["ETHUSDT"].price, klines.close.tolist()]))
"""


def test_a_new_venue_is_its_file_and_one_line(copied: Path) -> None:
    walk = random_walk_klines(150)
    columns = [getattr(walk, name).tolist() for name in ("open", "high", "low", "close", "volume")]
    rows = [[at // 1000, *row] for at, *row in zip(walk.open_time_ms.tolist(), *columns, strict=True)]

    def answer(path: str, query: dict[str, str]) -> Answer:
        found = [row for row in rows if query and int(query["from"]) <= row[0] * 1000 < int(query["to"])]
        return Answer(json.dumps(found) if path == "/ETH" else "2000.5")

    (copied / "market/venues/corner.py").write_text(NEW_VENUE)
    table = copied / "market/venues/registry.py"
    lines = table.read_text().replace("VENUES: Mapping", "from market.venues.corner import Corner\n\nVENUES: Mapping")
    table.write_text(
        lines.replace('    "atlas":', '    "corner": Entry(Corner, "https://corner.example"),\n    "atlas":')
    )
    assert touched(copied) == ["market/venues/corner.py", "market/venues/registry.py"]
    with Venue().running() as venue:
        venue.handler = answer
        settings = {
            "MARKET": "binance",
            "MARKET_VENUES": "corner",
            "VENUE_URLS": f"corner={venue.url}",
            "VENUE_KEYS": "corner=a-key-of-corner",
            "DATA_DIR": str(copied / "data"),
        }
        ran = subprocess.run(
            [sys.executable, "-c", ASK.format(start_ms=START_MS, end_ms=walk.end_ms)],
            cwd=copied,
            env=os.environ | settings | {"PYTHONPATH": str(copied)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [2000.5, walk.close.tolist()]
    assert {head["X-Corner"] for head in venue.heads} == {"a-key-of-corner"}
