"""How many places a new part touches, shown in a copy of the tree to which the part is added."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "klines", "market")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the packages that know venues."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


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

from functools import partial

from core.clock import MINUTE_MS
from klines.checks import check_closed_rows
from market.http.client import json_of
from market.venue import Offer, Price
from market.venues.base import RestVenue
from market.venues.parsing import column, price_of, spans, whole_rows, whole_seconds_ms


class Corner(RestVenue):
    OFFER = Offer(
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
        parse = partial(candles, interval_ms=interval_ms, now_ms=now_ms)
        for span in spans(start_ms, end_ms, 100 * interval_ms):
            yield self._ask(f"/{name}", {"from": span[0], "to": span[1]}, parse), span

    def _newest(self, names, now_ms):
        read = {name: self._ask(f"/{name}/price", {}, partial(newest, name)) for name in names}
        return {name: Price(price=price, asof_ms=now_ms) for name, price in read.items()}


def newest(name, body):
    return price_of(name, json_of(body))


def candles(body, *, interval_ms, now_ms):
    rows = whole_rows(json_of(body), lambda row: len(row) == 6, 6, "candles must be rows of 6")
    names = ("open", "high", "low", "close", "volume")
    cells = {name: column(rows, place) for place, name in enumerate(names, 1)}
    return check_closed_rows(interval_ms, whole_seconds_ms(row[0] for row in rows), cells, now_ms)
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
