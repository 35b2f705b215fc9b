"""The home venue of each symbol: the venue whose folder the symbol's klines are read from.

``klines/VENUE/SYMBOL-1m/`` has the rows of one venue alone. ``klines/homes.json`` names the home of each symbol; the
updater's sync chooses it. This file needs none of the kline store's libraries, as serving reads it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import structlog

from core.files import replace_json
from market.store.disk import disk

HOMES = "homes.json"

log = structlog.get_logger()


def read_homes(root: Path) -> dict[str, str]:
    """The home venue by symbol, of ``DATA_DIR/klines``; a damaged file is logged and counts as empty."""
    path = root / HOMES
    try:
        return {str(symbol): str(venue) for symbol, venue in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        log.warning("homes_file_skipped", file=str(path), why=repr(error), remedy="the next sync writes it anew")
        return {}


def write_homes(root: Path, homes: dict[str, str]) -> None:
    """Replace the file; raises WorkerError if it cannot be written."""
    with disk(root / HOMES):
        root.mkdir(parents=True, exist_ok=True)
        replace_json(root / HOMES, homes)


def home_of(root: Path, symbol: str, line: Sequence[str] = ()) -> str:
    """The home venue of a symbol: as ``homes.json`` says, else the first venue that has a folder of the symbol.

    Args:
        line: the venues that may be a home where the file names none, best first; all, by name, if it is empty.
    Returns:
        Empty if no such venue has a folder of the symbol.
    """
    having = {path.parent.name for path in root.glob(f"*/{symbol}-*") if path.is_dir()}
    named = read_homes(root).get(symbol, "")
    return next((venue for venue in (named, *(line or sorted(having))) if venue in having), "")
