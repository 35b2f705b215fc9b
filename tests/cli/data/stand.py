"""What the tests of ``birnn data`` share: how it is run, and the klines it is run on."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from cli.main import app
from core.clock import MINUTE_MS
from exchange.server import SimulatedExchange
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.store.kline_store import KlineStore
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Venue as LoopbackVenue

ROOT = Path(__file__).parents[3]
WALK = random_walk_klines(4000)


def at(row: int) -> int:
    return START_MS + row * MINUTE_MS


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(data_dir),
        "CONFIG_FILE": str(ROOT / "config.example.json"),
        "COLUMNS": "120",
        **more,
    }


def data(data_dir: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of ``birnn data``, run in this process: a hundred starts take minutes."""
    ran = CliRunner().invoke(app, ["data", *arguments], env=environment(data_dir, **more), prog_name="birnn")
    return ran.exit_code, ran.stdout, ran.stderr


def in_another_unit(klines: Klines, factor: "float | np.ndarray[tuple[int], np.dtype[np.float64]]" = 100.0) -> Klines:
    """Prices, and what was paid, so many times as large."""
    names = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    return replace(klines, **{name: getattr(klines, name) * factor for name in names})


def row_of(shown: str, name: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.strip().startswith(name)]
    return re.split(r"\s{2,}", line.strip())


ETH = ("--symbol", "ETHUSDT", "--interval", "1m")

MONTH = random_walk_klines(9000)  # six days of minutes
OTHER = random_walk_klines(9000, seed=5)


def stored_minutes(data_dir: Path, symbol: str = "ETHUSDT") -> Klines:
    return KlineStore(data_dir / "klines" / "binance").read(symbol, MINUTE_MS, 0, 2**62)


def moved(klines: Klines, minutes: int) -> Klines:
    return replace(klines, open_time_ms=klines.open_time_ms + minutes * MINUTE_MS)


def as_told(klines: Klines) -> Klines:
    """With the eight decimals of a venue."""
    return replace(klines, **{name: np.round(getattr(klines, name), 8) for name in COLUMNS})


def at_venue(venue: LoopbackVenue) -> dict[str, str]:
    return {"MARKET": "binance", "BINANCE_REST_URLS": venue.url, "BINANCE_ARCHIVE_URL": "", "MARKET_VENUES": "binance"}


def of(venue: SimulatedExchange) -> dict[str, str]:
    """The venue as if it were Binance: the sync is to use it as it is."""
    return {
        "MARKET": "binance",
        "BINANCE_REST_URLS": venue.url,
        "BINANCE_ARCHIVE_URL": venue.url,
        "MARKET_VENUES": "binance",
        "LOG_LEVEL": "error",
    }
