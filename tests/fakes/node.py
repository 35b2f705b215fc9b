"""What a node of a test runs on: its settings, and the origin of its networks."""

import os
from pathlib import Path

from exchange.server import SimulatedExchange
from model.registry.artefact import Origin

NO_ORIGIN = Origin(klines={}, topics={}, source_sha256="0" * 64, machine="none")  # of a network that nobody trained


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
