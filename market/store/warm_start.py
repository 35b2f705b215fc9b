"""The newest klines of each stored series, in a file that is read without the kline store's libraries.

The kline store writes it; serving reads it at its start and asks the venue only for what has closed since.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import structlog

from core.errors import MalformedKlines
from core.files import replace_file
from klines.klines import COLUMNS, Klines
from klines.spans import interval_name
from market.store.home import home_of

TAIL_ROWS = 4_000  # more than serving keeps of any series

log = structlog.get_logger()


def tail_path(root: Path, symbol: str, interval_ms: int) -> Path:
    """The path of a series' warm-start file in a venue's folder of klines."""
    return root / "tails" / f"{symbol}-{interval_name(interval_ms)}.npy"


def write_tail(root: Path, symbol: str, klines: Klines) -> None:
    """Replace the warm-start file of a series by the newest of some klines; raises OSError if it cannot be written."""
    newest, path = klines.tail(TAIL_ROWS), tail_path(root, symbol, klines.interval_ms)
    content = io.BytesIO()
    np.save(content, np.column_stack([newest.open_time_ms, newest.table()]), allow_pickle=False)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, content.getvalue())


def read_tail(root: Path, symbol: str, interval_ms: int) -> Klines:
    """The newest klines of a series; empty if there is no file, or it cannot be used, which is logged."""
    path = tail_path(root, symbol, interval_ms)
    try:
        table = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if table.ndim != 2 or table.shape[1] != len(COLUMNS) + 1 or table.dtype != np.float64:
            raise MalformedKlines(f"a table of shape {table.shape} and type {table.dtype}")
        return Klines.from_table(interval_ms, table[:, 0].astype(np.int64), table[:, 1:])
    except FileNotFoundError:
        return Klines.empty(interval_ms)
    except (OSError, ValueError, EOFError, MalformedKlines) as error:
        log.warning("tail_skipped", file=str(path), why=str(error), remedy="the venue is asked for all of it")
        return Klines.empty(interval_ms)


def read_warm_starts(
    root: Path, series: Iterable[tuple[str, int]], line: Sequence[str]
) -> tuple[dict[tuple[str, int], Klines], dict[str, str]]:
    """The newest stored klines of each series, and the venue that each symbol with klines has them from.

    Args:
        root: ``DATA_DIR/klines``.
        series: symbol and interval.
        line: venues, best first, for symbols without a home.
    """
    tails: dict[tuple[str, int], Klines] = {}
    homes: dict[str, str] = {}
    for symbol, interval_ms in series:
        home = home_of(root, symbol, line)
        tails[symbol, interval_ms] = read_tail(root / home, symbol, interval_ms) if home else Klines.empty(interval_ms)
        if len(tails[symbol, interval_ms]):
            homes[symbol] = home
    return tails, homes
