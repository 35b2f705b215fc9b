"""The newest klines of each stored series in a file that is read without the kline store's libraries.

The updater's store writes them; serving reads them at its start, so that only what has closed since is asked of the
venue.
"""

import io
from pathlib import Path

import numpy as np
import structlog

from core.errors import MalformedKlines
from core.files import replace_file
from klines.klines import COLUMNS, Klines
from klines.spans import interval_name

TAIL_ROWS = 4_000  # more than serving keeps of any series

log = structlog.get_logger()


def _path(root: Path, symbol: str, interval_ms: int) -> Path:
    return root / "tails" / f"{symbol}-{interval_name(interval_ms)}.npy"


def write_tail(root: Path, symbol: str, klines: Klines) -> None:
    """Swap in the newest of ``klines`` as the tail of a series.

    Args:
        root: the kline store's folder.
    Raises:
        OSError: it cannot be written.
    """
    newest = klines.tail(TAIL_ROWS)
    table = np.stack([newest.open_time_ms.astype(np.float64), *(getattr(newest, name) for name in COLUMNS)], axis=1)
    content = io.BytesIO()
    np.save(content, table, allow_pickle=False)
    path = _path(root, symbol, klines.interval_ms)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, content.getvalue())


def read_tail(root: Path, symbol: str, interval_ms: int) -> Klines:
    """The tail of a series; empty where there is none, or one that cannot be used, which is logged."""
    path = _path(root, symbol, interval_ms)
    try:
        table = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if table.ndim != 2 or table.shape[1] != len(COLUMNS) + 1 or table.dtype != np.float64:
            raise MalformedKlines(f"a table of shape {table.shape} and type {table.dtype}")
        columns = {name: np.ascontiguousarray(table[:, number + 1]) for number, name in enumerate(COLUMNS)}
        return Klines(interval_ms=interval_ms, open_time_ms=table[:, 0].astype(np.int64), **columns)
    except FileNotFoundError:
        return Klines.empty(interval_ms)
    except (OSError, ValueError, EOFError, MalformedKlines) as error:
        log.warning("tail_skipped", file=str(path), why=str(error), remedy="the venue is asked for all of it")
        return Klines.empty(interval_ms)
