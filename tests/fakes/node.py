"""What a node of a test runs on: its settings, and the manifest of a network that nobody trained."""

import os
from pathlib import Path
from typing import Any

from exchange.server import SimulatedExchange
from model.features import FEATURE_VERSION, FEATURES
from model.registry.artefact import Manifest, Origin
from model.windows import Split

NO_ORIGIN = Origin(klines={}, topics={}, source_sha256="0" * 64, machine="none")  # of a network that nobody trained


def untrained_manifest(**fields: Any) -> Manifest:
    """Return a manifest of today's features; ``fields`` are the other fields, and those that differ."""
    usual: dict[str, Any] = {
        "feature_version": FEATURE_VERSION,
        "features": FEATURES,
        "volatility": "sample standard deviation",
        "split": Split(
            train_start_ms=0,
            train_end_ms=1,
            validate_start_ms=2,
            validate_end_ms=3,
            judge_start_ms=4,
            judge_end_ms=5,
        ),
        "rows": 1,
        "seed": 0,
        "training": {},
        "libraries": {},
        "origin": NO_ORIGIN,
        "created_ms": 0,
    }
    return Manifest(**(usual | fields))


def simulated_environment(exchange: SimulatedExchange, data_dir: Path, port: int, **more: str) -> dict[str, str]:
    """Return this process's environment with the settings of a service that runs on the simulated exchange.

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
