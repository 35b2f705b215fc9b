"""Fakes that could be real, shared by all tests."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.clock import MINUTE_MS
from exchange.server import SimulatedExchange
from klines.klines import Floats, Klines
from model.registry.artefact import Origin

START_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
NO_ORIGIN = Origin(klines={}, topics={}, source_sha256="0" * 64, machine="none")  # of a network nobody trained


class FakeClock:
    """A clock whose sleep takes no time. A change of ``time_ms`` lets time pass; ``set_wall`` does not."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.time_ms = now_ms
        self._set_ms = 0  # how far the wall clock has been set ahead
        self.slept_s: list[float] = []

    def now_ms(self) -> int:
        return self.time_ms

    def elapsed_s(self) -> float:
        return (self.time_ms - self._set_ms) / 1000

    def set_wall(self, by_ms: int) -> None:
        """Set the wall clock, as a person or NTP does: no time passes."""
        self.time_ms += by_ms
        self._set_ms += by_ms

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.time_ms += round(seconds * 1000)


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0, what: str = "the condition") -> None:
    """Wait until ``condition`` holds; fail by name after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s")
        time.sleep(0.02)


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def simulated_environment(exchange: SimulatedExchange, data_dir: Path, port: int, **more: str) -> dict[str, str]:
    """This process's environment with the settings of a service that runs on the simulated exchange.

    Args:
        more: further settings, by the names of the environment.
    """
    return {
        **os.environ,
        "MARKET": "simulated",
        "BINANCE_REST_URLS": exchange.url,
        "BINANCE_WS_URLS": exchange.stream_url,
        "BINANCE_ARCHIVE_URL": exchange.url,
        "DATA_DIR": str(data_dir),
        "PORT": str(port),
        **more,
    }


def entry_of(symbol: str, base: str | None, quote: str, status: str = "TRADING") -> bytes:
    """What Binance's ``exchangeInfo`` says of a symbol."""
    listed = {"symbol": symbol, "status": status, "baseAsset": base, "quoteAsset": quote}
    return json.dumps({"symbols": [listed]}).encode()


def random_walk_klines(
    rows: int,
    interval_ms: int = MINUTE_MS,
    seed: int = 0,
    start_ms: int = START_MS,
    sigma: float = 6e-4,
    first: float = 2000.0,
    shocks: Floats | None = None,
) -> Klines:
    """A driftless random walk of ``rows`` klines with plausible ranges and volumes, no skill to be had in it.

    Args:
        shocks: ``(rows,)`` its returns in units of sigma, in place of normal ones.
    """
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(rows)  # drawn either way: ranges and volumes do not depend on who gives the shocks
    close = first * np.exp(np.cumsum(sigma * (normal if shocks is None else shocks)))
    opened = np.concatenate([[first], close[:-1]])
    spread = np.exp(np.abs(rng.standard_normal((2, rows))) * sigma / 2)
    volume = rng.lognormal(3.0, 0.7, rows)
    taker = volume * rng.uniform(0.3, 0.7, rows)
    return Klines(
        interval_ms=interval_ms,
        open_time_ms=start_ms // interval_ms * interval_ms + interval_ms * np.arange(rows, dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close) * spread[0],
        low=np.minimum(opened, close) / spread[1],
        close=close,
        volume=volume,
        quote_volume=volume * close,
        trades=np.round(volume * 3) + 1,
        taker_buy_base=taker,
        taker_buy_quote=taker * close,
    )
