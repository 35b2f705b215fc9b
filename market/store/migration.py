"""Moves a store of an older release into folders by venue: ``SYMBOL-1m/`` to ``VENUE/SYMBOL-1m/``.

The old ``venues.json`` names each series' venue ("level"), and the spans that came from other venues ("borrowed").
Those spans are dropped, so that they are fetched again, and each series moves by one rename. Killed at any moment, the
next start goes on; ``venues.json`` goes last.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from core.errors import ConfigError
from core.files import sync_folder
from klines.spans import Span, interval_name
from market.store.home import read_homes, write_homes
from market.store.kline_store import KlineStore
from market.store.month_file import disk
from market.store.warm_start import tail_path

STANDING = "venues.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Standing:
    """A series' entry in ``venues.json``."""

    venue: str
    borrowed: tuple[Span, ...]


def migrate(root: Path, first_venue: str = "binance") -> None:
    """Move a store of an older release over, once; a store of this release is left alone.

    Args:
        root: ``DATA_DIR/klines``.
        first_venue: has the rows of series that ``venues.json`` does not name.
    Raises:
        ConfigError: the store cannot be carried over, or another process is writing it; says what to do.
        WorkerError: the disk refuses.
    """
    store = KlineStore(root)
    old, tails = store.series(), root / "tails"
    if not old and not (root / STANDING).exists() and not tails.exists():
        return
    homes = read_homes(root)
    with store.writing():
        standing = _read_standing(root / STANDING)
        levels = {key.rpartition("-")[0]: one.venue for key, one in standing.items()}
        for symbol, interval_ms in old:
            entry = standing.get(f"{symbol}-{interval_name(interval_ms)}")
            entry = entry or _Standing(levels.get(symbol, first_venue), ())
            homes[symbol] = entry.venue
            write_homes(root, homes)
            _move(store, symbol, interval_ms, entry)
        with disk(root):
            for left in [*tails.glob("*"), root / STANDING]:
                left.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                tails.rmdir()
            sync_folder(root)


def _move(store: KlineStore, symbol: str, interval_ms: int, entry: _Standing) -> None:
    source = store.folder(symbol, interval_ms)
    target = store.root / entry.venue / source.name
    if target.exists():
        raise ConfigError(
            f"{source} and {target} both hold klines of {symbol}: an older release has written beside a newer one; "
            f"delete the folder that you do not want to keep"
        )
    dropped = sum(store.remove(symbol, interval_ms, span) for span in entry.borrowed)
    if entry.borrowed:  # a kill may have come between the months and the warm-start file
        store.repair_tail(symbol, interval_ms)
    with disk(source):
        target.parent.mkdir(exist_ok=True)
        tail = tail_path(store.root, symbol, interval_ms)
        if tail.exists():
            moved = tail_path(target.parent, symbol, interval_ms)
            moved.parent.mkdir(exist_ok=True)
            tail.replace(moved)
        source.replace(target)
        sync_folder(target.parent)
        sync_folder(store.root)
    log.info("series_moved", series=source.name, venue=entry.venue, dropped_rows=dropped)


def _read_standing(path: Path) -> Mapping[str, _Standing]:
    """The entries of the old file by series; empty for an even older store, which had a single venue."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        found = {
            key: _Standing(str(one["level"]), tuple((int(start), int(end)) for start, end in one["borrowed"]))
            for key, one in content.items()
        }
        if not all(re.fullmatch(r"\w+", one.venue) for one in found.values()):
            raise ValueError("a level is not the name of a venue")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error!r}), so the venue of the stored rows is not known; delete the file if all "
            f"are of the first venue of MARKET_VENUES, or move {path.parent} away to have everything fetched anew"
        ) from error
